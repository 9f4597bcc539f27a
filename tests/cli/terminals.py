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
from pathlib import Path
from types import TracebackType

import pyte

CTRL_C, CTRL_D, TAB, UP, ENTER = "\x03", "\x04", "\t", "\x1b[A", "\r"
# A slow machine with other work needs this much for importing torch and loading a model.
PATIENCE_SECONDS = 240.0


class _Answering(pyte.Screen):
    """A screen that answers where the cursor is, as a real terminal does."""

    reply: bytes = b""

    def write_process_input(self, data: str) -> None:
        self.reply += data.encode()


class Terminal:
    """One program on a terminal of a given width, in colour or without."""

    def __init__(
        self, words: list[str], folder: Path, *, columns: int = 80, rows: int = 40, colour: bool = True
    ) -> None:
        environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
        for name in ("COLUMNS", "LINES", "NO_COLOR", "TMUX", "TERM_PROGRAM", "KITTY_WINDOW_ID"):
            environment.pop(name, None)
        if not colour:
            environment["NO_COLOR"] = "1"
        self.raw = b""
        self._screen = _Answering(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        command = [sys.executable, "-m", "dbcli.cli.app", *words]
        self.process, self._file = pty.fork()
        if self.process == 0:
            # A test run that was put in the background ignores Ctrl-C, and would hand that down.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.chdir(folder)
            os.execvpe(command[0], command, environment)
        fcntl.ioctl(self._file, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process:
            os.kill(self.process, signal.SIGKILL)
            os.waitpid(self.process, 0)
        os.close(self._file)

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

    def end(self) -> int:
        """The exit code, once the program has ended by itself."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self._has_ended():
            assert time.monotonic() < deadline, f"it never ended:\n{self.text}"
            self._read(0.1)
        while self._read(0.05):
            pass
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
        if self.process:
            done, status = os.waitpid(self.process, os.WNOHANG)
            if done:
                self._code = os.waitstatus_to_exitcode(status)
                self.process = 0
        return not self.process
