"""One file in the original layout: read as diffusers reads it, offline, whatever container it comes in."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dbcli.diffusion.bases.base import load_base
from dbcli.diffusion.bases.single_file import METADATA_KEY, TELLING_NAME
from dbcli.diffusion.files.model_files import open_weights
from dbcli.diffusion.formats.checkpoint import original_tensors
from dbcli.errors import BaseMissing, UnsafeFile, UnsupportedFile
from tests.diffusion import tiny_models


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> dict[str, Path]:
    """Single files as strangers make them: tensors and nothing else."""
    folder = tmp_path_factory.mktemp("single")
    files = {}
    for version in ("sd-v1", "sd-v2"):
        tensors = original_tensors(tiny_models.model(version))
        files[version] = folder / f"{version}.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, str(files[version]))
    return files


def drawn(base) -> torch.Tensor:
    return tiny_models.draw(tiny_models.parts_of(base), base.tokenizer, base.scheduler_config)


def expected(version: str, scheduler_config) -> torch.Tensor:
    networks, tokenizer = tiny_models.networks(version), tiny_models.tokenizer(version)
    return tiny_models.draw(networks, tokenizer, scheduler_config)


@pytest.mark.parametrize("version", ["sd-v1", "sd-v2"])
def test_a_file_draws_what_its_networks_draw(bare, version: str) -> None:
    base = load_base(str(bare[version]))
    tiny_models.assert_same(drawn(base), expected(version, base.scheduler_config))
    assert (base.kind, base.name, base.max_tokens) == ("single-file", version, 77)
    assert base.tokenizer.pad_token == {"sd-v1": "<|endoftext|>", "sd-v2": "!"}[version]


def test_no_connection_is_opened(bare, monkeypatch) -> None:
    import socket

    monkeypatch.setattr(socket.socket, "connect", lambda *a: pytest.fail("connected"))
    load_base(str(bare["sd-v1"]))


def test_a_checkpoint_and_a_folder_of_one_model_share_their_hash(bare, tmp_path: Path) -> None:
    folder = tiny_models.write_folder(tmp_path / "folder")
    torch.save({"state_dict": load_file(str(bare["sd-v1"])), "global_step": 1}, tmp_path / "model.ckpt")
    hashes = {load_base(str(path)).hash for path in (folder, bare["sd-v1"], tmp_path / "model.ckpt")}
    assert len(hashes) == 1


def test_a_half_precision_copy_shares_its_hash_with_itself_widened(bare, tmp_path: Path) -> None:
    halves = {name: t.half() if t.is_floating_point() else t for name, t in load_file(str(bare["sd-v1"])).items()}
    widened = {name: t.float() if t.is_floating_point() else t for name, t in halves.items()}
    save_file(halves, str(tmp_path / "half.safetensors"))
    save_file(widened, str(tmp_path / "wide.safetensors"))
    half, wide = (load_base(str(tmp_path / f"{name}.safetensors")).hash for name in ("half", "wide"))
    assert half == wide
    assert half != load_base(str(bare["sd-v1"])).hash


def rewrite(source: Path, target: Path, change, metadata: dict[str, str] | None = None) -> Path:
    save_file(change(load_file(str(source))), str(target), metadata=metadata)
    return target


def test_training_leftovers_and_averages_are_passed_over(bare, tmp_path: Path) -> None:
    extra = {
        "betas": torch.zeros(1000),
        "first_stage_model.loss.logvar": torch.zeros(()),
        "model_ema.decay": torch.zeros(()),
        "model_ema.diffusion_modelinput_blocks00bias": torch.zeros(32),
    }
    path = rewrite(bare["sd-v1"], tmp_path / "full-ema.safetensors", lambda tensors: {**tensors, **extra})
    base = load_base(str(path))
    assert base.hash == load_base(str(bare["sd-v1"])).hash
    assert any("averaged" in note for note in base.notes)


def test_a_text_encoder_without_its_prefix_is_understood(bare, tmp_path: Path) -> None:
    path = rewrite(
        bare["sd-v1"],
        tmp_path / "merged.safetensors",
        lambda tensors: {name.replace("transformer.text_model.", "transformer."): t for name, t in tensors.items()},
    )
    assert load_base(str(path)).hash == load_base(str(bare["sd-v1"])).hash


def spread(tensors, value: float):
    """A bias whose population standard deviation is `value`."""
    bias = torch.full_like(tensors[TELLING_NAME], value)
    bias[::2] = -value
    return {**tensors, TELLING_NAME: bias}


@pytest.mark.parametrize(("measured", "found", "resolution"), [(0.057, "epsilon", 512), (0.534, "v_prediction", 768)])
def test_a_v2_file_that_says_nothing_is_told_by_its_weights(
    bare, tmp_path: Path, measured: float, found: str, resolution: int
) -> None:
    path = rewrite(bare["sd-v2"], tmp_path / "v2.safetensors", lambda tensors: spread(tensors, measured))
    base = load_base(str(path))
    assert (base.prediction_type, base.resolution) == (found, resolution)
    assert any("does not say what it predicts" in note for note in base.notes)


def test_a_v2_file_that_lacks_the_telling_weights_is_incomplete(bare, tmp_path: Path) -> None:
    path = rewrite(
        bare["sd-v2"], tmp_path / "v2.safetensors", lambda t: {n: v for n, v in t.items() if n != TELLING_NAME}
    )
    with pytest.raises(BaseMissing, match=TELLING_NAME) as caught:
        load_base(str(path))
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    ("metadata", "found"),
    [
        ({"modelspec.prediction_type": "epsilon"}, "epsilon"),
        ({"modelspec.prediction_type": "v"}, "v_prediction"),
        ({"modelspec.architecture": "stable-diffusion-v2-768-v"}, "v_prediction"),
        ({"modelspec.architecture": "stable-diffusion-v2-512"}, "epsilon"),
    ],
)
def test_what_a_v2_file_says_of_itself_counts_first(bare, tmp_path: Path, metadata, found: str) -> None:
    opposite = 0.5 if found == "epsilon" else 0.01
    path = rewrite(bare["sd-v2"], tmp_path / "v2.safetensors", lambda t: spread(t, opposite), metadata)
    base = load_base(str(path))
    assert base.prediction_type == found
    assert base.notes == []


def test_the_person_has_the_last_word_on_the_prediction_type(bare) -> None:
    base = load_base(str(bare["sd-v2"]), prediction_type="v_prediction")
    assert (base.prediction_type, base.scheduler_config["prediction_type"]) == (
        "v_prediction",
        "v_prediction",
    )


UNET = "model.diffusion_model."
FIRST = f"{UNET}input_blocks.0.0.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: {**t, "conditioner.embedders.0.model.ln_final.bias": torch.zeros(1)}, "refiner"),
        (lambda t: {**t, f"{UNET}label_emb.0.0.weight": torch.zeros(1)}, "unCLIP"),
        (lambda t: {**t, "lora_unet_x.lora_down.weight": torch.zeros(1)}, "LoRA"),
        (lambda t: {"lora_unet_mid_block_attentions_0_proj_in.lora_down.weight": torch.zeros(4, 32)}, "a LoRA"),
        (lambda t: {"emb_params": torch.zeros(2, 768)}, "textual inversion"),
        (lambda t: {**t, "control_model.zero_convs.0.0.weight": torch.zeros(1)}, "ControlNet"),
        (lambda t: {**t, FIRST: torch.zeros(32, 9, 3, 3)}, "9 input channels, not 4: an inpainting model"),
        (lambda t: {**t, FIRST: torch.zeros(32, 8, 3, 3)}, "InstructPix2Pix"),
        (lambda t: {f"{UNET}joint_blocks.0.x_block.attn.qkv.weight": torch.zeros(1)}, "Stable Diffusion 3 model"),
        (lambda t: {f"{UNET}double_blocks.0.img_attn.qkv.weight": torch.zeros(1)}, "Flux model"),
        (lambda t: {f"{UNET}noise_refiner.0.attention.qkv.weight": torch.zeros(1)}, "Z-Image model"),
        (lambda t: {**t, f"{UNET}out.2.weight.absmax": torch.zeros(1)}, "quantised"),
        (lambda t: {n: v for n, v in t.items() if n.startswith("first_stage_model.")}, r"autoencoder \(VAE\).* alone"),
        (lambda t: {"something": torch.zeros(1)}, "original layout"),
    ],
)
def test_what_is_no_base_is_refused_by_name(bare, tmp_path: Path, change, words: str) -> None:
    path = rewrite(bare["sd-v1"], tmp_path / "other.safetensors", change)
    with pytest.raises(UnsupportedFile, match=words) as caught:
        load_base(str(path))
    assert caught.value.exit_code == 6


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: {n: v for n, v in t.items() if not n.startswith("first_stage_model.")}, "no autoencoder"),
        (lambda t: {n: v for n, v in t.items() if not n.startswith("cond_stage_model.")}, "no text encoder"),
        (
            lambda t: {n: v for n, v in t.items() if n != "model.diffusion_model.out.2.weight"},
            "out.2.weight",
        ),
        (lambda t: {n: v for n, v in t.items() if n.startswith(UNET)}, "no autoencoder .* and no text encoder"),
    ],
)
def test_what_a_file_lacks_is_told(bare, tmp_path: Path, change, words: str) -> None:
    path = rewrite(bare["sd-v1"], tmp_path / "other.safetensors", change)
    with pytest.raises(BaseMissing, match=words) as caught:
        load_base(str(path))
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    "change",
    [
        lambda t: {**t, FIRST: torch.zeros(3)},
        lambda t: {**t, "model.diffusion_model.middle_block.0.in_layers.0.weight": torch.zeros(5)},
        lambda t: {**t, "model.diffusion_model.surplus.weight": torch.zeros(5)},
        lambda t: {**t, "first_stage_model.post_quant_conv.weight": torch.zeros(1)},
    ],
)
def test_shapes_that_make_no_model_are_refused(bare, tmp_path: Path, change) -> None:
    path = rewrite(bare["sd-v1"], tmp_path / "odd.safetensors", change)
    with pytest.raises((UnsafeFile, BaseMissing), match="odd.safetensors"):
        load_base(str(path))


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", json.dumps({"unet": 1, "vae": {}, "text_encoder": {}, "scheduler": {}})]
)
def test_a_configuration_in_the_metadata_that_cannot_be_read_is_refused(bare, tmp_path: Path, text: str) -> None:
    path = rewrite(bare["sd-v1"], tmp_path / "odd.safetensors", lambda t: t, {METADATA_KEY: text})
    with pytest.raises(UnsafeFile, match="odd.safetensors"):
        load_base(str(path))


@pytest.mark.parametrize(
    "change",
    [
        {"max_tokens": "abc"},
        {"max_tokens": None},
        {"max_tokens": math.inf},
        {"max_tokens": 0},
        {"pad_token": 5},
        {"index": []},
    ],
    ids=str,
)
def test_settings_in_the_metadata_that_make_no_sense_are_refused(bare, tmp_path: Path, change) -> None:
    text = json.dumps(tiny_models.narrow_configs() | change)
    path = rewrite(bare["sd-v1"], tmp_path / "odd.safetensors", lambda t: t, {METADATA_KEY: text})
    with pytest.raises(UnsafeFile, match="metadata cannot be read") as caught:
        load_base(str(path))
    assert caught.value.exit_code == 6


def test_a_hostile_configuration_in_the_metadata_is_refused(bare, tmp_path: Path) -> None:
    configs = tiny_models.narrow_configs()
    configs["unet"]["layers_per_block"] = 10**12
    path = rewrite(bare["sd-v1"], tmp_path / "odd.safetensors", lambda t: t, {METADATA_KEY: json.dumps(configs)})
    with pytest.raises(UnsafeFile, match="layers_per_block"):
        load_base(str(path))
    assert METADATA_KEY in open_weights(path).metadata
