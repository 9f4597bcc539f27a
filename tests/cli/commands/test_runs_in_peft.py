"""What PEFT itself makes of runs: it loads their exports, and its own folders come back, with the same outputs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoHaConfig, LoKrConfig, LoraConfig, PeftConfig, PeftModel, get_peft_model
from peft.utils import set_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file

from dbcli.diffusion.adapters.attach import attach_lora
from dbcli.diffusion.bases.base import load_base
from dbcli.diffusion.formats.lora_files import read_lora
from tests.cli.made_projects import TRAIN, command, untrained_project

Run = Callable[..., Any]
FILE = "weights/pytorch_lora_weights.safetensors"
TARGETS = ["to_q", "to_v", "conv1"]
SETS = {
    "LoKr": ("lora.kind=lokr", "lora.factor=2", "lora.rank=1", "lora.alpha=3"),
    "LoKr, whole matrices": ("lora.kind=lokr", "lora.factor=2", "lora.rank=64"),
    "LoKr, cores": ("lora.kind=lokr", "lora.factor=2", "lora.rank=1", "lora.tucker=true"),
    "LoHa": ("lora.kind=loha", "lora.rank=2", "lora.alpha=1"),
    "LoHa, cores": ("lora.kind=loha", "lora.rank=2", "lora.tucker=true"),
    "PiSSA": ("lora.init=pissa", "lora.rank=2"),
    "rsLoRA": ("lora.rslora=true", "lora.rank=4"),
    "LoRA+": ("lora.b_rate_ratio=16",),
    "DoRA": ("lora.dora=true",),
}
PRODUCTS = [name for name in SETS if name.startswith("Lo") and not name.startswith("LoRA")]
# As docs/clients.md has it; LoKr's cores are multiplied into its factors.
CONFIGS: dict[str, Any] = {
    "LoKr": LoKrConfig(r=1, alpha=1, decompose_factor=2, init_weights=False),
    "LoKr, whole matrices": LoKrConfig(r=64, alpha=64, decompose_factor=2, init_weights=False),
    "LoKr, cores": LoKrConfig(r=1, alpha=1, decompose_factor=2, init_weights=False),
    "LoHa": LoHaConfig(r=2, alpha=2, init_weights=False),
    "LoHa, cores": LoHaConfig(r=2, alpha=2, use_effective_conv2d=True, init_weights=False),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of each kind, 0001-dog and on, trained for three steps."""
    project = untrained_project(tmp_path_factory.mktemp("peft"))
    words = ("--subject", "dog", *TRAIN, "--steps", "3", "--method", "lora", "--quiet")
    targets = f"--set=lora.targets=[{','.join(TARGETS)}]"
    for sets in SETS.values():
        command("-C", project, "train", *words, targets, *(f"--set={one}" for one in sets))
    return project


@pytest.fixture
def project(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    return made


def base_of(project: Path) -> Any:
    return load_base(str(project.parent / "base"), offline=True)


@torch.no_grad()
def output(unet: Any) -> torch.Tensor:
    draw = torch.Generator().manual_seed(3)
    latents, prompt = torch.randn(2, 4, 8, 8, generator=draw), torch.randn(2, 77, 16, generator=draw)
    return unet.float().eval()(latents, torch.tensor([20, 700]), prompt).sample


def ours(project: Path, file: Path) -> torch.Tensor:
    """What the UNet gives with a file that this program reads and attaches."""
    base = base_of(project)
    attach_lora(base.tunable, read_lora(file, base))
    return output(base.unet)


def exported(run: Run, project: Path, name: str, target: str, out: Path) -> tuple[Path, torch.Tensor]:
    """An export in full precision, and what the UNet gives with the run itself."""
    number = list(SETS).index(name) + 1
    done = run("export", number, "--to", target, "--precision", "fp32", "--out", out)
    assert done.code == 0, done.err
    return out, ours(project, project / "runs" / f"{number:04}-dog" / FILE)


def in_peft(unet: Any, config: PeftConfig, tensors: Mapping[str, torch.Tensor]) -> PeftModel:
    """The UNet in PEFT with an adapter, every tensor of which finds its place."""
    config.target_modules = set(TARGETS)
    model = get_peft_model(unet, config)
    loaded: Any = set_peft_model_state_dict(model, dict(tensors))
    assert not loaded.unexpected_keys
    assert not [name for name in loaded.missing_keys if any(mark in name for mark in ("lokr_", "hada_", "lora_"))]
    return model


def under_peft_names(file: Path, unet: Any) -> dict[str, torch.Tensor]:
    """The factors of a kohya file by the names that PEFT gives them, which keeps no alpha in a file."""
    paths = {f"lora_unet_{path.replace('.', '_')}": path for path, _ in unet.named_modules()}
    tensors = load_file(file)
    return {
        f"base_model.model.{paths[stem]}.{factor}": tensor
        for name, tensor in tensors.items()
        for stem, _, factor in [name.partition(".")]
        if factor != "alpha"
    }


@pytest.mark.parametrize("name", PRODUCTS)
def test_peft_gives_the_same_with_the_export_of_a_lokr_or_loha(
    run: Run, project: Path, tmp_path: Path, name: str
) -> None:
    file, expected = exported(run, project, name, "kohya", tmp_path / "one.safetensors")
    unet = base_of(project).unet
    plain, tensors = output(unet), under_peft_names(file, unet)
    model = in_peft(unet, CONFIGS[name], tensors)
    found = output(model)
    assert float((expected - plain).abs().max()) > 1e-3
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)
    # And back: what PEFT saves is read to the last bit.
    model.save_pretrained(str(tmp_path / "peft"))
    record = run("import-lora", tmp_path / "peft", "--token", "sks", "--class", "dog", "--json").document
    kept = load_file(project / "runs" / record["name"] / FILE)
    torch.testing.assert_close(ours(project, project / "runs" / record["name"] / FILE), expected, rtol=0, atol=2e-6)
    assert {key: tensor for key, tensor in kept.items() if not key.endswith("alpha")}.keys() == {
        key for key in load_file(file) if not key.endswith("alpha")
    }
    assert all(torch.equal(tensor, load_file(file)[key]) for key, tensor in kept.items() if "alpha" not in key)


@pytest.mark.parametrize("name", [name for name in SETS if name not in PRODUCTS])
def test_peft_gives_the_same_with_the_export_of_any_lora(run: Run, project: Path, tmp_path: Path, name: str) -> None:
    file, expected = exported(run, project, name, "lora", tmp_path / "one.safetensors")
    with safe_open(file, "pt") as opened:
        told = json.loads(opened.metadata()["lora_adapter_metadata"])
    config = LoraConfig(**{key.removeprefix("unet."): value for key, value in told.items() if key.startswith("unet.")})
    unet = base_of(project).unet
    plain = output(unet)
    tensors = {f"base_model.model.{key.removeprefix('unet.')}": one for key, one in load_file(file).items()}
    found = output(in_peft(unet, config, tensors))
    assert float((expected - plain).abs().max()) > 1e-3
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)
