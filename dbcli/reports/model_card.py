"""The page of a model on the hub: README.md with the facts machines read in front and the words for people behind."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dbcli.project.settings.project_settings import EMBEDDED_BASES

# What turns into markup in Markdown or HTML; a person's words stay words.
_MARKUP = re.compile(r"([\\`*_\[\]<>|#~])")


@dataclass(frozen=True)
class Shown:
    """An image in the repository and its prompt."""

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

    `embeddings` are the files of a textual inversion, and `tables` the names of a word's tensors in them where there is
    one for each text encoder. `pipeline` is the class in diffusers that loads the model, `tag` what the hub calls it.
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
    tables: Sequence[tuple[str, str]] = ()
    pipeline: str = "StableDiffusionPipeline"
    tag: str = "stable-diffusion"


def model_card(facts: CardFacts) -> str:
    """Return the whole README.md."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=False,  # Markdown: whatever a person wrote goes through `plain`, `code` or `json`
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"plain": _plain, "code": _code, "json": _json, "score": _score}
    base_path = facts.base_model or f"path/to/{facts.base_name}"
    page = environment.get_template("model_card.md")
    return page.render(facts=facts, front_matter=_front_matter(facts), about=_about(facts), base_path=base_path)


def _front_matter(facts: CardFacts) -> str:
    tags = ["text-to-image", "diffusers", "dreambooth", facts.tag, f"{facts.tag}-diffusers"]
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
    return str(yaml.safe_dump(known, sort_keys=False, allow_unicode=True, width=1000))


def _about(facts: CardFacts) -> str:
    kinds = {"full": "A fine-tuned copy of", "lora": "A LoRA for"}
    kind = kinds.get(facts.method, "A word (textual inversion) for")
    named = "the small base inside dreambooth-cli" if facts.base_name in EMBEDDED_BASES else facts.base_name
    base = facts.base_model or named
    shown = [(_plain(f"{identifier} {noun}".strip()), _plain(noun)) for identifier, noun in facts.words]
    words = ", ".join(f"**{both}** (a {noun})" if noun else f"**{both}**" for both, noun in shown)
    source = "textual inversion (Gal et al., 2023)" if facts.embeddings else "DreamBooth (Ruiz et al., CVPR 2023)"
    how = f"was taught {{}} with {source}" if facts.is_trained_here else "answers to {}"
    taught = f" It {how.format(words)}." if words else ""
    return f"{kind} {_plain(base)}.{taught}"


def _plain(text: str) -> str:
    """A person's words on one line, without meaning to Markdown or HTML."""
    return _MARKUP.sub(r"\\\1", " ".join(text.split())).replace("&", "&amp;")


def _code(text: str) -> str:
    return " ".join(text.split()).replace("`", "'")


def _json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _score(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
