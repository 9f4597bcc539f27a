"""Single files whose tensors go by the names that ComfyUI and merging tools give them, seen under the original ones."""

from __future__ import annotations

from dbcli.diffusion.files.original_names import UNET_PREFIX, VAE_PREFIX
from dbcli.diffusion.files.weight_file import RenamedFile, WeightFile

# Beginnings of names as they are met, and as the original layout has them; the first that fits counts.
_PREFIXES = (
    ("diffusion_model.", UNET_PREFIX),
    ("vae.", VAE_PREFIX),
    ("text_encoders.clip_l.", "cond_stage_model."),
    ("text_encoders.clip_h.", "cond_stage_model."),
    ("cond_stage_model.clip_l.", "cond_stage_model."),
    ("cond_stage_model.clip_h.", "cond_stage_model."),
    ("text_encoders.", "cond_stage_model."),
)


def under_original_names(weights: WeightFile) -> RenamedFile:
    """A file whose names begin as in the original layout; where two names would become one, the original stays."""
    present = set(weights.names())
    originals = {name: original_beginning(name) for name in weights.names()}
    return RenamedFile(
        weights, {name if original in present else original: name for name, original in originals.items()}
    )


def original_beginning(name: str) -> str:
    """`diffusion_model.out.2.bias` → `model.diffusion_model.out.2.bias`; other names stay as they are."""
    for met, original in _PREFIXES:
        if name.startswith(met):
            return original + name.removeprefix(met)
    return name
