"""Model files from strangers: what is in them is checked before any of it takes memory, and nothing in them runs.

A `.safetensors` file is a JSON header and raw bytes; the header is checked here, by our own code, against the size of
the file. For the pickles of `.ckpt` and `.bin` see `pickle_files`.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dbcli.diffusion.files.damaged_files import how_to_get_again, is_in_hub_cache
from dbcli.diffusion.files.scaled_files import unscaled
from dbcli.errors import BaseMissing, UnsafeFile, UnsupportedFile

if TYPE_CHECKING:
    import torch

MAX_HEADER_BYTES = 32 * 2**20
MAX_JSON_BYTES = 16 * 2**20
MAX_DIMENSIONS = 8

# torch's names: what a file is shall be told before torch is imported, which takes longer than reading a header.
DTYPES = {
    "F64": ("float64", 8),
    "F32": ("float32", 4),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "F8_E4M3": ("float8_e4m3fn", 1),
    "F8_E5M2": ("float8_e5m2", 1),
    "I64": ("int64", 8),
    "I32": ("int32", 4),
    "I16": ("int16", 2),
    "I8": ("int8", 1),
    "U8": ("uint8", 1),
    "BOOL": ("bool", 1),
}

PICKLE_SUFFIXES = (".ckpt", ".bin", ".pt", ".pth")


@dataclass(frozen=True)
class TensorInfo:
    """What a header says about one tensor; `dtype` is torch's name, `start` and `end` are byte offsets in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Header:
    tensors: dict[str, TensorInfo]
    metadata: dict[str, str] = field(default_factory=dict)


class WeightFile(Protocol):
    """Named tensors in a file, read one at a time."""

    path: Path
    metadata: dict[str, str]

    def names(self) -> list[str]: ...

    def shape(self, name: str) -> tuple[int, ...]: ...

    def dtype(self, name: str) -> torch.dtype: ...

    def read(self, name: str) -> torch.Tensor: ...


def open_weights(path: Path) -> WeightFile:
    """Opens a model file by what its first bytes say; only its header is read.

    Raises BaseMissing when there is no such file, UnsafeFile when it is neither a sound safetensors file nor a
    zip archive of plain tensors.
    """
    if not path.is_file():
        raise BaseMissing(f"There is no model file {path}.")
    with path.open("rb") as handle:
        start = handle.read(64)
    _refuse_other_containers(path, start)
    if start.startswith(b"PK\x03\x04"):
        if path.suffix.lower() == ".safetensors":
            raise UnsafeFile(f"{path} is a pickle under the name of a safetensors file.")
        from dbcli.diffusion.files.pickle_files import PickleFile

        return unscaled(PickleFile(path))
    if path.suffix.lower() in PICKLE_SUFFIXES:
        raise UnsafeFile(
            f"{path} is not a checkpoint of today's torch (a zip archive).",
            hint=how_to_get_again(path)
            if is_in_hub_cache(path)
            else "Files older than torch 1.6 or cut short cannot be read safely; look for the model as .safetensors.",
        )
    return unscaled(SafetensorsFile(path))


def require_float(weights: WeightFile, name: str) -> None:
    """Raises UnsupportedFile for a weight in whole numbers, which a scale that is not here would turn into weights."""
    dtype = weights.dtype(name)
    if not dtype.is_floating_point:
        raise UnsupportedFile(
            f"{weights.path} is quantised: {name} is stored as {str(dtype).removeprefix('torch.')}.",
            hint="Use the model in fp16, bf16 or fp32.",
        )


def _refuse_other_containers(path: Path, start: bytes) -> None:
    """Names what people take for a model file by its first bytes."""
    if start.startswith(b"GGUF"):
        raise UnsupportedFile(
            f"{path} is a GGUF file, whose weights are quantised.",
            hint="Use the model as .safetensors in fp16 or fp32.",
        )
    if start.startswith(b"version https://git-lfs"):
        raise BaseMissing(
            f"{path} is a pointer of Git LFS; the model itself was not fetched.", hint="git lfs pull, in that folder"
        )
    if start.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        raise BaseMissing(f"{path} is a web page, not a model.", hint="Download it again, perhaps after signing in.")


