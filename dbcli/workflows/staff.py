"""The processes that a command starts to work with it: begun, watched while they come, and ended with it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any

from dbcli.errors import MachineError
from dbcli.workflows.signals import StopSignal

if TYPE_CHECKING:
    from dbcli.diffusion.training.parallel import Company

# How long a process that was told to leave may take before it is killed.
LEAVING_SECONDS = 30.0
# How often it is looked who has come.
ARRIVAL_SECONDS = 0.05
FOLLOWERS_PORT = "DREAMBOOTH_FOLLOWERS_PORT"


class Staff:
    """Processes 1 to `count` of a company on this machine; process 0 is this one. None where a launcher has them."""

    def __init__(self, count: int, stop: StopSignal) -> None:
        self.count, self.stop = count, stop
        self._processes: list[subprocess.Popen[bytes]] = []
        self._said: list[IO[bytes]] = []

    @contextmanager
    def at_work(self) -> Iterator[Company]:
        """Starts them, meets them, and sees to their end. Raises MachineError with the last words of one that died."""
        from dbcli.diffusion.training.parallel import ProcessLost, join, open_store

        before = dict(os.environ)
        try:
            with _fair_threads(self.count + 1):
                store = None
                if self.count:
                    store = open_store(self.count + 1)
                    os.environ.update(_place(0, self.count + 1, store.port))
                    self._start(store.port)
                    self.stop.on_signal = self._pass_on
                    self._await_arrival(store)
                yield join(self.stop, store)
        except ProcessLost as error:
            error.message += self._last_words()
            raise
        finally:
            self.stop.on_signal = lambda number: None
            os.environ.clear()
            os.environ.update(before)
            self._end()

    def _start(self, port: int) -> None:
        for rank in range(1, self.count + 1):
            said = tempfile.TemporaryFile()  # noqa: SIM115 (closed in _end, after its process)
            self._said.append(said)
            self._processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "dbcli.workflows.following"],
                    # Held open by this process alone: when it is gone, however it went, theirs ends.
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=said,
                    env={**os.environ, **_place(rank, self.count + 1, port)},
                    # A Ctrl-C on the terminal is this process's to hear, and to pass on once.
                    start_new_session=True,
                )
            )

    def _await_arrival(self, store: Any) -> None:
        """Waits until all have come. Raises MachineError if one ends before, Interrupted after a signal."""
        for rank in range(1, self.count + 1):
            while not store.check([arrival_key(rank)]):
                self.stop.raise_if_stopped("Stopped before the other processes had begun.")
                if self._processes[rank - 1].poll() is not None:
                    raise MachineError(f"Process {rank} did not begin.{self._last_words()}")
                time.sleep(ARRIVAL_SECONDS)

    def _pass_on(self, number: int) -> None:
        for process in self._processes:
            with suppress(ProcessLookupError):
                process.send_signal(number)

    def _end(self) -> None:
        for process, said in zip(self._processes, self._said, strict=True):
            if process.stdin is not None:
                process.stdin.close()
            try:
                process.wait(LEAVING_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            said.close()
        self._processes, self._said = [], []

    def _last_words(self) -> str:
        """What is known of those that ended: exit code and last line."""
        found = []
        for rank, (process, said) in enumerate(zip(self._processes, self._said, strict=True), start=1):
            with suppress(subprocess.TimeoutExpired):
                code = process.wait(1.0)
                said.seek(0)
                lines = said.read().decode("utf-8", "replace").strip().splitlines()
                found.append(f" Process {rank} ended with {code}{': ' + lines[-1][:200] if lines else ''}.")
        return "".join(found)


def arrival_key(rank: int) -> str:
    """What a process writes into the store when it has begun."""
    return f"here/{rank}"


def _place(rank: int, size: int, port: int) -> dict[str, str]:
    """What torchrun would say to a process of this machine."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        FOLLOWERS_PORT: str(port),
        # A machine's own name may lead to an address that nothing answers at.
        **({"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}),
    }


@contextmanager
def _fair_threads(processes: int) -> Iterator[None]:
    """Each process gets its share of the processors, unless the surroundings say how many threads there are to be."""
    if processes == 1 or "OMP_NUM_THREADS" in os.environ:
        yield
        return
    import torch

    before = torch.get_num_threads()
    share = max(1, before // processes)
    os.environ["OMP_NUM_THREADS"] = str(share)
    torch.set_num_threads(share)
    try:
        yield
    finally:
        torch.set_num_threads(before)
