"""`train --method textual-inversion` and everything that a finished run can do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open
from safetensors.torch import load_file

from dbcli.diffusion.conditioning import embed_prompts
from dbcli.project.files.layout import Layout
from dbcli.project.runs.run_store import load_run
from dbcli.workflows.models.weights import load_model
from dbcli.workflows.progress import Silence
from tests.cli.made_projects import trained_project

Run = Callable[..., Any]
RUN = "0001-dog"
KEPT = ["--set=train.checkpoint_every=1", "--set=train.keep_checkpoints=9", "--set=train.keep_finished=all"]
FAST = ["--set=train.learning_rate=0.05", *KEPT]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of three steps whose word is a piece of others, so that its token is `<q>`."""
    return trained_project(
        tmp_path_factory.mktemp("words"),
        *("--method", "textual-inversion", "--token", "q", "--steps", "3", "--set=inversion.vectors=2", *FAST),
    )


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    shutil.copytree(made, folder)
    monkeypatch.chdir(folder)
    return folder


def test_a_dry_run_says_that_memory_is_not_estimated(run: Run, project: Path) -> None:
    planned = run("train", "--subject", "dog", "--method", "textual-inversion", "--dry-run")
    assert planned.code == 0
    assert "Memory and time: not estimated for textual-inversion." in planned.out
    # Class images have no part in it, whatever is set.
    asked = run("train", "--subject", "dog", "--method", "textual-inversion", "--dry-run", "--set=prior.enabled=true")
    assert asked.code == 0
    assert "class images" not in asked.out.splitlines()[0]


def test_the_word_alone_is_learnt_and_the_record_says_so(run: Run, project: Path) -> None:
    record = run("runs", "show", "1", "--json").document
    assert (record["state"], record["method"], record["profile"]["name"]) == (
        "finished",
        "textual-inversion",
        "textual-inversion",
    )
    assert record["prior"]["line"].startswith("prior OFF")
    assert [path.name for path in sorted((project / "runs" / RUN / "weights").iterdir())] == [
        "dog.safetensors",
        "manifest.json",
    ]
    (vectors,) = load_file(project / "runs" / RUN / "weights" / "dog.safetensors").values()
    assert vectors.shape == (2, 16)
    assert not list(project.glob("reg/*"))


def test_a_prior_that_is_asked_for_is_left_out_and_that_is_told(run: Run, project: Path) -> None:
    done = run("train", "--subject", "dog", "--method", "textual-inversion", "--steps", 1, "--set=prior.enabled=true")
    assert done.code == 0, done.err
    assert "prior OFF: new vectors change nothing" in done.err


def test_a_prompt_that_says_the_word_draws_what_was_learnt(run: Run, project: Path) -> None:
    how = ["-n", 1, "--steps", 2, "--seed", 3, "--json"]
    drawn = {}
    for prompt in ("a {dog}", "a Q dog", "a dog"):
        for which in (RUN, "base"):
            words = prompt.replace("{dog}", "q dog") if which == "base" else prompt
            done = run("generate", words, "--run", which, *how)
            assert done.code == 0, done.err
            drawn[prompt, which] = Path(done.document["images"][0]["path"]).read_bytes()[-4096:]
    assert drawn["a {dog}", RUN] == drawn["a Q dog", RUN] != drawn["a {dog}", "base"]
    assert drawn["a dog", RUN] == drawn["a dog", "base"]


def test_resumed_after_any_step_not_one_bit_differs(run: Run, project: Path) -> None:
    folder = project / "runs" / RUN
    expected = (folder / "weights" / "dog.safetensors").read_bytes()
    for step in (1, 2):
        for later in folder.glob("checkpoints/step-*"):
            if int(later.name[5:]) > step:
                shutil.rmtree(later)
        shutil.rmtree(folder / "weights")
        record = json.loads((folder / "run.json").read_text())
        (folder / "run.json").write_text(json.dumps(record | {"state": "interrupted", "step": step}))
        assert run("train", "--resume", "1").code == 0
        assert (folder / "weights" / "dog.safetensors").read_bytes() == expected


