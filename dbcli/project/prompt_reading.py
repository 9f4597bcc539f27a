"""Reading a prompt for what was probably meant: a line for every slip with identifiers and class nouns."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

from dbcli.project.identifiers import Words
from dbcli.project.names import printable
from dbcli.project.token_claims import known_words

_WORD = re.compile(r"[^\W_]+", re.UNICODE)


def slips(prompt: str, learnt: Mapping[str, Words], project: Mapping[str, Words]) -> list[str]:
    """Return one line a slip in a rendered prompt, none where it reads well.

    `learnt` are the subjects of the run that draws, `project` all of the project's; both by name.
    """
    words = [match.group().casefold() for match in _WORD.finditer(prompt)]
    found = []
    for name, own in learnt.items():
        if own.identifier:
            found += _about_noun(words, name, own, {**project, **learnt})
    known = {own.identifier.casefold() for own in learnt.values()}
    strangers = {
        name: other
        for name, other in project.items()
        # A subject that was renamed since is known here by its old name and the same word.
        if other.identifier and name not in learnt and other.identifier.casefold() not in known
    }
    for name, other in strangers.items():
        if other.identifier.casefold() in words:
            found.append(
                f"This run never learnt '{printable(other.identifier)}', the word of the subject '{name}'; "
                f"a run of {name} would draw it."
            )
    return found + _misspelt(words, learnt)


def _about_noun(words: list[str], name: str, own: Words, everyone: Mapping[str, Words]) -> list[str]:
    """An identifier before another subject's class noun, or without its own."""
    identifier = own.identifier.casefold()
    noun = own.class_noun.casefold().split()
    if identifier not in words:
        return []
    after = words[words.index(identifier) + 1 :]
    if after[: len(noun)] == noun:
        return []
    for other_name, other in everyone.items():
        other_noun = other.class_noun.casefold().split()
        if other_name != name and other_noun != noun and after[: len(other_noun)] == other_noun:
            return [
                f"'{printable(own.identifier)}' is a {own.class_noun} here, not a {other.class_noun}: "
                f"'{own.text}' or '{other.text}' was probably meant."
            ]
    if " ".join(noun) in " ".join(after):
        return []
    return [f"'{printable(own.identifier)}' stands without its class noun: '{own.text}' was probably meant."]


def _misspelt(words: list[str], learnt: Mapping[str, Words]) -> list[str]:
    """A word that looks like an identifier, in a prompt that holds no identifier at all."""
    identifiers = {own.identifier.casefold(): own for own in learnt.values() if own.identifier}
    if not identifiers or any(identifier in words for identifier in identifiers):
        return []
    for word in words:
        near = difflib.get_close_matches(word, identifiers, n=1, cutoff=0.6)
        if near and word not in known_words() and abs(len(word) - len(near[0])) <= 1:
            return [f"'{printable(word)}' looks like a slip for '{identifiers[near[0]].text}'."]
    return []
