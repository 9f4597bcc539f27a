"""Word vectors in the one file format that diffusers, AUTOMATIC1111 and ComfyUI read: a single tensor `[n, D]`.

Stable Diffusion XL has a table for each text encoder: `clip_l` and `clip_g`, and the word in the file's name and, for
this program, in its metadata. diffusers takes the word from the tensor's name, the other two from the name of the file.
InvokeAI takes it from the file's name as well, and reads a tensor of one name only. Others' files are read too:
AUTOMATIC1111's and the first trainers' pickles, files of several words, and LoRAs that bring words along.
"""

from collections.abc import Mapping
from pathlib import Path

import torch

from dbcli.diffusion.files.model_files import open_weights
from dbcli.diffusion.files.weight_file import WeightFile
from dbcli.diffusion.files.writing import save_tensors
from dbcli.diffusion.formats.kind_checks import check_embedding
from dbcli.diffusion.formats.lora_names import bundled_names
from dbcli.diffusion.word_vectors import WordVectors
from dbcli.errors import BaseMissing, UnsafeFile, UnsupportedFile

INVOKEAI_NAME = "emb_params"
# Names that say nothing: AUTOMATIC1111's and InvokeAI's, kohya's, and that of AUTOMATIC1111's pickled files.
NAMELESS = (INVOKEAI_NAME, "*", "string_to_param.*", "string_to_param", "clip_l")
MOST_VECTORS = 75
# The tensors of further text encoders, and what the first is then called.
FIRST_NAME, FURTHER_NAMES = "clip_l", {"text_encoder_2": "clip_g"}
WORD_KEY = "dreambooth.word"
IMAGES = (".png", ".webp", ".jxl", ".avif")


def write_embedding(
    path: Path, words: WordVectors, *, dtype: torch.dtype = torch.float32, metadata: Mapping[str, str] | None = None
) -> None:
    """Writes the vectors of one word under its name; those for several text encoders under the encoders'."""
    tensors, said = {words.word: words.vectors.to(dtype)}, dict(metadata or {})
    if words.more:
        tensors = {FIRST_NAME: words.vectors.to(dtype)}
        tensors |= {FURTHER_NAMES[encoder]: vectors.to(dtype) for encoder, vectors in words.more.items()}
        said[WORD_KEY] = words.word
    save_tensors(path, tensors, said)


def read_embedding(path: Path) -> WordVectors:
    """Reads the vectors of one word, as this program writes them. Raises what `read_embeddings` raises."""
    words = read_embeddings(path)
    if len(words) != 1:
        raise UnsupportedFile(f"{path} contains {len(words)} words, not one.")
    return words[0]


def read_embeddings(path: Path) -> list[WordVectors]:
    """Reads the vectors of every word in a file as float32: alone, or bundled with a LoRA.

    A word is its tensor's name, or the file's where that says nothing, which is how AUTOMATIC1111 and ComfyUI take it.
    Raises UnsupportedFile where it is not an embedding for Stable Diffusion, BaseMissing where vectors are
    missing, UnsafeFile where it is damaged.
    """
    if path.suffix.lower() in IMAGES:
        raise UnsupportedFile(
            f"{path} is an image. AUTOMATIC1111 can hide an embedding in one, which is not read here.",
            hint="look for it as .safetensors or .pt",
        )
    weights = open_weights(path)
    if not weights.names():
        raise BaseMissing(f"{path} contains no vectors.", hint="Download it again, or look for another file.")
    check_embedding(weights)
    bundled = read_bundled(weights)
    if bundled:
        return bundled
    if {FIRST_NAME, *FURTHER_NAMES.values()} == set(weights.names()):
        more = {encoder: vectors_of(weights, name) for encoder, name in FURTHER_NAMES.items()}
        return [WordVectors(weights.metadata.get(WORD_KEY, path.stem), vectors_of(weights, FIRST_NAME), more)]
    nameless = [name for name in weights.names() if name in NAMELESS]
    if len(nameless) > 1:
        raise UnsupportedFile(f"{path} contains vectors for several text encoders ({', '.join(nameless)}).")
    words = {path.stem if name in NAMELESS else name: name for name in weights.names()}
    # AUTOMATIC1111's pickles name a parameter for every word.
    return [
        WordVectors(word.removeprefix("string_to_param."), vectors_of(weights, name)) for word, name in words.items()
    ]


def read_bundled(weights: WeightFile) -> list[WordVectors]:
    """The words that a LoRA file brings along, float32 `[n, D]` each. Raises UnsafeFile for what is no such table.

    Where a word lacks vectors for the first text encoder, those of the next stand in their place.
    """
    words = []
    for word, names in bundled_names(weights.names()).items():
        (_, first), *others = sorted(names.items())
        more = {encoder: vectors_of(weights, name) for encoder, name in others}
        words.append(WordVectors(word, vectors_of(weights, first), more))
    return words


def vectors_of(weights: WeightFile, name: str) -> torch.Tensor:
    """The vectors in one tensor, float32 `[n, D]`. Raises UnsafeFile where it has none, too many or infinite ones."""
    shape, path = weights.shape(name), weights.path
    if len(shape) not in (1, 2) or shape[-1] == 0:
        raise UnsafeFile(f"{path}: {name} has the shape {list(shape)}, which is not a table of vectors.")
    if len(shape) == 2 and not 1 <= shape[0] <= MOST_VECTORS:
        raise UnsafeFile(f"{path} contains {shape[0]} vectors; a prompt has room for {MOST_VECTORS} at most.")
    vectors = weights.read(name).float()
    if not bool(vectors.isfinite().all()):
        raise UnsafeFile(f"{path} contains numbers that are not finite; every image would be black.")
    return vectors.reshape(-1, shape[-1])
