"""Tensors that may be deleted at any time: what was computed once and would come out the same again."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dbcli.diffusion.files.model_files import open_weights
from dbcli.diffusion.files.writing import save_tensors
from dbcli.errors import DreamboothError

if TYPE_CHECKING:
    import torch


def keep_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Writes tensors for `kept_tensors`; a cache that cannot be written is no fault."""
    with contextlib.suppress(OSError):
        save_tensors(path, tensors, {})


def kept_tensors(path: Path, names: Sequence[str]) -> list[torch.Tensor] | None:
    """Tensors that `keep_tensors` wrote, bit for bit; None where nothing is kept or the file is damaged."""
    try:
        weights = open_weights(path)
        return [weights.read(name) for name in names]
    except (OSError, KeyError, DreamboothError):
        return None
