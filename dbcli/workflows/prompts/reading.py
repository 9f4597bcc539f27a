"""What the text encoder makes of prompts: words that it never reads, words that look like slips, syntax it ignores."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from dbcli.errors import PromptError
from dbcli.project.files.layout import Layout
from dbcli.project.files.names import printable
from dbcli.project.prompts.identifiers import Words, says
from dbcli.project.prompts.slips import foreign_syntax, slips
from dbcli.project.runs.run_store import RunRecord
from dbcli.project.settings.project_settings import load_settings
from dbcli.project.subjects.subject_store import list_subjects
from dbcli.prompt_text import cleaned, from_word
from dbcli.workflows.images.generated import words_of
from dbcli.workflows.models.textual_inversion import INVERSION
from dbcli.workflows.progress import Progress
from dbcli.workflows.setup.base_facts import facts_of
from dbcli.workflows.setup.embedded_words import embedded_words

if TYPE_CHECKING:
    from dbcli.diffusion.bases.base import Base

# Start and end of the text take two of the encoder's places.
MARKS = 2
MOST_LINES = 5


def read_prompts(
    layout: Layout,
    prompts: Sequence[str],
    record: RunRecord | None,
    progress: Progress,
    *,
    negative: str = "",
) -> None:
    """Warns of what in rendered prompts will not be read as it was probably meant; nothing is loaded for it.

    Raises PromptError where a subject's word is among those that the text encoder never reads.
    """
    learnt = words_of(record)
    project = {one.name: one.words for one in list_subjects(layout)}
    whole = record is not None and record.method == INVERSION
    for prompt in dict.fromkeys(prompts):
        for line in slips(prompt, learnt, project, whole_words=whole) if learnt else []:
            progress.warn(line)
    check_length([*prompts, negative], learnt, progress, facts_of(layout).max_tokens, vectors_of(record))
    warn_of_syntax([*prompts, negative], progress)
    if load_settings(layout).is_embedded:
        _warn_of_untaught(prompts, learnt | project, progress)


def _warn_of_untaught(prompts: Sequence[str], subjects: Mapping[str, Words], progress: Progress) -> None:
    """Warns of words that the embedded base was never taught, and says which scenes and colours it knows."""
    words = embedded_words()
    # A subject called by its name alone is another slip, which is told by itself.
    unknown = words.unknown(prompts, [f"{name} {one.text}" for name, one in subjects.items()])
    if unknown:
        more = f" and {len(unknown) - MOST_LINES} more" if len(unknown) > MOST_LINES else ""
        progress.warn(
            f"tiny does not know {', '.join(repr(printable(one, 40)) for one in unknown[:MOST_LINES])}{more}. Scenes "
            f"it knows: {', '.join(words.usual_scenes)}. Colours: {', '.join(words.colours)}."
        )


def warn_of_syntax(texts: Sequence[str], progress: Progress) -> None:
    """Warns of what other programs would obey in a text, and is read as words here."""
    syntax = list(dict.fromkeys(found for text in texts for found in foreign_syntax(text)))
    if syntax:
        progress.warn(
            f"{', '.join(printable(one, 40) for one in syntax[:MOST_LINES])}: read as words; weights, BREAK and "
            "<lora:…> in a prompt are other programs' syntax (--run and --weights choose LoRAs here)."
        )


def read_by_base(
    layout: Layout, base: Base, texts: Sequence[str], record: RunRecord | None, progress: Progress
) -> None:
    """The same look at the length of prompts with the tokenizer of a loaded base, which may have words of its own.

    What `read_prompts` has told is not told again. Raises PromptError as it does.
    """
    from dbcli.diffusion.conditioning import unread_part

    room, vectors = facts_of(layout).max_tokens - MARKS, vectors_of(record)
    untold = [text for text in texts if not unread_words(text, room, vectors)]
    read = partial(unread_part, base.tokenizer)
    check_length(untold, words_of(record), progress, base.max_tokens, unread=read)


def check_length(
    texts: Sequence[str],
    learnt: Mapping[str, Words],
    progress: Progress,
    max_tokens: int,
    vectors: Mapping[str, int] | None = None,
    *,
    where: Callable[[str], str] = lambda text: "",
    unread: Callable[[str], str] | None = None,
) -> None:
    """Warns, naming the words, where texts are longer than the text encoder reads.

    Raises PromptError where a subject's identifier or class noun does not stand whole among the words that are read.
    `where` says of a text where it comes from, `unread` which end of it is not read if the project's base does not.
    """
    cut: list[tuple[str, str, str]] = []
    for text in dict.fromkeys(texts):
        lost = unread_words(text, max_tokens - MARKS, vectors) if unread is None else unread(text)
        if not lost:
            continue
        whole = cleaned(text)
        read = whole.removesuffix(lost)
        for own in learnt.values():
            for word in (own.identifier, own.class_noun):
                if word and says([whole], word) and not says([read], word):
                    raise PromptError(
                        f"The text encoder reads {max_tokens - MARKS} tokens of a prompt, but '{printable(word)}' "
                        f"comes after them in '{printable(text)}'{where(text)}; not read: '{printable(lost, 400)}'.",
                        hint=f"put '{own.text}' at the beginning, or shorten the text",
                    )
        cut.append((text, where(text), lost))
    lines = [
        f"'{printable(text, 60)}'{place} is longer than the {max_tokens - MARKS} tokens that the text encoder reads; "
        f"not read: '{printable(lost, 400)}'."
        for text, place, lost in cut
        if not _is_repeated(place, lost, cut)
    ]
    for line in lines[:MOST_LINES]:
        progress.warn(line)
    if len(lines) > MOST_LINES:
        progress.warn(f"{len(lines) - MOST_LINES} more texts are longer than the text encoder reads.")


def _is_repeated(place: str, lost: str, cut: Sequence[tuple[str, str, str]]) -> bool:
    """Whether a text of the same place loses this end and more: a caption comes after each sentence of its run."""
    return place != "" and any(other == place and more != lost and more.endswith(lost) for _, other, more in cut)


def unread_words(text: str, room: int, vectors: Mapping[str, int] | None = None) -> str:
    """The end of a text, cleaned, that does not fit into `room` tokens, from its first word on; "" where all fits.

    `vectors` says how many tokens a word that was learnt by textual inversion takes.
    """
    clean, used = cleaned(text), 0
    for place, cost in _costs(clean, vectors or {}):
        used += cost
        if used > room:
            return from_word(clean, place)
    return ""


def _costs(clean: str, vectors: Mapping[str, int]) -> Iterator[tuple[int, int]]:
    """Places in a text, and how many tokens begin at each."""
    from dbcli.diffusion.vocabulary import placed_tokens

    start = 0
    if vectors:
        words = "|".join(re.escape(word) for word in sorted(vectors, key=len, reverse=True))
        for match in re.finditer(rf"(?<!\w)(?:{words})(?!\w)", clean, re.IGNORECASE):
            yield from ((start + place, 1) for _, place in placed_tokens(clean[start : match.start()]))
            yield match.start(), vectors.get(match.group().casefold(), 1)
            start = match.end()
    yield from ((start + place, 1) for _, place in placed_tokens(clean[start:]))


def vectors_of(record: RunRecord | None) -> dict[str, int]:
    """How many tokens each word of a run takes that was learnt by textual inversion; none for other runs."""
    if record is None or record.method != INVERSION:
        return {}
    count = record.profile.get("inversion", {}).get("vectors", 1)
    return {cleaned(one.identifier).casefold(): int(count) for one in record.subjects if one.identifier}
