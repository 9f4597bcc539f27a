"""Killed and stopped, a run on the trained base of two text encoders ends with the same bits, for every method."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.reliability.conftest import RUN, project_on, start_or_resume
from tests.reliability.processes import ForkServer, events, record, weights_hash
from tests.reliability.sabotage import KILLED
from tests.reliability.test_kills import SAVES, one_story

pytestmark = pytest.mark.timeout(1800)
Figures = Callable[[str], None]
FEW = ("--steps", 5, "--set=train.checkpoint_every=2", "--set=train.batch_size=1")
# Two profiles of the base have an optimiser that averages: a full run keeps it, a LoRA is averaged otherwise.
AVERAGED = {
    "full": (),
    "lora": ("--set=train.optimizer=adamw", "--set=train.ema=0.9"),
    "textual-inversion": ("--set=train.ema=0.9",),
}
SHORT = ("--set=probe.judge=off", "--set=images.scene_cutouts=0")
PRIOR = ("--set=prior.images=2", "--set=prior.steps=1", "--set=prior.teacher_draws=1")
TEXT = ("--set=train.text_encoder=true", "--set=train.text_encoder_2_learning_rate=2e-4", "--set=lora.dropout=0.1")


def job_of(method: str) -> list[object]:
    """Both text encoders learn, except for a word's vectors, which are in both of them in any case."""
    text = () if method == "textual-inversion" else TEXT
    return ["train", "--subject", "dog", "--method", method, *FEW, *AVERAGED[method], *SHORT, *PRIOR, *text]


@pytest.fixture(scope="module")
def on_xl(server: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return project_on("tiny-xl", server, tmp_path_factory.mktemp("xl"))


@pytest.fixture(scope="module")
def undisturbed(
    request: pytest.FixtureRequest, server: ForkServer, on_xl: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[object], str, float]:
    """A method's job, the hash of the weights it ends with if nothing stops it, and the seconds it takes."""
    project = Path(shutil.copytree(on_xl, tmp_path_factory.mktemp("undisturbed") / "project"))
    job, began = job_of(request.param), time.monotonic()
    server.run(project, *job).check(0)
    return job, weights_hash(project / "runs" / RUN), time.monotonic() - began


@pytest.fixture
def project(on_xl: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(on_xl, tmp_path / "project"))


# What a stopped run of each method ends with is tested beside the other commands on this base.
@pytest.mark.parametrize("undisturbed", ["lora", "full", "textual-inversion"], indirect=True)
def test_killed_at_random_moments_it_ends_bit_equal(
    server: ForkServer, project: Path, undisturbed: tuple[list[object], str, float], figures: Figures
) -> None:
    job, expected, seconds = undisturbed
    hits, found = one_story(server, project, 3, seconds, 2, job)
    figures(f"{hits} SIGKILLs")
    assert found == expected


@pytest.mark.parametrize("undisturbed", ["lora"], indirect=True)
def test_stopped_at_a_step_it_ends_bit_equal(
    server: ForkServer, project: Path, undisturbed: tuple[list[object], str, float]
) -> None:
    job, expected, _ = undisturbed
    server.start(project, *job, stop_after={"step": 3}).wait().check(128 + signal.SIGTERM)
    assert record(project / "runs" / RUN)["step"] == 3
    start_or_resume(server, project, job).wait().check(0)
    assert weights_hash(project / "runs" / RUN) == expected


@pytest.mark.parametrize("undisturbed", ["lora", "textual-inversion"], indirect=True)
def test_killed_while_it_saves_it_goes_on_from_a_whole_checkpoint(
    server: ForkServer, project: Path, undisturbed: tuple[list[object], str, float]
) -> None:
    job, expected, _ = undisturbed
    server.run(project, *job, die_in={**SAVES["checkpoint"], "at": 4, "half": True}).check(KILLED)
    start_or_resume(server, project, job).wait().check(0)
    run = project / "runs" / RUN
    assert [event["step"] for event in events(run) if event.get("event") == "resumed"] == [2]
    assert weights_hash(run) == expected
