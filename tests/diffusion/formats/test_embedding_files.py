"""Embeddings as the programs that make them save them: the vectors come out, and nothing in a file runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from dbcli.diffusion.formats.embedding_files import read_embeddings
from dbcli.errors import BaseMissing, DreamboothError, UnsafeFile, UnsupportedFile

VECTORS = torch.arange(32.0).reshape(2, 16)
FIRST, SECOND = VECTORS
A1111 = {"string_to_token": {"*": 265}, "string_to_param": {"*": VECTORS}, "name": "other", "step": 5000}
GAL = {
    "string_to_token": {"*": torch.tensor(265)},
    "string_to_param": torch.nn.ParameterDict({"*": torch.nn.Parameter(VECTORS)}),
}


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("rex.pt", A1111, {"rex": VECTORS}),
        ("rex.pt", GAL, {"rex": VECTORS}),
        ("learned_embeds.bin", {"<rex>": FIRST}, {"<rex>": VECTORS[:1]}),
        ("learned_embeds.safetensors", {"<rex>": VECTORS}, {"<rex>": VECTORS}),
        ("rex.safetensors", {"emb_params": VECTORS}, {"rex": VECTORS}),
        ("rex.safetensors", {"string_to_param.*": VECTORS.half()}, {"rex": VECTORS}),
        ("rex.safetensors", {"emb_params": VECTORS.to(torch.float8_e4m3fn)}, {"rex": VECTORS.to(torch.float8_e4m3fn)}),
        ("two.safetensors", {"<a>": FIRST, "b": VECTORS}, {"<a>": VECTORS[:1], "b": VECTORS}),
        ("x.safetensors", {"bundle_emb.rex.string_to_param.*": VECTORS, "a.lora_up.weight": VECTORS}, {"rex": VECTORS}),
    ],
)
def test_the_words_and_vectors_of_every_program_are_read(
    tmp_path: Path, file: str, content: Any, expected: dict[str, torch.Tensor]
) -> None:
    if file.endswith(".safetensors"):
        save_file({name: tensor.clone() for name, tensor in content.items()}, tmp_path / file)
    else:
        torch.save(content, tmp_path / file)
    found = {one.word: one.vectors for one in read_embeddings(tmp_path / file)}
    assert list(found) == list(expected)
    assert all(torch.equal(found[word], expected[word].float()) for word in found)


class Runs:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("it-ran"),))


@pytest.mark.parametrize(
    "content", [{**A1111, "more": Runs()}, [torch.ones(2, 2), Runs()], {"string_to_param": Runs()}]
)
def test_nothing_in_a_pickle_runs(tmp_path: Path, content: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(content, tmp_path / "evil.pt")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnsafeFile, match="not opened"):
        read_embeddings(tmp_path / "evil.pt")
    assert not (tmp_path / "it-ran").exists()


def test_an_embedding_for_two_text_encoders_is_one_word_with_vectors_for_both(tmp_path: Path) -> None:
    save_file({"clip_l": torch.ones(2, 768), "clip_g": torch.full((2, 1280), 2.0)}, tmp_path / "a.safetensors")
    (word,) = read_embeddings(tmp_path / "a.safetensors")
    assert (word.word, word.vectors.shape, float(word.vectors.mean())) == ("a", (2, 768), 1.0)
    assert {name: (tuple(one.shape), float(one.mean())) for name, one in word.more.items()} == {
        "text_encoder_2": ((2, 1280), 2.0)
    }


def test_words_that_a_lora_brings_along_have_vectors_for_each_text_encoder(tmp_path: Path) -> None:
    tensors = {"lora_te2_x.lora_up.weight": torch.ones(2, 2)}
    for word, value in (("rex", 1.0), ("my.toy", 3.0)):
        tensors[f"bundle_emb.{word}.clip_g"] = torch.full((2, 1280), value + 1)
        tensors[f"bundle_emb.{word}.clip_l"] = torch.full((2, 768), value)
    save_file(tensors, tmp_path / "a.safetensors")
    found = {
        one.word: [(tuple(vectors.shape), float(vectors.mean())) for vectors in (one.vectors, *one.more.values())]
        for one in read_embeddings(tmp_path / "a.safetensors")
    }
    assert found == {
        "rex": [((2, 768), 1.0), ((2, 1280), 2.0)],
        "my.toy": [((2, 768), 3.0), ((2, 1280), 4.0)],
    }


@pytest.mark.parametrize(
    ("file", "content", "kind", "words"),
    [
        ("a.safetensors", {"lora_unet_x.lora_up.weight": torch.ones(2, 2)}, UnsupportedFile, "LoRA"),
        ("a.safetensors", {"model.diffusion_model.out.2.bias": torch.ones(4)}, UnsupportedFile, "a model"),
        ("a.safetensors", {}, BaseMissing, "no vectors"),
        ("a.safetensors", {"emb_params": torch.ones(76, 16)}, UnsafeFile, "76 vectors"),
        ("a.safetensors", {"emb_params": torch.full((1, 4), torch.nan)}, UnsafeFile, "not finite"),
        ("a.pt", {768: [torch.ones(2)]}, UnsupportedFile, "hypernetwork"),
        ("a.pt", [torch.ones(2, 2)], UnsupportedFile, "first trainers"),
        ("a.pt", {"string_to_param": {"*": "text"}}, DreamboothError, "no tensors"),
    ],
)
def test_what_is_no_embedding_is_named(tmp_path: Path, file: str, content: Any, kind: Any, words: str) -> None:
    save = save_file if file.endswith(".safetensors") else torch.save
    save(content, tmp_path / file)
    with pytest.raises(kind, match=words):
        read_embeddings(tmp_path / file)
