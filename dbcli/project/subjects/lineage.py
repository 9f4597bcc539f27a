"""A run that goes on from another: what it may go on from, which subjects it has of it, and which words are taken."""

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial

from dbcli.errors import Collision, DreamboothError, Refused, RunMissing, SubjectError
from dbcli.project.files.atomic import sha256_of
from dbcli.project.files.layout import Layout
from dbcli.project.files.manifests import MANIFEST_NAME
from dbcli.project.files.names import printable
from dbcli.project.prompts.token_claims import Claim, check_tokens, clash_of_noun
from dbcli.project.runs.checkpoints import checked_weights
from dbcli.project.runs.run_store import RunRecord, RunSubject, load_run
from dbcli.project.subjects.registry import TokenCheck
from dbcli.project.subjects.subject_record import Subject
from dbcli.project.subjects.subject_store import load_subject, verify_photos

FORGO = "--no-rehearsal continues without its photos"


def weights_seal(layout: Layout, record: RunRecord) -> str:
    """The sha256 of the manifest of a run's weights, after every file was compared with it: it stands for them all.

    Raises RunMissing where the run is unfinished or its weights are gone, UnsafeFile naming the file that is damaged.
    """
    if record.state != "finished":
        raise RunMissing(
            f"The run {record.name} is {record.state}; only a finished run can be continued.",
            hint=f"dreambooth train --resume {record.name}",
        )
    return sha256_of(checked_weights(layout, record) / MANIFEST_NAME)


def parent_of(layout: Layout, record: RunRecord) -> RunRecord | None:
    """The run that a run went on from, with the weights it had then; None for a run that began with the base.

    Raises RunMissing where it is gone, UnsafeFile where it is damaged, Refused where its weights are others now.
    """
    if record.parent is None:
        return None
    try:
        parent = load_run(layout, record.parent)
    except RunMissing as error:
        raise RunMissing(
            f"The run {record.name} continues {record.parent}, which no longer exists.",
            hint=f"restore runs/{record.parent} from a copy",
        ) from error
    if record.parent_weights not in (None, weights_seal(layout, parent)):
        raise Refused(
            f"The weights of the run {parent.name} are not those that {record.name} started from.",
            hint=f"dreambooth train --from {parent.name} starts a new run",
        )
    return parent


def earlier_subjects(parent: RunRecord, taught: Sequence[Subject]) -> list[RunSubject]:
    """What a run learnt and a new one does not teach again, as the new one records it, none rehearsed yet.

    Raises Refused where a subject to be taught was learnt under other words.
    """
    # Runs know a subject by the name it had then.
    by_name = {name: subject for subject in taught for name in subject.names}
    names = {subject.name for subject in taught}
    earlier = []
    for before in parent.subjects:
        now, name = by_name.get(before.name), before.name
        if now is not None and (now.identifier, now.class_noun) == (before.identifier, before.class_noun):
            continue
        if now is not None and before.photo_hashes:
            raise Refused(
                f"The run {parent.name} learnt '{before.name}' as '{before.identifier} {before.class_noun}'; "
                f"here it is '{now.identifier} {now.class_noun}'.",
                hint=f"dreambooth train --subject {before.name} starts from the base, with the new words",
            )
        if now is not None:  # the name was made up when the weights were imported: that is another subject
            name = _free_name(f"{before.name}-{parent.number}", names)
        names.add(name)
        entry = before.model_copy(update={"name": name, "rehearsed": False})
        entry.learnt_in = before.learnt_in or parent.name
        earlier.append(entry)
    return earlier


def check_words(taught: Sequence[Subject], earlier: Sequence[RunSubject], run: str, check: TokenCheck) -> None:
    """Raises Collision where a word of a subject to be taught shares a token with one that the run learnt."""
    if check.allow_collision:
        return
    claims = [claim for one in earlier for claim in _claims(one, run, check.tokenise)]
    for subject in taught:
        tokens = check.tokenise(subject.identifier or "")
        if any(claim.tokens & set(tokens) for claim in claims):
            propose = partial(check.propose, subject, claims)
            check_tokens(subject.identifier or "", tokens, claims, propose)
        reason = clash_of_noun(subject.class_noun, check.tokenise(subject.class_noun), claims)
        if reason is not None:
            raise Collision(
                f"The class noun '{printable(subject.class_noun)}' of '{subject.name}' cannot be used: {reason}.",
                hint="--allow-collision trains it anyway, for research",
            )


def as_learnt(layout: Layout, before: RunSubject, run: str) -> Subject:
    """A subject of an earlier run with its photos in the project, under the words that the run learnt it by.

    Raises SubjectError where it is gone, its photos have changed, or another subject has its name now.
    """
    try:
        subject = load_subject(layout, before.name)
        verify_photos(layout, subject)
    except DreamboothError as error:
        hint = f"{error.hint}; or {FORGO}" if error.hint else FORGO
        raise SubjectError(f"'{before.name}' of the run {run} cannot be rehearsed. {error.message}", hint) from error
    known = {photo.sha256 for photo in subject.photos} & set(before.photo_hashes)
    if before.photo_hashes and not known:
        raise SubjectError(
            f"'{before.name}' of the run {run} cannot be rehearsed: the subject of that name has other photos now.",
            hint=FORGO,
        )
    if not before.photo_hashes and (subject.identifier, subject.class_noun) != (before.identifier, before.class_noun):
        raise SubjectError(
            f"'{before.name}' of the run {run} cannot be rehearsed: '{before.identifier} {before.class_noun}' "
            f"was imported without photos, and the subject of that name is another.",
            hint=FORGO,
        )
    subject.identifier, subject.class_noun = before.identifier, before.class_noun
    return subject


def _claims(subject: RunSubject, run: str, tokenise: Callable[[str], tuple[int, ...]]) -> Iterator[Claim]:
    owner = f"{subject.name} of the run {run}"
    if subject.identifier:
        yield Claim(owner, subject.identifier, frozenset(tokenise(subject.identifier)))
    yield Claim(owner, subject.class_noun, frozenset(tokenise(subject.class_noun)), is_class_noun=True)


def _free_name(wanted: str, taken: Collection[str]) -> str:
    name, number = wanted, 2
    while name in taken:
        name, number = f"{wanted}-{number}", number + 1
    return name
