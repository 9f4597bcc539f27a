"""One writer at a time: a lock of the system, which a killed process gives back, and who holds it."""

import contextlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from dbcli.errors import Interrupted, LockHeld
from dbcli.project.files.atomic import remove_leftovers, write_json
from dbcli.project.files.names import printable

WAIT_SECONDS = 0.5
_POLL_SECONDS = 0.05
_HOLDER_WRITES_SECONDS = 0.5


@dataclass(frozen=True)
class Waiting:
    """Waiting for a lock as long as its holder needs it: `tell` is told once who that is, `should_stop` ends it."""

    tell: Callable[[str], None]
    should_stop: Callable[[], bool]


@contextlib.contextmanager
def hold(
    path: Path, what: str, wait_seconds: float = WAIT_SECONDS, *, waiting: Waiting | None = None
) -> Iterator[None]:
    """Hold the lock file `path` for the block; `what` ("the run 0003-dog") is named to the one who waits.

    Raises LockHeld (exit 6) after `wait_seconds`, naming the holder's process, command and machine; with `waiting` it
    goes on until the lock is free, and raises Interrupted when told to stop. Readers need no lock. The folder of
    `path` is made where it is missing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=wait_seconds, poll_interval=_POLL_SECONDS)
    except Timeout as error:
        taken = f"Another process works on {what}: {holder(path)}"
        if waiting is None:
            raise LockHeld(f"{taken}.", hint="wait until it has ended, or stop it") from error
        waiting.tell(f"{taken}; waiting until it has ended.")
        _wait(lock, what, waiting)
    note = _note_of(path)
    try:
        remove_leftovers(note.parent, note.name)
        write_json(note, _ourselves())
        yield
    finally:
        note.unlink(missing_ok=True)
        lock.release()


def _wait(lock: FileLock, what: str, waiting: Waiting) -> None:
    """Takes the lock as soon as it is free."""
    while not lock.is_locked:
        if waiting.should_stop():
            raise Interrupted(f"Stopped while waiting for {what}.", hint="the same command continues from there")
        with contextlib.suppress(Timeout):
            lock.acquire(timeout=WAIT_SECONDS, poll_interval=_POLL_SECONDS)


def is_held(path: Path) -> bool:
    """Return whether some process holds the lock file now; the answer may be old by the time it is used."""
    if not path.exists():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return True
    lock.release()
    return False


def _note_of(path: Path) -> Path:
    return path.with_name(path.name + ".holder.json")


def _ourselves() -> dict[str, object]:
    program = Path(sys.argv[0] or "python").name
    return {
        "pid": os.getpid(),
        "command": " ".join([program, *sys.argv[1:]])[:500],
        "host": platform.node(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def holder(path: Path) -> str:
    """Return who holds the lock file now, in words: process, command, machine, since when."""
    # The holder writes its note just after it has the lock: give it that moment.
    deadline = time.monotonic() + _HOLDER_WRITES_SECONDS
    while True:
        try:
            note = json.loads(_note_of(path).read_text(encoding="utf-8"))
            command, host = printable(str(note["command"]), 120), printable(str(note["host"]))
            return f"process {int(note['pid'])} ({command}) on {host} since {printable(str(note['since']))}"
        except (OSError, ValueError, KeyError, TypeError):
            if time.monotonic() > deadline:
                return "it has not recorded its name yet"
            time.sleep(0.02)
