"""The judges: encoders that turn pictures and texts into features, loaded by name.

`dino` (ViT-S/16, timm), `clip` (ViT-B/32, OpenAI weights, open_clip), `clip-l` (ViT-L/14) are fetched from
the hub or read from a local copy; `tiny-dino` and `tiny-clip` are embedded. A judge says in `describe()`
exactly what it is, because published numbers differ by encoder, preprocessing and scale.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import torch
from PIL import Image

from dbcli.errors import JudgeMissing, UsageError
from dbcli.metrics.judges.files import UNREADABLE, JudgeFiles, locate, sha256_of, ways_out
from dbcli.metrics.judges.preprocessing import Preprocessing
from dbcli.prompt_text import cleaned

HUB_SOURCES = {
    "dino": "timm/vit_small_patch16_224.dino",
    "clip": "timm/vit_base_patch32_clip_224.openai",
    "clip-l": "timm/vit_large_patch14_clip_224.openai",
}
JUDGE_SETS: dict[str, tuple[str, ...]] = {
    "paper": ("dino", "clip"),
    "paper-l": ("dino", "clip", "clip-l"),
    "tiny": ("tiny-dino", "tiny-clip"),
}


class ImageEncoder(Protocol):
    """Turns pictures into features."""

    @property
    def name(self) -> str: ...

    @property
    def key(self) -> str: ...

    def describe(self) -> dict[str, Any]: ...

    def encode_images(self, images: Sequence[Image.Image], batch_size: int = 32) -> torch.Tensor: ...


class TextEncoder(Protocol):
    """Turns texts into features that a picture's features may be compared with."""

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor: ...

    def too_long(self, texts: Sequence[str]) -> list[str]: ...


class ImageTextEncoder(ImageEncoder, TextEncoder, Protocol):
    """Both towers of a CLIP."""


@dataclass(frozen=True)
class Judge:
    """An encoder with its preprocessing; `encode_tokens` is None where it has no text tower."""

    name: str
    model: str
    library: str
    files: JudgeFiles
    preprocessing: Preprocessing
    encode_pixels: Callable[[torch.Tensor], torch.Tensor]
    encode_tokens: Callable[[list[str]], torch.Tensor] | None = None
    count_tokens: Callable[[str], int] | None = None
    device: str = "cpu"
    notes: Mapping[str, Any] = field(default_factory=dict)
    weights_sha256: str = ""

    @property
    def key(self) -> str:
        """16 hex digits that change with weights, model or preprocessing: features of one key may be
        mixed.
        """
        identity = [self.model, self.weights_sha256, self.preprocessing.describe(), dict(self.notes)]
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]

    def describe(self) -> dict[str, Any]:
        """What this judge is, as JSON values."""
        return {
            "judge": self.name,
            "model": self.model,
            "library": self.library,
            "source": self.files.source,
            "revision": self.files.revision,
            "weights_sha256": self.weights_sha256,
            "preprocessing": self.preprocessing.describe(),
            "features": "float32, L2-normalised",
            **self.notes,
        }

    def encode_images(self, images: Sequence[Image.Image], batch_size: int = 32) -> torch.Tensor:
        """Features of pictures, float32 [N, D] on the CPU, rows of length 1; [0, 0] for no pictures."""
        batches = [images[start : start + batch_size] for start in range(0, len(images), batch_size)]
        with torch.inference_mode():
            found = [self.encode_pixels(self.preprocessing(batch).to(self.device)) for batch in batches]
        return _unit_rows(found)

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Features of texts, float32 [N, D] on the CPU, rows of length 1. Raises TypeError without a text
        tower.
        """
        if self.encode_tokens is None:
            raise TypeError(f"{self.name} has no text tower")
        clean = [cleaned(text) for text in texts]
        with torch.inference_mode():
            found = [self.encode_tokens(clean[start : start + 64]) for start in range(0, len(clean), 64)]
        return _unit_rows(found)

    def too_long(self, texts: Sequence[str]) -> list[str]:
        """The texts with more tokens than the text tower takes, so that their end is not read."""
        if self.count_tokens is None:
            return []
        most = int(self.notes["max_tokens"])
        return [text for text in texts if self.count_tokens(cleaned(text)) > most]


@dataclass(frozen=True)
class Judges:
    """The judges of one evaluation: DINO for fidelity, CLIP for CLIP-I and CLIP-T, a larger CLIP where
    asked for.
    """

    dino: ImageEncoder
    clip: ImageTextEncoder
    clip_l: ImageTextEncoder | None = None

    def describe(self) -> dict[str, Any]:
        """Every judge's description, by its part in the scores."""
        parts: dict[str, ImageEncoder | None] = {"dino": self.dino, "clip": self.clip, "clip_l": self.clip_l}
        return {part: judge.describe() for part, judge in parts.items() if judge is not None}


def load_judges(
    name: str = "paper",
    *,
    sources: Mapping[str, str] | None = None,
    offline: bool = False,
    device: str = "cpu",
) -> Judges:
    """A named set of judges: `paper`, `paper-l` (with ViT-L/14) or `tiny` (embedded).

    `sources` maps a judge's name to a local path or hub id. Raises UsageError for a name that does not exist,
    JudgeMissing for a judge that cannot be had.
    """
    if name not in JUDGE_SETS:
        raise UsageError(f"There is no judge {name!r}.", hint="--judge " + "|".join(JUDGE_SETS))
    found = [
        load_judge(kind, source=(sources or {}).get(kind), offline=offline, device=device) for kind in JUDGE_SETS[name]
    ]
    clips = [cast(ImageTextEncoder, judge) for judge in found[1:]]
    return Judges(found[0], clips[0], clips[1] if len(clips) > 1 else None)


def load_judge(kind: str, *, source: str | None = None, offline: bool = False, device: str = "cpu") -> Judge:
    """One judge by kind: `dino`, `clip`, `clip-l`, `tiny-dino`, `tiny-clip`.

    `source` is a local file, a local folder or a hub id with an optional @revision; None takes the kind's
    own. Raises UsageError (no such kind) and JudgeMissing (not there, unreachable, or not this kind's
    weights).
    """
    from dbcli.metrics.judges import architectures
    from dbcli.metrics.judges import embedded as embedded_judges

    if kind not in {*HUB_SOURCES, *embedded_judges.KINDS}:
        raise UsageError(f"There is no judge {kind!r}.", hint=", ".join([*HUB_SOURCES, *embedded_judges.KINDS]))
    if kind in embedded_judges.KINDS:
        files = embedded_judges.locate(kind, source)
        build = embedded_judges.build
    else:
        files = locate(kind, source or HUB_SOURCES[kind], offline=offline)
        build = architectures.build
    try:
        return build(kind, files, chosen_device(device), sha256_of(files.weights))
    except JudgeMissing:
        raise
    except UNREADABLE as error:
        reason = " ".join((str(error).strip() or type(error).__name__).split())[:240]
        raise JudgeMissing(
            f"{files.weights} could not be read as the judge {kind!r}: {reason}",
            hint=ways_out(kind),
        ) from error


def chosen_device(device: str) -> str:
    """`auto` becomes cuda, mps or cpu, whichever is there; anything else stays."""
    if device != "auto":
        return device
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _unit_rows(batches: list[torch.Tensor]) -> torch.Tensor:
    if not batches:
        return torch.zeros(0, 0)
    return torch.nn.functional.normalize(torch.cat([batch.float().cpu() for batch in batches]), dim=1).clone()
