"""Identifiers (the rare word, [V]) and the one place where a prompt is rendered, with them and without."""

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from dbcli.errors import Collision, PromptError, UsageError
from dbcli.project.files.names import printable, without_control_characters

_FIELD = re.compile(r"\{([A-Za-z0-9][A-Za-z0-9._-]{0,63})\}")
_MARKUP = re.compile(r"[{}]|<\||\|>")
_HOLDS_MARKUP = "contains '{', '}', '<|' or '|>', which have another meaning in a prompt"
RESERVED_FIELDS = frozenset({"identifier", "class", "subject"})
MAX_IDENTIFIER = 64
# Weak beside most nouns: see word_strengths.json.
EXAMPLE_WORD = "mwf"
MAX_CLASS_NOUN = 80


@dataclass(frozen=True)
class Words:
    """The words that stand for one subject: the rare identifier and the noun of its class."""

    identifier: str
    class_noun: str

    @property
    def text(self) -> str:
        """Both words as they are written in a prompt: "sks dog"."""
        return f"{self.identifier} {self.class_noun}".strip()


_Rendering = Callable[[Words], str]


def render_with(template_or_prompt: str, subjects: Mapping[str, Words]) -> str:
    """Return the text to draw or to train with: `{dog}` becomes "sks dog".

    With one subject, `{identifier}` and `{class}` are filled too. Other braces stay as they are.
    Raises PromptError for the name of a subject that is not among `subjects`.
    """
    return _fill(template_or_prompt, subjects, lambda words: words.text, lambda words: words.identifier)


def render_for(template: str, subject: str, subjects: Mapping[str, Words]) -> str:
    """Return the text as `render_with` does, `{identifier}` and `{class}` being those of one of several subjects."""
    return render_with(_with_own(template, subjects[subject]), subjects)


def render_without_for(template: str, subject: str, subjects: Mapping[str, Words]) -> str:
    """Return the text as `render_without` does, `{class}` being that of one of several subjects."""
    return render_without(_with_own(template, subjects[subject]), subjects)


def is_of(template: str, subject: str, subjects: Mapping[str, Words]) -> bool:
    """Whether a prompt asks for this one of several subjects: it does unless it names others alone.

    A name in braces, `{dog}`, counts, and so does an identifier that was typed out.
    """
    fields = subject_fields([template])
    named = [name for name, words in subjects.items() if name in fields or says([template], words.identifier)]
    return not named or subject in named


def _with_own(template: str, own: Words) -> str:
    return template.replace("{identifier}", own.identifier).replace("{class}", own.class_noun)


def render_without(template_or_prompt: str, subjects: Mapping[str, Words]) -> str:
    """Return the text to score with: the same as `render_with`, less every identifier.

    `{dog}` becomes "dog", and an identifier that was typed out is removed as well.
    """
    filled = _fill(template_or_prompt, subjects, lambda words: words.class_noun, lambda words: words.identifier)
    return without_identifier(filled, [words.identifier for words in subjects.values()])


def without_identifier(prompt: str, identifiers: Iterable[str]) -> str:
    """Return `prompt` without the identifiers, each only where it is a whole word, in any case.

    One space beside a removed word goes with it: "a sks dog" becomes "a dog", "sksy" stays.
    """
    for identifier in sorted({word for word in identifiers if word}, key=lambda word: (-len(word), word)):
        prompt = _whole_word(identifier).sub(_gap, prompt)
    return prompt


def subject_fields(prompts: Iterable[str]) -> list[str]:
    """Return the names in braces that stand for subjects, each once: "dog" for "a {dog} in space"."""
    found = (name for prompt in prompts for name in _FIELD.findall(prompt))
    return list(dict.fromkeys(name for name in found if name not in ("identifier", "class")))


def says(prompts: Iterable[str], identifier: str) -> bool:
    """Whether one of the prompts has the identifier as a whole word, in any case."""
    word = _whole_word(identifier)
    return any(word.search(prompt) for prompt in prompts)


def mentions(prompts: Iterable[str], identifier: str) -> bool:
    """Whether one of the prompts has the identifier, alone or with digits or marks joined to it, but no letters."""
    letters = r"[^\W\d_]"
    word = re.compile(rf"(?<!{letters}){re.escape(identifier)}(?!{letters})", re.IGNORECASE)
    return any(word.search(prompt) for prompt in prompts)


