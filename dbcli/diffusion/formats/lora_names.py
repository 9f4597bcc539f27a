"""How the parts of LoRA files are named by the programs that write them, and which layer of a base each is for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from dbcli.diffusion.files import original_names
from dbcli.diffusion.formats.factor_names import FACTORS

if TYPE_CHECKING:
    from dbcli.diffusion.formats.lora import Adaptable

# One of FACTORS, or: down, up, mid, magnitude, dora_scale, alpha, scale, diff, diff_b, w_norm, b_norm, bias.
Part = str

# The halves as diffusers of 2023, kohya, AUTOMATIC1111 and ComfyUI spell them, and PEFT, whose names may bear the
# adapter's name or no `weight`.
_HALVES: dict[Part, tuple[str, ...]] = {
    "down": (".lora.down", ".lora_linear_layer.down", "_lora.down", ".lora_down", ".lora_A", ".lora_A.default"),
    "up": (".lora.up", ".lora_linear_layer.up", "_lora.up", ".lora_up", ".lora_B", ".lora_B.default"),
}
# A name is cut at the first of these.
ENDINGS: dict[str, Part] = {
    **{f"{spelt}.weight": half for half, spellings in _HALVES.items() for spelt in spellings},
    ".lora_A": "down",
    ".lora_B": "up",
    ".lora_mid.weight": "mid",
    ".lora_magnitude_vector.default.weight": "magnitude",
    ".lora_magnitude_vector.weight": "magnitude",
    ".lora_magnitude_vector": "magnitude",
    ".lora_B.bias": "bias",
    ".lora_B.default.bias": "bias",
    ".lora_up.bias": "bias",
    **{f".{part}": part for part in ("dora_scale", "alpha", "scale", "diff", "diff_b", "w_norm", "b_norm")},
    **{f".{factor}{spelt}": factor for factor in FACTORS for spelt in ("", ".default")},
}
# What changes a model beside its low-rank layers, in words.
DIFFERENCES: dict[Part, str] = {
    "diff": "weights",
    "diff_b": "biases",
    "bias": "biases",
    "w_norm": "norms",
    "b_norm": "norms",
}
# How the networks are called: a prefix for each, to be taken off, before ours. The longest first. Every denoiser is
# `unet` here, whatever its family calls it.
_PREFIXES = (
    ("lora_unet_", "unet"),
    ("lora_te1_", "text_encoder"),
    ("lora_te2_", "text_encoder_2"),
    ("lora_te_", "text_encoder"),
    ("lycoris_", "unet"),
    ("model.diffusion_model.", "unet"),
    ("diffusion_model.", "unet"),
    ("text_encoders.clip_l.transformer.", "text_encoder"),
    ("text_encoders.clip_h.transformer.", "text_encoder"),
    ("text_encoders.clip_g.transformer.", "text_encoder_2"),
    ("unet.", "unet"),
    ("transformer.", "unet"),
    ("text_encoder.", "text_encoder"),
    ("text_encoder_2.", "text_encoder_2"),
    ("text_model.", "text_encoder"),
)
BUNDLED = re.compile(r"bundle_emb\.(?P<word>.+?)\.(string_to_param\.(?P<key>.+)|emb_params|clip_l|(?P<second>clip_g))")
# Empty tensors that say of the base what it predicts.
MARKERS = frozenset({"v_pred", "ztsnr"})


def bundled_names(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """The embeddings inside a LoRA file: for each word, the names of its tensors by text encoder."""
    found: dict[str, dict[str, str]] = {}
    for name in names:
        match = BUNDLED.fullmatch(name)
        if match:
            found.setdefault(match["word"], {})["text_encoder_2" if match["second"] else "text_encoder"] = name
    return found


def split_name(name: str) -> tuple[str, Part] | None:
    """Cuts a tensor's name: the layer as the file spells it, with its network before it, and which part it is.

    `lora_te_text_model_…_q_proj.alpha` → (`text_encoder.text_model_…_q_proj`, `alpha`); None for no such part.
    """
    ending = next((ending for ending in ENDINGS if name.endswith(ending)), None)
    if ending is None:
        return None
    stem = name[: -len(ending)].removeprefix("base_model.model.").replace(".processor", "")
    prefix, network = next(((met, network) for met, network in _PREFIXES if stem.startswith(met)), ("", "unet"))
    stem = f"{network}.{stem.removeprefix(prefix)}"
    # Old names end in `to_out_lora` where the layer is `to_out.0`, and `to_q_lora` in the text encoder is `q_proj`.
    return _old_name(stem) if ending.startswith("_lora.") else stem, ENDINGS[ending]


def _old_name(stem: str) -> str:
    if stem.startswith("text_encoder."):
        head, _, last = stem.rpartition(".")
        return f"{head}.{last.removeprefix('to_')}_proj" if last.startswith("to_") else stem
    return f"{stem}.0" if stem.endswith("to_out") else stem


def layers_by_name(shapes: Mapping[str, Iterable[str]], base: Adaptable) -> dict[str, tuple[str, str]]:
    """From every spelling of a layer, as `spelled` makes them alike, to (network, module path or that of a whole)."""
    table, family = {}, base.family
    denoiser, configs = family.denoiser, {name: network.config for name, network in base.tunable.items()}
    for module in shapes[denoiser]:
        table[spelled(f"unet.{module}")] = (denoiser, module)
        # Some trainers, and ComfyUI, kept the block numbers of the original layout.
        original = family.original(denoiser, f"{module}.weight", configs).name
        original = original.removeprefix(original_names.UNET_PREFIX).removesuffix(".weight")
        table.setdefault(spelled(f"unet.{original}"), (denoiser, module))
    table |= {spelled(f"unet.{whole}"): (denoiser, whole) for whole in fused_layers(shapes, base)}
    for encoder in family.tunable[1:]:
        for module in shapes[encoder]:
            for prefix in (f"{encoder}.", f"{encoder}.text_model."):
                table[spelled(prefix + module)] = (encoder, module)
    return table


def fused_layers(shapes: Mapping[str, Iterable[str]], base: Adaptable) -> dict[str, tuple[str, ...]]:
    """The layers that other programs have whole, by path, and the denoiser's that each is, in the order of its rows."""
    modules = set(shapes[base.family.denoiser])
    found = {}
    for whole, parts in base.family.fused.items():
        for module in modules:
            block = module.removesuffix(parts[0])
            layers = tuple(block + part for part in parts)
            if block != module and modules.issuperset(layers):
                found[block + whole] = layers
    return found


def spelled(stem: str) -> str:
    """Dots and underscores made alike: kohya's names have no dots."""
    return stem.replace(".", "_")
