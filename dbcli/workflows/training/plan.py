"""What a run would do, settled before it begins: subjects, settings, words, and what it takes of this machine."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from dbcli.errors import UsageError
from dbcli.project.files.layout import Layout
from dbcli.project.runs.resumable import Change
from dbcli.project.runs.run_store import RunRecord
from dbcli.project.seeds import settled
from dbcli.project.settings.combinations import cautions, kept_rate
from dbcli.project.settings.profile_settings import Profile, TrainSettings
from dbcli.project.settings.profiles import frozen_profile, load_profile, resolve
from dbcli.project.settings.project_settings import load_settings
from dbcli.project.subjects.held_out import check_held_out
from dbcli.project.subjects.photos import list_files
from dbcli.project.subjects.subject_record import Subject
from dbcli.workflows.memory.estimate import ESTIMATED, MemoryEstimate, choose_recipe, estimate_recipe
from dbcli.workflows.memory.fallback import may_change_method
from dbcli.workflows.models.base_demands import check_demands
from dbcli.workflows.models.layer_targets import check_targets
from dbcli.workflows.models.textual_inversion import has_prior
from dbcli.workflows.progress import Progress, Silence
from dbcli.workflows.setup.effective_settings import AUTO, profile_of, require_extras, resolve_profile
from dbcli.workflows.subjects.manage import identifiers_of, named_subjects
from dbcli.workflows.training import continuation as continuing
from dbcli.workflows.training.prompts import check_training_prompts, settle_captions
from dbcli.workflows.training.request import TrainRequest


@dataclass(frozen=True)
class Resumption:
    """An unfinished run, the subjects it rehearses, and the settings that it goes on with other than they were."""

    record: RunRecord
    rehearsed: list[Subject]
    changes: dict[str, Change]
    lines: list[str]


@dataclass(frozen=True)
class TrainingPlan:
    """What a run would do: a new one, one that continues a finished run, or an unfinished one that is resumed.

    `identifiers` are new ones, by subject, which are theirs in the project once the run is made.
    """

    subjects: list[Subject]
    profile_name: str
    profile: Profile
    allow_collision: bool = False
    continuation: continuing.Continuation | None = None
    resumed: Resumption | None = None
    work_key: str | None = None
    estimate: MemoryEstimate | None = None
    identifiers: Mapping[str, str] = field(default_factory=dict)

    @property
    def shown(self) -> list[Subject]:
        """The subjects whose photos the run sees: those it teaches, then those it rehearses."""
        earlier = self.continuation or self.resumed
        return [*self.subjects, *(earlier.rehearsed if earlier is not None else [])]

    @property
    def recipe_is_open(self) -> bool:
        """Whether `--profile auto` may choose the recipe: not of a run that continues another, or is resumed."""
        return self.continuation is None and self.resumed is None

    @property
    def notes(self) -> list[str]:
        """What is to be known of the run before it begins, a line each."""
        steps, count = self.profile.train.steps, len(self.subjects)
        if self.resumed is not None:
            record = self.resumed.record
            changes = [f"From this step on: {line}" for line in self.resumed.lines]
            return [f"Resuming {record.name} at step {record.step} of {steps}.", *changes]
        lines = []
        if self.continuation is not None:
            earlier = [
                one.name if one.rehearsed else f"{one.name} (not rehearsed)" for one in self.continuation.earlier
            ]
            parent = self.continuation.parent.name
            lines.append(f"Continues {parent}; earlier subjects: {', '.join(earlier) or 'none'}.")
        if count > 1:
            lines.append(
                f"{count} subjects share {steps} steps, about {steps / count:.0f} each; --steps sets another number."
            )
        return lines

    @property
    def cautions(self) -> list[str]:
        """Settings that a person hardly means, a line each; of a resumed run once more only where some changed."""
        if self.resumed is not None and not self.resumed.changes:
            return []
        before = self._rate_before()
        kept = [] if before is None else kept_rate(before[0], self.profile.train, before[1])
        return [*cautions(self.profile), *kept]

    def _rate_before(self) -> tuple[TrainSettings, str] | None:
        """What the rate would be taken over from, and whose that is; None where there is nothing."""
        if self.resumed is not None:
            changes = self.resumed.changes
            keys = ("train.optimizer", "train.learning_rate")
            earlier = {key.removeprefix("train."): changes[key][0] for key in keys if key in changes}
            return self.profile.train.model_copy(update=earlier), f"the run {self.resumed.record.name}"
        if self.continuation is not None:
            parent = self.continuation.parent
            return frozen_profile(parent.profile, parent.name).train, f"the run {parent.name}"
        if self.work_key is not None:  # a sweep says optimiser and rate in its file
            return None
        try:
            return resolve([("", load_profile(self.profile_name))]).train, f"the profile {self.profile_name}"
        except UsageError:  # no one profile, or a file that cannot stand alone
            return None


def plan_training(layout: Layout, request: TrainRequest, progress: Progress | None = None) -> TrainingPlan:
    """Settles subjects, identifiers and settings. Raises every usage, config, prompt and collision error there is.

    Nothing is written: a run that is only planned, or refused, changes no subject.
    """
    settled.begin()
    names, allow_collision, progress = request.subjects, request.allow_collision, progress or Silence()
    words = identifiers_of(layout, names, request.tokens)
    parent = None if request.start_from is None else continuing.parent_run(layout, request.start_from)
    carried = None if parent is None else continuing.carried_from(layout, parent, names)
    if parent is not None and carried is not None:
        continuing.check_kind_asked(parent, carried, request.sets)
    profile_name, profile = resolve_profile(
        layout,
        profile=request.profile,
        sets=request.sets,
        flags=request.flags,
        carried=carried,
        subjects=max(1, len(names)),
    )
    require_extras(profile)
    if parent is None:
        subjects = named_subjects(layout, names, words, allow_collision=allow_collision)
        settle_captions(layout, subjects)
        check_held_out(subjects, profile.images.held_out)
        check_training_prompts(layout, subjects, profile, progress)
        return TrainingPlan(subjects, profile_name, profile, allow_collision, identifiers=words)
    continuing.check_settings(layout, parent, profile)
    continuing.check_rate_kept(parent, profile_of(layout, parent), profile)
    if names:
        continuing.check_taught(layout, parent, names, words, allow_collision=allow_collision)
        subjects = named_subjects(layout, names, words, allow_collision=allow_collision)
    else:
        subjects = continuing.taught_again(layout, parent, allow_collision=allow_collision)
    kept = continuing.continuation(layout, parent, subjects, profile)
    allowed = allow_collision or parent.allow_collision
    plan = TrainingPlan(subjects, profile_name, profile, allowed, kept, identifiers=words)
    settle_captions(layout, plan.shown)
    check_held_out(subjects, profile.images.held_out)
    check_training_prompts(layout, plan.shown, profile, progress, kept.earlier)
    return plan


def check_plan(layout: Layout, plan: TrainingPlan) -> None:
    """Settles the captions of the photos that a planned run will see; a resumed run has those it began with.

    Raises ConfigError where adapters are asked for in layers that the base does not have, or what its kind cannot do,
    and PhotoError where a folder of class photos is not there.
    """
    if plan.resumed is not None:
        return
    settle_captions(layout, plan.shown)
    settings, profile = load_settings(layout), plan.profile
    check_demands(settings.base, profile)
    if has_prior(profile) and profile.prior.folder is not None:
        list_files([Path(profile.prior.folder)])
    # The adapter of a run that is continued has its layers already; a text encoder may get its first ones.
    if plan.continuation is None or profile.train.text_encoder:
        check_targets(settings, profile)


def with_estimate(
    layout: Layout,
    plan: TrainingPlan,
    request: TrainRequest,
    progress: Progress,
    *,
    asked: bool,
    processes: int = 1,
) -> TrainingPlan:
    """The plan with what it will take of this machine, if that was requested or the profile is `auto`.

    `auto` takes the first rung that fits; a run that continues another, or is resumed, keeps its recipe.
    """
    if plan.profile_name == AUTO and plan.recipe_is_open:
        estimate = choose_recipe(
            layout,
            plan.subjects,
            sets=request.sets,
            flags=request.flags,
            progress=progress,
            processes=processes,
        )
        progress.note(f"This machine has room for: {estimate.chosen.rung}.")
        return replace(plan, profile=estimate.chosen.profile, estimate=estimate)
    if asked and plan.profile.method in ESTIMATED:
        with progress.stage("Estimating memory and time", 1) as stage:
            other = plan.recipe_is_open or (plan.resumed is not None and may_change_method(plan.resumed.record))
            below = estimate_recipe(layout, plan.shown, plan.profile, other_method=other, processes=processes)
            plan = replace(plan, estimate=below)
            stage.advance()
    return plan
