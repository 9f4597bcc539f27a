"""How every format reaches the disk: written beside its place, flushed, then renamed into it."""

import hashlib
import json
import os
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

HASH_KEY = "modelspec.hash_sha256"
NO_HASH = "0x" + 64 * "0"


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Writes a safetensors file whole or not at all, with the file mode that the umask gives.

    The metadata gains the format and, where it is a ModelSpec table, the sha256 of all tensor bytes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    ready = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    table = {"format": "pt", **metadata}
    is_modelspec = any(key.startswith("modelspec.") for key in table)
    try:
        write_tensor_file(_unshared(ready), temporary, table | ({HASH_KEY: NO_HASH} if is_modelspec else {}))
        _commit(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_tensor_file(
    tensors: Mapping[str, torch.Tensor], path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Writes a safetensors file in place. A failing disk is an OSError, as from every other writer."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(dict(tensors), str(path), metadata=None if metadata is None else dict(metadata))
    except SafetensorError as error:
        # The library puts the system's error number into its text: "... (os error 28)".
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
    if metadata is not None and len(metadata) > 1:
        _settle_metadata(path, metadata)


def _settle_metadata(path: Path, metadata: Mapping[str, str]) -> None:
    """Puts a file's metadata in order, as the library's is random and equal runs make equal files; and its hash."""
    with path.open("r+b") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        entries = json.loads(file.read(length))
        del entries["__metadata__"]
        if HASH_KEY in metadata:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            entries = {**entries, "__metadata__": {**metadata, HASH_KEY: f"0x{digest}"}}
        else:
            entries = {"__metadata__": dict(sorted(metadata.items())), **entries}
        header = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
        if len(header) <= length:
            file.seek(8)
            file.write(header.ljust(length))


def save_json(path: Path, table: Mapping[str, Any]) -> None:
    """Writes a JSON file whole or not at all."""
    save_text(path, json.dumps(table, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def save_text(path: Path, text: str) -> None:
    """Writes a text file whole or not at all, lines ending in a line feed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    try:
        temporary.write_bytes(text.encode("utf-8"))
        _commit(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def _unshared(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The library refuses two names for one memory, and would write the whole table behind a slice of it."""
    seen: set[int] = set()
    separate = {}
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != tensor.numel() * tensor.element_size():
            tensor = tensor.clone()
        seen.add(tensor.untyped_storage().data_ptr())
        separate[name] = tensor
    return separate


def _commit(temporary: Path, path: Path) -> None:
    umask = os.umask(0)
    os.umask(umask)
    temporary.chmod(0o666 & ~umask)  # the library leaves 0600
    with temporary.open("rb") as handle:
        os.fsync(handle.fileno())
    os.replace(temporary, path)
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
