"""Whether subjects stay apart, measured through the command line on a base that draws noise."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.cli.made_projects import TRAIN, command, trained_project
from tests.project import photo_makers

Run = Callable[..., Any]
LOOK = ["--interference", "--judge", "tiny", "--json"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs 1 dog and 2 cat, each a LoRA, and 3 with both; cat's photos are colourful, dog's are plain."""
    folder = tmp_path_factory.mktemp("apart")
    project = trained_project(folder, "--method", "lora", "--set=draw.steps=1")
    for number in range(3):
        photo_makers.save(folder / "more" / f"cat{number}.png", photo_makers.marked().rotate(90 * number))
    command("-C", project, "add-subject", "cat", "--class", "cat", "--token", "zwx", folder / "more", "--quiet")
    more = (*TRAIN, "--method", "lora", "--set=draw.steps=1", "--quiet")
    command("-C", project, "train", "--subject", "cat", *more)
    command("-C", project, "train", "--subject", "dog", "--subject", "cat", *more)
    return project


@pytest.fixture
def project(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    return made


def test_a_run_of_two_subjects_gets_a_matrix_a_share_and_the_drift(run: Run, project: Path) -> None:
    done = run("eval", "--run", 3, "-n", 1, *LOOK)
    assert done.code == 0, done.err
    found = done.document
    folder = project / "runs" / "0003-dog-cat" / "eval" / "interference"
    assert json.loads((folder / "interference.json").read_text(encoding="utf-8")).items() <= found.items()
    assert found["schema"] == 1
    assert found["matrix"]["columns"] == ["dog", "cat"]
    rows = [(row["what"], row["name"]) for row in found["matrix"]["rows"]]
    assert rows == [
        (what, name) for what in ("asked for", "a member of the class", "photos of") for name in ("dog", "cat")
    ]
    assert all(-1 <= value <= 1 for row in found["matrix"]["rows"] for value in row["values"])
    subjects = found["nearest"]["subjects"]
    assert {name: sum(one["nearest"].values()) for name, one in subjects.items()} == {"dog": 4, "cat": 4}
    for name, one in subjects.items():
        assert one["right"]["value"] == one["nearest"][name] / 4
        assert (name in found["nearest"]["bleeding"]) == (one["verdict"] == "bleeds")
    assert set(found["drift"]) == {"dog", "cat"}
    assert found["drift"]["dog"]["same_seed"] > found["drift"]["dog"]["other_seeds"]
    with Image.open(folder / "matrix.png") as chart:
        assert chart.size[0] > 200
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.count("<img") >= 1 + 2 + 8 + 64
    assert "photos of dog" in page


OWN_PROMPTS = """a {dog} in the snow
a zwx cat at night
a {dog} next to a {cat}
a {identifier} {class} in space
"""


def test_own_prompts_are_scored_for_the_subjects_that_they_name(run: Run, project: Path) -> None:
    (project / "own.txt").write_text(OWN_PROMPTS, encoding="utf-8")
    done = run("eval", "--run", 3, "-n", 1, "--judge", "tiny", "--prompts", "own.txt", "--json")
    assert done.code == 0, done.err
    (found,) = done.document["evaluations"]
    assert {one["name"]: [prompt["prompt"] for prompt in one["prompts"]] for one in found["subjects"]} == {
        "dog": ["a sks dog in the snow", "a sks dog next to a zwx cat", "a sks dog in space"],
        "cat": ["a zwx cat at night", "a sks dog next to a zwx cat", "a zwx cat in space"],
    }
    scored = [prompt["scoring_text"] for one in found["subjects"] for prompt in one["prompts"]]
    assert scored[1] == "a dog next to a cat" and not any("sks" in text or "zwx" in text for text in scored)


def test_a_prompt_of_a_subject_that_the_run_does_not_know_is_refused(run: Run, project: Path) -> None:
    (project / "other.txt").write_text("a {bird} in the snow\n", encoding="utf-8")
    done = run("eval", "--run", 3, "-n", 1, "--judge", "tiny", "--prompts", "other.txt")
    assert done.code == 3 and "{bird}" in done.err and "{dog}, {cat}" in done.err


def test_a_run_of_several_subjects_stands_beside_one_of_a_single_one(run: Run, project: Path) -> None:
    (project / "places.txt").write_text("a {identifier} {class} in space\na {class} like a {identifier}\n", "utf-8")
    words = ("runs", "compare", 1, 3, "-n", 1, "--judge", "tiny", "--prompts", "places.txt", "--json")
    done = run(*words)
    assert done.code == 0, done.err
    page = Path(done.document["comparisons"][0]["report"]).read_text(encoding="utf-8")
    headings = re.findall(r"<h3[^>]*>([^<]*(?:space|like)[^<]*)</h3>", page)
    assert headings == [
        "in space (dog)",
        "a dog like a sks (dog)",
        "in space (cat)",
        "a cat like a zwx (cat)",
    ]


def test_pictures_are_drawn_once(run: Run, project: Path) -> None:
    images = project / "runs" / "0003-dog-cat" / "eval" / "interference" / "images"
    first = run("eval", "--run", 3, "-n", 1, *LOOK).document
    before = {path: path.stat().st_mtime_ns for path in images.iterdir()}
    assert run("eval", "--run", 3, "-n", 1, *LOOK).document == first
    assert {path: path.stat().st_mtime_ns for path in images.iterdir()} == before


def test_one_subject_has_its_class_alone(run: Run, project: Path) -> None:
    done = run("eval", "--run", 1, "-n", 1, *LOOK)
    assert done.code == 0, done.err
    assert (done.document["nearest"], done.document["heat_map"]) == (None, None)
    assert list(done.document["drift"]) == ["dog"]
    assert "PRES before" in Path(done.document["report"]).read_text(encoding="utf-8")


def test_runs_that_draw_together_are_measured_together(run: Run, project: Path) -> None:
    done = run("eval", "--run", 1, "--with", 2, "-n", 1, *LOOK)
    assert done.code == 0, done.err
    assert done.document["drawn_with"] == "0001-dog + 0002-cat"
    assert done.document["matrix"]["columns"] == ["dog", "cat"]
    assert Path(done.document["file"]).parent.name == "interference-with-2"


def test_runs_whose_words_collide_are_measured_for_that(
    run: Run, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copytree(project, tmp_path / "p"))
    monkeypatch.chdir(copy)
    record = copy / "runs" / "0002-cat" / "run.json"
    record.write_text(record.read_text(encoding="utf-8").replace('"zwx"', '"sks"'), encoding="utf-8")
    done = run("eval", "--run", 1, "--with", 2, "-n", 1, *LOOK)
    assert done.code == 0, done.err
    assert "'sks'" in done.err


@pytest.mark.parametrize(
    ("words", "code"),
    [(["--with", 2], 2), (["--with", 2, "--interference"], 2), (["--run", "base", "--interference"], 3)],
)
def test_what_cannot_be_measured_is_said(run: Run, project: Path, words: list[object], code: int) -> None:
    assert run("eval", *words).code == code


def test_runs_show_warns_of_a_subject_that_bleeds(run: Run, project: Path) -> None:
    folder = project / "runs" / "0002-cat" / "eval" / "interference"
    folder.mkdir(parents=True)
    one = {"right": {"value": 0.25}, "pictures": 16, "nearest": {"cat": 4, "dog": 11, "rex": 1}}
    file = folder / "interference.json"
    file.write_text(
        json.dumps({"nearest": {"bleeding": ["cat"], "subjects": {"cat": one}, "least_share": 0.9}}), encoding="utf-8"
    )
    shown = run("runs", "show", 2)
    assert "cat bleeds: 25% of its 16 images" in shown.err
    assert "those of dog" in shown.err
    assert len(run("runs", "show", 2, "--json").document["bleeding"]) == 1
    file.write_text("[]", encoding="utf-8")
    assert "bleeds" not in run("runs", "show", 2).err


def test_options_of_scores_alone_are_refused_with_it(run: Run, project: Path) -> None:
    done = run("eval", "--run", 3, *LOOK, "--faces", "--grid", "--checkpoint", 2)
    assert done.code == 2
    assert "asks DINO alone: --faces, --checkpoint, --grid would do nothing" in done.err
