"""Sweeps and benchmarks as a person types them, on the smallest base."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dbcli.reports.sweep_page import sweep_markdown, sweep_page
from tests.cli.made_projects import command
from tests.project import photo_makers
from tests.reliability.small_base import write_small_base

Run = Callable[..., Any]
FAST = "{train: {steps: 1}, prior: {enabled: false}, draw: {steps: 1}}"
SHARED = f"settings: {FAST}\njudge: tiny\npictures: {{prompts: ['a {{identifier}} {{class}} at night'], count: 1}}\n"


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a dog, whose word is sks, and a cat without a word."""
    project = tmp_path / "myproj"
    command("init", project, "--base", write_small_base(tmp_path / "base"), "--quiet")
    for number, name in enumerate(("dog", "cat")):
        folder = tmp_path / name
        for index in range(2):
            photo_makers.save(folder / f"{index}.png", photo_makers.plain((40 + 90 * number, 90 * index, 50)))
    command("-C", project, "add-subject", "dog", "--class", "dog", "--token", "sks", tmp_path / "dog", "--quiet")
    command("-C", project, "add-subject", "cat", "--class", "cat", tmp_path / "cat", "--quiet")
    monkeypatch.chdir(project)
    return project


def sweep_file(project: Path, text: str) -> str:
    (project / "sweep.yaml").write_text(f"name: study\n{SHARED}{text}", encoding="utf-8")
    return "sweep.yaml"


def everything(project: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(project.rglob("*")) if path.is_file()}


def test_a_dry_run_lists_the_cells_and_writes_nothing(run: Run, two: Path) -> None:
    file = sweep_file(two, "grid: {subject: [dog, cat], train.learning_rate: [1e-4, 2e-4]}\n")
    before = everything(two)
    done = run("sweep", file, "--dry-run", "--json")
    assert done.code == 0, done.err
    cells = done.document["cells"]
    assert [cell["state"] for cell in cells] == ["to do"] * 4
    assert len({cell["key"] for cell in cells}) == 4
    assert cells[0]["runs"][0]["subjects"] == {"dog": "sks"}
    assert cells[0]["runs"][0]["steps"] == 1
    assert everything(two) == before


def test_a_sweep_whose_name_differs_from_anothers_in_case_alone_is_refused(run: Run, two: Path) -> None:
    (two / "sweeps" / "Study").mkdir(parents=True)
    refused = run("sweep", sweep_file(two, "grid: {subject: [dog]}\n"), "--dry-run")
    assert refused.code == 6
    assert "The sweep 'Study' already exists, and 'study' differs from it only in case" in refused.err


def test_a_cell_that_fails_is_recorded_and_the_others_end_and_only_it_is_tried_again(run: Run, two: Path) -> None:
    file = sweep_file(two, "grid: {subject: [dog, cat], train.learning_rate: [1e-4]}\n")
    photo = next((two / "subjects" / "dog" / "photos").glob("*.png"))
    whole = photo.read_bytes()
    photo.write_bytes(b"no picture")
    done = run("sweep", file, "--json")
    assert done.code == 3
    states = {cell["values"]["subject"]: (cell["state"], cell["error"]) for cell in done.document["cells"]}
    assert states["cat"] == ("finished", None)
    assert states["dog"][0] == "failed"
    assert "is not the photo that was added" in states["dog"][1]
    assert "Failed: dog" in (two / "sweeps" / "study" / "table.md").read_text(encoding="utf-8")

    photo.write_bytes(whole)
    cat = everything(two / "runs" / "0002-cat")
    again = run("sweep", file, "--json")
    assert again.code == 0, again.err
    assert [cell["state"] for cell in again.document["cells"]] == ["finished", "finished"]
    assert everything(two / "runs" / "0002-cat") == cat
    assert len(list((two / "runs").glob("*/run.json"))) == 2

    scores = json.loads((two / "sweeps" / "study" / "scores.json").read_text(encoding="utf-8"))
    assert scores["rows"][0]["label"] == "learning rate 0.0001"
    assert [subject["name"] for subject in scores["rows"][0]["scores"]["subjects"]] == ["dog", "cat"]
    page = (two / "sweeps" / "study" / "report.html").read_text(encoding="utf-8")
    assert "photos of dog" in page
    assert "<script" not in page
    assert (two / "sweeps" / "study" / "grid.png").stat().st_size > 0


