"""The two judges that ship with the program, for the embedded base: no network, no download.

`tiny-clip` sees with a small CLIP vision tower; its text feature is `text_projection @ pooled`, where pooled is the
embedded base's own text encoder at the first end-of-text token, after the final layer norm.

`tiny-dino` plays the part of DINO: what an ImageNet network of timm's finds strongest and weakest near the middle of an
image, standardised, as without that small soft images are all alike to it. Folders of its former editions, a small ViT
and the network's pooled top features, are still read.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

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
from dbcli.metrics.judges.preprocessing import Squashing, read_preprocessing
from dbcli.metrics.judges.shared_parts import Maps

KINDS = ("tiny-dino", "tiny-clip")
# Pixels a side of the photos that `load_maps` looks at, and the stages whose maps it gives: 24 and 12 places a side.
MAPS_PX, MAP_STAGES = 384, (4, 6)
# How far from the middle a place still counts, as the deviation of a Gaussian in half sides: scenes lie at the edges.
MIDDLE_WIDTH = 0.8


def locate(kind: str, source: str | None = None) -> JudgeFiles:
    """The judge's folder in the package, or a folder of the same form; a text encoder lies at `../../sd` of it.

    Raises JudgeMissing where it is not there: a broken installation, or weights that were not packed.
    """
    folder = Path(source).expanduser() if source else Path(__file__).parents[2] / "embedded" / "judges" / kind
    needed = ["config.json", "model.safetensors", "preprocess.json"]
    needed += ["text_projection.safetensors"] if kind == "tiny-clip" else []
    needed += ["features.safetensors"] if kind == "tiny-dino" and not _is_first_edition(folder) else []
    absent = [name for name in needed if not (folder / name).is_file()]
    if absent:
        raise JudgeMissing(
            f"The embedded judge {kind!r} is incomplete: {folder} lacks {', '.join(absent)}.",
            hint="reinstall dreambooth, or score with --judge paper",
        )
    return JudgeFiles(folder / "model.safetensors", folder, f"embedded/{kind}" if source is None else str(folder), None)


def build(kind: str, files: JudgeFiles, device: str) -> Encoder:
    """The encoder of an embedded judge."""
    assert files.folder is not None
    return _matched_with_texts(files.folder, device) if kind == "tiny-clip" else _image_judge(files.folder, device)


def _image_judge(folder: Path, device: str) -> Encoder:
    """`tiny-dino`: features [N, D] are (values - mean) / spread, with both from `features.safetensors`."""
    import timm

    config = _config(folder)
    if _is_first_edition(folder):
        seen = read_preprocessing(folder / "preprocess.json")
        return replace(transformers_vit(folder, config, device), model="tiny-dino", preprocessing=seen)
    network = _image_network(folder, config, device)
    statistics = {name: value.float().to(device) for name, value in read_state(folder / "features.safetensors").items()}

    def values(pixels: torch.Tensor) -> torch.Tensor:
        if "stage" not in config:  # the second edition
            pooled: torch.Tensor = network(pixels)
            return pooled
        return middle_extremes(stage_maps(network, pixels, int(config["stage"])), statistics["centre"])

    return Encoder(
        config["model"],
        f"timm {timm.__version__}",
        read_preprocessing(folder / "preprocess.json"),
        encode_pixels=lambda pixels: (values(pixels) - statistics["mean"]) / statistics["spread"],
        notes={
            "edition": int(config["edition"]),
            "feature": _feature(config),
            "statistics_sha256": sha256_of(folder / "features.safetensors"),
        },
    )


def _feature(config: Mapping[str, Any]) -> str:
    if "stage" not in config:
        return "pooled top features, standardised"
    return f"extremes of stage {config['stage']} near the middle, standardised"


def stage_maps(network: Any, pixels: torch.Tensor, stage: int) -> torch.Tensor:
    """Maps [B, C, h, w] of a stage of a timm network of EfficientNet's form, stages counted from 0."""
    values: torch.Tensor = network.bn1(network.conv_stem(pixels))
    for block in network.blocks[: stage + 1]:
        values = block(values)
    return values


def middle_extremes(maps: torch.Tensor, centre: torch.Tensor) -> torch.Tensor:
    """The largest and the smallest deviation of each channel from `centre` [C], places weighed by how near they are
    to the middle: maps [B, C, h, w] -> [B, 2 C].

    Means over all places say most about what is large, the background; extremes about what stands out.
    """
    rows, columns = (torch.linspace(-1, 1, side, device=maps.device) for side in maps.shape[-2:])
    near = torch.exp(-(rows[:, None] ** 2 + columns**2) / (2 * MIDDLE_WIDTH**2))
    deviations = (maps - centre[:, None, None]) * near
    return torch.cat([deviations.amax((2, 3)), deviations.amin((2, 3))], dim=1)


def load_maps(device: str = "cpu") -> Maps:
    """What `shared_parts` compares: maps of `tiny-dino`'s network, of 16 and 32 px to a place, of a whole photo."""
    folder = locate("tiny-dino").weights.parent
    network = _image_network(folder, _config(folder), device)
    seen = read_preprocessing(folder / "preprocess.json")
    prepare = Squashing(MAPS_PX, seen.mean, seen.std)

    @torch.inference_mode()
    def maps(photo: Image.Image) -> list[torch.Tensor]:
        values, found = network.bn1(network.conv_stem(prepare([photo]).to(device))), []
        for place, stage in enumerate(network.blocks):
            values = stage(values)
            if place in MAP_STAGES:
                found.append(values[0].float().cpu())
        return found

    return maps


def _config(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return config


def _image_network(folder: Path, config: Mapping[str, Any], device: str) -> Any:
    import timm

    network: Any = timm.create_model(config["architecture"], pretrained=False, num_classes=0)
    network.load_state_dict(read_state(folder / "model.safetensors"), strict=True)
    return network.float().eval().to(device)


def _is_first_edition(folder: Path) -> bool:
    """Whether a folder of `tiny-dino` holds the ViT that it once was."""
    return (folder / "config.json").is_file() and "model_type" in _config(folder)


def _matched_with_texts(folder: Path, device: str) -> Encoder:
    import transformers

    vision = load_transformers(transformers.CLIPVisionModelWithProjection, folder).to(device)
    texts = _TextEncoder(folder, device)
    return Encoder(
        "tiny-clip",
        f"transformers {transformers.__version__}",
        read_preprocessing(folder / "preprocess.json"),
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
