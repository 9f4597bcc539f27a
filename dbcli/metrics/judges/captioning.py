"""Photos described in words, by BLIP: a first draft of captions for a person to edit."""

from collections.abc import Callable, Sequence

import torch
from PIL import Image

from dbcli.metrics.judges.architectures import load_transformers
from dbcli.metrics.judges.files import BLIP, locate, reading
from dbcli.metrics.judges.preprocessing import CLIP_MEAN, CLIP_STD, Squashing, read_squashing

MOST_TOKENS = 30

# Images -> one caption each.
Captioner = Callable[[Sequence[Image.Image]], list[str]]


def load_captioner(source: str | None = None, *, offline: bool = False, device: str = "cpu") -> Captioner:
    """BLIP from the hub, its cache or a local folder as transformers saves it; the same photo, the same words.

    Raises JudgeMissing where it cannot be had.
    """
    files = locate("caption", source or BLIP, offline=offline)
    with reading(files, "caption", "BLIP"):
        import transformers

        model = load_transformers(transformers.BlipForConditionalGeneration, files.folder).to(device)
        tokenizer = transformers.BertTokenizer.from_pretrained(str(files.folder), local_files_only=True)
        size = int(model.config.vision_config.image_size)
        prepare = read_squashing(files.folder, Squashing(size, CLIP_MEAN, CLIP_STD))
    how = {"max_new_tokens": MOST_TOKENS, "do_sample": False, "num_beams": 1, "interpolate_pos_encoding": True}

    def captions(images: Sequence[Image.Image]) -> list[str]:
        with torch.inference_mode():
            pixels = prepare(images).to(device)
            tokens = model.generate(pixel_values=pixels, **how)
        return [str(text).strip() for text in tokenizer.batch_decode(tokens, skip_special_tokens=True)]

    return captions
