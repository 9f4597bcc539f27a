"""What a judge is: an encoder of images, and of texts where it is a CLIP, that says exactly which one it is.

Published numbers differ by encoder, preprocessing and scale, so `describe()` is kept beside every score.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from PIL import Image

from dbcli.metrics.judges.faces import FaceJudge
from dbcli.metrics.judges.files import JudgeFiles
from dbcli.metrics.judges.preprocessing import Preprocessing
from dbcli.prompt_text import cleaned

TEXT_BATCH = 64


class ImageEncoder(Protocol):
    """What looks at images: features of one `key` may be mixed."""

    @property
    def key(self) -> str: ...

    def encode_images(self, images: Sequence[Image.Image], batch_size: int = 32) -> torch.Tensor:
        """Features of images, float32 [N, D] on the CPU; [0, 0] for no images."""


@dataclass(frozen=True)
class Encoder:
    """A network in eval mode, float32, on its device; `encode_tokens` is None where it has no text encoder."""

    model: str
    library: str
    preprocessing: Preprocessing
    encode_pixels: Callable[[torch.Tensor], torch.Tensor]
    encode_tokens: Callable[[list[str]], torch.Tensor] | None = None
    count_tokens: Callable[[str], int] | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Judge:
    """An encoder by its name, with the files it was built from."""

    name: str
    files: JudgeFiles
    encoder: Encoder
    device: str = "cpu"
    weights_sha256: str = ""

    @property
    def key(self) -> str:
        """16 hex digits that change with weights, model or preprocessing: features of one key may be mixed."""
        encoder = self.encoder
        identity = [encoder.model, self.weights_sha256, encoder.preprocessing.describe(), dict(encoder.notes)]
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]

    def describe(self) -> dict[str, Any]:
        """What this judge is, as JSON values."""
        return {
            "judge": self.name,
            "model": self.encoder.model,
            "library": self.encoder.library,
            "source": self.files.source,
            "revision": self.files.revision,
            "weights_sha256": self.weights_sha256,
            "preprocessing": self.encoder.preprocessing.describe(),
            "features": "float32, L2-normalised",
            **self.encoder.notes,
        }

    def encode_images(self, images: Sequence[Image.Image], batch_size: int = 32) -> torch.Tensor:
        """Features of images, float32 [N, D] on the CPU, rows of length 1; [0, 0] for no images."""
        batches = [images[start : start + batch_size] for start in range(0, len(images), batch_size)]
        with torch.inference_mode():
            prepared = (self.encoder.preprocessing(batch).to(self.device) for batch in batches)
            return _unit_rows([self.encoder.encode_pixels(pixels) for pixels in prepared])

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Features of texts, float32 [N, D] on the CPU, rows of length 1. Raises TypeError without a text encoder."""
        encode = self.encoder.encode_tokens
        if encode is None:
            raise TypeError(f"{self.name} has no text encoder")
        clean = [cleaned(text) for text in texts]
        with torch.inference_mode():
            found = [encode(clean[start : start + TEXT_BATCH]) for start in range(0, len(clean), TEXT_BATCH)]
        return _unit_rows(found)

    def too_long(self, texts: Sequence[str]) -> list[str]:
        """The texts with more tokens than the text encoder takes, so that their end is not read."""
        count = self.encoder.count_tokens
        if count is None:
            return []
        return [text for text in texts if count(cleaned(text)) > int(self.encoder.notes["max_tokens"])]


@dataclass(frozen=True)
class Judges:
    """The judges of one evaluation: DINO for fidelity, CLIP for CLIP-I and CLIP-T, perhaps a larger CLIP and faces."""

    dino: Judge
    clip: Judge
    clip_l: Judge | None = None
    face: FaceJudge | None = None

    @property
    def parts(self) -> dict[str, Judge]:
        """Every judge of whole images, by its part in the scores."""
        parts = {"dino": self.dino, "clip": self.clip, "clip_l": self.clip_l}
        return {part: judge for part, judge in parts.items() if judge is not None}

    def describe(self) -> dict[str, Any]:
        """Every judge's description, by its part in the scores."""
        described = {part: judge.describe() for part, judge in self.parts.items()}
        return described if self.face is None else described | {"face": self.face.describe()}


def _unit_rows(batches: list[torch.Tensor]) -> torch.Tensor:
    if not batches:
        return torch.zeros(0, 0)
    return torch.nn.functional.normalize(torch.cat([batch.float().cpu() for batch in batches]), dim=1).clone()
