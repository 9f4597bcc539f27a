"""The single-file export: published names, and pictures bit-equal after a round trip through it."""

from __future__ import annotations

import hashlib
import json
import stat
import struct
from pathlib import Path

import pytest
import torch

from dbcli.diffusion.bases.assembly import empty_network
from dbcli.diffusion.bases.base import load_base
from dbcli.diffusion.bases.single_file import shipped_configs
from dbcli.diffusion.families.sd import SD
from dbcli.diffusion.files.model_files import open_weights
from dbcli.diffusion.formats.checkpoint import original_tensors, write_checkpoint
from tests.diffusion import tiny_models

FACTS = Path(__file__).with_name("sd_v1_tensors.txt")


def published() -> dict[str, tuple[int, ...]]:
    """Names and shapes of Stable Diffusion v1, from lists that others took from the published files."""
    lines = [line for line in FACTS.read_text().splitlines() if not line.startswith("#")]
    return {name: tuple(int(size) for size in shape.split(",")) for name, shape in map(str.split, lines)}


def write(path: Path, version: str = "sd-v1", dtype: torch.dtype = torch.float32, **metadata: str) -> Path:
    table = {key.replace("__", "."): value for key, value in metadata.items()}
    write_checkpoint(path, tiny_models.model(version), dtype=dtype, metadata=table)
    return path


def image(base) -> torch.Tensor:
    return tiny_models.draw(tiny_models.parts_of(base), base.tokenizer, base.scheduler_config)


def expected(version: str, scheduler_config) -> torch.Tensor:
    return tiny_models.draw(tiny_models.networks(version), tiny_models.tokenizer(version), scheduler_config)


def test_the_full_architecture_has_exactly_the_published_names_and_shapes() -> None:
    configs = shipped_configs("sd-v1")
    networks = {name: empty_network(name, part, configs[name]) for name, part in SD.parts.items()}
    written = {name: tuple(tensor.shape) for name, tensor in original_tensors(tiny_models.base_of(networks)).items()}
    assert written == published()
    assert len(written) == 1131
    # The size the papers give: 859.5 M for the UNet.
    assert sum(parameter.numel() for parameter in networks["unet"].parameters()) == 859_520_964


def test_every_name_of_a_written_file_is_published_and_none_is_missing(tmp_path: Path) -> None:
    assert set(open_weights(write(tmp_path / "m.safetensors")).names()) == set(published())


@pytest.mark.parametrize("version", ["sd-v1", "sd-v2"])
def test_an_export_read_back_draws_the_same_bits(tmp_path: Path, version: str) -> None:
    base = load_base(str(write(tmp_path / "m.safetensors", version)))
    tiny_models.assert_same(image(base), expected(version, base.scheduler_config))
    assert base.notes == []
    assert base.resolution == 64


@pytest.mark.parametrize("version", ["sd-v1", "sd-v2"])
def test_diffusers_reads_the_export_and_draws_the_same_bits(tmp_path: Path, version: str) -> None:
    from diffusers import StableDiffusionPipeline
    from diffusers.utils import logging

    logging.disable_progress_bar()
    path = write(tmp_path / "m.safetensors", version)
    configuration = tiny_models.write_folder(tmp_path / "config", version)
    pipeline = StableDiffusionPipeline.from_single_file(
        str(path), config=str(configuration), local_files_only=True, safety_checker=None
    )
    scheduler = tiny_models.narrow_configs(version)["scheduler"]
    drawn = tiny_models.draw(pipeline.components, pipeline.tokenizer, scheduler)
    tiny_models.assert_same(drawn, expected(version, scheduler))


def test_an_export_of_the_embedded_base_comes_back_whole(tmp_path: Path) -> None:
    base = load_base("tiny")
    write_checkpoint(tmp_path / "m.safetensors", base, dtype=torch.float32)
    again = load_base(str(tmp_path / "m.safetensors"))
    assert again.hash == base.hash
    facts = ("prediction_type", "resolution", "vae_factor", "latent_channels", "max_tokens")
    assert [getattr(again, fact) for fact in facts] == [getattr(base, fact) for fact in facts]
    assert again.vae.config.scaling_factor == base.vae.config.scaling_factor


def test_half_precision_rounds_weights_and_keeps_position_numbers_whole(tmp_path: Path) -> None:
    weights = open_weights(write(tmp_path / "m.safetensors", dtype=torch.float16))
    kinds = {weights.dtype(name) for name in weights.names()}
    assert kinds == {torch.float16, torch.int64}
    name = "cond_stage_model.transformer.text_model.embeddings.position_ids"
    assert torch.equal(weights.read(name), torch.arange(77).unsqueeze(0))


def test_words_added_to_the_vocabulary_are_left_out(tmp_path: Path) -> None:
    import copy

    networks = dict(tiny_models.networks())
    networks["text_encoder"] = copy.deepcopy(networks["text_encoder"])
    networks["text_encoder"].resize_token_embeddings(49410)
    tensors = original_tensors(tiny_models.base_of(networks))
    name = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"
    assert tensors[name].shape == (49408, 64)


def test_the_model_spec_hash_is_that_of_the_tensor_bytes(tmp_path: Path) -> None:
    path = write(tmp_path / "m.safetensors", modelspec__title="sks dog ü")
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    table = json.loads(raw[8 : 8 + length])["__metadata__"]
    assert table["modelspec.hash_sha256"] == "0x" + hashlib.sha256(raw[8 + length :]).hexdigest()
    assert table["modelspec.title"] == "sks dog ü"
    assert (8 + length) % 8 == 0
    base = load_base(str(path))
    tiny_models.assert_same(image(base), expected("sd-v1", base.scheduler_config))


def test_the_file_follows_the_umask_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = write(tmp_path / "deep" / "m.safetensors")
    (tmp_path / "probe").touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "probe").stat().st_mode)
    assert [found.name for found in path.parent.iterdir()] == ["m.safetensors"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch) -> None:
    path = write(tmp_path / "m.safetensors")
    before = path.read_bytes()
    monkeypatch.setattr("dbcli.diffusion.files.writing._commit", lambda *a: (_ for _ in ()).throw(OSError(28)))
    with pytest.raises(OSError):
        write(path, dtype=torch.float16)
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["m.safetensors"]
