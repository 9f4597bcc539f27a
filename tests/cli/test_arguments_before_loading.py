"""What the words of a command line get wrong is told before anything is loaded, with what to type instead."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.cli.made_projects import trained_project

Run = Callable[..., Any]
TOO_LARGE = "4294967296"
LONG = " ".join(["very"] * 80)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the subjects dog, taught in run 1, and a suite, a sweep and a profile with faults."""
    project = trained_project(tmp_path_factory.mktemp("words"), "--method", "lora")
    (project / "suite.yaml").write_text("name: own\nany: ['a {identifier} {class}', 'a {identifier} {class} in oil']\n")
    late = f"name: late\nany: ['{LONG} a {{identifier}} {{class}}']\n"
    (project / "late.yaml").write_text(late)
    (project / "sweep.yaml").write_text(f"name: s\nsubject: dog\npictures: {{seed: {TOO_LARGE}}}\n")
    (project / "seeds.yaml").write_text(f"name: s\nsubject: dog\ngrid: {{train.seed: [1, {TOO_LARGE}]}}\n")
    (project / "cut.yaml").write_text("name: s\nsubject: dog\npictures: {suite: late.yaml}\n")
    (project / "judge.yaml").write_text("name: s\nsubject: dog\njudge: papr\n")
    (project / "profile.yaml").write_text(f"train: {{seed: {TOO_LARGE}}}\n")
    (project / "file").write_text("no folder")
    (project / "lora.safetensors").write_text("no LoRA")
    save_file({"lora_unet_conv_in.oft_blocks": np.zeros((4, 4, 4), np.float32)}, project / "oft.safetensors")
    return project


