"""How soon a recipe comes to a likeness: by hand, and from the events of a real sweep."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from tests.cli.made_projects import command, untrained_project


@pytest.fixture(scope="module")
def timing(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("steps_to_likeness")


def test_a_course_adds_up_the_steps_that_were_done_last(timing: ModuleType) -> None:
    events = [
        {"step": 1, "loss": 1.0, "seconds": 5.0},
        {"event": "probe", "step": 1, "fidelity": 0.1, "seconds": 9.0},
        {"event": "resumed", "step": 0},
        {"step": 1, "loss": 1.0, "seconds": 2.0},
        {"event": "probe", "step": 1, "fidelity": 0.2, "seconds": 9.0},
        {"step": 2, "loss": 1.0, "seconds": 3.0},
        {"event": "probe", "step": 2, "fidelity": 0.3, "seconds": 9.0},
    ]
    found = timing.course(events)
    assert found == timing.Course({1: 0.2, 2: 0.3}, {1: 2.0, 2: 5.0})
    assert (found.reaches(0.2), found.reaches(0.25), found.reaches(0.4)) == (1, 2, None)
    with pytest.raises(SystemExit, match="no probes"):
        timing.course(events[:1])


def test_each_run_is_held_to_the_reference_of_its_own_subject(timing: ModuleType) -> None:
    def run(*likeness: float) -> object:
        steps = range(50, 50 * len(likeness) + 1, 50)
        return timing.Course(dict(zip(steps, likeness, strict=True)), {step: step / 10 for step in steps})

    cells = [
        ("the profile", ("dog",), run(0.1, 0.4, 0.4)),
        ("the profile", ("cat",), run(0.1, 0.1, 0.2)),
        ("quick", ("dog",), run(0.38, 0.2, 0.2)),  # 0.36 is wanted
        ("quick", ("cat",), run(0.1, 0.17, 0.19)),  # 0.18 is wanted
        ("quick", ("can",), run(1.0, 1.0, 1.0)),  # nothing to hold it to
        ("never", ("dog",), run(0.1, 0.1, 0.1)),
        ("never", ("cat",), run(0.1, 0.1, 0.1)),
    ]
    found = timing.rows(cells, "the profile", 0.9)
    assert found == [
        timing.Row("the profile", 2, 2, 100, 10.0),
        timing.Row("quick", 2, 2, 50, 5.0),
        timing.Row("never", 2, 0, None, None),
    ]
    with pytest.raises(SystemExit, match="No cell of 'the profile' is finished"):
        timing.rows(cells[2:], "the profile", 0.9)
    assert "| never | 0 of 2 | not reached | not reached |" in timing.markdown(found)


def test_a_sweep_with_probes_is_read(timing: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = untrained_project(tmp_path)
    (project / "sweep.yaml").write_text(
        "name: soon\nsubject: dog\njudge: tiny\nagainst: slow\n"
        "settings: {train: {steps: 2}, prior: {enabled: false}, draw: {steps: 1},\n"
        "  probe: {judge: tiny, every: 1, budget: 1, steps: 1, seeds: 1}}\n"
        "pictures: {prompts: ['a {identifier} {class} at night'], count: 1}\n"
        "grid: {recipe: {slow: {train.learning_rate: 1e-4}, fast: {train.learning_rate: 1e-2}}, train.seed: [0]}\n",
        encoding="utf-8",
    )
    command("-C", project, "sweep", project / "sweep.yaml", "--quiet")
    capsys.readouterr()
    timing.main([str(project), "soon", "--share", "-9"])
    told = capsys.readouterr().out
    assert "| slow | 1 of 1 | 1 |" in told
    assert "| fast | 1 of 1 | 1 |" in told
