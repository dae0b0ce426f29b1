"""Holds a terminal: keys one by one, an own screen without a cursor; and gives it back, whatever happens."""

from __future__ import annotations

import os
import re
import select
import signal
import sys
import termios
import tty
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any

from joulescope.terminal.glyphs import Look

_ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l"
"""The other screen, no cursor, no wrapping."""

_LEAVE = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"
_NO_COLOUR = re.compile(r"vt\d+|.*-m|.*-mono|ansi-m")
_CHUNK_BYTES = 256
"""Linux calls a terminal ready from so many free bytes on: a longer text might still have to wait."""

_STUCK_SECONDS, _PARTING_SECONDS = 0.25, 0.5
_DEFAULT_SIZE = (80, 24)
_LARGEST = (500, 200)


def is_usable(environ: Mapping[str, str]) -> bool:
    """Whether there is a terminal at both ends that can move its cursor."""
    if environ.get("TERM", "") in ("", "dumb", "unknown"):
        return False
    return sys.stdin.isatty() and sys.stdout.isatty()


def look_of(
    environ: Mapping[str, str],
    *,
    ascii_only: bool | None = None,
    utf8_mode: int = sys.flags.utf8_mode,
    encoding: str | None = None,
) -> Look:
    """What the terminal can show, as the environment says.

    Python takes UTF-8 in a C locale too, and says so by ``sys.flags.utf8_mode``: then only ASCII is safe.
    ``NO_COLOR`` (https://no-color.org) switches colours off, as does a terminal that has none.
    """
    term = environ.get("TERM", "")
    encoding = (encoding or getattr(sys.stdout, "encoding", "") or "").lower().replace("-", "")
    plain = bool(utf8_mode) or encoding != "utf8" or term == "linux" or term.startswith("vt")
    if ascii_only is not None:
        plain = ascii_only
    return Look(unicode=not plain, colour=not environ.get("NO_COLOR") and not _NO_COLOUR.fullmatch(term))


class Stopped(Exception):
    """A signal asked to end. ``number`` is the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Terminal:
    """The terminal of this process, as a context; signals of the window and of job control are heeded within.

    Must be entered in the main thread. :meth:`wake` may be called from any.
    """

    def __init__(self, input_fd: int | None = None, output_fd: int | None = None) -> None:
        self._in = sys.stdin.fileno() if input_fd is None else input_fd
        self._out = sys.stdout.fileno() if output_fd is None else output_fd
        self._wake_read, self._wake_write = -1, -1
        self._saved: list[Any] | None = None
        self._handlers: dict[int, Any] = {}
        self._previous_wakeup = -1
        self._stop: int | None = None
        self.redraw = False
        """The window has another size, or was covered: everything is to be drawn again."""

    def __enter__(self) -> Terminal:
        sys.stdout.flush()  # what was printed before belongs to the other screen
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        os.set_blocking(self._wake_read, False)
        self._saved = termios.tcgetattr(self._in)
        try:
            self._previous_wakeup = signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
            self._handle(self._ask_to_stop, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT))
            self._handle(self._resized, (signal.SIGWINCH,))
            self._handle(self._suspend, (signal.SIGTSTP,))
            self._take()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._give_back()
        finally:
            signal.set_wakeup_fd(self._previous_wakeup)
            for number, handler in self._handlers.items():
                signal.signal(number, handler)
            os.close(self._wake_read)
            os.close(self._wake_write)

    def wake(self) -> None:
        """Makes :meth:`wait` return."""
        with suppress(OSError):  # it is awake already, or gone
            os.write(self._wake_write, b"\0")

    def wait(self, timeout_seconds: float) -> bytes:
        """What was typed, or nothing after the time or when woken.

        Raises:
            Stopped: if a signal asked to end, or the terminal is gone.
        """
        ready, _, _ = select.select([self._in, self._wake_read], [], [], max(timeout_seconds, 0.0))
        if self._wake_read in ready:
            self._drain()
        if self._stop is not None:
            raise Stopped(self._stop)
        if self._in not in ready:
            return b""
        try:
            data = os.read(self._in, 4096)
        except OSError:
            data = b""
        if not data:
            raise Stopped(signal.SIGHUP)
        return data

    def write(self, text: str) -> None:
        """Sends all of the text; returns when the terminal has taken it.

        Raises:
            Stopped: if the terminal is gone.
        """
        self._send(text, None)

    def _send(self, text: str, patience_seconds: float | None) -> None:
        """A terminal that takes nothing (Ctrl-S, a link that hangs) is waited for until a signal comes."""
        data = text.encode("utf-8", "replace")
        try:
            while data:
                _, ready, _ = select.select([], [self._out], [], patience_seconds or _STUCK_SECONDS)
                if ready:
                    data = data[os.write(self._out, data[:_CHUNK_BYTES]) :]
                elif patience_seconds is not None or self._stop is not None:
                    raise Stopped(self._stop or signal.SIGHUP)
        except OSError:
            raise Stopped(signal.SIGHUP) from None

    def size(self) -> tuple[int, int]:
        """Columns and lines, as the terminal says; 80 × 24 where it says nothing."""
        try:
            columns, lines = os.get_terminal_size(self._out)
        except OSError:
            columns, lines = 0, 0
        columns, lines = columns or _DEFAULT_SIZE[0], lines or _DEFAULT_SIZE[1]
        return min(columns, _LARGEST[0]), min(lines, _LARGEST[1])

    def _take(self) -> None:
        tty.setcbreak(self._in, termios.TCSANOW)
        self.write(_ENTER)
        self.redraw = True

    def _give_back(self) -> None:
        with suppress(Stopped):
            self._send(_LEAVE, _PARTING_SECONDS)
        if self._saved is not None:
            with suppress(termios.error):  # the terminal is gone
                termios.tcsetattr(self._in, termios.TCSANOW, self._saved)

    def _drain(self) -> None:
        with suppress(BlockingIOError):
            while os.read(self._wake_read, 4096):
                pass

    def _handle(self, handler: Callable[[int, FrameType | None], None], numbers: Sequence[int]) -> None:
        for number in numbers:
            self._handlers[number] = signal.signal(number, handler)

    def _ask_to_stop(self, number: int, _: FrameType | None) -> None:
        self._stop = number

    def _resized(self, number: int, _: FrameType | None) -> None:
        self.redraw = True

    def _suspend(self, number: int, _: FrameType | None) -> None:
        """Ctrl-Z: the shell gets its terminal back, and the view takes it again when it goes on."""
        self._give_back()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._take()
