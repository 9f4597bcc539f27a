"""What every reader of a model file offers, whatever the file is and whatever its tensors are called in it."""

from __future__ import annotations

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
