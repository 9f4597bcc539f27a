"""Random models in the layout of Stable Diffusion v1, and one export of each kind, with the weights it stands for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from client_products import multiplied, random_product

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16}
# Programs tell Stable Diffusion v1 by the width of its first block and of its prompts; the other blocks may be narrow.
WIDTHS = {"small": (32, 32, 64, 64), "narrow": (320, 320, 320, 320), "full": (320, 640, 1280, 1280)}
SMALL = {
    "unet": {"cross_attention_dim": 64, "sample_size": 8},
    "vae": {"block_out_channels": [32, 32, 64, 64], "sample_size": 64},
    "text_encoder": {"hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 1, "projection_dim": 64},
}
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
CONVOLUTIONS = ("conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv", "proj_in", "proj_out")
OUTSIDE = ("conv_in", "conv_out", "time_embedding.linear_1", "time_embedding.linear_2")
# What programs may make of a DoRA in kohya's layout, which `export` refuses to write.
READINGS = ("the lengths of the base alone", "lengths along the inputs", "no lengths")
ALL_TEXT = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")

# At full size each LoRA costs a checkpoint of 4 GB.
MERGED = ("text, all layers", "convolutions")


@dataclass(frozen=True)
class Recipe:
    """Which layers an adapter has, and of which ranks and alphas, which take turns.

    `kind` is lora, lokr or loha; of the last two `factor`, `both` and `tucker` are as the program's settings have them.
    """

    unet: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    ranks: tuple[int, ...] = (4,)
    alphas: tuple[float, ...] = (8.0,)
    dora: bool = False
    kind: str = "lora"
    factor: int = -1
    both: bool = False
    tucker: bool = False


EVERYWHERE = (*ATTENTION, *CONVOLUTIONS, "ff.net.0.proj", "ff.net.2")
RECIPES = {
    "attention": Recipe(ATTENTION),
    "convolutions": Recipe((*ATTENTION, *CONVOLUTIONS, "time_emb_proj", "ff.net.0.proj", "ff.net.2")),
    "text, all layers": Recipe(ATTENTION, ALL_TEXT),
    "text, q and v": Recipe(ATTENTION, ("q_proj", "v_proj")),
    "text, MLP": Recipe(ATTENTION, ("fc1", "fc2")),
    "differing ranks": Recipe(ATTENTION, ALL_TEXT, (2, 3, 5), (2.0, 3.0, 5.0)),
    "conv_in, conv_out, time_embedding": Recipe((*ATTENTION, *OUTSIDE)),
    "DoRA": Recipe((*ATTENTION, "conv1"), dora=True),
    "LoKr, whole matrices": Recipe(EVERYWHERE, ALL_TEXT, (4096,), kind="lokr", factor=8),
    "LoKr, one of a rank": Recipe(EVERYWHERE, ALL_TEXT, (2, 3), kind="lokr", factor=4),
    "LoKr, both of a rank": Recipe(EVERYWHERE, ALL_TEXT, (1, 2), kind="lokr", both=True),
    "LoKr, Tucker cores": Recipe(EVERYWHERE, (), (2, 3), kind="lokr", factor=4, tucker=True),
    "LoHa": Recipe(EVERYWHERE, ALL_TEXT, (2, 3), kind="loha"),
    "LoHa, Tucker cores": Recipe(EVERYWHERE, (), (2, 3), kind="loha", tucker=True),
}


@dataclass
class Case:
    """One export.

    `expected` lists files of tensors by naming, later ones overruling; `change` is what it does.

    `readings` has the same for what a client may take the file for.
    """

    name: str
    kind: str
    precision: str
    file: str
    expected: dict[str, list[str]] = field(default_factory=dict)
    change: float = 0.0
    extra: dict[str, str] = field(default_factory=dict)
    readings: dict[str, dict[str, list[str]]] = field(default_factory=dict)


def make_model(size: str, seed: int = 0) -> dict[str, Any]:
    """UNet, VAE and text encoder with random weights, and the scheduler's configuration."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from dbcli.diffusion.bases.single_file import shipped_configs

    configs = shipped_configs("sd-v1")
    configs["unet"]["block_out_channels"] = list(WIDTHS[size])
    if size == "small":
        for part, changes in SMALL.items():
            configs[part].update(changes)
    torch.manual_seed(seed)
    text = {key: value for key, value in configs["text_encoder"].items() if key != "architectures"}
    return {
        "unet": UNet2DConditionModel.from_config(configs["unet"]).eval(),
        "vae": AutoencoderKL.from_config(configs["vae"]).eval(),
        "text_encoder": CLIPTextModel(CLIPTextConfig(**text)).eval(),
        "scheduler_config": configs["scheduler"],
    }


def as_base(model: Mapping[str, Any]) -> SimpleNamespace:
    from dbcli.diffusion.bases.single_file import shipped_tokenizer
    from dbcli.diffusion.families.sd import SD

    networks = {name: model[name] for name in SD.parts}
    return SimpleNamespace(
        family=SD,
        networks=networks,
        tunable={name: networks[name] for name in SD.tunable},
        tokenizers={"text_encoder": shipped_tokenizer("<|endoftext|>", 77)},
        scheduler_config=model["scheduler_config"],
        max_tokens=77,
        zero_negative=False,
    )


