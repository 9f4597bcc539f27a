"""Projects made once for a module's tests: training is what takes time."""

from __future__ import annotations

import signal
from pathlib import Path

from dbcli.cli.app import main
from tests.project import photo_makers
from tests.reliability.small_base import write_small_base

TRAIN = ("--steps", "2", "--set=prior.enabled=false", "--set=train.learning_rate=0.01", "--set=draw.steps=2")


def command(*words: object) -> None:
    """Runs one command line, which has to succeed; signal handlers are put back afterwards."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        main([str(word) for word in words])
    except SystemExit as ended:
        assert not ended.code, words
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def untrained_project(folder: Path, base: Path | str | None = None) -> Path:
    """A project on a base, the smallest unless it is given, with the subject dog."""
    project = folder / "myproj"
    command("init", project, "--base", base or write_small_base(folder / "base"), "--quiet")
    for number in range(2):
        photo_makers.save(folder / "in" / f"{number}.png", photo_makers.plain((40, 90 * number, 50)))
    command("-C", project, "add-subject", "dog", "--class", "dog", "--token", "sks", folder / "in", "--quiet")
    return project


def trained_project(folder: Path, *words: str, base: Path | str | None = None) -> Path:
    """The same with one run, trained with `words`."""
    project = untrained_project(folder, base)
    command("-C", project, "train", "--subject", "dog", *TRAIN, *words, "--quiet")
    return project
