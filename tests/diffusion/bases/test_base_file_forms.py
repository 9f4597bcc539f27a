"""ComfyUI's names, weights in 8-bit floats, a VAE beside the base, and damaged files in the hub's cache."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from dbcli.diffusion.bases import hub
from dbcli.diffusion.bases.base import load_base, parts_of, resolve_base
from dbcli.diffusion.files.model_files import open_weights
from dbcli.diffusion.formats.checkpoint import original_tensors
from dbcli.errors import BaseMissing, UnsafeFile, UnsupportedFile
from tests.diffusion import tiny_models

UNET, CLIP, VAE = "model.diffusion_model.", "cond_stage_model.transformer.text_model.", "first_stage_model."


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    return {name: tensor.contiguous() for name, tensor in original_tensors(tiny_models.model()).items()}


@pytest.fixture(scope="module")
def known_hash(tensors, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("known") / "m.safetensors"
    save_file(tensors, str(path))
    return load_base(str(path)).hash


def renamed(tensors, pairs: dict[str, str]) -> dict[str, torch.Tensor]:
    found = {}
    for name, tensor in tensors.items():
        before = next((one for one in pairs if name.startswith(one)), None)
        found[name if before is None else pairs[before] + name.removeprefix(before)] = tensor
    return found


@pytest.mark.parametrize(
    "pairs",
    [
        {CLIP: "text_encoders.clip_l.transformer.text_model."},
        {CLIP: "text_encoders.clip_l.transformer.text_model.", VAE: "vae."},
        {UNET: "diffusion_model."},
        {CLIP: "cond_stage_model.clip_l.transformer.text_model."},
        {UNET: "diffusion_model.", CLIP: "text_encoders.clip_l.transformer.text_model.", VAE: "vae."},
    ],
)
def test_comfyuis_names_are_the_same_model(tmp_path: Path, tensors, known_hash: str, pairs: dict[str, str]) -> None:
    beside = {"text_encoders.clip_l.logit_scale": torch.tensor(4.6)} if CLIP in pairs else {}
    save_file(
        renamed(tensors, pairs) | beside, str(tmp_path / "m.safetensors"), metadata={"modelspec.predict_key": "epsilon"}
    )
    assert load_base(str(tmp_path / "m.safetensors")).hash == known_hash


def test_comfyuis_names_of_stable_diffusion_2_are_told_from_those_of_1(tmp_path: Path) -> None:
    networks = tiny_models.networks("sd-v2")
    original = {name: tensor.contiguous() for name, tensor in original_tensors(tiny_models.base_of(networks)).items()}
    save_file(original, str(tmp_path / "original.safetensors"))
    text = {
        f"text_encoders.clip_h.transformer.text_model.{name.removeprefix('text_model.')}": tensor.contiguous()
        for name, tensor in networks["text_encoder"].state_dict().items()
        if not name.endswith("position_ids")
    }
    rest = {name: tensor for name, tensor in original.items() if not name.startswith("cond_stage_model.")}
    save_file(rest | text, str(tmp_path / "comfy.safetensors"))
    one, other = (
        load_base(str(tmp_path / f"{name}.safetensors"), prediction_type="epsilon") for name in ("original", "comfy")
    )
    assert one.hash == other.hash
    assert one.tokenizer.pad_token == other.tokenizer.pad_token == "!"


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_8_bit_floats_are_read_as_the_values_they_are(tmp_path: Path, tensors, dtype: torch.dtype) -> None:
    small = {name: t.to(dtype) if t.ndim > 1 and t.is_floating_point() else t for name, t in tensors.items()}
    wide = {name: t.float() if t.is_floating_point() else t for name, t in small.items()}
    save_file(small, str(tmp_path / "small.safetensors"))
    save_file(wide, str(tmp_path / "wide.safetensors"))
    assert load_base(str(tmp_path / "small.safetensors")).hash == load_base(str(tmp_path / "wide.safetensors")).hash


@pytest.mark.parametrize("scale", [torch.tensor(2.0), torch.tensor([2.0]), torch.tensor([1.0, 2.0, 4.0])])
@pytest.mark.parametrize("ending", ["scale_weight", "weight_scale"])
def test_scales_beside_8_bit_floats_are_multiplied_in(tmp_path: Path, scale: torch.Tensor, ending: str) -> None:
    weight = torch.tensor([[0.5, 1.0], [1.5, 2.0], [-4.0, 8.0]])
    stored = {
        "layer.weight": weight.to(torch.float8_e4m3fn),
        "layer.bias": torch.ones(3),
        f"layer.{ending}": scale,
        "layer.scale_input": torch.tensor(3.0),
        "scaled_fp8": torch.zeros(0, dtype=torch.float8_e4m3fn),
    }
    save_file(stored, str(tmp_path / "m.safetensors"))
    weights = open_weights(tmp_path / "m.safetensors")
    assert sorted(weights.names()) == ["layer.bias", "layer.weight"]
    assert torch.equal(weights.read("layer.weight"), weight * scale.reshape(-1, 1))
    assert weights.dtype("layer.weight") == torch.float32


def test_the_mark_of_scaled_files_is_hidden_behind_a_networks_prefix_too(tmp_path: Path) -> None:
    mark = torch.zeros(0, dtype=torch.float8_e4m3fn)
    weight = torch.ones(2, 2)
    stored = {f"{UNET}a.weight": weight.to(torch.float8_e4m3fn), f"{UNET}scaled_fp8": mark, "scaled_fp8.bias": weight}
    save_file(stored, str(tmp_path / "m.safetensors"))
    weights = open_weights(tmp_path / "m.safetensors")
    assert sorted(weights.names()) == [f"{UNET}a.weight", "scaled_fp8.bias"]
    assert torch.equal(weights.read(f"{UNET}a.weight").float(), weight)


def test_a_base_that_comfyui_saved_in_scaled_8_bit_floats_is_read(tmp_path: Path, tensors) -> None:
    scaled = [name for name, t in tensors.items() if name.startswith(UNET) and t.ndim == 2]
    small = {name: tensors[name].to(torch.float8_e4m3fn) for name in scaled}
    scales = {f"{name.removesuffix('weight')}scale_weight": torch.tensor(2.0) for name in scaled}
    mark = {f"{UNET}scaled_fp8": torch.zeros(0, dtype=torch.float8_e4m3fn)}
    save_file({**tensors, **small, **scales, **mark}, str(tmp_path / "scaled.safetensors"))
    save_file({**tensors, **{name: t.float() * 2 for name, t in small.items()}}, str(tmp_path / "wide.safetensors"))
    assert load_base(str(tmp_path / "scaled.safetensors")).hash == load_base(str(tmp_path / "wide.safetensors")).hash


def test_a_scale_that_fits_no_row_is_refused(tmp_path: Path) -> None:
    stored = {"a.weight": torch.zeros(4, 4).to(torch.float8_e5m2), "a.scale_weight": torch.ones(2, 2)[:1]}
    save_file(stored, str(tmp_path / "m.safetensors"))
    with pytest.raises(UnsupportedFile, match="8-bit floats"):
        open_weights(tmp_path / "m.safetensors")


def test_averages_are_spoken_of_only_where_there_are_some(tmp_path: Path, tensors) -> None:
    counters = {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(7)}
    save_file(tensors | counters, str(tmp_path / "m.safetensors"))
    assert parts_of(resolve_base(str(tmp_path / "m.safetensors")), offline=True).notes == []


@pytest.fixture(scope="module")
def other_vae() -> dict[str, torch.Tensor]:
    """Another model's VAE by its original names without a beginning, as such files are published."""
    tensors = original_tensors(tiny_models.base_of(tiny_models.networks(seed=1)))
    return {name.removeprefix(VAE): t.contiguous() for name, t in tensors.items() if name.startswith(VAE)}


