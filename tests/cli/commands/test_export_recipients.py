"""What goes with an exported file: its readers, its words, its licence, and what other programs leave out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from tests.cli.made_projects import TRAIN, command
from tests.project import photo_makers
from tests.reliability.small_base import write_small_base

Run = Callable[..., Any]
PAIRS = [{"name": "dog", "word": "sks", "class": "dog"}, {"name": "shades", "word": "mwf", "class": "glasses"}]
TARGETS = (
    "--set=lora.alpha=8",
    "--set=lora.targets=[to_q,conv_in,time_embedding.linear_1]",
    "--set=train.text_encoder=true",
    "--set=lora.text_targets=[q_proj,v_proj]",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two subjects in one LoRA (run 1), a DoRA (run 2) and a textual inversion (run 3)."""
    folder = tmp_path_factory.mktemp("recipients")
    project = folder / "myproj"
    command("init", project, "--base", write_small_base(folder / "base"), "--quiet")
    for number, pair in enumerate(PAIRS):
        photo = folder / "in" / pair["name"] / "0.png"
        photo_makers.save(photo, photo_makers.plain((40, 90 * number, 50)))
        words = ("--class", pair["class"], "--token", pair["word"])
        command("-C", project, "add-subject", pair["name"], *words, photo.parent, "--quiet")
    both = ("--subject", "dog", "--subject", "shades")
    command("-C", project, "train", *both, *TRAIN, "--method", "lora", *TARGETS, "--quiet")
    one = ("--subject", "dog")
    command("-C", project, "train", *one, *TRAIN, "--method", "lora", "--set=lora.dora=true", "--quiet")
    command("-C", project, "train", *one, *TRAIN, "--method", "textual-inversion", "--quiet")
    return project


@pytest.fixture
def project(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    return made


def metadata(path: str | Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return dict(file.metadata())


def exported(run: Run, folder: Path, number: int, target: str, *words: object) -> Any:
    done = run("export", number, "--to", target, "--out", folder / f"{target}.safetensors", "--json", *words)
    assert done.code == 0, done.err
    return done.document


def test_every_subject_of_a_kohya_file_is_named_to_people_and_programs(run: Run, tmp_path: Path, project: Path) -> None:
    document = exported(run, tmp_path, 1, "kohya")
    assert document["subjects"] == PAIRS
    assert (document["base"], document["strength"], document["difference"]) == ("base", 1.0, 0.0)
    # Other programs know no base of this size, as a note says.
    assert document["for"] == "dreambooth alone"
    assert document["proved_by"].startswith("diffusers ")
    table = metadata(document["path"])
    assert json.loads(table["dreambooth.subjects"]) == PAIRS
    assert table["modelspec.trigger_phrase"] == "sks dog, mwf glasses"
    assert list(json.loads(table["ss_tag_frequency"])) == ["1_sks dog", "1_mwf glasses"]
    assert any("conv_in, time_embedding.linear_1" in note for note in document["notes"])
    assert any("no other program loads" in note for note in document["notes"])


def test_the_words_base_and_strength_are_printed_with_whose_file_it_is(run: Run, tmp_path: Path, project: Path) -> None:
    done = run("export", 1, "--to", "lora", "--out", tmp_path / "l.safetensors")
    assert done.code == 0, done.err
    said = " ".join(done.out.split())
    for words in (
        "For dreambooth alone",
        "on a scale from -1 to 1",
        "'sks dog'",
        "'mwf glasses'",
        "base base, strength 1",
    ):
        assert words in said


def test_a_diffusers_lora_declares_its_rank_as_alpha(run: Run, tmp_path: Path, project: Path) -> None:
    document = exported(run, tmp_path, 1, "lora")
    declared = json.loads(metadata(document["path"])["lora_adapter_metadata"])
    for part in ("unet", "text_encoder"):
        assert declared[f"{part}.lora_alpha"] == declared[f"{part}.r"] == 4
        assert declared[f"{part}.alpha_pattern"] == declared[f"{part}.rank_pattern"] == {}
    assert document["difference"] == 0.0


def test_a_dora_goes_to_diffusers_and_not_into_kohyas_format(run: Run, tmp_path: Path, project: Path) -> None:
    refused = run("export", 2, "--to", "kohya")
    assert refused.code == 6
    assert "--to checkpoint" in refused.err and "--to lora" in refused.err
    assert not list(project.glob("exports/*kohya*"))
    assert exported(run, tmp_path, 2, "lora")["difference"] == 0.0


def test_licence_and_author_reach_the_file(run: Run, tmp_path: Path, project: Path) -> None:
    said = ("--licence", "cc-by-4.0", "--author", "Ada")
    table = metadata(exported(run, tmp_path, 1, "kohya", *said)["path"])
    assert (table["modelspec.license"], table["modelspec.author"]) == ("cc-by-4.0", "Ada")


def test_a_folder_has_no_place_for_a_licence(run: Run, project: Path) -> None:
    assert run("export", 1, "--to", "diffusers", "--licence", "mit").code == 2


def test_an_embedding_for_invokeai_has_the_name_that_it_reads(run: Run, tmp_path: Path, project: Path) -> None:
    (plain,) = Path(exported(run, tmp_path, 3, "embedding")["path"]).iterdir()
    (theirs,) = Path(exported(run, tmp_path, 3, "embedding-invokeai")["path"]).iterdir()
    assert plain.name == theirs.name == "sks.safetensors"
    assert list(load_file(plain)) == ["sks"]
    assert list(load_file(theirs)) == ["emb_params"]
    assert torch.equal(load_file(plain)["sks"], load_file(theirs)["emb_params"])


def test_whose_file_each_target_is_stands_in_the_help(run: Run) -> None:
    said = " ".join(run("export", "--help").out.replace("│", " ").split())
    assert "kohya (ComfyUI, AUTOMATIC1111, InvokeAI)" in said and "lora (diffusers)" in said


def test_a_dora_is_called_one_where_a_run_is_shown(run: Run, project: Path) -> None:
    assert "method         lora (DoRA), profile" in run("runs", "show", 2).out
    assert "method         lora, profile" in run("runs", "show", 1).out
