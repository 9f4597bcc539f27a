"""The record of a run that is trained: made, opened, and closed so that it says truly how training ended."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

from dbcli.diffusion.distributed import ProcessGroup
from dbcli.errors import DiskFull, DreamboothError, Interrupted, MachineError, OutOfMemory, TrainingDiverged
from dbcli.project.files.layout import Layout
from dbcli.project.runs.run_store import (
    RunBase,
    RunRecord,
    RunState,
    RunSubject,
    append_event,
    create_run,
    load_run,
    now,
    save_run,
)
from dbcli.project.settings.profile_settings import Profile
from dbcli.project.settings.project_settings import load_settings
from dbcli.project.subjects.photo_notes import masks_in_use
from dbcli.project.subjects.subject_record import Subject
from dbcli.project.subjects.subject_store import set_identifiers
from dbcli.workflows.best_effort import attempted
from dbcli.workflows.progress import Progress
from dbcli.workflows.setup.effective_settings import profile_of
from dbcli.workflows.subjects.identifiers import token_check
from dbcli.workflows.training.checkpoints import tidy_checkpoints
from dbcli.workflows.training.divergence import explain_divergence
from dbcli.workflows.training.plan import TrainingPlan
from dbcli.workflows.training.resuming import apply_changes, refuse_finished
from dbcli.workflows.typed_command import typed_command


def new_run(layout: Layout, plan: TrainingPlan) -> str:
    """Makes the folder and the first record of a planned run, and gives subjects their new identifiers; its name."""
    settings = load_settings(layout)
    if plan.identifiers:
        tokens = token_check(layout, allow_collision=plan.allow_collision)
        set_identifiers(layout, plan.identifiers, tokens=tokens)

    def first_record(name: str) -> RunRecord:
        record = RunRecord(
            name=name,
            method=plan.profile.method,
            profile=plan.profile.model_dump(mode="json") | {"name": plan.profile_name},
            subjects=[_recorded(layout, subject, plan.profile) for subject in plan.subjects],
            base=RunBase(name=settings.base, source=settings.base, revision=settings.revision, hash=settings.base_hash),
            total_steps=plan.profile.train.steps,
            allow_collision=plan.allow_collision,
            work_key=plan.work_key,
            command=typed_command(),
        )
        return _descended(layout, record, plan)

    name: str = create_run(layout, "-".join(subject.name for subject in plan.subjects), first_record)
    return name


def _descended(layout: Layout, record: RunRecord, plan: TrainingPlan) -> RunRecord:
    """A new run's first record with what it has of the run it continues."""
    if plan.continuation is None:
        return record
    parent, shown = plan.continuation.parent, {one.name: one for one in plan.continuation.rehearsed}
    for entry in plan.continuation.earlier:
        current = _recorded(layout, shown[entry.name], plan.profile) if entry.rehearsed else entry
        seen = {"photo_hashes": current.photo_hashes, "captions": current.captions, "mask_hashes": current.mask_hashes}
        record.subjects.append(entry.model_copy(update=seen))
    record.parent, record.parent_weights = parent.name, plan.continuation.seal
    record.generation, record.base.hash = parent.generation + 1, record.base.hash or parent.base.hash
    return record


def _recorded(layout: Layout, subject: Subject, profile: Profile) -> RunSubject:
    return RunSubject(
        name=subject.name,
        class_noun=subject.class_noun,
        identifier=subject.identifier,
        photo_hashes=[photo.sha256 for photo in subject.photos],
        captions=[photo.caption for photo in subject.photos],
        mask_hashes=masks_in_use(layout, subject, profile.images.mask_loss),
    )


@contextmanager
def recorded(
    layout: Layout, name: str, plan: TrainingPlan, progress: Progress, group: ProcessGroup
) -> Iterator[RunRecord]:
    """The record of a run that is trained while the block runs; the main rank alone writes it. The run is held."""
    record = group.on_main(lambda: _begun(layout, name, plan))
    try:
        yield record
    except BaseException as error:
        if group.is_main:
            _close_after(error, layout, record)
        raise
    if group.is_main:
        _close(layout, record, "finished", None)
        tidy = partial(tidy_checkpoints, layout, record, profile_of(layout, record), progress)
        attempted("Tidying the checkpoints", progress, tidy)


def _begun(layout: Layout, name: str, plan: TrainingPlan) -> RunRecord:
    # Read only now: until the lock was ours, another process may have brought the run to its end.
    record: RunRecord = load_run(layout, name)
    refuse_finished(record)
    apply_changes(layout, record, plan)
    record.state, record.error = "running", None
    save_run(layout, record)
    return record


def _close_after(error: BaseException, layout: Layout, record: RunRecord) -> None:
    way_on = f"dreambooth train --resume {record.name}"
    if isinstance(error, Interrupted):
        _close(layout, record, "interrupted", error.message)
        error.hint = way_on
    else:
        if isinstance(error, TrainingDiverged):
            explain_divergence(error, layout, record, profile_of(layout, record))
        elif isinstance(error, DiskFull):
            error.hint = f"free some space, then: {way_on}"
        elif isinstance(error, MachineError) and not isinstance(error, OutOfMemory):
            error.hint = f"{error.hint}; then: {way_on}" if error.hint else way_on
        # On a full disk even this may fail; what went wrong first is what a person has to hear.
        with suppress(OSError, MachineError):
            _close(layout, record, "failed", error.message if isinstance(error, DreamboothError) else repr(error))


def _close(layout: Layout, record: RunRecord, state: RunState, error: str | None) -> None:
    record.state, record.error = state, error
    record.finished = now() if state == "finished" else None
    append_event(layout, record.name, {"event": state, "time": now(), "step": record.step, "error": error})
    save_run(layout, record)
