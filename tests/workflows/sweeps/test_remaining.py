"""What is left of a sweep: counted by hand on a plan of two subjects and a suite of two prompts."""

from __future__ import annotations

from pathlib import Path

import pytest

from dbcli.project.files.layout import Layout
from dbcli.project.runs.run_store import RunBase, RunRecord, create_run
from dbcli.workflows.progress import Silence
from dbcli.workflows.sweeps.plan import SweepRequest, plan_file
from dbcli.workflows.sweeps.remaining import Left, Pace, duration
from dbcli.workflows.sweeps.units import ScoreUnit, SweepPlan, TrainUnit
from tests.cli.made_projects import command
from tests.reliability.small_base import write_small_base

SWEEP = """
name: study
settings: {train: {steps: 10, batch_size: 2}, prior: {enabled: false}, draw: {steps: 8, guidance: 3.0}}
judge: tiny
pictures: {prompts: ['a {identifier} {class} at night', 'a {identifier} {class}'], count: 3}
grid: {train.learning_rate: [1e-4, 2e-4]}
subject: dog
"""


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    from tests.project import photo_makers

    folder = tmp_path_factory.mktemp("left")
    command("init", folder / "p", "--base", write_small_base(folder / "base"), "--quiet")
    photo_makers.save(folder / "in" / "0.png", photo_makers.plain((40, 90, 50)))
    command("-C", folder / "p", "add-subject", "dog", "--class", "dog", "--token", "sks", folder / "in", "--quiet")
    (folder / "p" / "sweep.yaml").write_text(SWEEP, encoding="utf-8")
    return Layout(folder / "p")


@pytest.fixture
def plan(layout: Layout) -> SweepPlan:
    return plan_file(layout, SweepRequest(str(layout.root / "sweep.yaml"), dry=True), Silence())


def units(plan: SweepPlan) -> tuple[list[TrainUnit], list[ScoreUnit]]:
    every = plan.units()
    trained = [unit for unit in every if isinstance(unit, TrainUnit)]
    return trained, [unit for unit in every if isinstance(unit, ScoreUnit)]


def test_steps_and_images_are_counted_in_all_and_no_time_is_invented(layout: Layout, plan: SweepPlan) -> None:
    # 2 runs of 10 steps; 2 cells of 2 prompts x 3 images and the 8 images of the class alone.
    assert Pace(layout, plan).left(plan.units()) == Left(2, 20, 2, 28, None)


def test_what_was_measured_in_this_sweep_decides(layout: Layout, plan: SweepPlan) -> None:
    pace, (trained, scored) = Pace(layout, plan), units(plan)
    pace.measured(trained[0], 30.0)
    # 3 s a step; an image of 8 x 2 + 4 passes beside a step of 2 x 4: 2.5 steps, 7.5 s.
    assert pace.left([trained[1], *scored]).seconds == pytest.approx(30 + 28 * 7.5)
    pace.measured(scored[0], 28.0)
    assert pace.left([trained[1], scored[1]]).seconds == pytest.approx(30 + 14 * 2)


def test_an_earlier_run_of_the_same_method_tells_the_time_and_one_begun_has_less_left(
    layout: Layout, plan: SweepPlan
) -> None:
    trained, _ = units(plan)

    def record(state: str, step: int, key: str | None) -> None:
        def first(name: str) -> RunRecord:
            return RunRecord(
                name=name,
                state=state,
                method="full",
                step=step,
                profile={"train": {"batch_size": 2}},
                base=RunBase(name="b", source="b"),
                timings={"load": 10.0, "class_images": 99.0, "train": 30.0},
                work_key=key,
            )

        create_run(layout, "dog", first)

    record("finished", 20, None)
    record("interrupted", 4, trained[0].key)
    # 40 s of 20 steps: 2 s a step; 6 of the first run's steps are left.
    pace = Pace(layout, plan)
    assert pace.left(trained) == Left(2, 16, 0, 0, pytest.approx(32.0))
    # This sweep trained those 6 in 30 s: 5 s a step, whatever was trained before it.
    pace.measured(trained[0], 30.0)
    assert pace.left(trained[1:]).seconds == pytest.approx(50.0)
    record("finished", 10, trained[0].key)
    assert Pace(layout, plan).left(trained).steps == 10
    for path in layout.runs_dir.glob("*/run.json"):
        path.unlink()


def test_left_reads_as_a_sentence() -> None:
    assert str(Left(2, 1600, 3, 48, 754.0)) == "1,600 training steps in 2 runs, 48 images in 3 cells; about 13 min"
    assert str(Left(0, 0, 1, 1, None)) == "1 image in 1 cell; the time is known after the first run"
    assert str(Left(0, 0, 0, 0, 0.0)) == "nothing"


@pytest.mark.parametrize(("seconds", "words"), [(0.2, "1 s"), (89, "89 s"), (754, "13 min"), (12000, "3 h 20 min")])
def test_durations_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_unknown_files_get_the_list_of_those_there_are(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    from dbcli.errors import DreamboothError

    monkeypatch.chdir(layout.root)
    Path("own-prompts.txt").write_text("a {dog}\n")
    with pytest.raises(DreamboothError) as sweep_fault:
        plan_file(layout, SweepRequest("swep.yaml", dry=True), Silence())
    assert "sweep.yaml" in str(sweep_fault.value.hint)
    assert "tiny-table-1" in str(sweep_fault.value.hint)
    Path("typo.yaml").write_text(SWEEP.replace("prompts: [", "suite: [nope], prompts: [").replace("tiny\n", "tyni\n"))
    with pytest.raises(DreamboothError) as plan_fault:
        plan_file(layout, SweepRequest("typo.yaml", dry=True), Silence())
    assert "shipped: accessories" in plan_fault.value.message
    assert "paper or paper-l or tiny or none" in plan_fault.value.message
    from dbcli.metrics.suites import load_suite

    with pytest.raises(DreamboothError) as prompts_fault:
        load_suite("gone.txt")
    assert "own-prompts.txt" in str(prompts_fault.value.hint)