def write_bases(folder: Path, model: Mapping[str, Any]) -> list[Case]:
    """The model as a folder (`base-fp32/`) and as a checkpoint (`base-fp32.safetensors`), each in both precisions."""
    from dbcli.diffusion.formats.checkpoint import write_checkpoint
    from dbcli.diffusion.formats.diffusers_folder import write_base

    cases = []
    for precision, dtype in PRECISIONS.items():
        place, file = folder / f"base-{precision}", folder / f"base-{precision}.safetensors"
        write_base(place, as_base(model), dtype=dtype)
        write_checkpoint(file, as_base(model), dtype=dtype)
        expected = {
            "original": [str(file)],
            "diffusers": [str(_named(place, folder / f"named-{precision}.safetensors"))],
        }
        cases += [
            Case("checkpoint", "checkpoint", precision, str(file), expected),
            Case("diffusers folder", "diffusers", precision, str(place), expected),
        ]
    return cases


def _named(place: Path, file: Path) -> Path:
    """The tensors of a diffusers folder as this program reads them, each under its network's name."""
    from safetensors.torch import save_file

    from dbcli.diffusion.bases.base import load_base

    base = load_base(str(place), offline=True)
    save_file(
        {
            f"{part}.{name.removeprefix('text_model.')}": tensor.contiguous()
            for part in ("unet", "text_encoder", "vae")
            for name, tensor in getattr(base, part).state_dict().items()
            if not name.endswith("position_ids")
        },
        str(file),
    )
    return file


def write_adapters(folder: Path, model: Mapping[str, Any], base: Case, names: Sequence[str]) -> list[Case]:
    """The named recipes for diffusers and for kohya's readers, in both precisions."""
    cases = []
    for name in names:
        lora = random_lora(model, RECIPES[name])
        for kind in ("lora", "kohya") if RECIPES[name].kind == "lora" else ("kohya",):
            for precision in PRECISIONS:
                cases.append(_adapter(folder, model, base, name, kind, precision, lora))
    return cases


def random_lora(model: Mapping[str, Any], recipe: Recipe) -> Any:
    from dbcli.diffusion.formats.lora import LoraLayer, LoraWeights, module_shapes

    generator = torch.Generator().manual_seed(1)

    def layers(network: Any, targets: tuple[str, ...]) -> dict[str, LoraLayer]:
        found = {}
        for name, shape in module_shapes(network).items():
            if not any(name == target or name.endswith(f".{target}") for target in targets):
                continue
            rank, alpha = (turns[len(found) % len(turns)] for turns in (recipe.ranks, recipe.alphas))
            if recipe.kind != "lora":
                found[name] = random_product(recipe, shape, rank, alpha, generator)
                continue
            down = torch.randn(rank, *shape[1:], generator=generator) * 0.05
            up = torch.randn(shape[0], rank, *(1 for _ in shape[2:]), generator=generator) * 0.05
            weight = network.get_submodule(name).weight.detach()
            # Near the lengths that PEFT begins with, along the inputs of each output.
            magnitude = weight.flatten(1).norm(dim=1) * 1.1 if recipe.dora else None
            found[name] = LoraLayer(down, up, alpha, magnitude)
        return found

    parts = {"unet": recipe.unet, "text_encoder": recipe.text}
    return LoraWeights({name: layers(model[name], targets) for name, targets in parts.items()})


def _adapter(
    folder: Path, model: Mapping[str, Any], base: Case, name: str, kind: str, precision: str, lora: Any
) -> Case:
    from dbcli.diffusion.formats.lora_files import read_lora

    networks = {"unet": model["unet"], "text_encoder": model["text_encoder"]}
    file = _lora_file(folder, model, name, kind, precision, lora)
    stem = file.stem
    read = read_lora(file, as_base(model))
    changed, change = changed_weights(networks, read)
    case = Case(f"{kind}: {name}", kind, precision, str(file), expected_tensors(base, folder / stem, changed), change)
    if kind == "kohya" and lora.has_dora:
        case.readings["nothing"] = base.expected
        for number, reading in enumerate(READINGS):
            changed, _ = changed_weights(networks, read, reading)
            case.readings[reading] = expected_tensors(base, folder / f"{stem}-{number}", changed)
    return case


def _lora_file(folder: Path, model: Mapping[str, Any], name: str, kind: str, precision: str, lora: Any) -> Path:
    from dbcli.diffusion.formats.lora_writing import for_diffusers, for_kohya, write_diffusers_lora, write_kohya_lora

    stem = "".join(letter if letter.isalnum() else "-" for letter in f"{kind}-{name}-{precision}")
    file, dtype = folder / f"{stem}.safetensors", PRECISIONS[precision]
    if kind == "kohya":
        write_kohya_lora(file, for_kohya(lora), as_base(model).family, dtype=dtype)
    else:
        write_diffusers_lora(file, for_diffusers(lora), as_base(model), dtype=dtype)
    return file


