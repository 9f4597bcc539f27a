"""Which tokens of the tokenizer belong to whom, and why a word cannot be given away a second time."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from dbcli.errors import Collision, UsageError
from dbcli.project.files.names import printable
from dbcli.project.prompts.identifiers import EXAMPLE_WORD

Tokenise = Callable[[str], tuple[int, ...]]
MAX_TOKENS = 6
LONG_WORD = 6

# What a rare-looking word means to Stable Diffusion, with where that was found.
KNOWN_MEANINGS = {
    "sks": "a rifle, the SKS: weapons creep in (github.com/XavierXiao/Dreambooth-Stable-Diffusion, issue 71)",
    "ohwx": "used in many public tutorials; public models may already have learnt it",
    "zwx": "used in many public tutorials; public models may already have learnt it",
}


@dataclass(frozen=True)
class Claim:
    """Tokens that are spoken for: an identifier of a subject, or the class noun of one."""

    owner: str
    word: str
    tokens: frozenset[int]
    is_class_noun: bool = False


@dataclass(frozen=True)
class SubjectWord:
    """A subject as its words stand for it in a run: what may clash with another subject's."""

    subject: str
    identifier: str
    class_noun: str


@cache
def known_words() -> frozenset[str]:
    """Short words of the vocabulary that mean something."""
    lines = (Path(__file__).parent / "known_words.txt").read_text(encoding="utf-8").splitlines()
    return frozenset(word for line in lines if not line.startswith("#") for word in line.split())


def clash(word: str, tokens: Sequence[int], claims: Sequence[Claim]) -> str | None:
    """Why `word` cannot become an identifier, in a sentence; None if nothing speaks against it.

    Refused are the same tokens, any shared token, a token of a class noun, and a plain word.
    """
    own = frozenset(tokens)
    for claim in claims:
        shared = own & claim.tokens
        if not shared:
            continue
        if claim.is_class_noun:
            return f"it shares a token with the class noun '{printable(claim.word)}' of the subject '{claim.owner}'"
        how = "is" if own == claim.tokens else "shares a token with"
        return f"it {how} the identifier '{printable(claim.word)}' of the subject '{claim.owner}'"
    return _plainness(word, tokens)


def _plainness(word: str, tokens: Sequence[int]) -> str | None:
    """Why a word means something already, as far as its spelling and its tokens tell."""
    folded = word.casefold()
    if not any(character.isalpha() for character in folded):
        return "it is a number, which the base reads as one"
    if folded in known_words():
        return "it is a plain word, which the base already knows as something else"
    pieces = re.findall(r"[^\W\d_]+", folded)
    if pieces != [folded]:
        # The tokenizer cuts where letters end, so "red-house" is read as the two words.
        plain = next((piece for piece in pieces if piece in ("a", "i") or piece in known_words()), None)
        return None if plain is None else f"the base reads the plain word '{printable(plain)}' in it"
    # A merge that makes a whole word of six letters, or of letters beyond a to z, was met so often that it is a word,
    # a name or a hashtag; the list above holds the shorter ones.
    if len(tokens) == 1 and (len(folded) >= LONG_WORD or not folded.isascii()):
        return "it is a single token of the base: a word or name that already means something to it"
    return None


def clash_of_noun(noun: str, tokens: Sequence[int], claims: Sequence[Claim]) -> str | None:
    """Why `noun` cannot become a class noun: a token of it is an identifier's; None if nothing speaks against it."""
    for claim in claims:
        if not claim.is_class_noun and claim.tokens & frozenset(tokens):
            return f"it shares a token with the identifier '{printable(claim.word)}' of the subject '{claim.owner}'"
    return None


def clashes_between(words: Sequence[SubjectWord], tokenise: Tokenise) -> list[str]:
    """One sentence for every two subjects that share a token: two identifiers, or an identifier and a class noun."""
    subjects = list(dict.fromkeys(words))
    found = []
    for place, one in enumerate(subjects):
        own = frozenset(tokenise(one.identifier))
        for other in subjects[:place]:
            if other.subject != one.subject and own & frozenset(tokenise(other.identifier)):
                found.append(
                    f"'{printable(other.identifier)}' of '{other.subject}' and '{printable(one.identifier)}' of "
                    f"'{one.subject}' share a token"
                )
        for other in subjects:
            if own & frozenset(tokenise(other.class_noun)):
                found.append(
                    f"'{printable(one.identifier)}' of '{one.subject}' shares a token with the class noun "
                    f"'{printable(other.class_noun)}' of '{other.subject}'"
                )
    return list(dict.fromkeys(found))


def check_tokens(
    word: str, tokens: Sequence[int], claims: Sequence[Claim], proposals: Callable[[int], Sequence[str]]
) -> None:
    """Raises Collision with the reason and three words to take instead, UsageError for a word of too many tokens."""
    if not tokens:
        raise UsageError(
            f"The tokenizer makes no tokens of the identifier '{printable(word)}'.", hint=f"--token {EXAMPLE_WORD}"
        )
    reason = clash(word, tokens, claims)
    if reason is None and len(tokens) > MAX_TOKENS:
        raise UsageError(
            f"The identifier '{printable(word)}' is {len(tokens)} tokens long; {MAX_TOKENS} is the maximum.",
            hint=f"take one of {', '.join(proposals(3))}",
        )
    if reason is not None:
        raise Collision(
            f"The identifier '{printable(word)}' cannot be used: {reason}.",
            hint=f"take one of {', '.join(proposals(3))}; dreambooth tokens suggest measures more of them",
        )
