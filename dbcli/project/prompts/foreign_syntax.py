"""Syntax that other programs obey in a prompt, and that is read as words here."""

from __future__ import annotations

import re
from collections.abc import Iterator

# A weight: (word:1.3). A file: <lora:name:0.8>, <hypernet:name:1>. Editing while it is drawn: [cat:dog:0.5].
_WEIGHT = re.compile(r"\([^()]*:\s*[-+]?[0-9]*\.?[0-9]+\s*\)")
_FILE = re.compile(r"<(?:lora|lyco|hypernet|embedding)\s*:[^<>]*>", re.IGNORECASE)
_EDITING = re.compile(r"\[[^\[\]]*:[^\[\]]*:\s*[0-9]*\.?[0-9]+\s*\]")
# Choices by turns or by chance: [cat|dog], {red|blue}. Emphasis that plain text never has: ((word)), [[word]].
_CHOICE = re.compile(r"\[[^\[\]]*\|[^\[\]]*\]|\{[^{}]*\|[^{}]*\}")
_DOUBLED = re.compile(r"(?<!\\)(?:\(\([^()]+\)\)|\[\[[^\[\]]+\]\])")
# Between chunks and between prompts, in capitals, as words of their own.
_KEYWORD = re.compile(r"(?<!\S)(?:BREAK|AND)(?!\S)")
# Emphasis without a number, too usual in plain text to be told apart there: (word), [word], {word}.
_EMPHASIS = re.compile(r"(?<!\\)(?:\([^()]+\)|\[[^\[\]]+\]|\{[^{}]+\})")


def foreign_syntax(prompt: str, *, emphasis: bool = False) -> list[str]:
    """Return the pieces of a prompt that another program would obey, in their order by kind.

    `emphasis` adds brackets without a number, which weigh words only in a prompt of another program.
    """
    return list(dict.fromkeys(_found(prompt, emphasis=emphasis)))


def _found(prompt: str, *, emphasis: bool) -> Iterator[str]:
    # In a text that is all capitals AND is a word like any other.
    keywords = [] if prompt == prompt.upper() else [_KEYWORD]
    for pattern in (_DOUBLED, _CHOICE, _WEIGHT, _FILE, _EDITING, *keywords, *([_EMPHASIS] if emphasis else [])):
        yield from (match.group() for match in pattern.finditer(prompt))