def changed_weights(
    networks: Mapping[str, Any], lora: Any, reading: str = ""
) -> tuple[dict[str, dict[str, torch.Tensor]], float]:
    """The weights that a LoRA changes, under diffusers' and the original names, and the greatest change."""
    from dbcli.diffusion.files import original_names

    changed: dict[str, torch.Tensor] = {}
    original: dict[str, torch.Tensor] = {}
    change = 0.0
    for part, network in networks.items():
        for path, layer in lora.part(part).items():
            weight = network.get_submodule(path).weight.detach()
            full = tuned(weight, layer, reading)
            change = max(change, float((full - weight).abs().max()))
            changed[f"{part}.{path}.weight"] = full
            named = original_names.unet_name if part == "unet" else lambda one, _: original_names.CLIP_PREFIX + one
            original[named(f"{path}.weight", network.config)] = full.clone()
    return {"diffusers": changed, "original": original}, change


def expected_tensors(base: Case, stem: Path, changed: Mapping[str, dict[str, torch.Tensor]]) -> dict[str, list[str]]:
    """Writes the changed weights of each naming; returns them after the base's."""
    from safetensors.torch import save_file

    found = {}
    for naming, tensors in changed.items():
        save_file(tensors, f"{stem}.{naming}.expected")
        found[naming] = [*base.expected[naming], f"{stem}.{naming}.expected"]
    return found


def tuned(weight: torch.Tensor, layer: Any, reading: str = "") -> torch.Tensor:
    """A base's weight with a layer in it (LoRA: Hu et al. 2022, section 4.1; DoRA: Liu et al. 2024, equation 5).

    A reading of `READINGS` is one that a client may make of a DoRA instead.
    """
    if hasattr(layer, "factors"):
        return (weight + multiplied(layer.factors, layer.alpha, weight.shape)).contiguous()
    delta = (layer.up.flatten(1) @ layer.down.flatten(1)).reshape(weight.shape) * (layer.alpha / layer.rank)
    total = weight + delta
    if layer.magnitude is None or reading == "no lengths":
        return total.contiguous()
    ones = [1] * (weight.dim() - 2)
    if reading == "lengths along the inputs":
        lengths = total.transpose(0, 1).flatten(1).norm(dim=1).reshape(1, -1, *ones)
    else:
        measured = weight if reading == "the lengths of the base alone" else total
        lengths = measured.flatten(1).norm(dim=1).reshape(-1, 1, *ones)
    return (total * (layer.magnitude.reshape(-1, 1, *ones) / lengths)).contiguous()


def write_for_images(folder: Path, model: Mapping[str, Any], names: Sequence[str]) -> list[Case]:
    """Checkpoints and LoRAs in both precisions, and for each LoRA a checkpoint that has it merged.

    For a program that shows images alone. At full size each checkpoint is 4 GB, so that the others are left out.
    """
    from safetensors.torch import load_file, save_file

    from dbcli.diffusion.formats.checkpoint import write_checkpoint
    from dbcli.diffusion.formats.lora_files import read_lora

    cases = []
    for precision, dtype in PRECISIONS.items():
        file = folder / f"base-{precision}.safetensors"
        write_checkpoint(file, as_base(model), dtype=dtype)
        cases.append(Case("checkpoint", "checkpoint", precision, str(file)))
    networks = {"unet": model["unet"], "text_encoder": model["text_encoder"]}
    for name in names:
        lora = random_lora(model, RECIPES[name])
        written = [
            Case(f"{kind}: {name}", kind, precision, str(_lora_file(folder, model, name, kind, precision, lora)))
            for kind in ("kohya", "lora")
            for precision in PRECISIONS
        ]
        changed, change = changed_weights(networks, read_lora(Path(written[0].file), as_base(model)))
        merged = folder / f"merged-{Path(written[0].file).name}"
        save_file(load_file(cases[0].file) | changed["original"], str(merged))
        cases += [replace(case, change=change, extra={"merged": str(merged)}) for case in written]
    return cases


def write_embeddings(folder: Path, width: int) -> list[Case]:
    """A word of two vectors, under its own name and under InvokeAI's."""
    from safetensors.torch import save_file

    from dbcli.diffusion.formats.embedding_files import INVOKEAI_NAME, write_embedding
    from dbcli.diffusion.word_vectors import WordVectors

    vectors, cases = torch.randn(2, width, generator=torch.Generator().manual_seed(2)), []
    for precision, dtype in PRECISIONS.items():
        truth = folder / f"vectors-{precision}.expected"
        save_file({"vectors": vectors.to(dtype).float()}, str(truth))
        for name, key in (("embedding", "zxq"), ("embedding-invokeai", INVOKEAI_NAME)):
            file = folder / f"{name}-{precision}" / "zxq.safetensors"
            write_embedding(file, WordVectors(key, vectors), dtype=dtype)
            extra = {"vectors": str(truth), "token": "zxq"}
            change = float(vectors.abs().max())
            cases.append(Case(name, "embedding", precision, str(file), {}, change, extra))
    return cases
