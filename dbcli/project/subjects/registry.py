"""Which words belong to which subject of a project: in its record, and in every run that ever learnt it.

A word is compared token by token, as the base reads it. A subject is the same subject by its name and by every name
it had before; a run keeps the name it learnt.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dbcli.errors import Collision, Refused
from dbcli.project.files.names import printable
from dbcli.project.prompts.identifiers import check_free, check_identifier
from dbcli.project.prompts.token_claims import Claim, Tokenise, check_tokens, clash_of_noun
from dbcli.project.runs.run_store import RunRecord
from dbcli.project.subjects.subject_record import Subject, current_names


@dataclass(frozen=True)
class TokenCheck:
    """How identifiers are compared token by token: the base's tokenizer, and where other words come from."""

    tokenise: Tokenise
    propose: Callable[[Subject, Sequence[Claim], int], Sequence[str]]
    allow_collision: bool = False


@dataclass(frozen=True)
class Registry:
    """All subjects and all runs of a project, as they are on disk now."""

    subjects: Sequence[Subject]
    runs: Sequence[RunRecord]

    def claims(self, tokenise: Tokenise, subject: Subject | None = None) -> list[Claim]:
        """Who holds which tokens: every other subject's identifier, and the class nouns of all."""
        own = subject.names if subject is not None else frozenset()
        nouns = {} if subject is None else {subject.class_noun: subject.name}
        current = current_names(self.subjects)
        words = [(one.name, one.identifier, one.class_noun) for one in self.subjects]
        words += [(one.name, one.identifier, one.class_noun) for run in self.runs for one in run.subjects]
        holders: dict[str, str] = {}
        for name, identifier, noun in words:
            nouns.setdefault(noun, name)
            if identifier and name not in own:
                holders.setdefault(identifier, current.get(name, name))
        claims = [Claim(owner, word, frozenset(tokenise(word))) for word, owner in holders.items()]
        return claims + [Claim(owner, noun, frozenset(tokenise(noun)), True) for noun, owner in nouns.items()]

    def check_identifier(self, subject: Subject, identifier: str, tokens: TokenCheck | None) -> str:
        """The identifier, trimmed. Raises UsageError for what is no word, Collision for what is not this subject's."""
        word = check_identifier(identifier)
        if tokens is not None and tokens.allow_collision:
            return word
        if tokens is not None:
            claims = self.claims(tokens.tokenise, subject)
            check_tokens(word, tokens.tokenise(word), claims, lambda count: tokens.propose(subject, claims, count))
        taken = {one.identifier: one.name for one in self.subjects if one.identifier and one.name != subject.name}
        check_free(word, taken, sorted({subject.class_noun, *(one.class_noun for one in self.subjects)}))
        return word

    def check_noun(self, subject: Subject, tokens: TokenCheck | None) -> None:
        """Raises Collision where a token of the subject's class noun is an identifier already."""
        if tokens is None or tokens.allow_collision:
            return
        # Its own words of earlier runs too: a subject that comes back under its name still owns them.
        claims = self.claims(tokens.tokenise)
        reason = clash_of_noun(subject.class_noun, tokens.tokenise(subject.class_noun), claims)
        if reason is not None:
            raise Collision(
                f"The class noun '{printable(subject.class_noun)}' cannot be used: {reason}.",
                hint="choose the plain noun for what it is; or, for research, --allow-collision",
            )

    def check_name(self, name: str, renamed: Subject | None = None) -> None:
        """Raises Refused where a run knows another subject by `name`: nobody could tell the two apart.

        A removed subject may come back under its name; `renamed`, a subject that is here, may take back its own.
        """
        runs = ", ".join([run.name for run in self.runs if any(one.name == name for one in run.subjects)][:3])
        if not runs or (renamed is not None and name in renamed.names):
            return
        owner = current_names(self.subjects).get(name)
        if owner is not None:
            raise Refused(
                f"In {runs}, '{owner}' is called '{name}'.",
                hint=f"choose another name, or dreambooth subjects rename {owner} {name}",
            )
        if renamed is not None:
            raise Refused(f"{runs} learnt another subject called '{name}'.", hint="choose another name")
