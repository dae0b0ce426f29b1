"""A command in a terminal of its own, as a user has it: a pseudo-terminal, and pyte to look at its screen."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType

import pyte

PATIENCE_SECONDS = 30.0
_DIM, _ITALICS = 2, 3


class _Screen(pyte.Screen):
    """pyte knows no dim text: it is kept as italics, which the view has no use for."""

    def select_graphic_rendition(self, *attributes: int, **options: bool) -> None:
        kept = (_ITALICS if each == _DIM else each for each in attributes)
        super().select_graphic_rendition(*kept, **options)


class Emulator:
    """Starts ``command`` on a pseudo-terminal of ``columns`` × ``lines``.

    ``received`` holds every byte that the command wrote.
    """

    def __init__(
        self, command: Sequence[str], environ: Mapping[str, str], *, columns: int = 80, lines: int = 24
    ) -> None:
        self.received = bytearray()
        self._screen = _Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self._size = (columns, lines)
        self._status: int | None = None
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            try:
                os.execvpe(command[0], list(command), dict(environ))
            finally:
                os._exit(127)
        self._tell_size()

    def __enter__(self) -> Emulator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._fd)

    @property
    def text(self) -> str:
        """What the screen shows, lines without blanks at their ends."""
        return "\n".join(line.rstrip() for line in self._screen.display)

    @property
    def cursor_is_hidden(self) -> bool:
        return self._screen.cursor.hidden

    def cells(self) -> list[list[pyte.screens.Char]]:
        """The screen, line by line."""
        columns, lines = self._size
        return [[self._screen.buffer[y][x] for x in range(columns)] for y in range(lines)]

    def is_dim(self, lines: Iterable[int]) -> bool:
        """Whether all text of some lines is."""
        cells = (cell for y in lines for cell in self.cells()[y] if cell.data.strip())
        return all(cell.italics for cell in cells)

    def colours(self) -> set[str]:
        """Foreground colours on the screen."""
        return {cell.fg for row in self.cells() for cell in row if cell.data.strip()} - {"default"}

    def send(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def resize(self, columns: int, lines: int) -> None:
        """As a window manager does: the kernel tells the command by SIGWINCH."""
        self._screen.resize(lines, columns)
        self._size = (columns, lines)
        self._tell_size()

    def wait_for(self, what: str | Callable[[str], bool], seconds: float = PATIENCE_SECONDS) -> str:
        """The screen's text once it contains ``what``, or satisfies it."""
        satisfied = what if callable(what) else lambda text: what in text
        deadline = time.monotonic() + seconds
        while not satisfied(self.text):
            assert time.monotonic() < deadline, f"waited for {what!r} and saw:\n{self.text}"
            self._take(0.05)
        return self.text

    def settle(self, seconds: float) -> int:
        """Takes what comes in this time; returns the number of bytes."""
        before, deadline = len(self.received), time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._take(0.02)
        return len(self.received) - before

    def wait_for_end(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Exit code of the command, negative for a signal."""
        deadline = time.monotonic() + seconds
        while self._status is None:
            assert time.monotonic() < deadline, f"still running, and shows:\n{self.text}"
            self._take(0.02)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._status = status
        self._take(0.0)
        return os.waitstatus_to_exitcode(self._status)

    def attributes(self) -> list[int | list[bytes | int]]:
        """The terminal's settings, as ``termios.tcgetattr`` has them."""
        return termios.tcgetattr(self._fd)

    def _tell_size(self) -> None:
        columns, lines = self._size
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def _take(self, seconds: float) -> None:
        ready, _, _ = select.select([self._fd], [], [], seconds)
        if not ready:
            return
        try:
            data = os.read(self._fd, 1 << 16)
        except OSError:
            return  # the command has ended
        self.received += data
        self._stream.feed(data)
