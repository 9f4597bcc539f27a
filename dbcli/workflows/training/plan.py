"""What a run would do, settled before it begins: subjects, settings, words, and what it takes of this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dbcli.project.files.layout import Layout
from dbcli.project.seeds import settled
from dbcli.project.settings.cautions import cautions
from dbcli.project.settings.profile_settings import Profile
from dbcli.project.settings.project_settings import load_settings
from dbcli.project.subjects.subject_store import Subject
from dbcli.workflows.memory.estimate import ESTIMATED, MemoryEstimate, look_ahead, look_for
from dbcli.workflows.models.layer_targets import check_targets
from dbcli.workflows.progress import Progress, Silence
from dbcli.workflows.setup.effective_settings import AUTO, resolve_profile
from dbcli.workflows.setup.optional_packages import require_extras
from dbcli.workflows.subjects.manage import identifiers_of, named_subjects
from dbcli.workflows.training import continuation as continuing
from dbcli.workflows.training.prompts import check_training_prompts, settle_captions
from dbcli.workflows.training.resuming import ResumePlan


@dataclass(frozen=True)
class TrainingPlan:
    """What a run would do, before it does it; `resumes` says of an unfinished run how it would go on."""

    subjects: list[Subject]
    profile_name: str
    profile: Profile
    allow_collision: bool = False
    continuation: continuing.Continuation | None = None
    work_key: str | None = None
    estimate: MemoryEstimate | None = None
    resumes: tuple[str, ...] = ()

    @property
    def notes(self) -> list[str]:
        """What is to be known of the run before it begins, a line each."""
        lines, steps, count = list(self.resumes), self.profile.train.steps, len(self.subjects)
        if self.continuation is not None:
            earlier = [
                one.name if one.rehearsed else f"{one.name} (not rehearsed)" for one in self.continuation.earlier
            ]
            parent = self.continuation.parent.name
            lines.append(f"Goes on from {parent}; earlier subjects: {', '.join(earlier) or 'none'}.")
        if count > 1 and not self.resumes:
            lines.append(
                f"{count} subjects share {steps} steps, about {steps / count:.0f} each; --steps sets another number."
            )
        return lines

    @property
    def cautions(self) -> list[str]:
        """Settings that a person hardly means, a line each."""
        return cautions(self.profile)


def plan_training(
    layout: Layout,
    names: Sequence[str],
    *,
    token: str | None = None,
    identifiers: Mapping[str, str] | None = None,
    profile: str | None = None,
    sets: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
    allow_collision: bool = False,
    start_from: str | None = None,
    progress: Progress | None = None,
) -> TrainingPlan:
    """Settles subjects, identifiers and settings. Raises every usage, config, prompt and collision error there is.

    `token` is the identifier of the only subject, `identifiers` are those of several. `start_from` names the run to go
    on from; without `names` its own subjects are taught on.
    """
    settled.begin()
    words = identifiers_of(layout, names, [] if token is None else [token]) | dict(identifiers or {})
    parent = None if start_from is None else continuing.parent_run(layout, start_from)
    carried = None if parent is None else continuing.carried_from(layout, parent, names)
    how: dict[str, Any] = {"carried": carried, "subjects": max(1, len(names))}
    chosen, resolved = resolve_profile(layout, profile=profile, sets=sets, flags=flags, **how)
    require_extras(resolved)
    if parent is None:
        subjects = named_subjects(layout, names, words, allow_collision=allow_collision)
        settle_captions(layout, subjects)
        check_training_prompts(layout, subjects, resolved, progress or Silence())
        return TrainingPlan(subjects, chosen, resolved, allow_collision)
    continuing.check_settings(layout, parent, resolved)
    if names:
        continuing.check_taught(layout, parent, names, words, allow_collision=allow_collision)
        subjects = named_subjects(layout, names, words, allow_collision=allow_collision)
    else:
        subjects = continuing.taught_again(layout, parent, allow_collision=allow_collision)
    kept = continuing.continuation(layout, parent, subjects, resolved)
    settle_captions(layout, shown := [*subjects, *kept.rehearsed])
    check_training_prompts(layout, shown, resolved, progress or Silence(), kept.earlier)
    return TrainingPlan(subjects, chosen, resolved, allow_collision or parent.allow_collision, kept)


def check_plan(layout: Layout, plan: TrainingPlan) -> list[Subject]:
    """The subjects whose photos a planned run will see, with their captions settled.

    Raises ConfigError where adapters are asked for in layers that the base does not have.
    """
    kept = plan.continuation
    subjects = [*plan.subjects, *(kept.rehearsed if kept else [])]
    settle_captions(layout, subjects)
    if kept is None:  # the adapter of a run that is gone on from has its layers already
        check_targets(load_settings(layout), plan.profile)
    return subjects


def with_estimate(
    layout: Layout,
    plan: TrainingPlan,
    *,
    sets: Sequence[str],
    flags: Mapping[str, Any],
    progress: Progress,
    asked: bool,
) -> TrainingPlan:
    """The plan with what it will take of this machine, if that was asked for or the profile is `auto`.

    `auto` takes the first rung that fits; a run that goes on from another keeps that run's recipe.
    """
    if plan.profile_name == AUTO and plan.continuation is None:
        estimate = look_for(layout, plan.subjects, sets=sets, flags=flags, progress=progress)
        progress.note(f"This machine has room for: {estimate.chosen.rung}.")
        return replace(plan, profile=estimate.chosen.profile, estimate=estimate)
    if asked and plan.profile.method in ESTIMATED:
        with progress.stage("Estimating memory and time", 1) as stage:
            estimate = look_ahead(layout, plan.subjects, plan.profile)
            stage.advance()
        return replace(plan, estimate=estimate)
    return plan


def resumed_estimate(layout: Layout, resumed: ResumePlan) -> TrainingPlan:
    """An unfinished run with the settings it would go on with, and what they will take of this machine."""
    record, profile = resumed.record, resumed.profile
    taught = [one for one, entry in zip(resumed.subjects, record.shown, strict=True) if entry.learnt_in is None]
    lines = (f"Resumes {record.name} at step {record.step} of {profile.train.steps}.", *resumed.lines)
    estimate = look_ahead(layout, resumed.subjects, profile)
    return TrainingPlan(taught, str(record.profile.get("name")), profile, estimate=estimate, resumes=lines)
