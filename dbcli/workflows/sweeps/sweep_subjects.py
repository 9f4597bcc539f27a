"""The subjects of a sweep: those of the project, those that a dataset brings, and a word for each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dbcli.counts import counted
from dbcli.errors import DreamboothError
from dbcli.hints import nearest
from dbcli.project.files.layout import Layout
from dbcli.project.files.names import printable
from dbcli.project.prompts.identifiers import check_identifier
from dbcli.project.prompts.token_claims import Claim, clash
from dbcli.project.subjects.subject_record import Subject
from dbcli.project.subjects.subject_store import list_subjects, load_subject, registry_of, set_identifiers
from dbcli.project.sweeps.cells import CellRequest, StageRequest
from dbcli.workflows.progress import Progress
from dbcli.workflows.subjects.annotate import annotate, load_annotators
from dbcli.workflows.subjects.identifiers import token_check
from dbcli.workflows.subjects.manage import add_subject
from dbcli.workflows.subjects.proposed_words import claims_of, free_words

if TYPE_CHECKING:
    from dbcli.metrics.dataset import Dataset
    from dbcli.metrics.suites import Suite


class SweepSubjects:
    """Subjects by name. With `dry` set nothing is written: what a dataset would bring is made up in memory."""

    def __init__(self, layout: Layout, dataset: Dataset | None, progress: Progress, *, dry: bool) -> None:
        self.layout, self.dataset, self.progress, self.dry = layout, dataset, progress, dry
        self._found = {subject.name: subject for subject in list_subjects(layout)}

    def get(self, name: str) -> Subject:
        """One subject; KeyError for one that `faults` would have named."""
        return self._found[name]

    def names(self) -> list[str]:
        """All subjects there are: those of the dataset in its order, else those of the project."""
        return [one.name for one in self.dataset.subjects] if self.dataset is not None else list(self._found)

    @property
    def suites(self) -> Mapping[str, Suite]:
        """The suite that the dataset brings, by its name."""
        return {} if self.dataset is None else {self.dataset.suite.name: self.dataset.suite}

    def faults(self, names: Iterable[str]) -> Iterator[str]:
        """A line for each name that neither the project nor the dataset has; the dataset's are brought in."""
        offered = {one.name: one for one in self.dataset.subjects} if self.dataset is not None else {}
        for name in names:
            if name in offered and name not in self._found:
                self._bring(name, offered[name].class_noun, offered[name].photos)
            elif name not in self._found:
                known = list(dict.fromkeys([*self._found, *offered]))
                near = nearest(name, known)
                guess = f"; did you mean '{near}'?" if near else ""
                yield (
                    f"there is no subject '{printable(name)}' (known: {', '.join(known) or 'none yet'}){guess}; "
                    "--subject takes those you name in their place, --dataset DIR adds others"
                )

    def _bring(self, name: str, class_noun: str, photos: Sequence[Path]) -> None:
        if self.dry:
            self._found[name] = Subject(name=name, class_noun=class_noun)
            return
        added, _ = add_subject(self.layout, name, class_noun, photos, None)
        annotate(self.layout, added.subject, load_annotators(self.layout, offline=True), self.progress)
        self._found[name] = load_subject(self.layout, name)
        self.progress.note(f"Added {name}, {counted(len(photos), 'photo')} of a {class_noun}.")

    def word(self, name: str, stage: StageRequest) -> str:
        """The word that stands for a subject in one run: the sweep's, else the subject's own."""
        return stage.identifiers.get(name) or self._found[name].identifier or ""

    def give_words(self, cells: Sequence[CellRequest]) -> None:
        """Gives each subject that has no word, here or in the sweep, the next free rare one, and writes it down."""
        from dbcli.diffusion.vocabulary import tokens_of

        wanted = [(name, stage) for cell in cells for stage in cell.stages for name in stage.subjects]
        asked = {word for _, stage in wanted for word in stage.identifiers.values()}
        taken = [claim for word in sorted(asked) for claim in claims_of({"the sweep": word})]
        for name in dict.fromkeys(name for name, stage in wanted if not self.word(name, stage)):
            subject = self._found[name]
            claims = registry_of(self.layout).claims(tokens_of, subject) + taken
            word = free_words(self.layout, claims, subject.class_noun, 1)[0]
            taken += claims_of({name: word})
            if self.dry:
                self._found[name] = subject.model_copy(update={"identifier": word})
            else:
                (self._found[name],) = set_identifiers(self.layout, {name: word}, tokens=token_check(self.layout))
                self.progress.note(f"{name} has the identifier {word} from now on; it had none.")


def word_faults(layout: Layout, cells: Sequence[CellRequest], subjects: SweepSubjects) -> Iterator[str]:
    """A line for each word that is no word, belongs to another subject, or means two subjects in one cell.

    Nothing is said where the sweep allows collisions: they are its subject then.
    """
    from dbcli.diffusion.vocabulary import tokens_of

    claims: dict[str, list[Claim]] = {}
    for cell in cells:
        held: list[Claim] = []
        for stage, name in [(one, name) for one in cell.stages for name in one.subjects]:
            subject, word = subjects.get(name), subjects.word(name, stage)
            if name not in claims:
                claims[name] = registry_of(layout).claims(tokens_of, subject)
            own = Claim(name, word, frozenset(tokens_of(word)))
            beside = [one for one in held if one.owner != name and one.tokens & own.tokens]
            if not stage.allow_collision:
                yield from _word_fault(subject, word, beside, claims[name])
            held.append(own)


def _word_fault(subject: Subject, word: str, beside: Sequence[Claim], claims: Sequence[Claim]) -> Iterator[str]:
    """What speaks against a word; the subject's own was checked against the project when it was given."""
    from dbcli.diffusion.vocabulary import tokens_of

    try:
        check_identifier(word)
    except DreamboothError as error:
        yield f"{subject.name}: {error.message}"
        return
    is_own = word == subject.identifier
    reason = clash(word, tokens_of(word), [*beside, *([] if is_own else claims)]) if beside or not is_own else None
    if reason is not None:
        yield f"the word '{printable(word)}' of {subject.name}: {reason} (allow_collision: true is for research)"
