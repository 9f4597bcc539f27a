"""Model files from strangers: what is in them is checked before any of it takes memory, and nothing in them runs.

A `.safetensors` file is a JSON header and raw bytes, which the safetensors library holds against each other. For the
pickles of `.ckpt` and `.bin` see `pickle_files`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from dbcli.diffusion.files.weight_file import WeightFile, how_to_get_again, is_in_hub_cache, unscaled
from dbcli.errors import BaseMissing, UnsafeFile, UnsupportedFile

if TYPE_CHECKING:
    import torch

MAX_JSON_BYTES = 16 * 2**20

# torch's names: what a file is shall be told before torch is imported, which takes longer than reading a header.
DTYPES = {
    **{"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"},
    **{"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"},
    **{"I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool"},
}

PICKLE_SUFFIXES = (".ckpt", ".bin", ".pt", ".pth")


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
            raise UnsafeFile(f"{path} is a pickle with the name of a safetensors file.")
        from dbcli.diffusion.files.pickle_files import PickleFile

        return unscaled(PickleFile(path))
    if path.suffix.lower() in PICKLE_SUFFIXES:
        raise UnsafeFile(
            f"{path} is not in the format of torch 1.6 and later (a zip archive).",
            hint=how_to_get_again(path)
            if is_in_hub_cache(path)
            else "Files from before torch 1.6 and truncated ones are not safe to read; find the model as .safetensors.",
        )
    return unscaled(SafetensorsFile(path))


def _refuse_other_containers(path: Path, start: bytes) -> None:
    """Names what people take for a model file by its first bytes."""
    if start.startswith(b"GGUF"):
        raise UnsupportedFile(
            f"{path} is a GGUF file, whose weights are quantised.",
            hint="Use the model as .safetensors in fp16 or fp32.",
        )
    if start.startswith(b"version https://git-lfs"):
        raise BaseMissing(
            f"{path} is a Git LFS pointer; the model itself was not downloaded.", hint="git lfs pull, in that folder"
        )
    if start.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        raise BaseMissing(f"{path} is a web page, not a model.", hint="Download it again, perhaps after signing in.")


class SafetensorsFile:
    """A `.safetensors` file whose header holds: names, dtypes, shapes and byte ranges fit it. Copied out on `read`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # The library's framework for numpy: opened for torch, it would import torch for a look at the header.
        with _sound(path), safe_open(str(path), framework="np") as file:
            self.metadata: dict[str, str] = file.metadata() or {}
            slices = {name: file.get_slice(name) for name in file.offset_keys()}
            self._shapes = {name: tuple(one.get_shape()) for name, one in slices.items()}
            self._dtypes = {name: one.get_dtype() for name, one in slices.items()}
        strange = next((name for name, dtype in self._dtypes.items() if dtype not in DTYPES), None)
        if strange is not None:
            raise UnsafeFile(
                f"{path} cannot be read: {strange!r} has the unknown type {self._dtypes[strange]!r}.",
                hint="Use the model in fp16, bf16 or fp32.",
            )

    def names(self) -> list[str]:
        return list(self._shapes)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._shapes[name]

    def dtype(self, name: str) -> torch.dtype:
        import torch

        found: torch.dtype = getattr(torch, DTYPES[self._dtypes[name]])
        return found

    def read(self, name: str) -> torch.Tensor:
        """One tensor as stored, in memory of its own (the file may change or vanish afterwards).

        The library maps the file instead, whose pages then count as this process's memory beside the tensors.
        """
        import torch

        tensor = torch.empty(self.shape(name), dtype=self.dtype(name))
        start, places = self._places
        begin, end = places[name]["data_offsets"]
        self._bytes.seek(start + begin)
        if self._bytes.readinto(tensor.view(-1).view(torch.uint8).numpy().data) != end - begin:
            raise UnsafeFile(f"{self.path} ends within {name!r}.", hint=how_to_get_again(self.path))
        return tensor

    @cached_property
    def _bytes(self) -> BufferedReader:
        return self.path.open("rb")

    @cached_property
    def _places(self) -> tuple[int, dict[str, Any]]:
        """Where tensors begin in the file, and what its header, which the library has checked, says of each."""
        self._bytes.seek(0)
        length = int.from_bytes(self._bytes.read(8), "little")
        return 8 + length, json.loads(self._bytes.read(length))


@contextmanager
def _sound(path: Path) -> Iterator[None]:
    """Inside it what the library does not take is UnsafeFile, with its reason."""
    try:
        yield
    except SafetensorError as error:
        reason = str(error).removeprefix("Error while deserializing header: ")[:160]
        raise UnsafeFile(f"{path} is not a valid safetensors file: {reason}.", hint=how_to_get_again(path)) from error


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
