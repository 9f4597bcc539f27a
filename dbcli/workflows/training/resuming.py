"""An unfinished run resumed: as it was, or with other settings where that leaves it the same run."""

from collections.abc import Iterator, Mapping
from typing import Any

from dbcli.errors import Refused, UsageError
from dbcli.project.files.layout import Layout
from dbcli.project.files.names import printable
from dbcli.project.runs.checkpoints import checkpoint_steps, newest_checkpoint, step_of
from dbcli.project.runs.probe_files import drop_probes, drop_weights, load_probes, save_probes
from dbcli.project.runs.resumable import OF_PROBE_IMAGES, Change, changed_settings, may_change
from dbcli.project.runs.run_store import RunRecord, RunSubject, SettingsChange, append_event, newest_run, save_run
from dbcli.project.settings.profile_settings import Profile
from dbcli.project.settings.profiles import parse_sets, resolve
from dbcli.project.settings.project_settings import load_settings
from dbcli.project.subjects.known_runs import UNFINISHED, run_meant
from dbcli.project.subjects.photo_notes import masks_in_use
from dbcli.project.subjects.renaming import in_words_of
from dbcli.project.subjects.subject_record import Subject
from dbcli.project.subjects.subject_store import load_subject
from dbcli.workflows.models.base_demands import check_demands
from dbcli.workflows.probes.schedule import plan_of
from dbcli.workflows.progress import Progress, Silence
from dbcli.workflows.setup.effective_settings import check_samplers, profile_of, require_extras
from dbcli.workflows.training.continuation import CONTINUABLE, check_rate_kept
from dbcli.workflows.training.plan import Resumption, TrainingPlan
from dbcli.workflows.training.prompts import check_training_prompts
from dbcli.workflows.training.request import TrainRequest


def plan_resume(
    layout: Layout, run: str | None, request: TrainRequest | None = None, progress: Progress | None = None
) -> TrainingPlan:
    """Settles how an unfinished run, the newest one if none is named, goes on; `request` is what else was typed.

    Raises UsageError for options that would make another run of it, ConfigError for settings with faults, Refused if
    the run is finished or its photos are no longer those it began with.
    """
    record = run_meant(layout, run, to_resume=True) if run else newest_run(layout, UNFINISHED)
    refuse_finished(record)
    before = profile_of(layout, record)
    profile, request = before, request or TrainRequest()
    if request.flags or request.sets:
        typed = [("--set", parse_sets(request.sets)), ("the command line", request.flags)]
        profile = resolve([(f"the run {record.name}", before.model_dump(mode="json")), *typed])
        check_rate_kept(record, before, profile)
        require_extras(profile)
    changes = changed_settings(before, profile)
    faults = [*_other_run(layout, record, request), *_not_on_the_way(layout, record, profile, changes)]
    if faults:
        raise UsageError(
            f"The run {record.name} cannot be resumed like that:\n"
            + "\n".join(f"  {line}" for line in faults)
            + "\nWhat a run learns, and what it has done, is fixed; --from starts a new run from a finished one.",
            hint=f"dreambooth train --resume {record.name}",
        )
    if changes:  # a run begun before there was such a check goes on as it was
        check_samplers(profile)
        check_demands(load_settings(layout).base, profile)
    subjects = [_as_before(layout, record, one, profile) for one in record.shown]
    check_training_prompts(layout, subjects, profile, progress or Silence(), record.subjects)
    taught = sum(one.learnt_in is None for one in record.shown)
    lines = [f"{key}: {_shown(old)} → {_shown(new)}" for key, (old, new) in changes.items()]
    resumed = Resumption(record, subjects[taught:], changes, lines)
    return TrainingPlan(subjects[:taught], str(record.profile.get("name")), profile, resumed=resumed)


def apply_changes(layout: Layout, record: RunRecord, plan: TrainingPlan) -> None:
    """Puts a plan's changed settings into the run's record, and sets its probes right. The run is held meanwhile."""
    if plan.resumed is None or not plan.resumed.changes:
        return
    # A damaged checkpoint is passed over: the steps up to its own are made once more, with the new settings.
    sound = newest_checkpoint(layout, record.name)
    step = 0 if sound is None else step_of(sound)
    settings = {key: list(pair) for key, pair in plan.resumed.changes.items()}
    _revise_probes(layout, record, plan.profile, plan.resumed.changes, step)
    record.profile = plan.profile.model_dump(mode="json") | {"name": record.profile.get("name")}
    record.total_steps = plan.profile.train.steps
    record.changes.append(SettingsChange(step=step, settings=settings))
    # It is no longer the run that a sweep planned.
    record.work_key = None
    save_run(layout, record)
    append_event(layout, record.name, {"event": "settings changed", "step": step, "settings": settings})


