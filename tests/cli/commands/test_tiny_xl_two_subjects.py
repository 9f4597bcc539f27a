"""Two subjects on a trained base of two text encoders stay apart: their words, their vectors and their images."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from dbcli.project.runs.checkpoints import LORA_FILE
from tests.cli.commands.test_tiny_xl import SHORT, TEXT, begun
from tests.cli.made_projects import command
from tests.project import photo_makers

Run = Callable[..., Any]
HOW = ("--steps", 3, *SHORT[2:], "--set=images.scene_cutouts=0", "--set=draw.steps=1")
# The vectors have to be elsewhere after three steps, and the tables around them where they were.
WORD = ("--method", "textual-inversion", "--set=train.learning_rate=1e-2")
BOTH, OF_DOG, OF_CAT = "0001-dog-cat", "0002-dog", "0003-cat"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run 1 is a LoRA of both subjects in UNet and both text encoders; 2 and 3 are words, one of each subject."""
    folder = tmp_path_factory.mktemp("two")
    project = begun(folder)
    photo = photo_makers.save(folder / "cat.png", photo_makers.plain((200, 20, 50)))
    command(
        *("-C", project, "add-subject", "cat", "--class", "cat", "--token", "zwx", photo),
        *("--no-caption", "--no-mask", "--quiet"),
    )
    command("-C", project, "train", "--subject", "dog", "--subject", "cat", "--method", "lora", *HOW, *TEXT)
    for name in ("dog", "cat"):
        command("-C", project, "train", "--subject", name, *WORD, *HOW)
    return project


@pytest.fixture
def project(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    return made


def pixels(run: Run, prompt: str, which: str) -> bytes:
    how = ("-n", 1, "--steps", 2, "--guidance", 3, "--seed", 5, "--json")
    done = run("generate", prompt, "--run", which, *how)
    assert done.code == 0, done.err
    with Image.open(done.document["images"][0]["path"]) as image:
        return image.tobytes()


def test_a_run_of_one_subject_draws_the_prompt_of_the_other_byte_for_byte_like_the_base(
    run: Run, project: Path
) -> None:
    for name, other, learnt in ((OF_DOG, "a zwx cat", "a sks dog"), (OF_CAT, "a sks dog", "a zwx cat")):
        assert pixels(run, other, name) == pixels(run, other, "base")
        assert pixels(run, learnt, name) != pixels(run, learnt, "base")


def test_each_word_has_vectors_of_its_own_in_both_text_encoders(project: Path) -> None:
    dog, cat = (
        load_file(project / "runs" / run / "weights" / f"{name}.safetensors")
        for run, name in ((OF_DOG, "dog"), (OF_CAT, "cat"))
    )
    assert set(dog) == set(cat) == {"clip_l", "clip_g"}
    assert all(not torch.equal(dog[table], cat[table]) for table in dog)


def test_a_lora_of_both_learns_in_all_networks_and_is_exported_with_both_words(
    run: Run, project: Path, tmp_path: Path
) -> None:
    record = json.loads((project / "runs" / BOTH / "run.json").read_text())
    words = [(one["name"], one["identifier"], one["class_noun"]) for one in record["subjects"]]
    assert words == [("dog", "sks", "dog"), ("cat", "zwx", "cat")]
    lora = load_file(project / "runs" / BOTH / "weights" / LORA_FILE)
    ups = {name: bool(tensor.any()) for name, tensor in lora.items() if ".lora_B." in name}
    for network in ("unet", "text_encoder", "text_encoder_2"):
        assert any(changed for name, changed in ups.items() if name.partition(".")[0] == network)
    file = tmp_path / "both.safetensors"
    assert run("export", 1, "--to", "kohya", "--precision", "fp32", "--out", file).code == 0
    assert run("init", tmp_path / "other", "--base", "tiny-xl", "--quiet").code == 0
    back = run("-C", tmp_path / "other", "import-lora", file, "--json")
    assert back.code == 0, back.err
    assert [(one["identifier"], one["class_noun"]) for one in back.document["subjects"]] == [one[1:] for one in words]


@pytest.mark.parametrize(
    ("word", "said"), [("SKS", "of the subject 'dog'"), ("sks1", "share"), ("zwx", "of the subject 'cat'")]
)
def test_a_word_that_another_subject_has_is_refused_and_one_that_is_offered_is_taken(
    run: Run, project: Path, word: str, said: str
) -> None:
    add = ("add-subject", f"rex-{word}", "--class", "lamp", project.parent / "cat.png", "--no-caption", "--no-mask")
    refused = run(*add, "--token", word)
    assert (refused.code, said in refused.err) == (6, True), refused.err
    offered = refused.err.split("take one of ")[1].split(";")[0].split(", ")
    assert len(offered) == 3
    taken = run(*add, "--token", offered[0])
    assert taken.code == 0, taken.err
    assert run("subjects", "remove", f"rex-{word}", "--yes").code == 0


def test_how_far_both_stay_apart_is_measured(run: Run, project: Path) -> None:
    done = run("eval", "--run", BOTH, "-n", 1, "--interference", "--json")
    assert done.code == 0, done.err
    assert done.document["matrix"]["columns"] == ["dog", "cat"]
    subjects = done.document["nearest"]["subjects"]
    assert {name: sum(one["nearest"].values()) for name, one in subjects.items()} == {"dog": 4, "cat": 4}