def test_previews_show_the_word_as_it_is_learnt(run: Run, project: Path) -> None:
    sets = ["--set=train.preview_every=1", "--set=draw.steps=1", "--set=train.learning_rate=1"]
    assert run("train", "--subject", "dog", "--method", "textual-inversion", "--steps", 2, *sets).code == 0
    found = sorted((project / "runs" / "0002-dog").glob("previews/*.png"))
    assert [path.name for path in found] == ["step-000001-dog.png", "step-000002-dog.png"]
    assert found[0].read_bytes() != found[1].read_bytes()


def test_an_embedding_is_exported_for_others(run: Run, project: Path) -> None:
    done = run("export", "1", "--to", "embedding", "--precision", "fp32", "--json")
    assert done.code == 0, done.err
    assert done.document["difference"] == 0.0
    assert "<q>" in done.err
    path = Path(done.document["path"]) / "q.safetensors"
    with safe_open(path, "pt") as file:
        assert list(file.keys()) == ["<q>"]
        metadata = file.metadata()
    assert metadata["modelspec.architecture"] == "stable-diffusion-v1/textual-inversion"
    assert metadata["modelspec.trigger_phrase"] == "q dog"
    assert metadata["modelspec.implementation"] == "https://github.com/Stability-AI/generative-models"
    (learnt,) = load_file(project / "runs" / RUN / "weights" / "dog.safetensors").values()
    assert torch.equal(load_file(path)["<q>"], learnt)


def test_a_folder_with_the_word_in_it_draws_the_same_in_plain_diffusers(run: Run, project: Path) -> None:
    done = run("export", "1", "--to", "diffusers", "--precision", "fp32", "--json")
    assert done.code == 0, done.err
    assert done.document["difference"] == 0.0
    pipeline = StableDiffusionPipeline.from_pretrained(done.document["path"], local_files_only=True)
    theirs = pipeline.encode_prompt("a <q> dog", torch.device("cpu"), 1, False)[0]
    layout = Layout(project)
    model = load_model(layout, load_run(layout, RUN), Silence(), offline=True, device="cpu")
    assert torch.equal(theirs, embed_prompts(model, ["a q dog"]).states)


@pytest.mark.parametrize("target", ["checkpoint", "lora", "kohya"])
def test_formats_without_a_place_for_words_are_refused(run: Run, project: Path, target: str) -> None:
    done = run("export", "1", "--to", target)
    assert done.code == 2
    assert "--to embedding" in done.err
    assert not (project / "exports").exists()


def test_more_vectors_than_a_prompt_has_room_for_are_a_fault_of_the_settings(run: Run, project: Path) -> None:
    sets = ["--set=inversion.vectors=75"]
    done = run("train", "--subject", "dog", "--method", "textual-inversion", "--steps", 1, *sets)
    assert done.code == 2
    assert "inversion.vectors is 75" in done.err


def test_the_run_is_scored_like_any_other(run: Run, project: Path) -> None:
    done = run("eval", "--prompts", _prompts(project), "-n", 1, "--judge", "tiny", "--json")
    assert done.code == 0, done.err
    (scores,) = (json.loads(path.read_text()) for path in project.glob("runs/*/eval/*/scores.json"))
    assert scores["overall"]["dino"]["value"] is not None


def _prompts(project: Path) -> Path:
    path = project / "mine.txt"
    path.write_text("a {dog} on a sofa\n", encoding="utf-8")
    return path


def test_two_subjects_learn_a_word_each(run: Run, project: Path) -> None:
    photos = project / "subjects" / "dog" / "photos"
    assert run("add-subject", "cat", "--class", "cat", photos, "--token", "ohwx").code == 0
    words = ["--subject", "dog", "--subject", "cat", "--method", "textual-inversion", "--steps", 4, *FAST]
    assert run("train", *words).code == 0
    learnt = {
        name: next(iter(load_file(project / "runs" / "0002-dog-cat" / "weights" / f"{name}.safetensors").items()))
        for name in ("dog", "cat")
    }
    assert {key for key, _ in learnt.values()} == {"<q>", "ohwx"}
    assert not torch.equal(learnt["dog"][1], learnt["cat"][1])
    done = run("generate", "a {dog} and a {cat}", "-n", 1, "--steps", 1, "--json")
    assert done.code == 0, done.err
    made = Path(run("export", "2", "--to", "embedding", "--json").document["path"])
    assert sorted(path.name for path in made.iterdir()) == ["ohwx.safetensors", "q.safetensors"]
