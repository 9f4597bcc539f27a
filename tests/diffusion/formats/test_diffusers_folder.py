"""The diffusers folder: read back with the same bits and tokens, with the names and files older versions look for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dbcli.diffusion.bases.base import load_base
from dbcli.diffusion.files.model_files import open_weights
from dbcli.diffusion.formats.diffusers_folder import write_base
from tests.diffusion import tiny_models

PROMPTS = [
    "a sks dog in space",
    "A Photo of a Dog, on the beach!",
    "café naïve 'quoted' dog's 1234",
    "",
    "  two   spaces ",
    "emoji 🐕 and 日本語",
    "x " * 200,
]


def write(folder: Path, version: str = "sd-v1", dtype: torch.dtype = torch.float32) -> Path:
    write_base(folder, tiny_models.model(version), dtype=dtype)
    return folder


@pytest.mark.parametrize("version", ["sd-v1", "sd-v2"])
def test_the_folder_read_back_draws_the_same_bits(tmp_path: Path, version: str) -> None:
    base = load_base(str(write(tmp_path / "out", version)))
    drawn = tiny_models.draw(tiny_models.parts_of(base), base.tokenizer, base.scheduler_config)
    networks, tokenizer = tiny_models.networks(version), tiny_models.tokenizer(version)
    tiny_models.assert_same(drawn, tiny_models.draw(networks, tokenizer, base.scheduler_config))


def test_diffusers_own_pipeline_reads_the_folder(tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(str(write(tmp_path / "out")), local_files_only=True)
    scheduler = tiny_models.narrow_configs()["scheduler"]
    drawn = tiny_models.draw(pipeline.components, pipeline.tokenizer, scheduler)
    tiny_models.assert_same(drawn, tiny_models.draw(tiny_models.networks(), tiny_models.tokenizer(), scheduler))


def test_text_encoder_names_carry_the_prefix_that_older_versions_look_for(tmp_path: Path) -> None:
    names = open_weights(write(tmp_path / "out") / "text_encoder" / "model.safetensors").names()
    assert all(name.startswith("text_model.") for name in names)
    assert "text_model.encoder.layers.11.self_attn.q_proj.weight" in names
    assert len(names) == 12 * 16 + 4  # sixteen a layer, two tables, the last norm's two


def test_the_projection_of_xls_second_text_encoder_has_no_prefix_and_is_read_with_one_too(tmp_path: Path) -> None:
    folder = write(tmp_path / "out", "sdxl")
    file, bare = folder / "text_encoder_2" / "model.safetensors", "text_projection.weight"
    tensors, known = load_file(file), load_base(str(folder)).hash
    assert [name for name in tensors if not name.startswith("text_model.")] == [bare]
    assert not any("projection" in name for name in open_weights(folder / "text_encoder" / "model.safetensors").names())
    # Finished runs of earlier states of this release have it so.
    save_file({f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in tensors.items()}, file)
    assert load_base(str(folder)).hash == known


@pytest.mark.parametrize("version", ["sd-v1", "sd-v2"])
def test_the_tokenizer_gives_equal_ids_from_the_new_files_and_from_the_old(tmp_path: Path, version: str) -> None:
    from transformers import CLIPTokenizer

    folder = write(tmp_path / "out", version) / "tokenizer"
    original = tiny_models.tokenizer(version)
    settings = {"padding": "max_length", "max_length": 77, "truncation": True}
    expected = original(PROMPTS, **settings).input_ids
    assert CLIPTokenizer.from_pretrained(str(folder))(PROMPTS, **settings).input_ids == expected
    (folder / "tokenizer.json").unlink()
    assert CLIPTokenizer.from_pretrained(str(folder))(PROMPTS, **settings).input_ids == expected


def test_vocabulary_files_are_openais(tmp_path: Path) -> None:
    folder = write(tmp_path / "out") / "tokenizer"
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    assert len(vocabulary) == 49408
    assert (vocabulary["sks</w>"], vocabulary["<|startoftext|>"], vocabulary["<|endoftext|>"]) == (
        48136,
        49406,
        49407,
    )
    lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("#version")
    assert lines[1:4] == ["i n", "t h", "a n"]
    assert len(lines) == 1 + 48894


def test_a_word_added_by_training_survives(tmp_path: Path) -> None:
    import copy

    model = tiny_models.model()
    model.tokenizer.add_tokens(["<my-dog>"])
    model.networks["text_encoder"] = copy.deepcopy(model.text_encoder)
    model.text_encoder.resize_token_embeddings(49409)
    write_base(tmp_path / "out", model, dtype=torch.float32)
    base = load_base(str(tmp_path / "out"))
    assert 49408 in base.tokenizer("a <my-dog> here").input_ids
    assert base.text_encoder.config.vocab_size == 49409


def test_a_rounded_folder_gives_networks_of_one_type(tmp_path: Path) -> None:
    folder = write(tmp_path / "out", dtype=torch.float16)
    config = json.loads((folder / "text_encoder" / "config.json").read_text())
    assert (config["dtype"], config["torch_dtype"], config["architectures"]) == (
        "float32",
        "float32",
        ["CLIPTextModel"],
    )
    weights = open_weights(folder / "text_encoder" / "model.safetensors")
    assert {weights.dtype(name) for name in weights.names()} == {torch.float16}
    assert "_name_or_path" not in json.loads((folder / "unet" / "config.json").read_text())
    index = json.loads((folder / "model_index.json").read_text())
    assert index["scheduler"] == ["diffusers", "PNDMScheduler"]
    assert index["unet"] == ["diffusers", "UNet2DConditionModel"]
