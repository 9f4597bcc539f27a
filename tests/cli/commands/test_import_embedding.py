"""Embeddings of other programs, brought in as runs: their word draws what diffusers draws with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from dbcli.diffusion.conditioning import embed_prompts
from dbcli.project.files.layout import Layout
from dbcli.project.runs.run_store import load_run
from dbcli.workflows.models.weights import load_model
from dbcli.workflows.progress import Silence
from tests.cli.made_projects import command
from tests.reliability.small_base import write_small_base

Run = Callable[..., Any]
VECTORS = torch.randn(2, 16, generator=torch.Generator().manual_seed(1)) * 3
DRAW = ["-n", 1, "--steps", 2, "--guidance", 3, "--seed", 5, "--json"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project on the smallest base, with files of three programs beside it."""
    folder = tmp_path_factory.mktemp("words")
    command("init", folder / "p", "--base", write_small_base(folder / "base"), "--quiet")
    torch.save({"string_to_param": {"*": VECTORS}, "name": "other"}, folder / "zqv.pt")
    save_file({"<xuv>": VECTORS}, folder / "learned_embeds.safetensors")
    save_file({"emb_params": torch.ones(1, 24)}, folder / "wide.safetensors")
    save_file({"<a1>": VECTORS[0].clone(), "<b1>": VECTORS}, folder / "two.safetensors")
    return folder


@pytest.fixture
def files(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made / "p")
    return made


def pixels(done: Any) -> bytes:
    assert done.code == 0, done.err
    with Image.open(done.document["images"][0]["path"]) as image:
        return image.convert("RGB").tobytes()


def test_a_pickle_of_automatic1111_is_drawn_with_by_its_files_name(run: Run, files: Path) -> None:
    done = run("import-embedding", files / "zqv.pt", "--json")
    assert done.code == 0, done.err
    record = done.document
    assert (record["state"], record["method"]) == ("finished", "textual-inversion")
    assert [(one["name"], one["identifier"], one["class_noun"]) for one in record["subjects"]] == [("zqv", "zqv", "")]
    by_word = pixels(run("generate", "a zqv here", "--run", record["name"], *DRAW))
    assert by_word == pixels(run("generate", "a {zqv} here", "--run", record["name"], *DRAW))
    assert by_word != pixels(run("generate", "a zqv here", "--run", "base", *DRAW))
    exported = run("export", record["name"], "--to", "embedding", "--precision", "fp32", "--json").document
    assert exported["difference"] == 0.0
    assert torch.equal(load_file(Path(exported["path"]) / "zqv.safetensors")["zqv"], VECTORS)
    again = run("import-embedding", files / "zqv.pt", "--json").document
    assert [one["name"] for one in again["subjects"]] == ["zqv"]
    assert run("tokens", "list", "--json").code == 0


def test_the_text_encoder_reads_the_word_as_diffusers_does(run: Run, files: Path) -> None:
    from diffusers import StableDiffusionPipeline

    record = run("import-embedding", files / "learned_embeds.safetensors", "--json").document
    layout = Layout(files / "p")
    model = load_model(layout, load_run(layout, record["name"]), Silence(), offline=True, device="cpu")
    found = embed_prompts(model, ["a <xuv> dog"]).states
    plain = load_model(layout, None, Silence(), offline=True, device="cpu")
    pipeline = StableDiffusionPipeline(
        plain.vae, plain.text_encoder, plain.tokenizer, plain.unet, None, None, None, requires_safety_checker=False
    )  # fmt: skip
    pipeline.load_textual_inversion(str(files / "learned_embeds.safetensors"))
    expected, _ = pipeline.encode_prompt("a <xuv> dog", "cpu", 1, False)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("target", ["embedding", "embedding-invokeai"])
def test_an_exported_word_comes_back_with_its_noun_and_name(run: Run, files: Path, tmp_path: Path, target: str) -> None:
    word = {"embedding": "q", "embedding-invokeai": "w"}[target]
    first = run("import-embedding", files / "zqv.pt", "--token", word, "--class", "toy", "--json").document
    done = run("export", first["name"], "--to", target, "--precision", "fp32", "--out", tmp_path / "words", "--json")
    assert done.code == 0, done.err
    again = run("import-embedding", next((tmp_path / "words").glob("*.safetensors")), "--json").document
    words = [[(one["name"], one["identifier"], one["class_noun"]) for one in run["subjects"]] for run in (first, again)]
    assert words[0] == words[1]
    assert words[0][0][1:] == (word, "toy")


def test_a_word_of_ones_own_and_a_noun_can_be_given(run: Run, files: Path) -> None:
    record = run("import-embedding", files / "zqv.pt", "--token", "mwf", "--class", "toy cat", "--json").document
    assert [(one["identifier"], one["class_noun"]) for one in record["subjects"]] == [("mwf", "toy cat")]
    taken = run("import-embedding", files / "learned_embeds.safetensors", "--token", "mwf")
    assert (taken.code, "belongs to 'mwf'" in taken.err) == (6, True), taken.err


def test_a_file_of_several_words_is_a_run_of_all_of_them(run: Run, files: Path) -> None:
    record = run("import-embedding", files / "two.safetensors", "--json").document
    assert [(one["name"], one["identifier"]) for one in record["subjects"]] == [("a1", "<a1>"), ("b1", "<b1>")]
    assert pixels(run("generate", "{a1}", "--run", record["name"], *DRAW)) != pixels(
        run("generate", "{b1}", "--run", record["name"], *DRAW)
    )
    refused = run("import-embedding", files / "two.safetensors", "--token", "sks")
    assert (refused.code, "2 words (<a1>, <b1>)" in refused.err) == (2, True), refused.err
    named = ["--token", "ona", "--token", "onb", "--class", "toy", "--class", "cat"]
    record = run("import-embedding", files / "two.safetensors", *named, "--json").document
    assert [(one["identifier"], one["class_noun"]) for one in record["subjects"]] == [("ona", "toy"), ("onb", "cat")]
    twice = run("import-embedding", files / "zqv.pt", "--token", "a", "--token", "b")
    assert (twice.code, "given 2 times" in twice.err) == (2, True), twice.err


@pytest.mark.parametrize(
    ("file", "code", "said"),
    [
        ("wide.safetensors", 6, "24 values"),
        ("wide.safetensors", 6, "dreambooth init NEW --base BASE; dreambooth -C NEW import-embedding"),
        ("nowhere.pt", 4, "no embedding at"),
        ("my words.pt", 2, "--token my-words"),
    ],
)
def test_what_cannot_be_brought_in_leaves_no_run(run: Run, files: Path, file: str, code: int, said: str) -> None:
    if file == "my words.pt":
        torch.save({"string_to_param": {"*": VECTORS}}, files / file)
    before = sorted((files / "p" / "runs").iterdir())
    ended = run("import-embedding", files / file)
    assert (ended.code, said in ended.err) == (code, True), ended.err
    assert sorted((files / "p" / "runs").iterdir()) == before
