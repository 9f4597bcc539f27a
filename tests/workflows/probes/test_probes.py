"""Probes in training on the smallest base and the embedded judges: what they find, and what they leave untouched."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from dbcli.errors import ConfigError, DiskFull, JudgeMissing, RunMissing
from dbcli.project.files.layout import Layout
from dbcli.project.images.recipes import read_recipe
from dbcli.project.runs.probe_files import load_probes, probe_images
from dbcli.project.runs.run_store import RunRecord, load_run, read_events
from dbcli.workflows.generation.generate import Generated, generate
from dbcli.workflows.generation.request import GenerateRequest, RunSelection
from dbcli.workflows.probes import probes as probing
from dbcli.workflows.progress import Silence
from dbcli.workflows.setup.open import init_project
from dbcli.workflows.subjects.manage import add_subject
from dbcli.workflows.training.plan import plan_training
from dbcli.workflows.training.request import TrainRequest
from dbcli.workflows.training.run import train_run
from tests.project import photo_makers
from tests.reliability.small_base import write_small_base

STEPS = 6
# Every kind of state that drawing could disturb: averages, dropout, adapters of both networks, accumulation.
SETS = [
    *("method=lora", f"train.steps={STEPS}", "train.text_encoder=true", "train.ema=0.9", "lora.dropout=0.1"),
    *("train.accumulation=2", "train.learning_rate=0.01", "prior.enabled=false", "draw.steps=2"),
    *("train.checkpoint_every=2", "train.keep_checkpoints=9", "train.keep_finished=all"),
    *("probe.judge=tiny", "probe.steps=2", "probe.seeds=1", "probe.every=2", "draw.precision=fp32"),
]


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    folder = tmp_path_factory.mktemp("probing")
    init_project(folder / "p", str(write_small_base(folder / "base")), None, offline=True)
    made = Layout((folder / "p").resolve())
    colours = [(200, 100, 50), (60, 120, 200)]
    photos = [
        photo_makers.save(folder / f"{number}.png", photo_makers.plain(one)) for number, one in enumerate(colours)
    ]
    add_subject(made, "dog", "dog", photos, "sks")
    return made


def trained(layout: Layout, *sets: str, progress: Silence | None = None) -> RunRecord:
    plan = plan_training(layout, TrainRequest(["dog"], sets=[*SETS, *sets]))
    return train_run(layout, plan, progress or Silence(), offline=True)


class Listening(Silence):
    """Keeps what a log would be given."""

    def __init__(self) -> None:
        super().__init__()
        self.measured: list[tuple[int, dict[str, float]]] = []

    @contextmanager
    def stage(self, title: str, total: int, parts: int = 1) -> Iterator[Any]:
        with super().stage(title, total, parts) as stage:
            stage.measure = lambda run, step, values: self.measured.append((step, dict(values)))
            yield stage


def sample(layout: Layout, prompt: str, selection: RunSelection, options: dict[str, Any], seed: int) -> Generated:
    out = layout.root / f"generated-{selection.checkpoint}"
    request = GenerateRequest([prompt], selection, options, seed, out=out)
    return generate(layout, request, Silence(), offline=True)


def weights(layout: Layout, run: str) -> dict[str, torch.Tensor]:
    return load_file(layout.weights_dir(run) / "pytorch_lora_weights.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def plain(layout: Layout) -> RunRecord:
    return trained(layout, "probe.judge=off")


@pytest.fixture(scope="module")
def probed(layout: Layout) -> RunRecord:
    return trained(layout, "probe.keep=last")


@pytest.fixture
def rising_then_falling(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Judges that find the checkpoint of step 4 better than every other; drawing and training stay what they are."""
    steps = iter([0.5, 0.9, 0.4, 0.3])

    def found(self: Any, items: Any, images: Any) -> Any:
        value = next(steps)
        return probing_found([value] * 4, [value] * 3)

    monkeypatch.setattr(probing.Panel, "score", found)
    yield


def probing_found(fidelities: list[float], editabilities: list[float]) -> Any:
    from dbcli.workflows.probes.score import Found

    return Found(fidelities, editabilities, 0.1)


def test_not_one_bit_of_a_run_differs_with_probes(layout: Layout, plain: RunRecord, probed: RunRecord) -> None:
    assert same(weights(layout, plain.name), weights(layout, probed.name))
    for step in (2, 4, 6):
        for file in ("weights", "ema", "optimiser"):
            one, two = (
                layout.checkpoints_dir(run.name) / f"step-{step:06d}" / f"{file}.safetensors" for run in (plain, probed)
            )
            assert one.read_bytes() == two.read_bytes(), (step, file)


