"""The program as a person starts it: commands as whole processes, timed, and what a run leaves on record."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAM = [sys.executable, "-m", "dbcli.cli.app", "--quiet"]
USAGE = 2  # the exit code of settings that cannot be combined
# Starts a command and writes down what it took. A process counts its parent's memory as its own until it begins, so the
# parent has to be small, which whoever wrote a base is not.
LAUNCHER = """
import json, os, subprocess, sys, time
began = time.perf_counter()
_, status, usage = os.wait4(subprocess.Popen(sys.argv[2:]).pid, 0)
took = [time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024]
with open(sys.argv[1], "w") as file:
    json.dump(took, file)
sys.exit(os.waitstatus_to_exitcode(status))
"""


class CommandFailed(RuntimeError):
    """A command ended with another exit code than 0; carries the code."""

    def __init__(self, command: Sequence[str], code: int, last_words: str) -> None:
        super().__init__(f"{' '.join(command)}\n{last_words[-2000:]}")
        self.code = code


@dataclass(frozen=True)
class Timing:
    """One whole process: wall seconds, processor seconds of all its threads, and the most memory it held."""

    seconds: float
    processor_seconds: float
    peak_bytes: int


def as_options(settings: Mapping[str, object]) -> list[str]:
    """Settings as words of a command line."""
    plain = {key: str(value).lower() if isinstance(value, bool) else value for key, value in settings.items()}
    return [f"--set={key}={value}" for key, value in plain.items()]


@dataclass(frozen=True)
class Trained:
    """One `dreambooth train`: the process, the run's record, and seconds and loss of each step."""

    process: Timing
    record: Mapping[str, Any]
    step_seconds: Sequence[float]
    losses: Sequence[float]


def phases(trained: Trained) -> dict[str, float]:
    """Seconds of each phase of a run, in the order in which they come; together they are the whole command."""
    timings, steps = trained.record["timings"], sum(trained.step_seconds)
    return {
        "start and end": trained.process.seconds - sum(timings.values()),
        "load": timings["load"],
        "class images": timings["class_images"],
        "encode": timings["encode"],
        "steps": steps,
        "checkpoints": timings["train"] - steps,
        "save": timings["save"],
    }


def timed(command: Sequence[str], folder: Path) -> Timing:
    """Runs a command to its end; raises CommandFailed with its last words if it fails."""
    log, took = folder / "log.txt", folder / "took.json"
    environment = {"OMP_NUM_THREADS": str(os.cpu_count() or 1), **os.environ, "HF_HUB_OFFLINE": "1"}
    launched = [sys.executable, "-S", "-c", LAUNCHER, str(took), *command]
    with log.open("wb") as out:
        code = subprocess.run(launched, cwd=folder, stdout=out, stderr=out, env=environment).returncode
    if code:
        raise CommandFailed(command, code, log.read_text(errors="replace"))
    return Timing(*json.loads(took.read_text(encoding="utf-8")))


def said(folder: Path, *words: str) -> dict[str, Any]:
    """One command's JSON document."""
    done = subprocess.run([*PROGRAM, *words, "--json"], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise CommandFailed(words, done.returncode, done.stderr)
    return dict(json.loads(done.stdout))


class Project:
    """A project on a base with one subject, a dog."""

    def __init__(self, folder: Path, base: str, photos: Sequence[Path]) -> None:
        self.folder = folder
        said(folder.parent, "init", str(folder), "--base", base)
        said(folder, "add-subject", "dog", "--class", "dog", *map(str, photos), "--token", "sks")

    def trained(self, settings: Mapping[str, object], *words: str) -> Trained:
        """Trains and measures it, class images drawn anew; leaves nothing of it."""
        process = timed([*PROGRAM, "train", "--subject", "dog", *as_options(settings), *words], self.folder)
        (run,) = (self.folder / "runs").glob("*-dog")
        record = json.loads((run / "run.json").read_text(encoding="utf-8"))
        events = [json.loads(line) for line in (run / "events.jsonl").read_text(encoding="utf-8").splitlines()]
        self.emptied()
        steps = [event for event in events if "loss" in event]
        return Trained(process, record, [step["seconds"] for step in steps], [step["loss"] for step in steps])

    def emptied(self) -> None:
        """Removes class images, and runs, which are large: the next run begins as the first did."""
        for folder in (*(self.folder / "runs").iterdir(), *(self.folder / "reg").iterdir()):
            if folder.is_dir():
                shutil.rmtree(folder)