def check_identifier(identifier: str) -> str:
    """Return `identifier` if it can be one word of a prompt; UsageError says why it cannot."""
    word = identifier.strip()
    fault = None
    if not word:
        fault = "is empty"
    elif len(word) > MAX_IDENTIFIER:
        fault = f"is longer than {MAX_IDENTIFIER} characters"
    elif any(c.isspace() for c in word) or without_control_characters(word) != word:
        fault = "is not a single word"
    elif _MARKUP.search(word):
        fault = _HOLDS_MARKUP
    elif not any(c.isalnum() for c in word):
        fault = "has no letter or digit"
    if fault:
        raise UsageError(
            f"The identifier '{printable(identifier)}' {fault}.", hint=f"for example --token {EXAMPLE_WORD}"
        )
    return word


def check_class_noun(class_noun: str) -> str:
    """Return the class noun, on one line and trimmed; UsageError says why it cannot be one."""
    noun = without_control_characters(class_noun)
    fault = None
    if not any(c.isalnum() for c in noun):
        fault = "has no letter"
    elif len(noun) > MAX_CLASS_NOUN:
        fault = f"is longer than {MAX_CLASS_NOUN} characters"
    elif _MARKUP.search(noun):
        fault = _HOLDS_MARKUP
    if fault:
        raise UsageError(f"The class noun '{printable(class_noun)}' {fault}.", hint="for example --class dog")
    return noun


def check_free(identifier: str, taken: Mapping[str, str], class_nouns: Collection[str] = ()) -> None:
    """Raise Collision if `identifier` cannot be told from another subject's word or from a class noun.

    `taken` maps identifiers to the subjects that own them. Case does not count: the tokenizer folds it.
    """
    word = identifier.casefold()
    for other, owner in taken.items():
        if other.casefold() == word:
            raise Collision(
                f"The identifier '{printable(identifier)}' belongs to '{printable(owner)}' already; "
                "the two subjects would melt into one.",
                hint="choose another word with --token, or dreambooth tokens suggest",
            )
    for noun in class_nouns:
        if word in noun.casefold().split():
            raise Collision(
                f"The identifier '{printable(identifier)}' is a word of the class noun '{printable(noun)}'; "
                "training on it would change every member of the class.",
                hint=f"choose a rare word with --token, for example {EXAMPLE_WORD}",
            )


def check_template(template: str, fields: Collection[str]) -> str:
    """Return `template`; ValueError if it has a field other than `fields`."""
    unknown = sorted(set(_FIELD.findall(template)) - set(fields))
    known = " and ".join(f"{{{field}}}" for field in sorted(fields))
    if unknown:
        raise ValueError(f"should use no other field than {known}, not {{{unknown[0]}}}")
    return template


def _fill(prompt: str, subjects: Mapping[str, Words], whole: _Rendering, identifier: _Rendering) -> str:
    only = next(iter(subjects.values())) if len(subjects) == 1 else None
    if any("\ud800" <= character <= "\udfff" for character in prompt):
        # Bytes of a command line that are no UTF-8 arrive as lone halves of characters, which no file can hold.
        raise PromptError(f"The prompt '{printable(prompt)}' is not text in UTF-8.")

    def field(match: re.Match[str]) -> str:
        name = match.group(1)
        if name in subjects:
            return whole(subjects[name])
        if only is not None and name == "identifier":
            return identifier(only)
        if only is not None and name == "class":
            return only.class_noun
        raise PromptError(_unknown_field(name, subjects))

    return _FIELD.sub(field, prompt)


def _unknown_field(name: str, subjects: Mapping[str, Words]) -> str:
    known = ", ".join(f"{{{subject}}}" for subject in subjects) or "none"
    if name in ("identifier", "class"):
        return f"The prompt says {{{name}}}, which is clear only for a single subject; here: {known}."
    near = difflib.get_close_matches(name, subjects, n=1, cutoff=0.5)
    guess = f" Did you mean {{{near[0]}}}?" if near else ""
    return f"The prompt says {{{name}}}, and there is no such subject here; known: {known}.{guess}"


def _whole_word(identifier: str) -> re.Pattern[str]:
    # A hyphen or an apostrophe joins: "sks-like" and "sks's" are other words than "sks".
    before = r"(?<![\w-])(?<!\w['’])" if _is_word_character(identifier[0]) else ""
    after = r"(?![\w-])(?!['’]\w)" if _is_word_character(identifier[-1]) else ""
    return re.compile(rf"([ \t]*){before}{re.escape(identifier)}{after}([ \t]*)", re.IGNORECASE)


def _is_word_character(character: str) -> bool:
    return character == "_" or character.isalnum()


def _gap(match: re.Match[str]) -> str:
    before, after = match.groups()
    return before if before and after else ""
