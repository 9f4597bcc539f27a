"""The page of a model on the hub: README.md with the facts machines read in front and the words for people behind."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

# What turns into markup in Markdown or HTML; a person's words stay words.
_MARKUP = re.compile(r"([\\`*_\[\]<>|#~])")


@dataclass(frozen=True)
class Shown:
    """A picture in the repository and the prompt it was drawn with."""

    path: str
    prompt: str


@dataclass(frozen=True)
class CardScore:
    """One line of the table of scores; None where a value is not defined."""

    suite: str
    title: str
    judge: str
    value: float
    low: float | None
    high: float | None
    photos: float | None
    better: str


@dataclass(frozen=True)
class CardFacts:
    """What a card says. `base_model` is a hub id, None for a base that is not on the hub.

    `embeddings` are the files of a textual inversion.
    """

    title: str
    method: str
    base_model: str | None
    base_name: str
    licence: str
    instance_prompt: str
    words: Sequence[tuple[str, str]]
    images: Sequence[Shown]
    scores: Sequence[CardScore]
    training: Sequence[tuple[str, str]]
    resolution_px: int
    version: str
    repository: str
    is_trained_here: bool = True
    embeddings: Sequence[str] = ()


def model_card(facts: CardFacts) -> str:
    """Return the whole README.md."""
    parts = [_front_matter(facts), f"# {_plain(facts.title)}", _about(facts)]
    if facts.images:
        parts.append(_images(facts.images))
    parts += ["## Use", _use(facts)]
    if facts.scores:
        parts += ["## Scores", _scores(facts.scores)]
    parts += ["## Training", _training(facts), "## Licence and limits", _limits(facts)]
    return "\n\n".join(parts) + "\n"


def _front_matter(facts: CardFacts) -> str:
    tags = ["text-to-image", "diffusers", "dreambooth", "stable-diffusion", "stable-diffusion-diffusers"]
    if facts.method == "lora":
        tags += ["lora", "template:sd-lora"]
    if facts.embeddings:
        tags += ["textual_inversion"]
    table: dict[str, Any] = {
        "license": facts.licence,
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "base_model": facts.base_model,
        "base_model_relation": ("finetune" if facts.method == "full" else "adapter") if facts.base_model else None,
        "instance_prompt": facts.instance_prompt,
        "tags": tags,
        "widget": [{"text": one.prompt, "output": {"url": one.path}} for one in facts.images] or None,
    }
    known = {key: value for key, value in table.items() if value is not None}
    return "---\n" + yaml.safe_dump(known, sort_keys=False, allow_unicode=True, width=1000) + "---"


def _about(facts: CardFacts) -> str:
    kinds = {"full": "A fine-tuned copy of", "lora": "A LoRA for"}
    kind = kinds.get(facts.method, "A word (textual inversion) for")
    base = facts.base_model or (
        "the small base inside dreambooth-cli" if facts.base_name == "tiny" else facts.base_name
    )
    shown = [(_plain(f"{identifier} {noun}".strip()), _plain(noun)) for identifier, noun in facts.words]
    words = ", ".join(f"**{both}** (a {noun})" if noun else f"**{both}**" for both, noun in shown)
    source = "textual inversion (Gal et al., 2023)" if facts.embeddings else "DreamBooth (Ruiz et al., CVPR 2023)"
    how = f"was taught {{}} with {source}" if facts.is_trained_here else "answers to {}"
    taught = f" It {how.format(words)}." if words else ""
    return f"{kind} {_plain(base)}.{taught} Say `{_code(facts.instance_prompt)}` in a prompt to call it."


def _images(images: Sequence[Shown]) -> str:
    cells = [f"![{_plain(one.prompt)}]({one.path})" for one in images]
    captions = [_plain(one.prompt) for one in images]
    rows = [cells, ["---"] * len(cells), captions]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _use(facts: CardFacts) -> str:
    repository = json.dumps(facts.repository)
    base = json.dumps(facts.base_model or f"path/to/{facts.base_name}", ensure_ascii=False)
    prompt = json.dumps(facts.instance_prompt, ensure_ascii=False)
    load = [f"pipeline = StableDiffusionPipeline.from_pretrained({repository if facts.method == 'full' else base})"]
    if facts.method == "lora":
        load.append(f"pipeline.load_lora_weights({repository})")
    for name in facts.embeddings:
        load.append(f"pipeline.load_textual_inversion({repository}, weight_name={json.dumps(name)})")
    size = f"height={facts.resolution_px}, width={facts.resolution_px}"
    draw = f"image = pipeline({prompt}, {size}).images[0]"
    return "\n".join(["```python", "from diffusers import StableDiffusionPipeline", "", *load, draw, "```"])


def _scores(scores: Sequence[CardScore]) -> str:
    lines = [
        "| suite | score | judge | value | 95 % interval | photos among themselves | better |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in scores:
        interval = "" if one.low is None or one.high is None else f"{one.low:.3f} to {one.high:.3f}"
        photos = "" if one.photos is None else f"{one.photos:.3f}"
        cells = (one.suite, one.title, one.judge, f"{one.value:.3f}", interval, photos, one.better)
        lines.append("| " + " | ".join(_plain(cell) for cell in cells) + " |")
    return "\n".join(lines)


def _training(facts: CardFacts) -> str:
    lines = ["| | |", "|---|---|"]
    lines += [f"| {_plain(name)} | {_plain(value)} |" for name, value in facts.training]
    made = f"Written by dreambooth-cli {facts.version}. The photos are not part of this repository."
    return "\n".join([*lines, "", made])


def _limits(facts: CardFacts) -> str:
    base = f"of its base, {_plain(facts.base_model)}" if facts.base_model else "of its base"
    return (
        f"Licence: `{_code(facts.licence)}`. The terms {base} go on holding for this model. It draws one particular "
        "thing; for others of its kind and for everything else it knows what its base knows, with its faults."
    )


def _plain(text: str) -> str:
    """A person's words on one line, without meaning to Markdown or HTML."""
    return _MARKUP.sub(r"\\\1", " ".join(text.split())).replace("&", "&amp;")


def _code(text: str) -> str:
    return " ".join(text.split()).replace("`", "'")
