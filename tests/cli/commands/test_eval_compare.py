"""Runs side by side, and evaluations by a dataset's prompts, without backgrounds and at a checkpoint."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dbcli.project.files.layout import Layout
from dbcli.project.runs.score_files import run_scores
from tests.cli.made_projects import TRAIN, command, trained_project
from tests.metrics.annotator_makers import write_clipseg

Run = Callable[..., Any]
SCORE = ("--judge", "tiny", "-n", 1)
LIST = """Classes
subject_name,class
dog,dog
gone,cat
Prompts
Object Prompts
prompt_list = [
'a {0} {1} in a jar'.format(unique_token, class_token),
]
Live Subject Prompts
prompt_list = [
'a {0} {1} with a hat'.format(unique_token, class_token),
]
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = trained_project(tmp_path_factory.mktemp("compared"), "--method", "lora", "--set=train.checkpoint_every=1")
    command("-C", folder, "train", "--subject", "dog", *TRAIN, "--method", "lora", "--seed", 1, "--quiet")
    (folder / "prompts.txt").write_text("a {identifier} {class}\na {identifier} {class} in space\n")
    return folder


@pytest.fixture
def project(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    return made


def test_two_runs_are_drawn_with_the_same_seeds_scored_and_set_against_each_other(run: Run, project: Path) -> None:
    done = run("runs", "compare", 1, 2, "--prompts", "prompts.txt", *SCORE, "--json")
    assert done.code == 0, done.err
    found = done.document["comparisons"][0]
    assert [one["run"] for one in found["runs"]] == ["0001-dog", "0002-dog"]
    assert [one["scores"]["seed"] for one in found["runs"]] == [0, 0]
    difference = found["differences"][0]
    values = [one["scores"]["overall"]["dino"]["value"] for one in found["runs"]]
    assert difference["scores"]["dino"]["value"] == pytest.approx(values[1] - values[0])
    assert found["settings"]["train.seed"] == {"0001-dog": "0", "0002-dog": "1"}
    assert Image.open(found["grid"]).height > 3 * 128
    assert "<script" not in Path(found["report"]).read_text()


def test_what_is_drawn_is_not_drawn_again_and_older_scores_stay(run: Run, project: Path) -> None:
    words = ("runs", "compare", 1, 2, "--prompts", "prompts.txt", *SCORE, "--json")
    run(*words)
    images = sorted(project.glob("runs/*/eval/prompts/images/*.png"))
    before = [(path, path.stat().st_mtime_ns) for path in images]
    assert run("eval", "--run", 2, "--prompts", "prompts.txt", *SCORE, "--seed", 0).code == 0
    scores = (project / "runs" / "0002-dog" / "eval" / "prompts" / "scores.json").read_bytes()
    assert run(*words).code == 0
    assert [
        (path, path.stat().st_mtime_ns) for path in sorted(project.glob("runs/*/eval/prompts/images/*.png"))
    ] == before
    assert (project / "runs" / "0002-dog" / "eval" / "prompts" / "scores.json").read_bytes() == scores


@pytest.mark.parametrize("runs", [(1,), (1, 1), (1, "base")])
def test_a_comparison_takes_different_runs(run: Run, project: Path, runs: tuple[object, ...]) -> None:
    done = run("runs", "compare", *runs, *SCORE)
    assert done.code == 2
    assert "runs compare 1 2" in done.err


def test_no_comparison_is_proposed_where_there_is_one_run(
    run: Run, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copytree(project, tmp_path / "p"))
    monkeypatch.chdir(copy)
    for other in sorted((copy / "runs").glob("*-*"))[1:]:
        shutil.rmtree(other)
    done = run("runs", "compare", 1, *SCORE)
    assert done.code == 2 and "runs list" in done.err and "compare 1 2" not in done.err


def test_images_are_not_compared_with_photos_that_were_changed(
    run: Run, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copytree(project, tmp_path / "p"))
    monkeypatch.chdir(copy)
    photo = next((copy / "subjects" / "dog" / "photos").glob("*.png"))
    Image.new("RGB", (40, 40), "red").save(photo)
    before = sorted(copy.rglob("*.png"))
    for words in (("eval", "--run", 1), ("runs", "compare", 1, 2), ("eval", "--run", 1, "--interference")):
        refused = run(*words, *SCORE)
        assert refused.code == 3 and "is not the photo that was added" in refused.err, refused.err
    photo.unlink()
    refused = run("eval", "--run", 1, *SCORE)
    assert refused.code == 3 and f"{photo.name} is missing" in refused.err, refused.err
    assert sorted(copy.rglob("*.png")) == [one for one in before if one != photo]
    drawn = run("generate", "a {dog}", "--run", 1, "-n", 1, "--steps", 1, "--grid", "--json")
    assert drawn.code == 0, drawn.err


def test_a_run_is_not_compared_with_the_photos_of_another_subject_of_that_name(
    run: Run, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copytree(project, tmp_path / "p"))
    monkeypatch.chdir(copy)
    assert run("subjects", "remove", "dog", "--yes").code == 0
    Image.new("RGB", (300, 300), "red").save(tmp_path / "other.png")
    words = ("--class", "dog", "--token", "sks", "--no-caption", "--no-mask", "--quiet")
    assert run("add-subject", "dog", tmp_path / "other.png", *words).code == 0
    done = run("eval", "--run", 1, "--prompts", copy / "prompts.txt", *SCORE, "--json")
    assert done.code == 0, done.err
    assert "'dog' has other photos now than those that 0001-dog learnt" in done.err
    assert [one["photos"] for one in done.document["evaluations"][0]["subjects"]] == [0]


def test_a_datasets_prompts_are_those_of_the_subjects_kind_and_missing_subjects_are_named(
    run: Run, project: Path
) -> None:
    folder = project / "dataset"
    (folder / "dog").mkdir(parents=True, exist_ok=True)
    (folder / "prompts_and_classes.txt").write_text(LIST)
    Image.new("RGB", (8, 8)).save(folder / "dog" / "00.jpg")
    done = run("eval", "--run", 1, "--dataset", folder, *SCORE, "--json")
    assert done.code == 0, done.err
    found = done.document["evaluations"]
    assert [one["suite"] for one in found] == ["dreambench"]
    assert [prompt["prompt"] for prompt in found[0]["subjects"][0]["prompts"]] == ["a sks dog with a hat"]
    assert "gone" in done.err
    assert run("eval", "--dataset", project, *SCORE).code == 3


def test_masked_scores_need_clipseg_or_masks_and_say_which_they_had(
    run: Run, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Path(shutil.copytree(project, tmp_path / "copy"))
    monkeypatch.chdir(project)
    words = ("eval", "--run", 1, "--prompts", "prompts.txt", *SCORE, "--masked", "--offline", "--json")
    refused = run(*words)
    assert refused.code == 4
    assert "masks/0001.png" in refused.err
    masks = project / "subjects" / "dog" / "masks"
    masks.mkdir()
    for photo in (project / "subjects" / "dog" / "photos").glob("*.png"):
        with Image.open(photo) as image:
            mask = Image.new("L", image.size, 0)
        mask.paste(255, (0, 0, mask.width // 2, mask.height))
        mask.save(masks / photo.name)
    by_hand = run(*words)
    assert by_hand.code == 0, by_hand.err
    assert by_hand.document["evaluations"][0]["protocol"]["masked"].startswith("photos only")
    settings = project / "dreambooth.yaml"
    before = settings.read_text()
    settings.write_text(before + f"judges: {{mask: {write_clipseg(tmp_path / 'clipseg')}}}\n")
    by_model = run(*words)
    settings.write_text(before)
    assert by_model.code == 0, by_model.err
    assert by_model.document["evaluations"][0]["protocol"]["masked"].startswith("clipseg-")
    assert Path(by_model.document["evaluations"][0]["scores_file"]).parent.name == "prompts-masked"


def test_a_checkpoint_is_scored_beside_the_result_not_over_it(run: Run, project: Path) -> None:
    done = run("eval", "--run", 1, "--prompts", "prompts.txt", *SCORE, "--checkpoint", 1, "--json")
    assert done.code == 0, done.err
    found = done.document["evaluations"][0]
    assert found["checkpoint"] == 1
    assert Path(found["scores_file"]).parent.name == "prompts-step-1"
    missing = run("eval", "--run", 1, *SCORE, "--checkpoint", 77)
    assert missing.code == 4
    assert "available: 1, 2" in missing.err


def test_scores_by_texts_with_the_identifier_lie_beside_the_others_and_are_not_set_beside_them(
    run: Run, project: Path
) -> None:
    words = ("eval", "--run", 1, "--prompts", "prompts.txt", *SCORE, "--json")
    usual = run(*words).document["evaluations"][0]
    kept = run(*words, "--keep-identifier").document["evaluations"][0]
    assert Path(kept["scores_file"]).parent.name == "prompts-with-identifier"
    assert not kept["protocol"]["identifier_removed_from_scoring_text"]
    assert Path(usual["scores_file"]).is_file() and not Path(kept["scores_file"]).with_name("images").exists()
    is_whole = {one.suite: one.is_whole for one in run_scores(Layout(project), ["0001-dog"])[0]}
    assert is_whole["prompts"] and not is_whole["prompts-with-identifier"]


def test_a_suite_named_twice_is_scored_once_and_two_of_one_name_are_refused(run: Run, project: Path) -> None:
    twice = run("runs", "compare", 1, 2, "--suite", "quick", "--suite", "quick", *SCORE, "--json")
    assert twice.code == 0, twice.err
    assert [len(one["runs"]) for one in twice.document["comparisons"]] == [2]
    (project / "quick.txt").write_text("a {identifier} {class} in a jar\n", encoding="utf-8")
    for words in (("runs", "compare", 1, 2), ("eval",)):
        refused = run(*words, "--suite", "quick", "--prompts", "quick.txt", *SCORE)
        assert refused.code == 2
        assert "Two suites are named 'quick'" in refused.err
