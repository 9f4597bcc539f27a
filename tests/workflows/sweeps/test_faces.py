"""Cells of a sweep that teach a person: scored anew once the judge of faces is there; all others keep their keys."""

from __future__ import annotations

import sys

import pytest

from dbcli.metrics.judges.faces import missing_packages
from dbcli.project.files.layout import Layout
from dbcli.workflows.progress import Silence
from dbcli.workflows.sweeps.plan import SweepRequest, plan_file
from dbcli.workflows.sweeps.units import ScoreUnit
from tests.cli.made_projects import command
from tests.reliability.small_base import write_small_base

SWEEP = """
name: study
settings: {train: {steps: 10, batch_size: 2}, prior: {enabled: false}}
judge: tiny
pictures: {prompts: ['a {identifier} {class}'], count: 1}
grid: {subject: [dog, ann]}
"""


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    from tests.project import photo_makers

    folder = tmp_path_factory.mktemp("faces")
    command("init", folder / "p", "--base", write_small_base(folder / "base"), "--quiet")
    for place, (name, noun, word) in enumerate((("dog", "dog", "sks"), ("ann", "woman", "olis"))):
        photo_makers.save(folder / name / "0.png", photo_makers.plain((40, 90, 50 + place)))
        command("-C", folder / "p", "add-subject", name, "--class", noun, "--token", word, folder / name, "--quiet")
    (folder / "p" / "sweep.yaml").write_text(SWEEP, encoding="utf-8")
    return Layout(folder / "p")


def scored(layout: Layout) -> list[ScoreUnit]:
    plan = plan_file(layout, SweepRequest(str(layout.root / "sweep.yaml"), dry=True), Silence())
    return [unit for unit in plan.units() if isinstance(unit, ScoreUnit)]


@pytest.mark.skipif(bool(missing_packages()), reason="the extra 'faces' (104 MB) is not installed")
def test_only_a_person_is_scored_anew_when_the_judge_of_faces_comes(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    dog, ann = scored(layout)
    monkeypatch.setitem(sys.modules, "dlib", None)  # hides it from every import
    dog_before, ann_before = scored(layout)
    assert (dog.faces, ann.faces, ann_before.faces) == (False, True, False)
    assert dog.key == dog_before.key
    assert ann.key != ann_before.key


def test_without_the_judge_no_cell_asks_for_faces(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dlib", None)
    assert [unit.faces for unit in scored(layout)] == [False, False]
