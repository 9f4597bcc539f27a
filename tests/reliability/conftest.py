"""A project to break, made once for all tests of this folder."""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.project import photo_makers
from tests.reliability.processes import ForkServer, Process, weights_hash
from tests.reliability.small_base import write_small_base

STEPS = 6
# Every kind of state at once: batches, accumulation, prior, averages, dropout, adapters of both networks.
JOB = [
    *("train", "--subject", "dog", "--method", "lora", "--steps", STEPS),
    *("--set=train.text_encoder=true", "--set=train.batch_size=2", "--set=train.accumulation=2"),
    *("--set=train.ema=0.9", "--set=lora.dropout=0.1", "--set=train.checkpoint_every=2"),
    # Where sums are taken in another order, results in bf16 differ by more than their bounds.
    "--set=train.precision=fp32",
    *("--set=prior.images=3", "--set=prior.steps=2", "--set=prior.batch_size=2", "--set=draw.steps=2"),
]
RUN = "0001-dog"
ON_CPU = "--set=train.device=cpu"
# Photos of three shapes in sizes of their own, which a batch never mixes.
IN_SIZES = "--set=images.buckets=auto"


def start_or_resume(server: ForkServer, project: Path, job: Sequence[object] = JOB) -> Process:
    """What a person types: the job, or --resume where there is a run to resume."""
    begun = (project / "runs" / RUN / "run.json").exists()
    return server.start(project, *(["train", "--resume", "1"] if begun else job))


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_base(tmp_path_factory.mktemp("base") / "small")


@pytest.fixture(scope="session")
def template(server: ForkServer, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a subject and nothing else; only ever copied."""
    return project_on(base, server, tmp_path_factory.mktemp("template"))


def project_on(base: Path | str, server: ForkServer, folder: Path) -> Path:
    """A project on a base, with the subject dog of three photos."""
    looks = [((200, 100, 50), (80, 96)), ((60, 120, 200), (96, 80)), ((90, 200, 90), (88, 88))]
    photos = [photo_makers.save(folder / f"{index}.png", photo_makers.plain(*one)) for index, one in enumerate(looks)]
    server.run(folder, "init", "project", "--base", base).check(0)
    project = folder / "project"
    server.run(project, "add-subject", "dog", "--class", "dog", *photos, "--token", "sks").check(0)
    return project


@pytest.fixture
def new_project(template: Path, tmp_path: Path) -> Callable[[], Path]:
    """Makes a fresh copy of the template at every call."""
    numbers = itertools.count()
    return lambda: Path(shutil.copytree(template, tmp_path / f"project{next(numbers)}"))


@pytest.fixture(scope="session")
def whole(server: ForkServer, template: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, float]:
    """What JOB ends with when nothing stops it: the hash of its weights, and the seconds it takes."""
    project = Path(shutil.copytree(template, tmp_path_factory.mktemp("whole") / "project"))
    began = time.monotonic()
    server.run(project, *JOB).check(0)
    return weights_hash(project / "runs" / RUN), time.monotonic() - began


@pytest.fixture
def figures(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Prints one line of figures, also where pytest captures output."""

    def say(text: str) -> None:
        with capsys.disabled():
            print(f"\n[reliability] {request.node.name}: {text}")

    return say


@pytest.fixture(scope="session")
def alone(server: ForkServer, template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which one process did JOB."""
    project = Path(shutil.copytree(template, tmp_path_factory.mktemp("alone") / "project"))
    server.run(project, *JOB, ON_CPU).check(0)
    return project
