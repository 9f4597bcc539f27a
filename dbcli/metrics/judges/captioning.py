"""Photos described in words, a first draft of captions for a person to edit: by Florence-2, a chat model, or BLIP."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from dbcli.metrics.judges.architectures import load_transformers
from dbcli.metrics.judges.files import FLORENCE, JudgeFiles, OnDownload, locate, reading
from dbcli.metrics.judges.preprocessing import CLIP_MEAN, CLIP_STD, Squashing, read_squashing

MOST_TOKENS, MOST_OF_BLIP = 60, 30
# A sentence beyond these is cut off by CLIP's text encoders, whose identifier and template need room, too.
MOST_WORDS = 30
FLORENCE_TASK = "<CAPTION>"
# Small enough for a photo of any size to be read in seconds on a CPU; the scene is what matters.
CHAT_PX = 448
REQUEST = (
    "Write one short sentence about this photo. Begin with 'a {noun}', then say what it does, where it is and what is "
    "around it. Do not describe the {noun} itself."
)
_ARTICLE = re.compile(r"^(A|An|The)\b")

# Images of one class noun -> one caption each.
Captioner = Callable[[Sequence[Image.Image], str], list[str]]


def load_captioner(
    source: str | None = None, *, offline: bool = False, device: str = "cpu", on_download: OnDownload | None = None
) -> Captioner:
    """A model that describes photos, from the hub, its cache or a local folder; the same photo, the same words.

    Florence-2 (Xiao et al. 2024) unless `source` is another one; the folder's configuration says which class it is: a
    chat model that reads images (Qwen-VL and others that transformers knows) is asked for what surrounds the class
    noun, BLIP describes as Florence-2 does. `on_download` is told name and bytes before anything is downloaded. Raises
    JudgeMissing where the model cannot be had.
    """
    files = locate("caption", source or FLORENCE, offline=offline, shards=True, on_download=on_download)
    with reading(files, "caption", "a model that describes images"):
        folder = files.folder
        if folder is None:
            raise ValueError("a folder as transformers saves it is needed")
        kind = str(json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type"))
        describe = LOADERS.get(kind, _chat)(files, folder, device)
    return lambda images, noun: [_tidied(text) for text in describe(images, noun)]


def _florence(files: JudgeFiles, folder: Path, device: str) -> Captioner:
    import transformers

    model, processor = _loaded(transformers.Florence2ForConditionalGeneration, folder, device)

    @torch.inference_mode()
    def captions(images: Sequence[Image.Image], noun: str) -> list[str]:
        colour = [image.convert("RGB") for image in images]
        given = processor(text=[FLORENCE_TASK] * len(colour), images=colour, return_tensors="pt").to(device)
        tokens = model.generate(**given, max_new_tokens=MOST_TOKENS, do_sample=False, num_beams=1)
        return [str(text) for text in processor.batch_decode(tokens, skip_special_tokens=True)]

    return captions


def _chat(files: JudgeFiles, folder: Path, device: str) -> Captioner:
    import transformers

    # Its own precision on a GPU, where 3 billion weights in float32 take 12 GB.
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    model, processor = _loaded(transformers.AutoModelForImageTextToText, folder, device, dtype)

    @torch.inference_mode()
    def captions(images: Sequence[Image.Image], noun: str) -> list[str]:
        return [_answer(model, processor, image, REQUEST.format(noun=noun), device) for image in images]

    return captions


def _answer(model: Any, processor: Any, image: Image.Image, request: str, device: str) -> str:
    small = image.convert("RGB")
    small.thumbnail((CHAT_PX, CHAT_PX))
    said = [{"role": "user", "content": [{"type": "image", "image": small}, {"type": "text", "text": request}]}]
    given = processor.apply_chat_template(
        said, tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    ).to(device)
    tokens = model.generate(**given, max_new_tokens=MOST_TOKENS, do_sample=False, num_beams=1)
    (text,) = processor.batch_decode(tokens[:, given["input_ids"].shape[1] :], skip_special_tokens=True)
    return str(text)


def _blip(files: JudgeFiles, folder: Path, device: str) -> Captioner:
    import transformers

    model = load_transformers(transformers.BlipForConditionalGeneration, folder).to(device)
    tokenizer = transformers.BertTokenizer.from_pretrained(str(folder), local_files_only=True)
    size = int(model.config.vision_config.image_size)
    prepare = read_squashing(folder, Squashing(size, CLIP_MEAN, CLIP_STD))
    how = {"max_new_tokens": MOST_OF_BLIP, "do_sample": False, "num_beams": 1, "interpolate_pos_encoding": True}

    @torch.inference_mode()
    def captions(images: Sequence[Image.Image], noun: str) -> list[str]:
        tokens = model.generate(pixel_values=prepare(images).to(device), **how)
        return [str(text) for text in tokenizer.batch_decode(tokens, skip_special_tokens=True)]

    return captions


# What a folder's configuration calls its class -> how it is loaded; all others are asked as chat models are.
LOADERS: dict[str, Callable[[JudgeFiles, Path, str], Captioner]] = {"florence2": _florence, "blip": _blip}


def _loaded(model_class: Any, folder: Path, device: str, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    import transformers

    model = load_transformers(model_class, folder, dtype=dtype).to(device)
    # Never code from the folder: trust_remote_code is False unless somebody says otherwise.
    return model, transformers.AutoProcessor.from_pretrained(str(folder), local_files_only=True)


def _tidied(text: str) -> str:
    """The first sentence as captions are written: no capital at its beginning, no full stop at its end."""
    first = re.split(r"(?<=\w)[.!?](?:\s|$)", " ".join(text.split()), maxsplit=1)[0].strip(" \"'")
    words = _ARTICLE.sub(lambda found: found[0].lower(), first).split()
    return " ".join(words[:MOST_WORDS]).rstrip(",;:")
