"""What every reader of a model file offers, whatever its tensors are called in it; and what to do about a bad file.

Weights that are 8-bit floats with scales beside them are read as the products that they stand for.
"""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from dbcli.errors import UnsupportedFile

if TYPE_CHECKING:
    import torch


EIGHT_BIT_FLOATS = ("torch.float8_e4m3fn", "torch.float8_e5m2")
# A weight `x.weight` is multiplied by `x.<one of these>`: what ComfyUI has written, before and since 2025.
SCALES = ("scale_weight", "weight_scale")
# Of no use here: scales of activations, and the marks by which programs know such files. The last one stands alone in
# a file of one network, and behind the network's prefix in a file of several (`model.diffusion_model.scaled_fp8`).
OTHERS = ("scale_input", "input_scale", "comfy_quant")
MARK = "scaled_fp8"


class WeightFile(Protocol):
    """Named tensors in a file, read one at a time; `metadata` is what the file says of itself."""

    path: Path
    metadata: dict[str, str]

    def names(self) -> list[str]: ...

    def shape(self, name: str) -> tuple[int, ...]: ...

    def dtype(self, name: str) -> torch.dtype: ...

    def read(self, name: str) -> torch.Tensor:
        """One tensor as stored, in memory of its own."""
        ...


class RenamedFile:
    """A file seen under other names: `stored` maps each to the file's own, and names that it lacks are hidden."""

    def __init__(self, weights: WeightFile, stored: Mapping[str, str]) -> None:
        self.path, self.metadata = weights.path, weights.metadata
        self.weights, self.stored = weights, stored

    def names(self) -> list[str]:
        return list(self.stored)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.weights.shape(self.stored[name])

    def dtype(self, name: str) -> torch.dtype:
        return self.weights.dtype(self.stored[name])

    def read(self, name: str) -> torch.Tensor:
        return self.weights.read(self.stored[name])


class ScaledFile(RenamedFile):
    """A file seen without its scales; `read` gives weights that have one multiplied by it, in float32."""

    def __init__(self, weights: WeightFile) -> None:
        present = set(weights.names())
        self._scales = {
            f"{stem}.weight": name
            for name in present
            for stem, _, last in [name.rpartition(".")]
            if last in SCALES and f"{stem}.weight" in present
        }
        hidden = set(self._scales.values())
        shown = [
            name for name in weights.names() if name not in hidden and not name.endswith(OTHERS) and not _is_mark(name)
        ]
        super().__init__(weights, {name: name for name in shown})
        for name, scale in self._scales.items():
            shape = weights.shape(scale)
            if shape not in ((), (1,)) and math.prod(shape) != weights.shape(name)[0]:
                raise UnsupportedFile(
                    f"{self.path} contains 8-bit floats with a scale of the shape {list(shape)} for {name}.",
                    hint="Use the model in fp16, bf16 or fp32.",
                )

    def dtype(self, name: str) -> torch.dtype:
        import torch

        return torch.float32 if name in self._scales else super().dtype(name)

    def read(self, name: str) -> torch.Tensor:
        """One tensor in memory of its own; a scale is one for all, or one a row."""
        tensor = super().read(name)
        if name not in self._scales:
            return tensor
        scale = self.weights.read(self._scales[name]).float()
        return tensor.float() * scale.reshape(-1, *[1] * (tensor.ndim - 1))


def unscaled(weights: WeightFile) -> WeightFile:
    """The file itself, or what its 8-bit floats stand for where scales lie beside them."""
    names = weights.names()
    has_scales = any(_is_mark(name) or name.endswith(SCALES) for name in names)
    if has_scales and any(str(weights.dtype(name)) in EIGHT_BIT_FLOATS for name in names):
        return ScaledFile(weights)
    return weights


def _is_mark(name: str) -> bool:
    return name.rpartition(".")[2] == MARK


def require_float(weights: WeightFile, name: str) -> None:
    """Raises UnsupportedFile for a weight in whole numbers, which a scale that is not here would turn into weights."""
    dtype = weights.dtype(name)
    if not dtype.is_floating_point:
        raise UnsupportedFile(
            f"{weights.path} is quantised: {name} is stored as {str(dtype).removeprefix('torch.')}.",
            hint="Use the model in fp16, bf16 or fp32.",
        )


def is_in_hub_cache(path: Path) -> bool:
    """Whether a file is a link into the hub's cache, which keeps what it downloaded under `blobs/`."""
    return path.is_symlink() and path.resolve().parent.name == "blobs"


def how_to_get_again(path: Path) -> str:
    """The next step about a damaged file; one in the hub's cache is downloaded again once the damaged copy is gone."""
    if is_in_hub_cache(path):
        # Without its link alone the damaged copy would be linked to once more.
        command = "del" if os.name == "nt" else "rm"
        return f"{command} {shlex.quote(str(path.resolve()))}, then the same command, which downloads it again"
    return "Download or copy it again; it may be truncated."
