"""Bases from folders and the embedded one: the networks are diffusers' own, faults are told before memory is taken."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dbcli.diffusion.bases.base import load_base, resolve_base
from dbcli.diffusion.files import weights_hash
from dbcli.errors import BaseMissing, UnsafeFile, UnsupportedFile, UsageError
from tests.diffusion import tiny_models


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return tiny_models.write_folder(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture
def folder(source: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(source, tmp_path / "model"))


def change_json(path: Path, **changes) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_tensors(path: Path, change) -> None:
    tensors = load_file(str(path))
    save_file(change(tensors), str(path))


def test_a_folder_draws_what_diffusers_draws_from_it(source: Path) -> None:
    base = load_base(str(source))
    drawn = tiny_models.draw(tiny_models.parts_of(base), base.tokenizer, base.scheduler_config)
    expected = tiny_models.draw(
        tiny_models.networks(), tiny_models.tokenizer(), tiny_models.narrow_configs()["scheduler"]
    )
    tiny_models.assert_same(drawn, expected)


def test_the_facts_of_a_folder(source: Path) -> None:
    base = load_base(str(source))
    assert (base.kind, base.name, base.revision) == ("folder", "model", None)
    assert (base.prediction_type, base.max_tokens) == ("epsilon", 77)
    assert (base.vae_factor, base.latent_channels, base.resolution) == (8, 4, 64)
    assert base.vae.config.scaling_factor == 0.18215
    assert not base.unet.training
    assert not any(parameter.requires_grad for parameter in base.unet.parameters())


def test_the_embedded_base_loads_without_a_download() -> None:
    base = load_base("tiny", offline=True)
    assert base.kind == "embedded"
    assert base.tokenizer("sks").input_ids == [49406, 48136, 49407]
    assert len(base.tokenizer) == 49408
    assert base.vae_factor == 2 ** (len(base.vae.config.block_out_channels) - 1)
    latents = torch.zeros(1, base.latent_channels, 8, 8)
    ids = torch.zeros(1, base.max_tokens, dtype=torch.long)
    context = base.text_encoder(ids).last_hidden_state
    assert base.unet(latents, 5, context).sample.shape == latents.shape


def test_half_precision_is_half_everywhere(source: Path) -> None:
    base = load_base(str(source), dtype=torch.bfloat16)
    parts = tiny_models.parts_of(base).values()
    assert {parameter.dtype for part in parts for parameter in part.parameters()} == {torch.bfloat16}


def test_an_old_text_encoder_and_old_attention_names_are_understood(folder: Path) -> None:
    change_tensors(
        folder / "text_encoder" / "model.safetensors",
        lambda tensors: (
            {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in tensors.items()}
            | {"text_model.embeddings.position_ids": torch.arange(77).unsqueeze(0)}
        ),
    )
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def old_names(tensors):
        for new, before in old.items():
            tensors = {
                name.replace(f"attentions.0.{new}.", f"attentions.0.{before}."): t for name, t in tensors.items()
            }
        return tensors

    before = load_base(str(folder)).hash
    change_tensors(folder / "vae" / "diffusion_pytorch_model.safetensors", old_names)
    names = load_file(str(folder / "vae" / "diffusion_pytorch_model.safetensors"))
    assert "encoder.mid_block.attentions.0.query.weight" in names
    assert load_base(str(folder)).hash == before


def test_pickled_weights_of_a_folder_are_read_safely(folder: Path) -> None:
    before = load_base(str(folder)).hash
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(str(weights)), weights.with_suffix(".bin"))
    weights.unlink()
    assert load_base(str(folder)).hash == before


def test_the_hash_is_of_the_weights_not_of_their_container(folder: Path) -> None:
    before = load_base(str(folder)).hash
    moved = folder.rename(folder.with_name("elsewhere"))
    assert load_base(str(moved), dtype=torch.bfloat16).hash == before
    change_tensors(
        moved / "unet" / "diffusion_pytorch_model.safetensors",
        lambda tensors: {**tensors, "conv_in.bias": tensors["conv_in.bias"] + 1},
    )
    assert load_base(str(moved)).hash != before


def test_what_the_weights_mean_is_in_the_hash(folder: Path) -> None:
    before = load_base(str(folder)).hash
    assert load_base(str(folder), prediction_type="v_prediction").hash != before
    change_json(folder / "vae" / "config.json", scaling_factor=0.5)
    assert load_base(str(folder)).hash != before


def test_the_digest_is_that_of_names_shapes_and_values() -> None:
    import hashlib

    digest = weights_hash.WeightsDigest()
    digest.add("unet.a", torch.tensor([[1.0, 2.0]], dtype=torch.float16))
    by_hand = b"dreambooth-base-1" + b"\nunet.a [1, 2]\n" + bytes.fromhex("0000803f00000040")
    assert digest.hexdigest() == hashlib.sha256(by_hand).hexdigest()


def test_a_remembered_digest_is_forgotten_when_the_file_changes(folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(weights_hash, "REMEMBER_FROM_BYTES", 1)
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path / "cache" / name))
    before = load_base(str(folder)).hash
    assert len(list((tmp_path / "cache").rglob("*.json"))) == 1
    with monkeypatch.context() as patch:
        patch.setattr(weights_hash.WeightsDigest, "add", lambda *a: pytest.fail("hashed again"))
        assert load_base(str(folder)).hash == before
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    change_tensors(path, lambda tensors: {**tensors, "conv_in.bias": tensors["conv_in.bias"] + 1})
    assert load_base(str(folder)).hash != before


@pytest.mark.parametrize(
    "name",
    [
        "unet/config.json",
        "vae/diffusion_pytorch_model.safetensors",
        "tokenizer",
        "scheduler/scheduler_config.json",
    ],
)
def test_a_folder_that_lacks_a_part_says_which(folder: Path, name: str) -> None:
    path = folder / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(BaseMissing, match=name.split("/")[0]) as caught:
        load_base(str(folder))
    assert caught.value.exit_code == 4


def test_a_missing_tensor_is_named(folder: Path) -> None:
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    change_tensors(path, lambda tensors: {n: t for n, t in tensors.items() if n != "conv_out.weight"})
    with pytest.raises(BaseMissing, match=r"conv_out\.weight"):
        load_base(str(folder))


def test_a_wrong_shape_is_named_before_anything_is_read(folder: Path, monkeypatch) -> None:
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    change_tensors(path, lambda tensors: {**tensors, "decoder.conv_in.bias": torch.zeros(7)})
    monkeypatch.setattr("dbcli.diffusion.files.model_files.SafetensorsFile.read", lambda *a: pytest.fail("read"))
    with pytest.raises(UnsafeFile, match=r"decoder\.conv_in\.bias"):
        load_base(str(folder))


@pytest.mark.parametrize(
    "changes",
    [
        {"layers_per_block": 10**9},
        {"block_out_channels": [10**9] * 4},
        {"block_out_channels": [32] * 1000},
        {"cross_attention_dim": -1},
        {"norm_num_groups": 7},
        {"down_block_types": ["NoSuchBlock"] * 4},
    ],
)
def test_an_absurd_configuration_is_refused(folder: Path, changes: dict) -> None:
    change_json(folder / "unet" / "config.json", **changes)
    with pytest.raises(UnsafeFile, match="unet"):
        load_base(str(folder))


def test_the_configurations_published_with_v1_4_are_understood(folder: Path) -> None:
    text = folder / "text_encoder" / "config.json"
    change_json(
        text,
        _name_or_path="openai/clip-vit-large-patch14",
        bos_token_id=0,
        dropout=0.0,
        eos_token_id=2,
        pad_token_id=1,
        torch_dtype="float32",
        transformers_version="4.22.0.dev0",
    )
    vae = json.loads((folder / "vae" / "config.json").read_text())
    kept = (
        "_class_name",
        "act_fn",
        "block_out_channels",
        "down_block_types",
        "in_channels",
        "latent_channels",
    )
    kept += ("layers_per_block", "norm_num_groups", "out_channels", "sample_size", "up_block_types")
    (folder / "vae" / "config.json").write_text(json.dumps({key: vae[key] for key in kept}))
    scheduler = {
        "_class_name": "PNDMScheduler",
        "_diffusers_version": "0.7.0.dev0",
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "num_train_timesteps": 1000,
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
        "trained_betas": None,
        "clip_sample": False,
    }
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    base = load_base(str(folder))
    assert (base.prediction_type, base.vae.config.scaling_factor, base.max_tokens) == ("epsilon", 0.18215, 77)


def test_a_configuration_cannot_name_code_to_fetch(folder: Path) -> None:
    change_json(
        folder / "text_encoder" / "config.json",
        attn_implementation="someone/kernel",
        _attn_implementation="someone/kernel",
        auto_map={"AutoModel": "evil.Model"},
    )
    assert load_base(str(folder)).text_encoder.config._attn_implementation == "sdpa"


def test_another_kind_of_model_is_told(folder: Path) -> None:
    change_json(folder / "unet" / "config.json", _class_name="SD3Transformer2DModel")
    with pytest.raises(UnsupportedFile, match="SD3Transformer2DModel"):
        load_base(str(folder))


def test_a_prediction_that_cannot_be_trained_is_told(folder: Path) -> None:
    change_json(folder / "scheduler" / "scheduler_config.json", prediction_type="sample")
    with pytest.raises(UnsupportedFile, match="sample"):
        load_base(str(folder))


def test_v_prediction_is_read_from_the_scheduler(folder: Path) -> None:
    change_json(folder / "scheduler" / "scheduler_config.json", prediction_type="v_prediction")
    assert load_base(str(folder)).prediction_type == "v_prediction"


def test_a_damaged_tokenizer_is_named(folder: Path) -> None:
    (folder / "tokenizer" / "tokenizer.json").write_text("{}")
    with pytest.raises(UnsafeFile, match="tokenizer"):
        load_base(str(folder))


def test_words_that_mean_no_base(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="sd-v1-4|not a base"):
        resolve_base("sd-v9")
    for path in ("/nowhere/at/all", "./nothing", "model.safetensors", "~/nothing.ckpt"):
        with pytest.raises(BaseMissing, match="no base model at"):
            resolve_base(path)
    with pytest.raises(UsageError):
        load_base("tiny", prediction_type="noise")
