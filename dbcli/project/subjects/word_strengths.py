"""How much rare words mean to a base already: what ships for the embedded base, and what a project measured itself.

Both are the strengths of `dbcli.diffusion.word_strength`: weak is good. `word_strengths.json` holds them for fifty
words beside nouns that the embedded base knows; for another base, which reads the same tokens, their mean is an order
to begin with until the project has measured its own.
"""

import json
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from dbcli.project.files.atomic import write_json
from dbcli.project.files.layout import Layout
from dbcli.project.files.records import json_or_nothing
from dbcli.project.settings.project_settings import load_settings

EMBEDDED = "tiny"


def ranked_words(base: str, class_noun: str, measured: Mapping[str, float]) -> list[str]:
    """The words with a known strength beside a class noun, the weakest first; `measured` ones before all others."""
    shipped = _shipped()
    known: Collection[str] = shipped.get(class_noun.casefold()) or _means(shipped)
    if base != EMBEDDED:
        # A larger base has met words of many languages; what nobody can say is hardly one of them.
        known = sorted(_means(shipped), key=lambda word: bool(set(word) & set("aeiouy")))
    return [
        *sorted(measured, key=lambda word: (measured[word], word)),
        *(word for word in known if word not in measured),
    ]


def measured_strengths(layout: Layout, class_noun: str) -> dict[str, float]:
    """What the project measured of words beside a class noun on its base; empty where it did not, or that is gone."""
    words = _cached(layout).get(class_noun.casefold())
    if not isinstance(words, dict):
        return {}
    return {word: float(value) for word, value in words.items() if isinstance(value, int | float)}


def remember_strengths(layout: Layout, class_noun: str, strengths: Mapping[str, float]) -> None:
    """Keeps strengths beside a class noun on the project's base; what else was measured of that base stays."""
    known = measured_strengths(layout, class_noun)
    nouns = _cached(layout) | {class_noun.casefold(): known | {word: round(v, 6) for word, v in strengths.items()}}
    layout.word_strengths.parent.mkdir(parents=True, exist_ok=True)
    write_json(layout.word_strengths, {"base": load_settings(layout).base_hash, "nouns": nouns})


def _cached(layout: Layout) -> dict[str, Any]:
    """noun -> word -> strength on the base that the project has now."""
    found = json_or_nothing(layout.word_strengths)
    nouns = found.get("nouns")
    return nouns if isinstance(nouns, dict) and found.get("base") == load_settings(layout).base_hash else {}


@cache
def _shipped() -> dict[str, dict[str, float]]:
    """noun -> word -> strength on the embedded base, the weakest first."""
    nouns = json.loads((Path(__file__).parent / "word_strengths.json").read_text(encoding="utf-8"))
    return {noun: dict(sorted(words.items(), key=lambda pair: (pair[1], pair[0]))) for noun, words in nouns.items()}


def _means(nouns: Mapping[str, Mapping[str, float]]) -> list[str]:
    words = next(iter(nouns.values()))
    return sorted(words, key=lambda word: (sum(strengths[word] for strengths in nouns.values()), word))
