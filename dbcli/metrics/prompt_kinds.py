"""What a prompt asks of its subject: to look as it does or otherwise, and whether it names a place. No torch.

Told by the words of its template, so that suites of one's own and lists of prompts need no marks.
"""

from __future__ import annotations

import re

# Tasks whose prompts ask for another colour, material, shape or hand, whatever their words are.
CHANGING_TASKS = frozenset({"property change", "art rendition", "species cross"})
_COLOURS = "red orange yellow green blue purple pink brown black white gray grey golden silver colourful colorful"
_MATERIALS = "glass wooden wood metal stone marble plastic paper wool knitted shiny rusty wet fluffy transparent"
_CHANGING = frozenset(f"{_COLOURS} {_MATERIALS} see-through shaped".split())
_MADE_OTHERWISE = re.compile(
    r"\b(?:made|built|carved|knitted|painted) (?:of|out of|from|in)\b|\bin the (?:shape|style) of\b"
)
_SUBJECT = re.compile(r"(?:\{[^{}]*\}\s*)+")
_ARTICLE = re.compile(r"\b(?:a|an|the|my|of)\s+")
_PLACE = re.compile(
    r"(?:\w+ )?(?:high |deep )?"
    r"(?:in|on|at|under|inside|beside|above|below|behind|between|near|among|along|over|by|underwater)\b"
    r"|.*\b(?:in the background|behind it)$"
)
_NO_PLACE = re.compile(r"\b(?:outfit|costume|uniform|dressed|covered|wearing|shape|style)\b")


def with_fields(prompt: str, words: str) -> str:
    """A prompt in which a subject's words were typed out ("a sks dog in space") with fields in their place.

    One that has fields already stays as it is.
    """
    if _SUBJECT.search(prompt):
        return prompt
    return re.sub(rf"(?<!\w){re.escape(words)}(?!\w)", "{identifier} {class}", prompt, count=1, flags=re.IGNORECASE)


def keeps_look(template: str, task: str = "") -> bool:
    """Whether the subject is to look as in its photos: no other colour, material, shape, animal or painter's hand.

    "a red {identifier} {class}" and "a {identifier} {class} made of glass" do not keep it.
    """
    if task in CHANGING_TASKS or _MADE_OTHERWISE.search(template.lower()):
        return False
    before, _ = _around_subject(template)
    described = _ARTICLE.split(f"{before} ")[-1]
    return not _CHANGING & set(re.findall(r"[a-z-]+", described))


def names_scene(template: str, task: str = "") -> bool:
    """Whether the words after the subject say where it is: "in the snow", "with a lighthouse behind it"."""
    _, after = _around_subject(template)
    return bool(_PLACE.match(after)) and not _NO_PLACE.search(after) and keeps_look(template, task)


def _around_subject(template: str) -> tuple[str, str]:
    """What stands before and behind the subject's words, in small letters; all of it before where it has none."""
    parts = _SUBJECT.split(template.lower(), maxsplit=1)
    return parts[0].strip(), parts[1].strip(" .,") if len(parts) > 1 else ""