def same_vae(base) -> bool:
    expected = tiny_models.networks(seed=1)["vae"].state_dict()
    return all(torch.equal(tensor, expected[name]) for name, tensor in base.vae.state_dict().items())


@pytest.mark.parametrize("form", ["file", "prefixed", "diffusers-names", "folder", "model-folder"])
@pytest.mark.parametrize("base_form", ["file", "file-without-vae", "folder"])
def test_a_separate_vae_takes_the_place_of_the_bases_own(
    tmp_path: Path, tensors, known_hash: str, other_vae, form: str, base_form: str
) -> None:
    vae = tmp_path / "vae.safetensors"
    network = tiny_models.networks(seed=1)["vae"]
    if form == "file":
        save_file(other_vae | {"loss.logvar": torch.zeros(())}, str(vae))
    elif form == "prefixed":
        save_file({VAE + name: tensor for name, tensor in other_vae.items()}, str(vae))
    elif form == "diffusers-names":
        save_file({name: t.contiguous() for name, t in network.state_dict().items()}, str(vae))
    elif form == "folder":
        vae = tmp_path / "vae"
        network.save_pretrained(vae)
    else:
        vae = tiny_models.write_folder(tmp_path / "whole", seed=1)
    base_path = tmp_path / "m.safetensors"
    if base_form == "folder":
        base_path = tiny_models.write_folder(tmp_path / "model")
    else:
        kept = {n: t for n, t in tensors.items() if base_form == "file" or not n.startswith(VAE)}
        save_file(kept, str(base_path))
    base = load_base(str(base_path), vae=str(vae))
    assert same_vae(base)
    assert base.hash != known_hash
    assert base.files[: len(base.files)].count(vae) == (1 if vae.is_file() else 0)


