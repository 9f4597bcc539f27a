"""Folders of other kinds are refused by name from their configurations; sharded weights and variants load."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dbcli.diffusion.bases import hub
from dbcli.diffusion.bases.base import judge_base, load_base, resolve_base
from dbcli.diffusion.files.weight_choice import OF_DIFFUSERS, chosen_weights
from dbcli.errors import BaseMissing, UnsafeFile, UnsupportedFile, UsageError
from tests.diffusion import tiny_models

WEIGHTS = "diffusion_pytorch_model"


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return tiny_models.write_folder(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="module")
def known_hash(source: Path) -> str:
    return load_base(str(source)).hash


@pytest.fixture
def folder(source: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(source, tmp_path / "model"))


def change_json(path: Path, **changes) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"addition_embed_type": "text_time", "cross_attention_dim": 1280}, "refiner"),
        ({"addition_embed_type": "image"}, "addition_embed_type image"),
        ({"class_embed_type": "projection"}, "class_embed_type projection"),
        ({"num_class_embeds": 1000}, "num_class_embeds"),
        ({"time_cond_proj_dim": 256}, "latent consistency"),
        ({"in_channels": 9}, "an inpainting model"),
        ({"in_channels": 8}, "an InstructPix2Pix model"),
        ({"in_channels": 5}, "depth-to-image"),
    ],
)
def test_a_unet_of_another_kind_is_refused_by_name_before_its_weights_are_read(
    folder: Path, changes: dict, words: str
) -> None:
    change_json(folder / "unet" / "config.json", **changes)
    for part in ("unet", "vae", "text_encoder"):
        for file in (folder / part).glob("*.safetensors"):
            file.unlink()
    with pytest.raises(UnsupportedFile, match=words) as caught:
        judge_base(resolve_base(str(folder)), offline=True)
    assert caught.value.exit_code == 6


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"model_index.json": {"_class_name": "StableDiffusionXLInpaintPipeline"}}, "an inpainting model"),
        ({"model_index.json": {"_class_name": "FluxPipeline"}}, "a Flux model"),
        ({"model_index.json": {"_class_name": "Flux2KleinPipeline"}}, "a FLUX.2 model"),
        ({"model_index.json": {"_class_name": "ZImageInpaintPipeline"}}, "an inpainting model"),
        ({"transformer/config.json": {"_class_name": "Flux2Transformer2DModel"}}, "a FLUX.2 model"),
        ({"model_index.json": {"_class_name": "StableDiffusionInpaintPipeline"}}, "an inpainting model"),
        ({"transformer/config.json": {"_class_name": "SD3Transformer2DModel"}}, "Stable Diffusion 3"),
        ({"config.json": {"_class_name": "ControlNetModel"}}, "a ControlNet"),
        ({"config.json": {"_class_name": "AutoencoderKL"}}, r"an autoencoder \(VAE\) alone"),
        ({"adapter_config.json": {"peft_type": "LORA"}}, "a LoRA"),
    ],
)
def test_a_folder_of_another_kind_is_refused_by_name(tmp_path: Path, files: dict, words: str) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(UnsupportedFile, match=words):
        judge_base(resolve_base(str(tmp_path)), offline=True)


def shard(folder: Path, stem: str, index: str, pattern: str) -> None:
    """A network's one file as two shards with their index, named as diffusers and transformers name them."""
    (whole,) = folder.glob("*.safetensors")
    tensors = load_file(str(whole))
    whole.unlink()
    names = sorted(tensors)
    parts = {pattern.format(1): names[::2], pattern.format(2): names[1::2]}
    for name, inside in parts.items():
        save_file({one: tensors[one].contiguous() for one in inside}, str(folder / name))
    weight_map = {one: name for name, inside in parts.items() for one in inside}
    (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def test_weights_in_shards_load(folder: Path, known_hash: str) -> None:
    shard(folder / "unet", WEIGHTS, f"{WEIGHTS}.safetensors.index.json", WEIGHTS + "-0000{}-of-00002.safetensors")
    shard(folder / "text_encoder", "model", "model.safetensors.index.json", "model-0000{}-of-00002.safetensors")
    base = load_base(str(folder))
    assert (base.hash, base.notes) == (known_hash, [])
    assert judge_base(resolve_base(str(folder)), offline=True) == []


def test_a_missing_shard_is_named(folder: Path) -> None:
    shard(folder / "unet", WEIGHTS, f"{WEIGHTS}.safetensors.index.json", WEIGHTS + "-0000{}-of-00002.safetensors")
    (folder / "unet" / f"{WEIGHTS}-00002-of-00002.safetensors").unlink()
    with pytest.raises(BaseMissing, match="00002-of-00002") as caught:
        judge_base(resolve_base(str(folder)), offline=True)
    assert caught.value.exit_code == 4


def test_an_index_cannot_lead_out_of_its_folder(folder: Path) -> None:
    shard(folder / "unet", WEIGHTS, f"{WEIGHTS}.safetensors.index.json", WEIGHTS + "-0000{}-of-00002.safetensors")
    change_json(folder / "unet" / f"{WEIGHTS}.safetensors.index.json", weight_map={"a": "../vae/x.safetensors"})
    with pytest.raises(UnsafeFile, match="does not list"):
        load_base(str(folder))


@pytest.mark.parametrize("variant", ["non_ema", "ema", "fp32", "fp16", "bf16"])
def test_a_variant_is_taken_where_there_is_nothing_else_and_said(folder: Path, known_hash: str, variant: str) -> None:
    (folder / "unet" / f"{WEIGHTS}.safetensors").rename(folder / "unet" / f"{WEIGHTS}.{variant}.safetensors")
    base = load_base(str(folder))
    assert base.hash == known_hash
    assert base.notes == [f"unet: the weights in {WEIGHTS}.{variant}.safetensors are used."]


def test_whole_comes_before_rounded_trained_before_averaged_and_safetensors_before_pickles() -> None:
    names = [f"{WEIGHTS}.{one}" for one in ("bin", "ema.safetensors", "bf16.safetensors", "fp16.safetensors")]
    order = []
    names += [f"{WEIGHTS}.non_ema.safetensors", f"{WEIGHTS}.safetensors"]
    while (choice := chosen_weights(OF_DIFFUSERS, names)) is not None:
        order.append(choice.variant if choice.files[0].endswith("safetensors") else "bin")
        names = [name for name in names if name not in choice.files]
    assert order == ["", "non_ema", "ema", "fp16", "bf16", "bin"]


def test_shards_of_a_variant_are_found_however_they_are_spelled() -> None:
    index = f"{WEIGHTS}.safetensors.index.fp16.json"
    for pattern in (WEIGHTS + ".fp16-0000{}-of-00002.safetensors", WEIGHTS + "-0000{}-of-00002.fp16.safetensors"):
        shards = [pattern.format(number) for number in (1, 2)]
        choice = chosen_weights(OF_DIFFUSERS, [index, *shards, "config.json"])
        assert choice is not None
        assert (choice.files, choice.index, choice.variant) == (tuple(shards), index, "fp16")


def test_the_hub_fetches_shards_with_their_index() -> None:
    shards = [f"unet/{WEIGHTS}-0000{number}-of-00002.safetensors" for number in (1, 2)]
    index = f"unet/{WEIGHTS}.safetensors.index.json"
    wanted = hub.wanted_files([*shards, index, f"unet/{WEIGHTS}.fp16.safetensors", "vae/config.json"])
    # One file stands before shards only within a variant: what is whole is wanted, rounded or not.
    assert wanted == ["vae/config.json", index, *shards]


def test_paths_are_told_from_hub_ids(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mine-v2").mkdir()
    for word in ("models/mine-v1", "one/two/three"):
        with pytest.raises(BaseMissing, match="There is no base model at") as caught:
            resolve_base(word, offline=True)
        assert caught.value.exit_code == 4
    with pytest.raises(BaseMissing) as caught:
        resolve_base("models/mine-v1", offline=True)
    assert "--base models/mine-v2" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("content", "words", "code"),
    [
        (b"GGUF\x03\x00\x00\x00" + b"\0" * 60, "GGUF", 6),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS", 4),
        (b"<!DOCTYPE html><html>sign in</html>", "web page", 4),
    ],
)
def test_what_people_take_for_a_model_is_named(tmp_path: Path, content: bytes, words: str, code: int) -> None:
    (tmp_path / "m.safetensors").write_bytes(content)
    with pytest.raises((UnsupportedFile, BaseMissing), match=words) as caught:
        load_base(str(tmp_path / "m.safetensors"))
    assert caught.value.exit_code == code


@pytest.mark.parametrize(
    ("name", "words", "code"),
    [
        ("ip_adapter.1.to_k_ip.weight", "an IP-Adapter", 6),
        ("body.0.block1.weight", "a T2I-Adapter", 6),
        ("model.0.weight", "an upscaler", 6),
        ("vision_model.embeddings.x.weight", "safety checker", 6),
        ("conv_in.weight", "a UNet alone", 4),
    ],
)
def test_files_that_lie_beside_base_models_are_named(tmp_path: Path, name: str, words: str, code: int) -> None:
    save_file({name: torch.zeros(300, 4)}, str(tmp_path / "m.safetensors"))
    with pytest.raises((UnsupportedFile, BaseMissing), match=words) as caught:
        load_base(str(tmp_path / "m.safetensors"))
    assert caught.value.exit_code == code


def test_a_folder_around_one_file_says_to_give_the_file(tmp_path: Path) -> None:
    save_file({"a.weight": torch.zeros(1)}, str(tmp_path / "m.safetensors"))
    with pytest.raises(BaseMissing) as caught:
        load_base(str(tmp_path))
    assert caught.value.hint == f"--base {tmp_path / 'm.safetensors'}"


def test_no_weight_is_read_to_judge_a_base(source: Path, monkeypatch) -> None:
    monkeypatch.setattr("dbcli.diffusion.files.model_files.SafetensorsFile.read", lambda *a: pytest.fail("read"))
    assert judge_base(resolve_base(str(source)), offline=True) == []


@pytest.mark.parametrize(
    ("file", "changes", "words"),
    [
        (
            "scheduler/scheduler_config.json",
            {"_class_name": "FlowMatchEulerDiscreteScheduler"},
            "a flow-matching model",
        ),
        ("scheduler/scheduler_config.json", {"_class_name": "EDMEulerScheduler"}, "EDM"),
        ("scheduler/scheduler_config.json", {"beta_schedule": "exotic"}, "beta_schedule is 'exotic'"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 10}, "num_train_timesteps is 10"),
        ("scheduler/scheduler_config.json", {"trained_betas": [0.1, 0.2]}, "trained_betas"),
        ("scheduler/scheduler_config.json", {"beta_end": 12}, "beta_end is 12"),
        ("vae/config.json", {"scaling_factor": None}, "scaling_factor is None"),
        ("unet/config.json", {"sample_size": [8, 12]}, r"sample_size is \[8, 12\]"),
    ],
)
def test_settings_that_no_base_has_are_refused_before_the_weights_are_read(
    folder: Path, file: str, changes: dict, words: str
) -> None:
    change_json(folder / file, **changes)
    with pytest.raises((UnsupportedFile, UnsafeFile), match=words) as caught:
        judge_base(resolve_base(str(folder)), offline=True)
    assert caught.value.exit_code == 6