def test_a_probe_whose_weights_have_no_room_is_left_out_with_its_scores(
    layout: Layout, rising_then_falling: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = probing.keep_weights

    def with_room_but_at_four(layout: Layout, run: str, step: int, *how: Any, **room: Any) -> None:
        if step == 4:
            raise DiskFull("No room for the weights of step 4.")
        keep(layout, run, step, *how, **room)

    monkeypatch.setattr(probing, "keep_weights", with_room_but_at_four)
    record = trained(layout, "probe.keep=best")
    found = load_probes(layout, record.name)
    assert found is not None
    assert ([one.step for one in found.probes], [one.step for one in found.skipped]) == ([2, 6], [4])
    # The best that is left, not the best that was seen.
    assert (found.chosen, record.result_step) == (2, 2)


def test_each_probe_is_on_record_with_its_scores_pictures_and_cost(layout: Layout, probed: RunRecord) -> None:
    found = load_probes(layout, probed.name)
    assert found is not None
    assert [one.step for one in found.probes] == [2, 4, 6]
    assert found.judges["dino"]["judge"] == "tiny-dino"
    for one in found.probes:
        assert len(one.fidelities) == 4
        assert len(one.editabilities) == 3
        assert one.fidelity == pytest.approx(sum(one.fidelities) / 4)
        assert one.preservation is not None
        assert one.seconds > 0
        images = probe_images(layout, probed.name, one.step)
        assert len(images) == 5
        assert read_recipe(images[1]).extras == {"checkpoint": one.step}
    events = [event for event in read_events(layout, probed.name) if event.get("event") == "probe"]
    assert [event["step"] for event in events] == [2, 4, 6]
    assert events[0]["fidelity"] == found.probes[0].fidelity
    assert probed.timings["probe"] >= sum(one.seconds for one in found.probes)
    assert probed.probing["share"] > 0
    assert Image.open(layout.probes_dir(probed.name) / "chart.png").width > 500


def test_a_probe_scores_as_an_evaluation_of_its_checkpoint_would(layout: Layout, probed: RunRecord) -> None:
    """The same pictures, drawn again from the checkpoint and scored by other code, give the same numbers."""
    from dbcli.metrics.judges.loading import load_judges
    from dbcli.project.subjects.subject_store import load_subject, photo_paths

    found = load_probes(layout, probed.name)
    recipe = read_recipe(probe_images(layout, probed.name, 4)[2])
    assert recipe.prompt == "a sks dog on the beach"
    flags = {"count": 1, "steps": recipe.steps, "sampler": recipe.sampler, "guidance": recipe.guidance}
    drawn = sample(layout, recipe.prompt, RunSelection((probed.name,), checkpoint=4), flags, recipe.seed)
    image = Image.open(drawn.images[0].path).convert("RGB")
    judges = load_judges("tiny", offline=True)
    photos = [Image.open(path).convert("RGB") for path in photo_paths(layout, load_subject(layout, "dog"))]
    near = judges.dino.encode_images([image]) @ judges.dino.encode_images(photos).T
    text = judges.clip.encode_images([image]) @ judges.clip.encode_texts(["a dog on the beach"]).T
    assert found is not None
    # Alone in its batch a picture may differ by one level of 256.
    assert found.probes[1].fidelities[2] == pytest.approx(float(near.mean()), abs=0.01)
    assert found.probes[1].editabilities[1] == pytest.approx(float(text), abs=0.01)


def test_the_best_checkpoint_becomes_the_result_bit_for_bit(
    layout: Layout, rising_then_falling: None, plain: RunRecord
) -> None:
    quiet = Silence()
    record = trained(layout, progress=quiet)
    assert (record.step, record.result_step) == (6, 4)
    assert any("step 4, the best of 3 probes" in note for note in quiet.notes)
    shorter = trained(layout, "probe.judge=off", "train.steps=4")
    assert same(weights(layout, record.name), weights(layout, shorter.name))
    assert not same(weights(layout, record.name), weights(layout, plain.name))
    assert not list((layout.probes_dir(record.name) / "weights").iterdir())


def test_stop_auto_ends_a_run_that_no_longer_rises(layout: Layout, rising_then_falling: None) -> None:
    heard = Listening()
    record = trained(layout, "train.steps=40", "probe.stop=auto", "probe.patience=1", progress=heard)
    # 0.5, then 0.9, then 0.4: one probe without a rise.
    assert (record.state, record.step, record.probing["chosen_step"]) == ("finished", 6, 4)
    assert load_run(layout, record.name).step == 6
    scores = [(step, values) for step, values in heard.measured if "fidelity" in values]
    assert [step for step, _ in scores] == [2, 4, 6]
    assert [values["editability"] for _, values in scores] == pytest.approx([0.5, 0.9, 0.4])


def test_a_probe_that_costs_too_much_is_left_out_and_that_is_on_record(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[probing.Cost, dict[str, Any]]] = []

    def dear_at_2(cost: probing.Cost, **facts: Any) -> str | None:
        asked.append((cost, facts))
        return "no room" if facts["remaining"][0] == 2 else None

    monkeypatch.setattr(probing, "too_dear", dear_at_2)
    # When nobody asks for an interval, these settings have room for a probe after every step.
    sets = ["probe.every=null", "train.batch_size=8", "probe.budget=1.0", "probe.steps=1", "probe.sampler=ddim"]
    progress = Silence()
    record = trained(
        layout, *sets, "train.steps=4", "probe.prompts=['a {identifier} {class} in space']", progress=progress
    )
    found = load_probes(layout, record.name)
    assert found is not None
    planned = found.plan.steps
    assert [one.step for one in found.skipped] == [2]
    assert [one.step for one in found.probes] == [step for step in planned if step != 2]
    assert asked[0][0].usual is None
    assert asked[0][1]["remaining"] == planned
    assert [facts["since"] for _, facts in asked] == [0, 1, 1, 3]
    assert asked[-1][0].spent >= sum(one.seconds for one in found.probes[:-1])
    assert asked[-1][0].step_seconds > 0
    events = [event for event in read_events(layout, record.name) if event.get("event") == "probe left out"]
    assert [event["step"] for event in events] == [2]
    assert "probe after step 2 left out: no room" in progress.notes
    assert "1 probe skipped to stay within the budget (step 2)" in record.probing["line"]


def test_the_last_checkpoint_stays_to_draw_with(layout: Layout, plain: RunRecord) -> None:
    def pixels(checkpoint: int | None) -> bytes:
        selection = RunSelection((plain.name,), checkpoint=checkpoint)
        drawn = sample(layout, "a {dog}", selection, {"count": 1, "steps": 2}, 3)
        return Image.open(drawn.images[0].path).tobytes()

    assert pixels(STEPS) == pixels(None)
    assert pixels(2) != pixels(None)
    with pytest.raises(RunMissing, match=r"available: 2, 4, 6"):
        pixels(5)


@pytest.mark.parametrize("method", ["full", "textual-inversion"])
def test_every_method_is_probed_and_drawn_with_at_a_checkpoint(
    layout: Layout, rising_then_falling: None, method: str
) -> None:
    record = trained(layout, f"method={method}", "train.steps=4")
    assert record.probing["chosen_step"] == 4
    flags = {"count": 1, "steps": 2}
    last, first = (
        Image.open(
            sample(layout, "a {dog}", RunSelection((record.name,), checkpoint=step), flags, 3).images[0].path
        ).tobytes()
        for step in (4, 2)
    )
    result = Image.open(sample(layout, "a {dog}", RunSelection((record.name,)), flags, 3).images[0].path).tobytes()
    assert result == last
    assert result != first


def test_without_judges_probing_is_off_and_says_why_unless_it_was_asked_for(layout: Layout) -> None:
    quiet = Silence()
    # Two steps with room for two probes of three pictures.
    scene = "probe.prompts=['a {identifier} {class} in space']"
    room = ["train.steps=2", "train.accumulation=10", "probe.budget=1.0", "probe.steps=1", scene]
    short = [*(one for one in SETS if not one.startswith("probe.")), *room]
    record = train_run(layout, plan_training(layout, TrainRequest(["dog"], sets=short)), quiet, offline=True)
    assert record.state == "finished"
    assert any(note.startswith("probes OFF: the judges are not on this machine.") for note in quiet.notes)
    with pytest.raises(JudgeMissing, match="requested"):
        train_run(
            layout, plan_training(layout, TrainRequest(["dog"], sets=[*short, "probe.every=1"])), quiet, offline=True
        )


def test_a_scene_without_the_subject_is_refused(layout: Layout) -> None:
    with pytest.raises(ConfigError, match="identifier"):
        plan_training(layout, TrainRequest(["dog"], sets=["probe.prompts=['a {class} in space']"]))


def test_the_record_of_probes_is_plain_json(layout: Layout, probed: RunRecord) -> None:
    table = json.loads((layout.probes_dir(probed.name) / "probes.json").read_text())
    assert table["schema"] == 1
    assert table["plan"]["steps"] == [2, 4, 6]
    assert table["chosen"] == 6


def test_a_probe_that_fails_is_a_warning_and_the_run_ends_with_the_same_weights(
    layout: Layout, plain: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Any, items: Any, images: Any) -> Any:
        raise RuntimeError("planted")

    monkeypatch.setattr(probing.Panel, "score", fail)
    quiet = Silence()
    record = trained(layout, progress=quiet)
    assert record.state == "finished"
    failed = [line.split(" failed")[0] for line in quiet.warnings]
    assert failed == [*(f"The probe of step {step}" for step in (2, 4, 6)), "Looking at the result"]
    found = load_probes(layout, record.name)
    assert found is not None and [one.step for one in found.skipped] == [2, 4, 6]
    assert "3 probes failed (step 2, 4, 6)" in record.probing["line"]
    assert same(weights(layout, plain.name), weights(layout, record.name))