class SafetensorsFile:
    """A `.safetensors` file whose header has been checked; tensors are copied out on `read`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.header = read_header(path)
        self.metadata = self.header.metadata

    def names(self) -> list[str]:
        return list(self.header.tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.header.tensors[name].shape

    def dtype(self, name: str) -> torch.dtype:
        import torch

        found: torch.dtype = getattr(torch, self.header.tensors[name].dtype)
        return found

    def read(self, name: str) -> torch.Tensor:
        """One tensor as stored, in memory of its own (the file may change or vanish afterwards)."""
        import torch

        info, dtype = self.header.tensors[name], self.dtype(name)
        length = info.end - info.start
        if length == 0:
            return torch.empty(info.shape, dtype=dtype)
        values = bytearray(length)
        with self.path.open("rb") as handle:
            handle.seek(info.start)
            if handle.readinto(values) != length:
                raise UnsafeFile(f"{self.path} became shorter while it was read.")
        return torch.frombuffer(values, dtype=dtype).reshape(info.shape)


def read_header(path: Path) -> Header:
    """Reads and checks the header of a safetensors file: names, dtypes, shapes and byte ranges must fit the file.

    Raises UnsafeFile naming the file and the first thing that does not hold.
    """
    size = path.stat().st_size
    with path.open("rb") as handle:
        prefix = handle.read(8)
        if len(prefix) < 8:
            raise _unsound(path, "it is shorter than 8 bytes")
        (length,) = struct.unpack("<Q", prefix)
        if length > min(MAX_HEADER_BYTES, size - 8):
            raise _unsound(path, f"its header claims {length} bytes")
        raw = handle.read(length)
    try:
        entries = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique_pairs)
    except (ValueError, RecursionError) as error:
        raise _unsound(path, "its header is not JSON") from error
    if not isinstance(entries, dict):
        raise _unsound(path, "its header is not a table")
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _unsound(path, "its metadata is not text")
    tensors = {name: _tensor_info(path, name, entry, 8 + length) for name, entry in entries.items()}
    _check_layout(path, tensors, 8 + length, size)
    return Header(tensors, metadata)


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name occurs twice")
    return table


def _tensor_info(path: Path, name: str, entry: Any, data_start: int) -> TensorInfo:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _unsound(path, f"the entry of {name!r} is malformed")
    if entry["dtype"] not in DTYPES:
        raise UnsafeFile(
            f"{path} cannot be read: {name!r} has the unknown type {entry['dtype']!r}.",
            hint="Use the model in fp16, bf16 or fp32.",
        )
    dtype, width = DTYPES[entry["dtype"]]
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not _are_counts(shape) or len(shape) > MAX_DIMENSIONS:
        raise _unsound(path, f"{name!r} has the shape {shape!r}")
    if not _are_counts(offsets) or len(offsets) != 2:
        raise _unsound(path, f"{name!r} has the byte range {offsets!r}")
    if offsets[1] - offsets[0] != math.prod(shape) * width:
        raise _unsound(path, f"the byte range of {name!r} does not fit its shape")
    return TensorInfo(dtype, tuple(shape), data_start + offsets[0], data_start + offsets[1])


def _are_counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**48 for value in values)


def _check_layout(path: Path, tensors: Mapping[str, TensorInfo], data_start: int, size: int) -> None:
    """The ranges must follow each other without gap or overlap, and end where the file ends."""
    position = data_start
    for info in sorted(tensors.values(), key=lambda info: (info.start, info.end)):
        if info.start != position:
            raise _unsound(path, "its tensors overlap or leave gaps")
        position = info.end
    if position != size:
        raise _unsound(path, f"it has {size} bytes where its header describes {position}")


def _unsound(path: Path, reason: str) -> UnsafeFile:
    return UnsafeFile(
        f"{path} is not a sound safetensors file: {reason}.",
        hint=how_to_get_again(path),
    )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON table of bounded size. Raises BaseMissing when absent, UnsafeFile when it is not one."""
    if not path.is_file():
        raise BaseMissing(f"There is no file {path}.")
    if path.stat().st_size > MAX_JSON_BYTES:
        raise UnsafeFile(f"{path} is larger than any configuration.")
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UnsafeFile(f"{path} is not JSON.", hint=how_to_get_again(path)) from error
    if not isinstance(table, dict):
        raise UnsafeFile(f"{path} is not a table.")
    return table