@pytest.mark.parametrize(("size", "resolution"), [(None, 512), ([8, 8], 64), (8, 64)])
def test_a_sample_size_that_is_left_out_or_given_by_side_is_understood(
    folder: Path, size: object, resolution: int
) -> None:
    change_json(folder / "unet" / "config.json", sample_size=size)
    assert load_base(str(folder)).resolution == resolution


def test_a_folder_whose_tokenizer_has_no_words_is_told_before_it_is_loaded(folder: Path) -> None:
    for file in (folder / "tokenizer").iterdir():
        if file.name in ("tokenizer.json", "vocab.json", "merges.txt"):
            file.unlink()
    with pytest.raises(BaseMissing, match="tokenizer"):
        judge_base(resolve_base(str(folder)), offline=True)


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("", "tiny, tiny-xl, tiny-flow, sd-v1-4, sd-v1-5, sdxl, zimage"),
        ("Tiny", "--base tiny"),
        ("modle", "--base model"),
        ("'model'", "--base model"),
        ("https://huggingface.co/owner/name/tree/main", "--base owner/name"),
        ("model/model_index.json", "model"),
        ("model/unet/config.json", "model"),
    ],
)
def test_a_slip_in_the_name_of_a_base_is_answered_with_the_base_that_was_meant(
    folder: Path, monkeypatch: pytest.MonkeyPatch, typed: str, words: str
) -> None:
    monkeypatch.chdir(folder.parent)
    with pytest.raises(UsageError) as caught:
        resolve_base(typed, offline=True)
    assert words in str(caught.value.hint)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_weights_in_whole_numbers_are_refused_as_quantised(folder: Path, part: str) -> None:
    file = next((folder / part).glob("*.safetensors"))
    save_file({name: (tensor * 10).to(torch.int8) for name, tensor in load_file(file).items()}, file)
    with pytest.raises(UnsupportedFile, match="quantised.*int8"):
        judge_base(resolve_base(str(folder)), offline=True)
