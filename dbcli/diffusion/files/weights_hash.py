"""The hash that names a base in records: the same for the same weights, whatever file or folder they lie in.

It is sha256 over, in a fixed order, each tensor's diffusers name, its shape and its values as 32-bit floats. Hence
a folder, a `.safetensors` file and a `.ckpt` of one model share a hash, and so do its fp16 copy and that copy
widened to fp32 (but not an fp32 original and its rounded fp16 copy: their weights differ). Facts that are not
weights yet decide what they generate (see `Base`) are hashed in at the end.

Reading and hashing 1 B parameters takes seconds, so for large models the digest is remembered in the user's cache
by path, size and modification time of the files.
"""

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from dbcli.diffusion.files.writing import save_json

VERSION = "dreambooth-base-1"
REMEMBER_FROM_BYTES = 256 * 2**20


class WeightsDigest:
    """Collects tensors in a fixed order into one sha256."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256(VERSION.encode())

    def add(self, name: str, tensor: torch.Tensor) -> None:
        """Adds one tensor under its full name, e.g. `unet.conv_in.weight`."""
        self._hash.update(f"\n{name} {list(tensor.shape)}\n".encode())
        values = tensor.detach().to(device="cpu", dtype=torch.float32).contiguous()
        self._hash.update(values.view(-1).view(torch.uint8).numpy().data)

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def base_hash(weights_digest: str, facts: Mapping[str, Any]) -> str:
    """The base's hash: its weights' digest and the facts that are not weights, 64 hex digits."""
    text = json.dumps({"weights": weights_digest, **facts}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def remembered_digest(files: Sequence[Path]) -> str | None:
    """The digest computed earlier for exactly these files, or None."""
    file = _cache_file(files)
    try:
        return None if file is None else str(json.loads(file.read_text(encoding="utf-8"))["digest"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember_digest(files: Sequence[Path], digest: str) -> None:
    """Stores a digest for these files; a cache that cannot be written is no fault."""
    file = _cache_file(files)
    if file is not None:
        with contextlib.suppress(OSError):
            save_json(file, {"digest": digest, "files": [str(path) for path in files]})


def _cache_file(files: Sequence[Path]) -> Path | None:
    """Where the digest of these files is kept; None for files that are hashed as fast as they are looked up."""
    import platformdirs

    if sum(path.stat().st_size for path in files) < REMEMBER_FROM_BYTES:
        return None
    # Links are followed: the hub's cache is a folder of links to files named by content.
    states = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(files)]
    key = hashlib.sha256(json.dumps([VERSION, states]).encode()).hexdigest()[:32]
    return Path(platformdirs.user_cache_dir("dreambooth")) / "weights" / f"{key}.json"
