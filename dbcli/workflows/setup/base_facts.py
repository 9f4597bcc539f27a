"""What a base's small files say of it without its being loaded: how much text it reads, and what it can generate."""

import json
import os
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from dbcli.diffusion.files.file_kinds import SDXL, Z_IMAGE, kind_of
from dbcli.diffusion.files.model_files import open_weights
from dbcli.errors import DreamboothError
from dbcli.project.files.layout import Layout
from dbcli.project.settings.project_settings import EMBEDDED_BASES, load_settings

# CLIP's own, which Stable Diffusion 1.x and 2.x have.
USUAL_TOKENS = 77
# What is read of a prompt where a language model is the text encoder.
CHAT_TOKENS = 512
# The known base that others of its family are trained like, by the family's name.
LIKE = {SDXL: "sdxl", Z_IMAGE: "zimage"}
# Those that are flow-matching models, and those whose text encoder does not learn.
FLOWING, FROZEN_TEXT = {"zimage", "tiny-flow"}, {"zimage"}
# Those with two text encoders that learn.
TWO_ENCODERS = {"sdxl", "tiny-xl"}
Z_IMAGE_REPOSITORY = "Tongyi-MAI/Z-Image"
# Where denoisers lie in a folder.
_DENOISERS = ("unet/config.json", "transformer/config.json")
_PLACES = ("position_embedding.weight", "positional_embedding")


@dataclass(frozen=True)
class BaseFacts:
    """Tokens of a prompt, start and end included; layers of the text encoder and pixels a latent covers, if known."""

    max_tokens: int = USUAL_TOKENS
    text_layers: int | None = None
    vae_factor: int | None = None


def facts_of(layout: Layout) -> BaseFacts:
    """What the files of the project's base say; the usual where they say nothing or are not here."""
    folder = place_of(load_settings(layout).base)
    try:
        if folder.is_dir():
            return _of_folder(folder)
        if folder.suffix == ".safetensors" and folder.is_file():
            return BaseFacts(_of_file(folder))
    except (OSError, ValueError, KeyError, TypeError, DreamboothError):
        pass
    return BaseFacts()


def place_of(source: str) -> Path:
    """Where a base lies that is a folder, a file or the embedded one; for other names a path that does not exist."""
    if source in EMBEDDED_BASES:
        return Path(str(resources.files("dbcli"))) / "embedded" / "sd"
    return Path(source).expanduser()


def base_like(source: str) -> str:
    """The known base that another is trained like: "sdxl" or "zimage" for a folder, a file or a hub id of its family.

    The word itself where nothing tells: of what is not here yet, of pickles, and of Stable Diffusion 1 and 2.
    """
    path = place_of(source)
    if not path.exists():
        # A hub's repository, of whichever commit: none changes its family.
        cached = _hub_cache() / f"models--{source.replace('/', '--')}" / "snapshots"
        found = sorted(one for name in _DENOISERS for one in cached.glob(f"*/{name}"))
        path = found[0].parent.parent if found else path
    stated = [path / name for name in _DENOISERS if (path / name).is_file()]
    file = stated[0] if stated else path
    try:
        return _like(path, file.stat().st_mtime_ns) or source
    except (OSError, ValueError, DreamboothError):
        return source


def is_flow(source: str) -> bool:
    """Whether a base is known to be a flow-matching model."""
    return base_like(source) in FLOWING


def trains_text(source: str) -> bool:
    """Whether a base's text encoder can learn, as far as its files tell."""
    return base_like(source) not in FROZEN_TEXT


def has_one_encoder(source: str) -> bool:
    """Whether a base is on this machine and known to have one text encoder."""
    return place_of(source).exists() and base_like(source) not in TWO_ENCODERS


@lru_cache(maxsize=16)
def _like(path: Path, changed_ns: int) -> str | None:
    """`changed_ns` lets a base that is another one now be looked at again."""
    if path.is_dir():
        if str(_read(path / "transformer" / "config.json").get("_class_name", "")).startswith("ZImage"):
            return LIKE[Z_IMAGE]
        # What every UNet of XL says, and none of Stable Diffusion 1 and 2.
        has_size_conditioning = _read(path / "unet" / "config.json").get("addition_embed_type") == "text_time"
        return LIKE[SDXL] if has_size_conditioning else None
    return LIKE.get(kind_of(open_weights(path)).made_for) if path.suffix == ".safetensors" else None


def vocabulary_of(layout: Layout) -> Path | None:
    """The tokenizer.json of a project's base whose text encoder is a language model; None where it is CLIP's."""
    try:
        settings = load_settings(layout)
    except DreamboothError:
        return None
    base = settings.base
    if base in EMBEDDED_BASES or base_like(base) != LIKE[Z_IMAGE]:
        return None
    folder = Path(base).expanduser()
    if folder.is_dir():
        return folder / "tokenizer" / "tokenizer.json"
    repository = Z_IMAGE_REPOSITORY if base == LIKE[Z_IMAGE] else base
    cached = _hub_cache() / f"models--{repository.replace('/', '--')}" / "snapshots"
    return cached / str(settings.revision) / "tokenizer" / "tokenizer.json"


def _hub_cache() -> Path:
    """Where the hub's library keeps what it downloaded, without importing it."""
    home = Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser()
    return Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()


def _of_folder(folder: Path) -> BaseFacts:
    text, vae = _read(folder / "text_encoder" / "config.json"), _read(folder / "vae" / "config.json")
    limits = [_read(folder / "tokenizer" / "tokenizer_config.json").get("model_max_length")]
    limits.append(text.get("max_position_embeddings"))
    # Some tokenizers write 10^30 where they have no limit.
    usual = CHAT_TOKENS if text.get("model_type") == "qwen3" else USUAL_TOKENS
    tokens = min((one for one in limits if isinstance(one, int) and 2 < one < 10_000), default=usual)
    layers, channels = text.get("num_hidden_layers"), vae.get("block_out_channels")
    return BaseFacts(
        tokens,
        layers if isinstance(layers, int) else None,
        2 ** (len(channels) - 1) if isinstance(channels, list) and channels else None,
    )


def _read(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found if isinstance(found, dict) else {}


def _of_file(path: Path) -> int:
    """Tokens, from the shape of the text encoder's table of places in the header of a safetensors file."""
    weights = open_weights(path)
    shapes = [weights.shape(name) for name in weights.names() if name.endswith(_PLACES)]
    return int(shapes[0][0]) if shapes else USUAL_TOKENS