def anew(record: RunRecord) -> str:
    """The command that teaches a run's subjects in a new run."""
    taught = ",".join(one.name for one in record.subjects if one.learnt_in is None)
    return f"dreambooth train --subject {taught}" if taught else "dreambooth train"


def refuse_finished(record: RunRecord) -> None:
    """Raises Refused for a run that is finished."""
    if record.state == "finished":
        start = f"dreambooth train --from {record.name}" if record.method in CONTINUABLE else anew(record)
        raise Refused(f"The run {record.name} is finished.", hint=f"{start} starts a new one")


def _other_run(layout: Layout, record: RunRecord, request: TrainRequest) -> Iterator[str]:
    """A line for each option, settings apart, that is not what the run began with."""
    taught = {one.name: one for one in record.subjects if one.learnt_in is None}
    named = [load_subject(layout, name).names & taught.keys() for name in request.subjects]
    if named and (not all(named) or set().union(*named) != taught.keys()):
        yield f"--subject {printable(', '.join(request.subjects))}: it teaches {', '.join(taught)}"
    words = {one.name: one.identifier for one in taught.values()}
    for token in request.tokens:
        name, has_name, word = token.partition("=")
        if not (words.get(name) == word if has_name else [token] == list(words.values())):
            known = ", ".join(f"{name}={word or '?'}" for name, word in words.items())
            yield f"--token {printable(token)}: its identifiers are {known}"
    before = record.profile.get("name")
    if request.profile is not None and request.profile != before:
        asked = printable(request.profile)
        yield f"--profile {asked}: it started with {before}; change single settings with --set KEY=VALUE"
    if request.allow_collision and not record.allow_collision:
        yield "--allow-collision: whether words may collide is fixed when a run starts"


def _not_on_the_way(
    layout: Layout, record: RunRecord, profile: Profile, changes: Mapping[str, Change]
) -> Iterator[str]:
    optimizer = None if "train.optimizer" in changes else profile.train.optimizer
    for key, (before, after) in changes.items():
        if not may_change(key, optimizer):
            yield f"{key} is {_shown(before)} for the whole run; {_shown(after)} was requested"
    done = _steps_done(layout, record)
    if "train.steps" in changes and changes["train.steps"][1] < done:
        yield f"train.steps: {changes['train.steps'][1]} was requested, but {done} steps are done"


def _steps_done(layout: Layout, record: RunRecord) -> int:
    """The step of the newest checkpoint."""
    return max(checkpoint_steps(layout, record.name), default=0)


def _revise_probes(
    layout: Layout, record: RunRecord, profile: Profile, changes: Mapping[str, Change], step: int
) -> None:
    """Steps after `step` will be made otherwise than those that were probed: what was measured of them goes."""
    found = load_probes(layout, record.name)
    if found is None:
        return
    if any(key in OF_PROBE_IMAGES for key in changes):
        drop_probes(layout, record.name)
        return
    found.forget_after(step)
    found.stopped_at = None
    if any(key.startswith("probe.") or key == "train.steps" for key in changes):
        new = plan_of(record, profile)
        if found.probes and new.seeds != found.plan.seeds:
            drop_probes(layout, record.name)
            return
        found.plan = new
    save_probes(layout, record.name, found)
    drop_weights(layout, record.name, but=[one.step for one in found.probes])


def _as_before(layout: Layout, record: RunRecord, before: RunSubject, profile: Profile) -> Subject:
    """A subject as the run began with it; Refused where its photos or masks are others now."""
    subject = load_subject(layout, before.name)
    now = {
        "photos": [photo.sha256 for photo in subject.photos],
        "masks": masks_in_use(layout, subject, profile.images.mask_loss),
    }
    for what, then in (("photos", before.photo_hashes), ("masks", before.mask_hashes)):
        if now[what] != then:
            raise Refused(
                f"The {what} of '{subject.name}' are not those the run {record.name} started with.",
                hint=f"{anew(record)} starts a new run",
            )
    subject.identifier, subject.class_noun = before.identifier, before.class_noun
    for entry, caption in zip(subject.photos, before.captions, strict=False):
        entry.caption = in_words_of(caption, before.name, subject.name)
    return subject


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value is None else printable(str(value), 120)
