"""Command lines as real processes: started, watched, killed, and what they left behind."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SECONDS_TO_WAIT = 120.0


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code (-9 for SIGKILL) and what it said."""

    code: int
    out: str
    err: str

    def check(self, *codes: int) -> Ended:
        """The same, after making sure of the code and that no traceback reached a person."""
        assert "Traceback (most recent call last)" not in self.err, self.err
        assert self.code in codes, f"exit {self.code} instead of {codes}:\n{self.err}"
        return self


@dataclass
class Process:
    """One command line under way."""

    server: ForkServer
    pid: int
    folder: Path
    log: Path

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self) -> Ended:
        while self.is_alive():
            time.sleep(0.005)
        code = self.exit_code()
        out, err = (self.log.with_suffix(ending).read_text(errors="replace") for ending in (".out", ".err"))
        return Ended(code, out, err)

    def exit_code(self) -> int:
        """Waits until it ends, and forgets it."""
        return int(self.server.ask(do="wait", pid=self.pid)["code"])

    def is_alive(self) -> bool:
        status = Path(f"/proc/{self.pid}/stat")
        return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"

    def wait_until(self, ready: Callable[[], bool]) -> bool:
        """Whether `ready` came true before the process ended."""
        end = time.monotonic() + SECONDS_TO_WAIT
        while not ready():
            if not self.is_alive():
                return ready()
            assert time.monotonic() < end, "the process neither went on nor ended"
            time.sleep(0.001)
        return True


@dataclass
class ForkServer:
    """The process that forks; see fork_server.py."""

    logs: Path
    threads: int = 1
    _numbers: Iterator[int] = field(default_factory=itertools.count, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _process: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            "OMP_NUM_THREADS": str(self.threads),
            "TOKENIZERS_PARALLELISM": "false",
            "CUDA_VISIBLE_DEVICES": "",
            "HF_HUB_OFFLINE": "1",
            "COLUMNS": "200",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.reliability.fork_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=ROOT,
        )
        assert json.loads(self._process.stdout.readline())["ready"]

    @property
    def pid(self) -> int:
        """The process that forks."""
        return int(self._process.pid)

    def ask(self, **request: Any) -> dict[str, Any]:
        with self._lock:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def start(
        self, folder: Path, *words: object, environment: Mapping[str, str] | None = None, **sabotage: dict[str, Any]
    ) -> Process:
        """Starts a command line in `folder`; `sabotage` names functions of sabotage.py with their options."""
        log = self.logs / f"{next(self._numbers):06d}"
        home = self.logs / "home"
        homes = {f"XDG_{name}_HOME": str(home) for name in ("CONFIG", "CACHE", "STATE", "DATA")}
        pid = self.ask(
            do="start",
            folder=str(folder),
            words=[str(word) for word in words],
            out=str(log.with_suffix(".out")),
            err=str(log.with_suffix(".err")),
            environment={**homes, **(environment or {})},
            sabotage={"no_network": {}, **sabotage},
        )["pid"]
        return Process(self, pid, folder, log)

    def start_on(self, terminal: str, folder: Path, words: Sequence[str], environment: Mapping[str, str]) -> Process:
        """Starts a command line on a terminal, with nothing in its environment but what is given."""
        request = {"folder": str(folder), "words": list(words), "environment": dict(environment)}
        pid = self.ask(do="start", terminal=terminal, sabotage={"no_network": {}}, **request)["pid"]
        return Process(self, pid, folder, self.logs / "none")

    def run(self, folder: Path, *words: object, **sabotage: dict[str, Any]) -> Ended:
        """Runs a command line to its end."""
        return self.start(folder, *words, **sabotage).wait()

    def close(self) -> None:
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


def weights_hash(run_folder: Path) -> str:
    """One sha256 over the result of a run: every tensor file with its name."""
    digest = hashlib.sha256()
    files = sorted((run_folder / "weights").rglob("*.safetensors"))
    assert files, f"{run_folder} has no weights"
    for file in files:
        digest.update(file.relative_to(run_folder).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def events(run_folder: Path) -> list[dict[str, Any]]:
    """The whole lines of a run's events.jsonl."""
    path = run_folder / "events.jsonl"
    found = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def record(run_folder: Path) -> dict[str, Any]:
    """A run's record."""
    table: dict[str, Any] = json.loads((run_folder / "run.json").read_text())
    return table