def test_a_word_of_the_sweep_is_checked_in_every_cell_and_leaves_the_subject_as_it_is(run: Run, two: Path) -> None:
    shared = "runs: [{subject: dog, identifier: wbo}, {subject: cat, identifier: wbo}]\n"
    refused = run("sweep", sweep_file(two, shared))
    assert refused.code == 6
    assert "the word 'wbo' of cat" in refused.err
    allowed = run("sweep", sweep_file(two, shared + "allow_collision: true\n"))
    assert allowed.code == 0, allowed.err
    record = json.loads((two / "runs" / "0002-cat" / "run.json").read_text(encoding="utf-8"))
    assert record["subjects"][0]["identifier"] == "wbo"
    assert record["allow_collision"] is True
    assert "sks" in (two / "subjects" / "dog" / "subject.yaml").read_text(encoding="utf-8")


def test_faults_of_all_cells_come_together(run: Run, two: Path) -> None:
    done = run("sweep", sweep_file(two, "grid: {subject: [dog, horse], train.steps: [-1, 1]}\n"))
    assert done.code == 2
    assert "there is no subject 'horse'" in done.err
    assert "train.steps" in done.err


def test_without_a_judge_pictures_are_drawn_and_nothing_is_scored(run: Run, two: Path) -> None:
    file = sweep_file(two, "subject: dog\n")
    text = (two / file).read_text(encoding="utf-8").replace("judge: tiny", "judge: none")
    (two / file).write_text(text, encoding="utf-8")
    done = run("sweep", file, "--json")
    assert done.code == 0, done.err
    assert done.document["cells"][0]["overall"] is None
    assert len(list((two / "runs" / "0001-dog" / "images").glob("*.png"))) == 1
    assert Path(done.document["files"]["grid"]).is_file()


def test_a_benchmark_gives_each_subject_a_word_and_stands_beside_published_rows_by_the_papers_judges_alone(
    run: Run, two: Path
) -> None:
    sets = ["--set=prior.enabled=false", "--set=draw.steps=1"]
    done = run("bench", "--method", "lora", "--steps", 1, "--judge", "tiny", "-n", 1, *sets)
    assert done.code == 0, done.err
    assert "DreamBooth, Stable Diffusion" not in done.out
    assert "cat has the identifier" in done.err
    folder = two / "sweeps" / "bench-lora"
    table = (folder / "table.md").read_text(encoding="utf-8")
    assert "lora, profile lora" in table
    assert "identified" in table
    assert "0.668" not in table and "What differs" not in table and "CVPR 2023" not in table
    scores = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    scores["pictures"]["judge"] = "paper"
    for text in (sweep_markdown(scores), sweep_page(scores, galleries=[])):
        assert "DreamBooth, Stable Diffusion" in text
        assert "0.668" in text and "0.803" in text and "0.305" in text
        assert "What differs" in text
        assert "CVPR 2023" in text


