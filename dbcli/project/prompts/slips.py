"""Reading a prompt for what was probably meant: slips with identifiers and class nouns, and other programs' syntax."""

import difflib
import re
import unicodedata
from collections.abc import Mapping, Sequence

from dbcli.project.files.names import printable
from dbcli.project.prompts.identifiers import Words
from dbcli.project.prompts.token_claims import known_words

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


def slips(
    prompt: str, learnt: Mapping[str, Words], project: Mapping[str, Words], *, whole_words: bool = False
) -> list[str]:
    """Return one line a slip in a rendered prompt, none where it reads well.

    `learnt` are the subjects of the run that draws, `project` all of the project's; both by name. With `whole_words`,
    as in textual inversion, a word is met only where nothing is joined to it.
    """
    words = _words_of(prompt)
    found = [line for own in learnt.values() for line in _joined(prompt, own)] if whole_words else []
    if found:
        return found
    found = _without_identifier(words, learnt)
    for name, own in learnt.items():
        # An imported embedding may be no thing at all, and have no noun.
        if own.identifier and own.class_noun:
            found += _about_noun(words, name, own, {**project, **learnt})
    known = {own.identifier.casefold() for own in learnt.values()}
    strangers = {
        name: other
        for name, other in project.items()
        # A subject that was renamed since is known here by its old name and the same word.
        if other.identifier and name not in learnt and other.identifier.casefold() not in known
    }
    for name, other in strangers.items():
        if _place(words, other.identifier) is not None:
            found.append(
                f"This run never learnt '{printable(other.identifier)}', the word of the subject '{name}'; "
                f"a run of {name} would generate it."
            )
    return found + _misspelt(words, learnt)


def _words_of(text: str) -> list[str]:
    """The words of a text in any script, folded: letters and digits with the marks that belong to them."""
    folded = unicodedata.normalize("NFC", text).casefold()
    return "".join(one if one.isalnum() or unicodedata.category(one)[0] == "M" else " " for one in folded).split()


def _place(words: Sequence[str], phrase: str) -> int | None:
    """Where a phrase begins among words; an identifier like "ab-cd" is two of them."""
    wanted = _words_of(phrase)
    places = range(len(words) - len(wanted) + 1) if wanted else ()
    return next((place for place in places if list(words[place : place + len(wanted)]) == wanted), None)


def _joined(prompt: str, own: Words) -> list[str]:
    """An identifier with a letter, a digit or an underscore joined to it: to the tokenizer that is another word."""
    if not own.identifier:
        return []
    pattern = re.compile(rf"\w*{re.escape(own.identifier)}\w*", re.IGNORECASE)
    pieces = dict.fromkeys(match.group() for match in pattern.finditer(prompt))
    # Letters on both sides make a plain word that holds the same letters, as "bath" holds "hta" in no sense.
    strange = [one for one in pieces if one.casefold() != own.identifier.casefold() and not one.isalpha()]
    return [
        f"'{printable(one)}' is not the word '{printable(own.identifier)}' that was learnt, and has no effect: "
        f"'{own.text}' was probably meant."
        for one in strange
    ]


def _without_identifier(words: Sequence[str], learnt: Mapping[str, Words]) -> list[str]:
    """A subject called by its name alone, in a prompt that holds no identifier at all."""
    if any(own.identifier and _place(words, own.identifier) is not None for own in learnt.values()):
        return []
    return [
        f"'{printable(name)}' alone is any {own.class_noun}: {{{name}}} or '{own.text}' means the one that was learnt."
        for name, own in learnt.items()
        if own.identifier and _place(words, name) is not None
    ]


def _about_noun(words: list[str], name: str, own: Words, everyone: Mapping[str, Words]) -> list[str]:
    """An identifier before another subject's class noun, or without its own."""
    place = _place(words, own.identifier)
    if place is None:
        return []
    after = words[place + len(_words_of(own.identifier)) :]
    if _place(after, own.class_noun) == 0:
        return []
    for other_name, other in everyone.items():
        is_another = _words_of(other.class_noun) != _words_of(own.class_noun)
        if other_name != name and is_another and _place(after, other.class_noun) == 0:
            return [
                f"'{printable(own.identifier)}' is a {own.class_noun} here, not a {other.class_noun}: "
                f"'{own.text}' or '{other.text}' was probably meant."
            ]
    if _place(after, own.class_noun) is not None:
        return []
    return [f"'{printable(own.identifier)}' is missing its class noun: '{own.text}' was probably meant."]


def _misspelt(words: list[str], learnt: Mapping[str, Words]) -> list[str]:
    """A word that looks like an identifier, in a prompt that holds no identifier at all."""
    identifiers = {own.identifier.casefold(): own for own in learnt.values() if own.identifier}
    if not identifiers or any(_place(words, identifier) is not None for identifier in identifiers):
        return []
    for word in words:
        near = difflib.get_close_matches(word, identifiers, n=1, cutoff=0.6)
        if near and word not in known_words() and abs(len(word) - len(near[0])) <= 1:
            return [f"'{printable(word)}' looks like a typo of '{identifiers[near[0]].text}'."]
    return []


def foreign_syntax(prompt: str, *, emphasis: bool = False) -> list[str]:
    """Return the pieces of a prompt that another program would obey, in their order by kind.

    `emphasis` adds brackets without a number, which weigh words only in a prompt of another program.
    """
    # In a text that is all capitals AND is a word like any other.
    keywords = [] if prompt == prompt.upper() else [_KEYWORD]
    patterns = (_DOUBLED, _CHOICE, _WEIGHT, _FILE, _EDITING, *keywords, *([_EMPHASIS] if emphasis else []))
    return list(dict.fromkeys(match.group() for pattern in patterns for match in pattern.finditer(prompt)))
