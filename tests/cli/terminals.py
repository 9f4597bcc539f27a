"""A terminal for tests: the program runs on a pseudo-terminal, and its screen is read as a person reads it."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import pyte

from tests.reliability.processes import ForkServer

CTRL_C, CTRL_D, TAB, UP, ENTER = "\x03", "\x04", "\t", "\x1b[A", "\r"
# A slow machine with other work needs this much for importing torch and loading a model.
PATIENCE_SECONDS = 240.0


class _Shell:
    """Starts the program anew, as a person's shell does."""

    def start_on(self, terminal: str, folder: Path, words: list[str], environment: dict[str, str]) -> _Started:
        pid = os.fork()
        if pid:
            return _Started(pid)
        try:
            os.setsid()
            file = os.open(terminal, os.O_RDWR)
            fcntl.ioctl(file, termios.TIOCSCTTY, 0)
            for number in range(3):
                os.dup2(file, number)
            # A test run that was put in the background ignores Ctrl-C, and would hand that down.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.chdir(folder)
            os.execvpe(sys.executable, [sys.executable, "-m", "dbcli.cli.app", *words], environment)
        finally:
            os._exit(127)


@dataclass
class _Started:
    """A child of this process."""

    pid: int

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def is_alive(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def exit_code(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


class _Answering(pyte.Screen):
    """A screen that answers where the cursor is, as a real terminal does."""

    reply: bytes = b""

    def write_process_input(self, data: str) -> None:
        self.reply += data.encode()


class Terminal:
    """One program on a terminal of a given width, in colour or without.

    With a `server` it is a process that has imported everything already; without, it is started as a shell starts it.
    """

    def __init__(
        self,
        words: list[str],
        folder: Path,
        *,
        server: ForkServer | None = None,
        columns: int = 80,
        rows: int = 40,
        colour: bool = True,
    ) -> None:
        environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
        for name in ("COLUMNS", "LINES", "NO_COLOR", "TMUX", "TERM_PROGRAM", "KITTY_WINDOW_ID"):
            environment.pop(name, None)
        if not colour:
            environment["NO_COLOR"] = "1"
        self.raw = b""
        self._screen = _Answering(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        # The other end stays open here too: what a program wrote last can be read after it has ended.
        self._file, self._other_end = pty.openpty()
        fcntl.ioctl(self._file, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        place = os.ttyname(self._other_end)
        self._process = (server or _Shell()).start_on(place, folder, words, environment)
        self._code: int | None = None

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._code is None:
            self._process.signal(signal.SIGKILL)
            self._process.exit_code()
        os.close(self._file)
        os.close(self._other_end)

    @property
    def lines(self) -> list[str]:
        """The screen, without the empty ends of lines and the empty lines at the bottom."""
        lines = [line.rstrip() for line in self._screen.display]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def colours(self) -> set[str]:
        """Every colour on the screen but the terminal's own."""
        cells = [cell for row in self._screen.buffer.values() for cell in row.values()]
        return {colour for cell in cells for colour in (cell.fg, cell.bg)} - {"default"}

    def type(self, keys: str) -> None:
        os.write(self._file, keys.encode())

    def wait_for(self, text: str, times: int = 1) -> str:
        """The screen once it shows a text so often; an AssertionError with the screen if it never does."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.text.count(text) < times:
            assert time.monotonic() < deadline, f"{text!r} never came:\n{self.text}"
            if not self._read(0.1) and self._has_ended():
                break
        assert self.text.count(text) >= times, f"{text!r} never came:\n{self.text}"
        return self.text

    def wait_for_prompt(self, prompt: str) -> None:
        """Returns once the cursor stands at an empty prompt: before that, Ctrl-C and Ctrl-D would go to the terminal.

        What is below that line, such as the settings, comes a moment later than the prompt itself.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self._screen.display[self._screen.cursor.y].strip() != prompt:
            assert time.monotonic() < deadline, f"the prompt {prompt!r} never came back:\n{self.text}"
            self._read(0.1)

    def answer(self, text: str) -> None:
        """Types a line once the cursor stands behind a question: sooner, its last space would come after the answer."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (self._before_cursor().endswith(": ") or self._has_ended()):
            assert time.monotonic() < deadline, f"no question was asked:\n{self.text}"
            self._read(0.1)
        self.type(text + ENTER)

    def _before_cursor(self) -> str:
        return self._screen.display[self._screen.cursor.y][: self._screen.cursor.x]

    def end(self) -> int:
        """The exit code, once the program has ended by itself."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self._has_ended():
            assert time.monotonic() < deadline, f"it never ended:\n{self.text}"
            self._read(0.1)
        while self._read(0.05):
            pass
        assert self._code is not None
        return self._code

    def _read(self, seconds: float) -> bool:
        if not select.select([self._file], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self._file, 65536)
        except OSError:  # Linux says so when the other end is closed
            return False
        self.raw += data
        self._stream.feed(data)
        if self._screen.reply:
            os.write(self._file, self._screen.reply)
            self._screen.reply = b""
        return bool(data)

    def _has_ended(self) -> bool:
        if self._code is None and not self._process.is_alive():
            self._code = self._process.exit_code()
        return self._code is not None
