"""Photos that a run keeps back: what is measured of them, what is on record, and that nothing is learnt from them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dbcli.errors import ConfigError
from dbcli.project.files.layout import Layout
from dbcli.project.runs.probe_files import load_probes
from dbcli.project.runs.run_store import RunRecord, read_events
from dbcli.project.subjects.held_out import held_out_places
from dbcli.workflows.evaluation.report import run_charts
from dbcli.workflows.probes.held_out import HeldOut
from dbcli.workflows.progress import Silence
from dbcli.workflows.setup.open import init_project
from dbcli.workflows.subjects.manage import add_subject
from dbcli.workflows.training.plan import plan_training
from dbcli.workflows.training.request import TrainRequest
from dbcli.workflows.training.run import train_run
from tests.project import photo_makers
from tests.reliability.small_base import write_small_base

STEPS = 6
SETS = [
    *("method=lora", f"train.steps={STEPS}", "train.learning_rate=0.01", "prior.enabled=false", "draw.steps=2"),
    *("lora.dropout=0.1", "probe.steps=2", "probe.seeds=1", "draw.precision=fp32", "images.held_out=[2]"),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_base(tmp_path_factory.mktemp("held") / "base")


def project(base: Path, folder: Path, second: tuple[int, int, int]) -> Layout:
    """A project with a subject of three photos, of which the second has this colour."""
    init_project(folder / "p", str(base), None, offline=True)
    layout = Layout((folder / "p").resolve())
    colours = [(200, 100, 50), second, (60, 120, 200)]
    photos = [photo_makers.save(folder / f"{place}.png", photo_makers.plain(one)) for place, one in enumerate(colours)]
    add_subject(layout, "dog", "dog", photos, "sks")
    return layout


def trained(layout: Layout, *sets: str, progress: Silence | None = None) -> RunRecord:
    plan = plan_training(layout, TrainRequest(["dog"], sets=[*SETS, *sets]))
    return train_run(layout, plan, progress or Silence(), offline=True)


def weights(layout: Layout, run: str) -> dict[str, torch.Tensor]:
    return load_file(layout.weights_dir(run) / "pytorch_lora_weights.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("held_out", "places"), [(0, []), (2, [3, 4]), ([2], [1]), ([5, 1], [0, 4]), (7, [0, 1, 2, 3, 4])]
)
def test_the_last_photos_are_kept_back_or_those_with_the_numbers(held_out: int | list[int], places: list[int]) -> None:
    assert held_out_places(held_out, 5) == places


def test_what_a_run_keeps_back_is_measured_and_changes_nothing_of_it(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    layout, other = project(base, tmp_path / "a", (90, 200, 90)), project(base, tmp_path / "b", (5, 5, 250))
    record = trained(layout, "probe.judge=tiny", "probe.every=3", "probe.keep=last")
    losses = {one["step"]: one["loss"] for one in record.held_out["losses"]}
    # Six steps and ten measurements: each step, and before the first.
    assert list(losses) == list(range(STEPS + 1)) and len(set(losses.values())) > 1
    assert record.held_out["photos"] == ["dog 2"]
    assert record.held_out["line"].startswith(
        f"held-out loss {losses[STEPS]:.4f} at step {STEPS}; {losses[0]:.4f} before"
    )
    events = [one for one in read_events(layout, record.name) if one.get("event") == "held out"]
    assert [one["held_out_loss"] for one in events] == list(losses.values())
    assert all(sum(one["levels"]) / 8 == pytest.approx(one["held_out_loss"], rel=1e-4) for one in events)
    probes = load_probes(layout, record.name)
    assert probes is not None and {one.step: one.held_out for one in probes.probes} == {3: losses[3], 6: losses[6]}
    assert len(run_charts(layout, record)) == 2
    # Another photo in its place leads to the same weights and other losses.
    twin = trained(other, "probe.judge=off")
    assert same(weights(layout, record.name), weights(other, twin.name))
    assert twin.held_out["losses"] != record.held_out["losses"]
    monkeypatch.setattr(HeldOut, "_is_due", lambda self, step: False)
    unmeasured = trained(other, "probe.judge=off")
    assert unmeasured.held_out["losses"] == [] and same(weights(other, unmeasured.name), weights(other, twin.name))
    taught = trained(other, "probe.judge=off", "images.held_out=0")
    assert not taught.held_out and not same(weights(other, taught.name), weights(other, twin.name))


@pytest.mark.parametrize(
    ("held_out", "said"),
    [("[4]", "'dog' has 3 photos, none with the number 4"), ("3", "keeps back 3 photos, but 'dog' has 3")],
)
def test_a_number_that_leaves_nothing_is_refused_before_a_run_is_made(
    base: Path, tmp_path: Path, held_out: str, said: str
) -> None:
    layout = project(base, tmp_path, (90, 200, 90))
    with pytest.raises(ConfigError, match="images.held_out") as fault:
        trained(layout, f"images.held_out={held_out}")
    assert said in fault.value.message
    assert not list(layout.runs_dir.glob("*"))
