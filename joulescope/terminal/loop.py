"""Keys, readings and the clock in, frames out: the one loop of the view."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from joulescope.clock import Clock
from joulescope.terminal.fetcher import Fetcher, Link
from joulescope.terminal.glyphs import Look
from joulescope.terminal.history import History
from joulescope.terminal.keys import KeyDecoder
from joulescope.terminal.painter import Painter
from joulescope.terminal.source import Source
from joulescope.terminal.state import ViewState, press
from joulescope.terminal.tty import Terminal
from joulescope.terminal.view import Scene, frame
from joulescope.units import ns_from_seconds

TICK_SECONDS = 1.0
"""Ages are drawn anew so often when nothing else happens."""

ESCAPE_SECONDS = 0.1
"""An escape after which nothing comes for so long is the key."""


class Viewer:
    """Shows a source until somebody quits.

    Args:
        count: ends after so many readings.
        end_ns: ends at this instant of ``clock``.
    """

    def __init__(
        self,
        source: Source,
        clock: Clock,
        look: Look,
        *,
        interval_seconds: float = 1.0,
        count: int | None = None,
        end_ns: int | None = None,
    ) -> None:
        self._source = source
        self._clock = clock
        self._look = look
        self._count = count
        self._end_ns = end_ns
        self._state = ViewState(interval_seconds=interval_seconds)
        self._history = self._shown_history = History()
        self._link = Link()
        self._shown = Link()
        self._keys = KeyDecoder()
        self._typed_ns = 0
        self._painter = Painter(colour=look.colour)
        self._log: list[str] = []

    def run(self, terminal: Terminal) -> None:
        """Draws until it is told to end.

        Raises:
            Stopped: if a signal told so.
            SourceError: if the source cannot be read for a reason that will not pass.
        """
        fetcher = Fetcher(
            self._source, self._clock, interval_seconds=self._state.interval_seconds, notify=terminal.wake
        )
        with logs_held_back(self._log), terminal:
            fetcher.start()
            try:
                while not self._is_over():
                    self._turn(terminal, fetcher)
            finally:
                fetcher.stop()

    def _is_over(self) -> bool:
        if self._end_ns is not None and self._clock.now_ns() >= self._end_ns:
            return True
        return self._state.quit or (self._count is not None and self._link.count >= self._count)

    def _turn(self, terminal: Terminal, fetcher: Fetcher) -> None:
        self._take(fetcher.link())
        fetcher.interval_seconds = self._state.interval_seconds
        self._draw(terminal)
        for key in self._read_keys(terminal):
            if key == "ctrl-l":
                terminal.redraw = True
            paused = self._state.paused
            self._state = press(self._state, key, self._engines())
            if self._state.paused and not paused:
                self._shown_history = self._history.copy()

    def _read_keys(self, terminal: Terminal) -> list[str]:
        """Keys that were pressed; nothing for longest until the next tick."""
        typed = terminal.wait(self._patience_seconds())
        now_ns = self._clock.now_ns()
        keys = self._keys.feed(typed)
        if typed:
            self._typed_ns = now_ns
        elif self._keys.pending and now_ns - self._typed_ns >= ns_from_seconds(ESCAPE_SECONDS):
            keys = self._keys.flush()
        return keys

    def _patience_seconds(self) -> float:
        seconds = ESCAPE_SECONDS if self._keys.pending else TICK_SECONDS
        if self._end_ns is None:
            return seconds
        return min(seconds, max(self._end_ns - self._clock.now_ns(), 0) / 1e9)

    def _take(self, link: Link) -> None:
        if link.error is not None and link.reading is None and not link.error.passing:
            raise link.error
        if link.reading is not None and link.count != self._link.count:
            self._history.add(link.reading)
        self._link = link
        if not self._state.paused or self._shown.reading is None:
            self._shown, self._shown_history = link, self._history

    def _draw(self, terminal: Terminal) -> None:
        if terminal.redraw:
            terminal.redraw = False
            self._painter.forget()
        width, height = terminal.size()
        state = self._state
        link = replace(self._shown, error=self._link.error, failures=self._link.failures)
        scene = Scene(
            link=replace(link, retry_ns=self._link.retry_ns),
            history=self._shown_history,
            state=state,
            place=self._source.place,
            now_ns=self._clock.now_ns(),
            look=self._look,
            log=self._log[-1] if self._log else "",
        )
        drawn = frame(scene, width, height)
        self._state = replace(state, scroll=drawn.scroll)
        changes = self._painter.paint(drawn.lines, width, height)
        if changes:
            terminal.write(changes)

    def _engines(self) -> list[str]:
        reading = self._shown.reading
        return [] if reading is None else [each.info.engine for each in reading.snapshot.engines]


class _Keeper(logging.Handler):
    """Keeps records for later; the message of each goes to a list at once."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self.lines = lines
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        self.records.append(record)
        del self.lines[:-10], self.records[:-1000]


@contextmanager
def logs_held_back(lines: list[str]) -> Iterator[None]:
    """Log lines would be drawn across the frame: they come when the terminal is given back."""
    root = logging.getLogger()
    handlers = root.handlers[:]
    keeper = _Keeper(lines)
    root.handlers = [keeper]
    try:
        yield
    finally:
        root.handlers = handlers
        for record in keeper.records:
            root.handle(record)
