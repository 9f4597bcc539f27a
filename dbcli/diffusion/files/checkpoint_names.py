"""Single files whose tensors go by the names that ComfyUI and merging tools give them, seen under the original ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dbcli.diffusion.files.model_files import WeightFile
from dbcli.diffusion.files.original_names import UNET_PREFIX, VAE_PREFIX

if TYPE_CHECKING:
    import torch

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


class RenamedFile:
    """A file whose names begin as in the original layout; where two names would become one, the original stays."""

    def __init__(self, weights: WeightFile) -> None:
        self.path: Path = weights.path
        self.metadata = weights.metadata
        self._weights = weights
        present = set(weights.names())
        self._stored: dict[str, str] = {}
        for name in weights.names():
            original = original_beginning(name)
            self._stored[name if original in present else original] = name

    def names(self) -> list[str]:
        return list(self._stored)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._weights.shape(self._stored[name])

    def dtype(self, name: str) -> torch.dtype:
        return self._weights.dtype(self._stored[name])

    def read(self, name: str) -> torch.Tensor:
        return self._weights.read(self._stored[name])


def original_beginning(name: str) -> str:
    """`diffusion_model.out.2.bias` → `model.diffusion_model.out.2.bias`; other names stay as they are."""
    for met, original in _PREFIXES:
        if name.startswith(met):
            return original + name.removeprefix(met)
    return name
