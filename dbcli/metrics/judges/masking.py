"""Scores without the background: CLIPSeg finds the class noun, everything else becomes grey.

Features of whole images reward a copied background. The masked variant blanks it in photos and generated
images alike, so what is left to compare is the subject.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image

from dbcli.metrics.judges.architectures import load_transformers
from dbcli.metrics.judges.files import locate, reading, sha256_of
from dbcli.metrics.judges.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Squashing, as_rgb, read_squashing
from dbcli.prompt_text import cleaned

HUB_SOURCE = "CIDAS/clipseg-rd64-refined"
THRESHOLD = 0.4
GREY = (124, 116, 104)  # ImageNet's mean colour: nearly nothing, to an encoder that subtracts it
LEAST_SHARE = 0.01


@dataclass(frozen=True)
class ClassMask:
    """Blanks what is not the noun; `probabilities` maps (images, noun) to float32 [N, H, W] in [0, 1]."""

    key: str
    probabilities: Callable[[Sequence[Image.Image], str], torch.Tensor]

    def __call__(self, images: Sequence[Image.Image], noun: str) -> list[Image.Image]:
        """The images with their background grey; one in which the noun is not found stays whole.

        An image without its subject must score low for that, not for being blank.
        """
        if not images:
            return []
        maps = self.probabilities(images, noun)
        return [_blanked(as_rgb(image), found) for image, found in zip(images, maps, strict=True)]

    def of(self, image: Image.Image, noun: str) -> Image.Image | None:
        """The mask itself, mode L, of the image's size: 255 where the noun is; None where it is not found."""
        return _mask(image.size, self.probabilities([image], noun)[0])


def load_mask(source: str | None = None, *, offline: bool = False, device: str = "cpu") -> ClassMask:
    """CLIPSeg from the hub, its cache or a local folder as transformers saves it.

    Raises JudgeMissing where it cannot be had.
    """
    files = locate("mask", source or HUB_SOURCE, offline=offline)
    with reading(files, "mask", "CLIPSeg"):
        import transformers

        model = load_transformers(transformers.CLIPSegForImageSegmentation, files.folder).to(device)
        tokenizer = transformers.CLIPTokenizer.from_pretrained(str(files.folder), local_files_only=True)
        size = int(model.config.vision_config.image_size)
        prepare = read_squashing(files.folder, Squashing(size, IMAGENET_MEAN, IMAGENET_STD))
    length = int(model.config.text_config.max_position_embeddings)

    def probabilities(images: Sequence[Image.Image], noun: str) -> torch.Tensor:
        tokens = tokenizer([cleaned(noun)], truncation=True, max_length=length, return_tensors="pt").input_ids
        with torch.inference_mode():
            pixels = prepare(images).to(device)
            words = tokens.expand(len(images), -1).to(device)
            logits = model(pixel_values=pixels, input_ids=words, interpolate_pos_encoding=True).logits
        maps: torch.Tensor = logits.reshape(len(images), *logits.shape[-2:]).sigmoid().float().cpu()
        return maps

    return ClassMask(f"clipseg-{sha256_of(files.weights)[:12]}-{prepare.size_px}px-{THRESHOLD}", probabilities)


def _blanked(image: Image.Image, probability: torch.Tensor) -> Image.Image:
    mask = _mask(image.size, probability)
    return image if mask is None else Image.composite(image, Image.new("RGB", image.size, GREY), mask)


def _mask(size: tuple[int, int], probability: torch.Tensor) -> Image.Image | None:
    kept = probability > THRESHOLD
    if float(kept.float().mean()) < LEAST_SHARE:
        return None
    return Image.fromarray((kept.numpy() * 255).astype("uint8")).resize(size, Image.Resampling.BILINEAR)