@pytest.fixture
def project(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    return made


# command line -> exit code, and what is said.
FAULTS: list[tuple[list[str], int, str]] = [
    (["init", "other", "--base", "oft.safetensors"], 6, "is an OFT"),
    (["init", "file/below", "--base", "tiny"], 2, "file is a file, not a folder"),
    (["import-lora", "oft.safetensors"], 6, "is an OFT"),
    (["import-embedding", "oft.safetensors"], 6, "not an embedding"),
    (["train", "--subject", "dog", "--method", "lora", "--set", "lora.targets=[to_x]"], 2, "to_x is no layer"),
    (["generate", "a {dgo} in space"], 3, "Did you mean {dog}?"),
    (["generate", "a {dog}", "--sampler", "eular"], 2, 'Did you mean "euler"?'),
    (["generate", "a {dog}", "--run", "dgo"], 4, "Did you mean 'dog'?"),
    (["generate", "a", "{dog}", "in", "space"], 2, 'dreambooth generate "a {dog} in space"'),
    (["generate", "a {dog}", "--out", "image.png"], 2, "--out image"),
    (["generate", "a {dog}", "--out", "file/below"], 2, "file is a file"),
    (["generate", "a {dog}", "--seed", TOO_LARGE], 2, "0 to 4294967295"),
    (["generate", "a {dog}", "--seed", "-2"], 2, "0 to 4294967295"),
    (["generate", "a {dog}", "-n", "2", "--seed", "4294967295"], 2, "--seed 4294967294 or less"),
    (["generate", "a {dog}", "-n", "2", "--seed", str(2**64 - 1)], 2, "0 to 4294967295"),
    (["generate", "-i", "--seed", TOO_LARGE], 2, "0 to 4294967295"),
    (["generate", "-i", "--sampler", "eular"], 2, 'Did you mean "euler"?'),
    (["generate", "--like", "fiel.png"], 4, "There is no image at fiel.png"),
    (["generate", "a {dog}", "--clip-skip", "0"], 2, "draw.clip_skip"),
    (["generate", "a {dog}", "--clip-skip", "2"], 2, "its text encoder has 1 layer."),
    (["generate", "a {dog}", "--checkpoint", "77"], 4, "no complete checkpoint of step 77"),
    (["eval", "--checkpoint", "77", "--run", "1"], 4, "no complete checkpoint of step 77"),
    (["bench", "--subject", "dgo"], 2, "did you mean 'dog'?"),
    (["generate", "a {dog}", "--width", "65"], 2, "--width 64"),
    (["generate", "-i", "--height", "0"], 2, "--height 32"),
    (["generate", "a {dog}", "--weights", "-11"], 2, "-10 to 10"),
    (["generate", f"{LONG} a {{dog}}"], 3, "not read: 'very very very very very a sks dog'"),
    (["generate", "a {dog}", "--negative", f"{LONG} a sks dog"], 3, "not read"),
    (["eval", "--run", "dgo"], 4, "Did you mean 'dog'?"),
    (["eval", "--suite", "qiuck"], 2, "Did you mean quick?"),
    (["eval", "--judge", "papr"], 2, "Did you mean 'paper'?"),
    (["eval", "--prompts", "none.txt"], 3, "no prompts file"),
    (["eval", "--suite", "late.yaml"], 3, "not read"),
    (["eval", "--seed", "4294967290"], 2, "4294967288 or less"),
    (["eval", "-n", "0"], 2, "draw.count"),
    (["eval", "--interference", "--seed", TOO_LARGE], 2, "0 to 4294967295"),
    (["runs", "compare", "1", "dgo"], 4, "Did you mean 'dog'?"),
    (["train", "--subject", "dog", "--seed", TOO_LARGE], 2, "0 to 4294967295"),
    (["train", "--subject", "dog", "--set", "prior.seed=-5"], 2, "0 to 4294967295"),
    (["train", "--subject", "dog", "--set", "probe.sampler=eular"], 2, "probe.sampler"),
    (
        ["train", "--subject", "dog", "--set", f"images.template={LONG} a {{identifier}} {{class}}"],
        3,
        "images.template",
    ),
    (
        ["train", "--subject", "dog", "--set", "train.preview_every=1", "--set", "train.preview_prompt=a {cat}"],
        3,
        "{cat}",
    ),
    (["reg", "make", "--class", "dog", "--set", f"prior.seed={TOO_LARGE}"], 2, "0 to 4294967295"),
    (["reg", "make", "--class", "dog", "--set", f"prior.template={LONG} {{class}}"], 3, "not read: 'very very"),
    (["sweep", "sweep.yaml"], 2, "0 to 4294967295"),
    (["sweep", "seeds.yaml"], 2, "0 to 4294967295"),
    (["sweep", "cut.yaml"], 2, "not read"),
    (["sweep", "judge.yaml"], 2, "Did you mean 'paper'?"),
    (["bench", "--seed", TOO_LARGE], 2, "0 to 4294967295"),
    (["bench", "--suite", "qiuck"], 2, "Did you mean quick?"),
    (["bench", "--judge", "papr"], 2, "Did you mean 'paper'?"),
    (["tokens", "suggest", "--seed", TOO_LARGE], 2, "0 to 4294967295"),
    (["init", "new", "--base", "tiny", "--profile", "profile.yaml"], 2, "0 to 4294967295"),
    (["export", "dgo", "--to", "lora"], 4, "Did you mean 'dog'?"),
    (["export", "dog", "--to", "lora", "--out", "file/below.safetensors"], 2, "file is a file"),
    (["import-lora", "lroa.safetensors"], 4, "Did you mean lora.safetensors?"),
]

CALL = """
import contextlib, io, json, sys
from dbcli.cli.app import main
ended = []
for words in json.load(sys.stdin):
    heard = io.StringIO()
    code = 0
    with contextlib.redirect_stderr(heard), contextlib.redirect_stdout(heard):
        try:
            main(words)
        except SystemExit as end:
            code = end.code or 0
    ended.append([code, heard.getvalue(), sorted({"torch", "diffusers", "transformers"} & set(sys.modules))])
print(json.dumps(ended))
"""


@pytest.fixture(scope="module")
def told(made: Path) -> list[tuple[int, str, list[str]]]:
    """How every faulty command line ended, in one process: exit code, what was said, what was loaded by then."""
    lines = json.dumps([words for words, _, _ in FAULTS])
    done = subprocess.run(
        [sys.executable, "-c", CALL], input=lines, cwd=made, capture_output=True, text=True, check=True
    )
    return [(code, " ".join(text.split()), loaded) for code, text, loaded in json.loads(done.stdout)]


@pytest.mark.parametrize("number", range(len(FAULTS)), ids=[" ".join(words)[:60] for words, _, _ in FAULTS])
def test_a_fault_of_the_words_alone_is_told_with_nothing_loaded(
    told: list[tuple[int, str, list[str]]], number: int
) -> None:
    _, code, words = FAULTS[number]
    found, text, loaded = told[number]
    assert words in text
    assert found == code
    assert loaded == []


def test_a_random_seed_is_drawn_and_recorded(run: Run, project: Path) -> None:
    drawn = [
        run("generate", "a {dog}", "--seed", -1, "-n", 2, "--steps", 1, "--json").document["images"] for _ in range(2)
    ]
    first, second = ([image["seed"] for image in images] for images in drawn)
    assert first[1] == first[0] + 1
    assert first != second
    assert all(0 <= seed < 2**32 for seed in first + second)


def test_the_last_seed_draws(run: Run, project: Path) -> None:
    done = run("generate", "a {dog}", "--seed", 2**32 - 2, "-n", 2, "--steps", 1, "--json")
    assert [image["seed"] for image in done.document["images"]] == [2**32 - 2, 2**32 - 1]


def test_a_dry_run_settles_a_random_seed(run: Run, project: Path) -> None:
    plan = ["train", "--subject", "dog", "--seed", -1, "--set=prior.seed=-1", "--set=prior.enabled=false", "--dry-run"]
    profiles = [run(*plan, "--json").document["settings"] for _ in range(2)]
    seeds = [profile["train"]["seed"] for profile in profiles]
    assert all(0 <= seed < 2**32 for seed in seeds)
    assert seeds[0] != seeds[1]
    assert profiles[0]["prior"]["seed"] == seeds[0]


def test_a_caption_that_hides_its_subject_names_the_photo(run: Run, project: Path) -> None:
    caption = project / "subjects" / "dog" / "photos" / "0002.txt"
    caption.write_text(f"{LONG} a {{dog}}", encoding="utf-8")
    try:
        done = run("train", "--subject", "dog", "--dry-run")
    finally:
        caption.unlink()
    assert done.code == 3
    assert "the caption of 0002.png of dog" in " ".join(done.err.split())


def test_words_without_quotes_that_may_be_prompts_are_a_warning(run: Run, project: Path) -> None:
    done = run("generate", "dog", "sks", "-n", 1, "--steps", 1, "--json")
    assert done.code == 0
    assert "2 prompts of one word each" in done.err


def test_a_sweep_goes_on_with_the_random_seed_it_drew(run: Run, project: Path) -> None:
    (project / "random.yaml").write_text(
        "name: random\nsubject: dog\nsettings: {prior.enabled: false}\npictures: {seed: -1}\n"
        "grid: {train.seed: [-1, 7]}\n"
    )

    def keys() -> list[str]:
        plan = run("sweep", "random.yaml", "--dry-run", "--json")
        assert plan.code == 0, plan.err
        return [cell["key"] for cell in plan.document["cells"]]

    one, other = keys(), keys()
    assert one[0] != other[0]
    kept = project / "sweeps" / "random" / "seed.json"
    kept.parent.mkdir(parents=True)
    kept.write_text(json.dumps({"schema": 1, "random_seed": 12345}))
    assert keys() == keys()


def test_eval_takes_the_run_that_its_prompts_name_and_says_which_it_lacks(run: Run, project: Path) -> None:
    (project / "mine.txt").write_text("a {wlof} in space\n")
    done = run("eval", "--prompts", "mine.txt")
    assert done.code == 3
    assert "{wlof}" in done.err
