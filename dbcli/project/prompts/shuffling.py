"""Captions in another order of words or tags, in which a subject's own words stay one."""

import re
from collections.abc import Callable

# What order n things come in: a permutation of range(n).
Order = Callable[[int], list[int]]
# Orders of a caption whose words are shuffled. Each is a prompt to be encoded, and kept, before the first step.
SHUFFLED_ORDERS = 4
_ARTICLE = r"(?:(?:an?|the|my)\s+)?"


def shuffled_words(text: str, kept: str, order: Order) -> str:
    """Return the words of a text in another order; `kept` ("sks dog"), with its article, is one of them."""
    words = re.findall(rf"(?<!\w){_ARTICLE}{re.escape(kept)}(?!\w)\S*|\S+", text) if kept else text.split()
    return " ".join(words[place] for place in order(len(words)))


def shuffled_tags(text: str, order: Order) -> str:
    """Return what commas separate in a text in another order."""
    tags = [tag.strip() for tag in text.split(",") if tag.strip()]
    return ", ".join(tags[place] for place in order(len(tags)))


def shuffled_caption(sentence: str, rest: str, kept: str, how: str, order: Order) -> str:
    """Return a prompt whose caption has another order: of its "words", or of its "tags", which commas separate.

    `sentence` stays as it is, and so does what goes on from it up to the first comma where tags are shuffled; `rest` is
    the caption behind it, or a caption alone, in which `kept` stays one.
    """
    if how == "words":
        lead = re.match(r"[\s,]*", rest)
        begin = lead.group(0) if lead is not None else ""
        return sentence + begin + shuffled_words(rest[len(begin) :], kept, order)
    if sentence and not rest.lstrip().startswith(","):
        first, comma, rest = rest.partition(",")
        sentence, rest = sentence + first, comma + rest
    tags = shuffled_tags(rest, order)
    return f"{sentence}, {tags}" if sentence and tags else sentence + tags
