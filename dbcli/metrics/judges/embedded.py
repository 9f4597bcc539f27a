"""The two judges that ship with the program, for the embedded base: no network, no download.

`tiny-clip` sees with a small CLIP vision tower; its text feature is `text_projection @ pooled`, where pooled is the
embedded base's own text encoder at the first end-of-text token, after the final layer norm. `tiny-dino` is a small ViT.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dbcli.errors import JudgeMissing
from dbcli.metrics.judges.architectures import (
    JOINT_SPACE,
    load_transformers,
    padded_tokens,
    read_state,
    transformers_vit,
)
from dbcli.metrics.judges.files import JudgeFiles, sha256_of
from dbcli.metrics.judges.judge import Encoder
from dbcli.metrics.judges.preprocessing import read_preprocessing

KINDS = ("tiny-dino", "tiny-clip")


def locate(kind: str, source: str | None = None) -> JudgeFiles:
    """The judge's folder in the package, or a folder of the same form; a text encoder lies at `../../sd` of it.

    Raises JudgeMissing where it is not there: a broken installation, or weights that were not packed.
    """
    folder = Path(source).expanduser() if source else Path(__file__).parents[2] / "embedded" / "judges" / kind
    needed = ["config.json", "model.safetensors", "preprocess.json"]
    needed += ["text_projection.safetensors"] if kind == "tiny-clip" else []
    absent = [name for name in needed if not (folder / name).is_file()]
    if absent:
        raise JudgeMissing(
            f"The embedded judge {kind!r} is incomplete: {folder} lacks {', '.join(absent)}.",
            hint="reinstall dreambooth, or score with --judge paper",
        )
    return JudgeFiles(folder / "model.safetensors", folder, f"embedded/{kind}" if source is None else str(folder), None)


def build(kind: str, files: JudgeFiles, device: str) -> Encoder:
    """The encoder of an embedded judge."""
    import transformers

    assert files.folder is not None
    preprocessing = read_preprocessing(files.folder / "preprocess.json")
    if kind == "tiny-dino":
        config = json.loads((files.folder / "config.json").read_text(encoding="utf-8"))
        return replace(transformers_vit(files.folder, config, device), model=kind, preprocessing=preprocessing)
    vision = load_transformers(transformers.CLIPVisionModelWithProjection, files.folder).to(device)
    texts = _TextEncoder(files.folder, device)
    return Encoder(
        kind,
        f"transformers {transformers.__version__}",
        preprocessing,
        encode_pixels=lambda pixels: vision(pixel_values=pixels).image_embeds,
        encode_tokens=texts,
        count_tokens=lambda text: len(texts.tokenizer(text).input_ids),
        notes=JOINT_SPACE | {"max_tokens": texts.length, "text_sha256": texts.digest},
    )


class _TextEncoder:
    """The base's text encoder with the judge's projection: list of N texts -> float32 [N, D]."""

    def __init__(self, folder: Path, device: str) -> None:
        import transformers

        base = folder.parents[1] / "sd"
        projection = folder / "text_projection.safetensors"
        self.weight = read_state(projection)["weight"].float().to(device)
        self.model: Any = load_transformers(transformers.CLIPTextModel, base / "text_encoder").to(device)
        self.tokenizer: Any = transformers.CLIPTokenizer.from_pretrained(base / "tokenizer", local_files_only=True)
        self.length = int(self.tokenizer.model_max_length)
        self.digest = sha256_of(projection)[:32] + sha256_of(base / "text_encoder" / "model.safetensors")[:32]

    def __call__(self, texts: list[str]) -> torch.Tensor:
        tokens = padded_tokens(self.tokenizer, texts, self.length).to(self.weight.device)
        hidden = self.model(input_ids=tokens).last_hidden_state
        # Padding is end-of-text too, so the first one counts; argmax returns the first of equal values.
        ends = (tokens == self.tokenizer.eos_token_id).int().argmax(dim=1)
        pooled: torch.Tensor = hidden[torch.arange(len(tokens), device=hidden.device), ends]
        return pooled @ self.weight.T
