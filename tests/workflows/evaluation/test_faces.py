"""When faces are scored, and what a person is told."""

from __future__ import annotations

import sys

import pytest

from dbcli.errors import JudgeMissing
from dbcli.metrics.judges.faces import missing_packages
from dbcli.metrics.judges.loading import load_judges
from dbcli.project.files.layout import Layout
from dbcli.workflows.evaluation.faces import has_faces, with_face_notes, with_faces
from dbcli.workflows.progress import Silence
from dbcli.workflows.setup.open import init_project


class Told(Silence):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    folder = tmp_path_factory.mktemp("faces") / "project"
    init_project(folder, "tiny", None, offline=True)
    return Layout(folder)


def test_people_have_faces_unless_somebody_says_otherwise() -> None:
    assert (has_faces("woman", None), has_faces("woman", False)) == (True, False)
    assert (has_faces("statue", None), has_faces("statue", True)) == (False, True)


def test_what_is_no_person_is_scored_as_ever_and_nothing_is_said(layout: Layout) -> None:
    judges, told = load_judges("tiny", offline=True), Told()
    assert with_faces(judges, layout, ["dog"], None, told) is judges
    assert with_faces(judges, layout, ["man"], False, told) is judges
    assert told.lines == []


def test_without_the_judge_a_person_gets_one_line_and_a_demand_an_error(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("dlib", "face_recognition_models"):  # None hides an installed module from every import
        monkeypatch.setitem(sys.modules, module, None)
    judges, told = load_judges("tiny", offline=True), Told()
    assert with_faces(judges, layout, ["dog", "man"], None, told) is judges
    (line,) = told.lines
    assert line.startswith("DINO does not know faces") and "install dlib-bin face-recognition-models" in line
    with pytest.raises(JudgeMissing, match="needs dlib-bin"):
        with_faces(judges, layout, ["dog"], True, told)


@pytest.mark.skipif(bool(missing_packages()), reason="the extra 'faces' (104 MB) is not installed")
def test_a_person_is_seen_by_the_judge_of_faces_where_it_is_installed(layout: Layout) -> None:
    judges, told = load_judges("tiny", offline=True), Told()
    found = with_faces(judges, layout, ["man"], None, told)
    assert found.face is not None and told.lines == []
    assert list(found.parts) == list(judges.parts)


def test_photos_without_a_face_are_named_and_all_of_them_have_a_next_step() -> None:
    def note(without: list[str]) -> str | None:
        subject = {"name": "ann", "class_noun": "woman", "photos": 3, "photos_without_face": without}
        (found,) = with_face_notes({"subjects": [subject]})["subjects"]
        return found.get("face_note")

    assert note([]) is None
    assert note(["b.png"]) == "ann: no face was found in b.png; FACE rests on the other photos."
    assert "any of the 3 photos" in (all_of_them := note(["a.png", "b.png", "c.png"]) or "")
    assert "dreambooth add-subject ann --class woman PHOTO" in all_of_them


def test_other_subjects_records_stay_as_they_are() -> None:
    scores = {"subjects": [{"name": "dog", "photos": 3}]}
    assert with_face_notes(scores) == scores