def test_a_vae_of_another_family_is_refused(tmp_path: Path, tensors, other_vae) -> None:
    save_file(tensors, str(tmp_path / "m.safetensors"))
    flux = {"encoder.conv_in.weight": torch.zeros(32, 3, 3, 3), "decoder.conv_in.weight": torch.zeros(96, 16, 3, 3)}
    save_file(flux, str(tmp_path / "flux.safetensors"))
    tiny_models.networks(seed=1)["vae"].save_pretrained(tmp_path / "xl")
    config = json.loads((tmp_path / "xl" / "config.json").read_text())
    (tmp_path / "xl" / "config.json").write_text(json.dumps({**config, "scaling_factor": 0.13025}))
    save_file({"a": torch.zeros(1)}, str(tmp_path / "none.safetensors"))
    for name, words in (("flux.safetensors", "16 latent channels"), ("xl", "0.13025"), ("none.safetensors", "not a V")):
        with pytest.raises(UnsupportedFile, match=words) as caught:
            load_base(str(tmp_path / "m.safetensors"), vae=str(tmp_path / name))
        assert caught.value.exit_code == 6
    with pytest.raises(BaseMissing, match="no VAE at"):
        load_base(str(tmp_path / "m.safetensors"), vae=str(tmp_path / "absent.safetensors"))


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch) -> Path:
    """The hub's cache as its library lays it out: links to files that are named by their content."""
    store = tmp_path / "hub" / "models--someone--thing"
    snapshot = tiny_models.write_folder(store / "snapshots" / COMMIT)
    (store / "refs").mkdir()
    (store / "refs" / "main").write_text(COMMIT)
    (store / "blobs").mkdir()
    for number, file in enumerate(sorted(path for path in snapshot.rglob("*") if path.is_file())):
        blob = store / "blobs" / f"{number:064x}"
        shutil.move(file, blob)
        file.symlink_to(blob)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return snapshot


@pytest.mark.parametrize(
    "name", ["unet/diffusion_pytorch_model.safetensors", "vae/config.json", "tokenizer/tokenizer.json"]
)
def test_the_hint_for_a_damaged_file_of_the_cache_has_it_downloaded_again(cache: Path, monkeypatch, name: str) -> None:
    assert load_base("someone/thing", offline=True).kind == "hub"
    blob = (cache / name).resolve()
    whole = blob.read_bytes()
    blob.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnsafeFile) as caught:
        load_base("someone/thing", offline=True)
    command = str(caught.value.hint).split(", then")[0]
    assert shlex.split(command) == ["rm", str(blob)]
    subprocess.run(command, shell=True, check=True)
    fetched: list[str] = []

    def fetch(repository: str, revision: str, files: list[str]) -> Path:
        fetched.extend(files)
        blob.write_bytes(whole)
        return cache

    listed = [SimpleNamespace(rfilename=str(path.relative_to(cache))) for path in cache.rglob("*")]
    monkeypatch.setattr(
        huggingface_hub.HfApi, "model_info", lambda *a, **k: SimpleNamespace(sha=COMMIT, siblings=listed)
    )
    monkeypatch.setattr(hub, "_fetch", fetch)
    assert load_base("someone/thing").kind == "hub"
    assert name in fetched


def test_an_incomplete_cache_is_told_from_none_and_says_what_it_lacks(cache: Path) -> None:
    from dbcli.diffusion.bases.base import judge_base
    from dbcli.errors import Unreachable

    (cache / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    reference = resolve_base("someone/thing", COMMIT, offline=True)
    with pytest.raises(Unreachable, match="the weights of vae") as caught:
        judge_base(reference, offline=True)
    assert caught.value.exit_code == 4
