"""Word vectors in the one file format that diffusers, AUTOMATIC1111 and ComfyUI read: a single tensor `[n, D]`.

diffusers takes the word from the tensor's name, the other two from the name of the file. InvokeAI takes it from the
file's name as well, and reads a tensor of one name only.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from dbcli.diffusion.formats.writing import save_tensors
from dbcli.diffusion.model_files import open_weights
from dbcli.diffusion.word_vectors import WordVectors
from dbcli.errors import BaseMissing, UnsafeFile

INVOKEAI_NAME = "emb_params"
# Names that say nothing: AUTOMATIC1111's, kohya's and the one of its older pickled files.
NAMELESS = (INVOKEAI_NAME, "*", "string_to_param.*", "string_to_param")
MOST_VECTORS = 75


def write_embedding(
    path: Path, words: WordVectors, *, dtype: torch.dtype = torch.float32, metadata: Mapping[str, str] | None = None
) -> None:
    """Writes the vectors of one word under its name."""
    save_tensors(path, {words.word: words.vectors.to(dtype)}, metadata or {})


def read_embedding(path: Path) -> WordVectors:
    """Reads vectors as float32; the word is the tensor's name, or the file's where that says nothing.

    Raises BaseMissing where the file is not an embedding for Stable Diffusion 1 or 2, UnsafeFile where it is damaged.
    """
    weights = open_weights(path)
    names = weights.names()
    if len(names) != 1 or len(weights.shape(names[0])) not in (1, 2):
        raise BaseMissing(f"{path} is not an embedding for Stable Diffusion 1 or 2: that is one tensor of vectors.")
    shape = weights.shape(names[0])
    if len(shape) == 2 and not 1 <= shape[0] <= MOST_VECTORS:
        raise UnsafeFile(f"{path} holds {shape[0]} vectors; a prompt has room for {MOST_VECTORS} at most.")
    vectors = weights.read(names[0]).float()
    if not bool(vectors.isfinite().all()):
        raise UnsafeFile(f"{path} holds numbers that are not finite; every picture would be black.")
    word = path.stem if names[0] in NAMELESS else names[0]
    return WordVectors(word, vectors.reshape(-1, shape[-1]))
