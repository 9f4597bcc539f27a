"""The main job, command by command, on a small random base."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from dbcli.project.images.recipes import read_recipe

FAST = ["--set=prior.images=2", "--set=prior.steps=2", "--set=draw.steps=2", "--set=draw.count=2"]
Run = Callable[..., Any]


def trained(run: Run, *words: str) -> Any:
    done = run("train", "--subject", "dog", "--token", "sks", "--steps", 2, *FAST, "--json", *words)
    assert done.code == 0, done.err
    return done.document


def test_train_makes_a_finished_run_with_weights_and_a_line_a_step(run: Run, project: Path) -> None:
    record = trained(run)
    folder = project / "runs" / "0001-dog"
    assert record["state"] == "finished"
    assert record["subjects"][0]["identifier"] == "sks"
    assert record["prior"]["line"].startswith("prior ON (2/2, reg/dog-")
    assert (folder / "weights" / "model_index.json").is_file()
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    steps = [event for event in events if "loss" in event]
    assert [event["step"] for event in steps] == [1, 2]
    assert {"loss", "subject_loss", "prior_loss", "lr", "seconds"} <= steps[0].keys()


def test_the_identifier_belongs_to_the_subject_from_then_on(run: Run, project: Path) -> None:
    trained(run)
    again = run("train", "--subject", "dog", "--steps", 1, *FAST, "--json")
    assert again.document["subjects"][0]["identifier"] == "sks"


def test_captions_beside_photos_are_what_those_photos_are_trained_with(run: Run, project: Path) -> None:
    record = (project / "subjects" / "dog" / "subject.yaml").read_text()
    assert "a photo of a sks dog on a sofa" in record


def test_class_images_are_drawn_once_and_topped_up_without_redrawing(run: Run, project: Path) -> None:
    assert run("reg", "make", "--class", "dog", "-n", 2, "--set=prior.steps=2").code == 0
    folder = next((project / "reg").glob("dog-*"))
    first = {path.name: path.read_bytes() for path in folder.glob("*.png")}
    made = run("reg", "make", "--class", "dog", "-n", 4, "--set=prior.steps=2", "--json").document
    assert len(made["images"]) == 4
    assert {name: (folder / name).read_bytes() for name in first} == first


def test_another_prompt_makes_another_prior_set(run: Run, project: Path) -> None:
    for template in ("a photo of a {class}", "a drawing of a {class}"):
        run("reg", "make", "--class", "dog", "-n", 1, "--set=prior.steps=1", f"--set=prior.template={template}")
    listed = run("reg", "list", "--json").document["sets"]
    assert sorted(one["prompt"] for one in listed) == ["a drawing of a dog", "a photo of a dog"]


def test_own_class_photos_can_be_given_instead(run: Run, project: Path, photos: Path) -> None:
    record = trained(run, f"--set=prior.folder={photos}")
    assert "own photos" in record["prior"]["line"]
    assert record["prior"]["sets"][0]["images"] == 3


def test_without_a_prior_the_run_says_so(run: Run, project: Path) -> None:
    record = trained(run, "--set=prior.enabled=false")
    assert record["prior"]["line"] == "prior OFF"
    assert not list((project / "reg").glob("dog-*"))


def test_generate_draws_with_the_newest_run_and_every_png_can_be_drawn_again(run: Run, project: Path) -> None:
    trained(run)
    drawn = run("generate", "a {dog} in space", "-n", 2, "--seed", 5, "--grid", "--json").document
    first = drawn["images"][1]
    assert first["prompt"] == "a sks dog in space"
    assert first["seed"] == 6
    with Image.open(first["path"]) as image:
        assert image.size == (64, 64)
        assert image.text["parameters"].startswith("a sks dog in space\nSteps: 2, Sampler: DDIM")
        recipe = json.loads(image.text["dreambooth"])
    again = run("generate", "a {dog} in space", "-n", 2, "--seed", 5, "--out", project / "again", "--json").document
    assert Path(again["images"][1]["path"]).read_bytes() == Path(first["path"]).read_bytes()
    alone = run("generate", recipe["prompt"], "-n", 1, "--seed", recipe["seed"], "--out", project / "alone", "--json")
    # Alone in its batch a picture may differ in the last bit of the arithmetic, by one level of 256 at most.
    pairs = zip(
        Image.open(alone.document["images"][0]["path"]).tobytes(), Image.open(first["path"]).tobytes(), strict=True
    )
    assert max(abs(one - other) for one, other in pairs) <= 1
    assert Image.open(drawn["grid"]).width > 64


def test_no_file_is_named_by_its_prompt(run: Run, project: Path) -> None:
    trained(run)
    drawn = run("generate", "../../escape; rm -rf $HOME", "-n", 1, "--json").document
    path = Path(drawn["images"][0]["path"])
    assert path.parent == project / "runs" / "0001-dog" / "images"
    assert set(path.stem) <= set("0123456789abcdef-")


def test_the_bare_base_can_be_drawn_for_comparison(run: Run, project: Path) -> None:
    drawn = run("generate", "a dog", "-n", 1, "--run", "base", "--steps", 1, "--json")
    assert drawn.document["run"] is None


def test_a_lora_run_keeps_only_its_adapter_and_draws(run: Run, project: Path) -> None:
    record = trained(run, "--method", "lora")
    assert record["method"] == "lora"
    weights = project / "runs" / "0001-dog" / "weights"
    assert sorted(path.name for path in weights.iterdir()) == ["manifest.json", "pytorch_lora_weights.safetensors"]
    names = load_file(weights / "pytorch_lora_weights.safetensors")
    assert any("lora_B" in name and bool(tensor.any()) for name, tensor in names.items())
    assert run("generate", "a {dog}", "-n", 1, "--json").code == 0


def test_a_full_run_draws_with_the_weights_it_trained(run: Run, project: Path) -> None:
    trained(run, "--set=train.learning_rate=0.01")
    tuned = run("generate", "a {dog}", "-n", 1, "--out", "one", "--json").document["images"][0]["path"]
    bare = run(
        "generate", "a sks dog", "-n", 1, "--run", "base", "--steps", 2, "--guidance", 10, "--out", "two", "--json"
    )
    assert Image.open(tuned).tobytes() != Image.open(bare.document["images"][0]["path"]).tobytes()


def test_previews_are_drawn_on_the_way_and_change_no_weight(run: Run, project: Path) -> None:
    trained(run)
    trained(run, "--set=train.preview_every=1")
    previews = sorted(path.name for path in (project / "runs" / "0002-dog" / "previews").iterdir())
    assert previews == ["step-000001-dog.png", "step-000002-dog.png"]
    recipes = [read_recipe(project / "runs" / "0002-dog" / "previews" / name) for name in previews]
    assert [recipe and recipe.extras["checkpoint"] for recipe in recipes] == [1, 2]
    one, two = (
        load_file(project / "runs" / name / "weights" / "unet" / "diffusion_pytorch_model.safetensors")
        for name in ("0001-dog", "0002-dog")
    )
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_runs_are_listed_shown_and_removed(run: Run, project: Path) -> None:
    trained(run)
    assert [one["name"] for one in run("runs", "list", "--json").document["runs"]] == ["0001-dog"]
    assert run("runs", "show", "1", "--json").document["name"] == "0001-dog"
    asked = run("runs", "rm", "1")
    assert asked.code == 6 and "dreambooth runs rm 1 --yes\n" in asked.err
    assert run("runs", "rm", "1", "--yes").code == 0
    assert not (project / "runs" / "0001-dog").exists()


def test_a_dry_run_shows_the_settings_and_trains_nothing(run: Run, project: Path) -> None:
    shown = run("train", "--subject", "dog", "--token", "sks", "--set", "train.steps=7", "--dry-run", "--json").document
    assert shown["settings"]["train"]["steps"] == 7
    assert not list((project / "runs").glob("0*"))


@pytest.mark.parametrize("more", [["--dry-run"], ["--set", "images.held_out=9"]])
def test_a_run_that_is_not_made_gives_its_subject_no_identifier(run: Run, project: Path, more: list[str]) -> None:
    record = project / "subjects" / "dog" / "subject.yaml"
    before = record.read_bytes()
    planned = run("train", "--subject", "dog", "--token", "zwx", *more)
    assert (planned.code == 0) == (more == ["--dry-run"]), planned.err
    assert record.read_bytes() == before


def test_two_subjects_change_words_for_one_run(run: Run, project: Path) -> None:
    photos = next((project / "subjects" / "dog").glob("photos/*.png"))
    assert run("add-subject", "cat", photos, "--class", "cat", "--token", "mwf", "--no-caption").code == 0
    assert run("subjects", "set", "dog", "--token", "sks").code == 0
    words = ("train", "--subject", "dog,cat", "--token", "dog=mwf", "--token", "cat=sks", "--steps", 1, *FAST)
    assert run(*words, "--dry-run").code == 0
    assert run("train", "--subject", "dog", "--token", "mwf", "--dry-run").code == 6
    assert run(*words).code == 0
    listed = {one["name"]: one["identifier"] for one in run("subjects", "list", "--json").document["subjects"]}
    assert listed == {"dog": "mwf", "cat": "sks"}


def test_a_flag_wins_over_set_and_set_over_the_project_file(run: Run, project: Path) -> None:
    settings = project / "dreambooth.yaml"
    settings.write_text(settings.read_text() + "overrides: {train: {steps: 3, seed: 4, batch_size: 5}}\n")
    words = ["--set", "train.steps=6", "--set", "train.seed=7", "--steps", 9, "--dry-run", "--json"]
    train = run("train", "--subject", "dog", "--token", "sks", *words).document["settings"]["train"]
    assert (train["steps"], train["seed"], train["batch_size"]) == (9, 7, 5)
