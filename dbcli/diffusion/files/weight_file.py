"""What every reader of a model file offers, whatever its tensors are called in it; and what to do about a bad file."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from dbcli.errors import UnsupportedFile

if TYPE_CHECKING:
    import torch


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
