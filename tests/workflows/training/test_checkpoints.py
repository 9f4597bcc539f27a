"""Which changes of settings a checkpoint has behind it, and which came after it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dbcli.diffusion.training.state_files import NUMBERS_FILE
from dbcli.diffusion.training.trainer import TrainingState
from dbcli.project.files.layout import Layout
from dbcli.project.files.manifests import write_manifest
from dbcli.project.runs.checkpoints import checkpoint_folder
from dbcli.project.runs.run_store import Fallback, RunBase, RunRecord, SettingsChange, create_run
from dbcli.project.settings.profile_settings import Profile
from dbcli.workflows.progress import Silence
from dbcli.workflows.run_context import RunContext
from dbcli.workflows.signals import StopSignal
from dbcli.workflows.training.checkpoints import Checkpoints
from dbcli.workflows.training.plan import Resumption, TrainingPlan
from dbcli.workflows.training.resuming import apply_changes

STEP = 400
NEW_OPTIMISER = SettingsChange(step=STEP, settings={"train.optimizer": ["adamw", "prodigy"]})
NEW_RATE = SettingsChange(step=STEP, settings={"train.learning_rate": [1.0, 0.5]})
SMALLER = Fallback(step=STEP, before="full", after="full, 8-bit optimiser", reason="memory", optimiser_is_new=True)


@pytest.fixture
def run(tmp_path: Path) -> RunContext:
    layout = Layout(tmp_path)
    base = RunBase(name="tiny", source="tiny")
    record = RunRecord(name="", method="full", base=base)
    record.name = create_run(layout, "dog", lambda name: RunRecord(name=name, method="full", base=base))
    return RunContext(layout, record, Profile(), [], Silence(), StopSignal())


def checkpoint_of(run: RunContext, step: int = STEP) -> None:
    """What a run has at a step: half of its rate, after it diverged, and an optimiser with a state."""
    state = TrainingState(step, {"weight": torch.ones(1)}, {"moment": torch.ones(1)}, rate_scale=0.5)
    trainer: Any = SimpleNamespace(state=lambda: state)
    Checkpoints(run, trainer).save()


def gone_on_with(run: RunContext) -> tuple[bool, float]:
    """Whether the newest checkpoint gives its optimiser's state to the run as it is now, and its share of the rate."""
    found: list[TrainingState] = []
    trainable = SimpleNamespace(tensors={}, constants={})
    trainer: Any = SimpleNamespace(trainable=trainable, averages={}, load_state=found.append, done=STEP)
    assert Checkpoints(run, trainer).load_newest()
    return bool(found[0].optimiser), found[0].rate_scale


@pytest.mark.parametrize("what", ["changes", "fallbacks"])
def test_a_checkpoint_knows_what_came_after_it_at_the_same_step(run: RunContext, what: str) -> None:
    later = {"changes": [NEW_OPTIMISER, NEW_RATE], "fallbacks": [SMALLER]}
    checkpoint_of(run)
    assert gone_on_with(run) == (True, 0.5)
    setattr(run.record, what, later[what])
    assert gone_on_with(run) == (False, 1.0 if what == "changes" else 0.5)
    # As where it was damaged, and the run has come there once more from an earlier one.
    (checkpoint_folder(run.layout, run.name, STEP) / NUMBERS_FILE).write_text("{}", encoding="utf-8")
    checkpoint_of(run)
    assert gone_on_with(run) == (True, 0.5)
    run.record.changes = [*run.record.changes, NEW_RATE]
    assert gone_on_with(run) == (True, 1.0)


def test_a_change_counts_from_the_newest_checkpoint_that_is_sound(run: RunContext) -> None:
    for step in (STEP // 2, STEP):
        checkpoint_of(run, step)
    (checkpoint_folder(run.layout, run.name, STEP) / NUMBERS_FILE).write_text("{}", encoding="utf-8")
    resumed = Resumption(run.record, [], {"train.learning_rate": (1.0, 0.5)}, [])
    apply_changes(run.layout, run.record, TrainingPlan([], "full", run.profile, resumed=resumed))
    assert [one.step for one in run.record.changes] == [STEP // 2]


@pytest.mark.parametrize(("step", "is_kept"), [(STEP, False), (STEP + 1, True)])
def test_a_checkpoint_of_an_earlier_release_goes_by_its_step(run: RunContext, step: int, is_kept: bool) -> None:
    run.record.changes = [NEW_OPTIMISER]
    checkpoint_of(run, step)
    folder = checkpoint_folder(run.layout, run.name, step)
    numbers = json.loads((folder / NUMBERS_FILE).read_text(encoding="utf-8"))
    assert numbers.pop("seen") == {"changes": 1, "fallbacks": 0}
    (folder / NUMBERS_FILE).write_text(json.dumps(numbers), encoding="utf-8")
    write_manifest(folder, step=step)
    assert gone_on_with(run)[0] is is_kept


def test_the_files_of_a_run_whose_settings_never_changed_say_nothing_of_it(run: RunContext) -> None:
    checkpoint_of(run)
    numbers = json.loads((checkpoint_folder(run.layout, run.name, STEP) / NUMBERS_FILE).read_text(encoding="utf-8"))
    assert set(numbers) == {"schema", "step", "scaler", "rate_scale"}