def test_a_dataset_brings_the_subjects_that_are_asked_for(run: Run, two: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    photo_makers.save(data / "vase" / "1.png", photo_makers.plain((10, 20, 200)))
    (data / "prompts_and_classes.txt").write_text(
        "subject_name,class\nvase,vase\nclock,clock\n\nPrompts\n\n"
        "Object Prompts\nprompt_list = [\n'a {0} {1} in the snow'.format(unique_token, class_token),\n]\n\n"
        "Live Subject Prompts\nprompt_list = [\n'a {0} {1} in the jungle'.format(unique_token, class_token),\n]\n",
        encoding="utf-8",
    )
    sets = ["--set=prior.enabled=false", "--set=draw.steps=1", "--method", "lora", "--steps", 1, "--judge", "tiny"]
    done = run("bench", "--dataset", data, "-n", 1, "--name", "data", *sets, "--json")
    assert done.code == 0, done.err
    assert "clock" in done.err
    assert [cell["values"]["subject"] for cell in done.document["cells"]] == ["vase"]
    assert done.document["pictures"]["suites"] == ["dreambench"]
    assert (two / "subjects" / "vase" / "subject.yaml").is_file()


def test_an_engine_that_is_not_there_says_what_to_install_or_type(run: Run, two: Path) -> None:
    file = sweep_file(two, "subject: dog\n")
    assert run("sweep", file, "--engine", "slurm").code == 2
    assert run("sweep", file, "--address", "auto").code == 2


def test_a_sequence_continues_its_runs_shares_what_is_the_same_and_tells_how_far_subjects_stay_apart(
    run: Run, two: Path
) -> None:
    text = """
interference: true
grid:
  arrangement:
    forgetting:
      runs: [{subject: dog, identifier: olis}, {subject: cat, identifier: nlwx, from: previous, rehearsal: false}]
    rehearsed:
      runs: [{subject: dog, identifier: olis}, {subject: cat, identifier: nlwx, from: previous}]
"""
    done = run("sweep", sweep_file(two, text), "--json")
    assert done.code == 0, done.err
    first, forgetting, rehearsed = (
        json.loads(path.read_text(encoding="utf-8")) for path in sorted((two / "runs").glob("*/run.json"))
    )
    assert [cell["runs"] for cell in done.document["cells"]] == [
        [first["name"], forgetting["name"]],
        [first["name"], rehearsed["name"]],
    ]
    assert forgetting["parent"] == rehearsed["parent"] == first["name"]
    assert {one["name"]: one["identifier"] for one in rehearsed["subjects"]} == {"cat": "nlwx", "dog": "olis"}
    assert forgetting["profile"]["train"]["rehearsal_share"] == 0
    assert rehearsed["profile"]["train"]["rehearsal_share"] > 0
    assert all(0 <= row["nearest_right"]["value"] <= 1 for row in done.document["rows"])
    assert "right ↑" in (two / "sweeps" / "study" / "table.md").read_text(encoding="utf-8")


def test_rows_are_compared_with_the_one_that_the_file_names(run: Run, two: Path) -> None:
    grid = "grid: {recipe: {today: {}, fast: {train.learning_rate: 0.01}}, subject: [dog, cat]}\n"
    done = run("sweep", sweep_file(two, f"against: today\n{grid}"), "--json")
    assert done.code == 0, done.err
    today, fast = (row["scores"]["overall"]["dino"]["value"] for row in done.document["rows"])
    assert done.document["against"] == "today"
    (compared,) = done.document["differences"]
    assert compared["label"] == "fast"
    assert compared["differences"]["dino"]["pairs"] == 2
    assert compared["differences"]["dino"]["value"] == pytest.approx(fast - today, abs=1e-9)
    # The class is drawn by each run; the photos are the same.
    assert (two / "sweeps" / "study" / "table.md").read_text("utf-8").count("| real images") == 1
    for name in ("table.md", "report.html"):
        assert "Differences from today, paired by subject" in (two / "sweeps" / "study" / name).read_text("utf-8")
    refused = run("sweep", sweep_file(two, f"against: yesterday\n{grid}"))
    assert refused.code == 2
    assert "against: 'yesterday' is no point of the grid; it has today, fast" in refused.err


def test_subjects_named_with_the_command_are_no_rows_to_be_compared(run: Run, two: Path) -> None:
    grid = "grid: {recipe: {today: {}, fast: {train.learning_rate: 0.01}}, train.seed: [1]}\n"
    file = sweep_file(two, f"subject: cat\nagainst: today\naverage_over: [train.seed]\n{grid}")
    # Those of today alone cannot be trained, so nothing can be compared with it.
    text = (two / file).read_text("utf-8").replace("today: {}", "today: {prior.enabled: true, prior.folder: nowhere}")
    (two / file).write_text(text, encoding="utf-8")
    done = run("sweep", file, "--subject", "dog", "--json")
    assert done.code != 0 and [cell["state"] for cell in done.document["cells"]] == ["failed", "finished"], done.err
    assert done.document["differences"] == [{"label": "fast", "differences": {}}]
    for name in ("table.md", "report.html"):
        told = (two / "sweeps" / "study" / name).read_text("utf-8")
        assert "Nothing can be compared with today" in told and "Differences from" not in told
