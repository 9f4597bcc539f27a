"""What is left of a sweep: training steps and images in all, and about how long they take on this machine."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from dbcli.errors import DreamboothError
from dbcli.project.class_images.class_image_sets import list_class_image_sets
from dbcli.project.files.layout import Layout
from dbcli.project.runs.run_store import RunRecord, list_runs
from dbcli.project.settings.profile_settings import DrawSettings, PriorSettings, Profile
from dbcli.project.subjects.subject_store import list_subjects, load_subject
from dbcli.workflows.evaluation.verdicts import CLASS_IMAGES
from dbcli.workflows.memory.amounts import rows_of
from dbcli.workflows.models.textual_inversion import has_prior
from dbcli.workflows.probes.schedule import PASSES_A_TRAINING_ROW, PASSES_TO_DECODE
from dbcli.workflows.sweeps.units import GENERATE_ONLY, ScoreUnit, SweepPlan, TrainUnit, Unit


@dataclass(frozen=True)
class Left:
    """Work that is left, all of it together; `seconds` is None where nothing is known of this machine yet."""

    runs: int
    steps: int
    cells: int
    images: int
    seconds: float | None

    def __str__(self) -> str:
        parts = [f"{_count(self.steps, 'training step')} in {_count(self.runs, 'run')}"] if self.runs else []
        parts += [f"{_count(self.images, 'image')} in {_count(self.cells, 'cell')}"] if self.cells else []
        unknown = "the time is known after the first run"
        how_long = unknown if self.seconds is None else f"about {duration(self.seconds)}"
        return f"{', '.join(parts)}; {how_long}" if parts else "nothing"


def duration(seconds: float) -> str:
    """45 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


@dataclass
class _Measured:
    """Seconds that were measured, and what was done in them."""

    seconds: float = 0.0
    done: int = 0

    def add(self, seconds: float, done: int) -> None:
        self.seconds, self.done = self.seconds + seconds, self.done + done

    @property
    def each(self) -> float:
        return self.seconds / max(1, self.done)


@dataclass
class Pace:
    """How fast this machine works: as measured in this sweep, else in earlier runs, else as estimated beforehand."""

    layout: Layout
    plan: SweepPlan
    may_estimate: bool = False
    _steps: dict[str, _Measured] = field(default_factory=dict)
    _images: _Measured = field(default_factory=_Measured)
    _known: dict[str, float | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._runs = list_runs(self.layout)
        self._trained = {unit.key: unit for unit in self.plan.units() if isinstance(unit, TrainUnit)}

    def measured(self, unit: Unit, seconds: float) -> None:
        """Takes how long a unit took in this sweep; of a run that went on, only the steps that were left."""
        if isinstance(unit, TrainUnit):
            steps = self._steps_left(unit)
            # A run that had only its result to write tells nothing of steps.
            if steps:
                self._steps.setdefault(unit.profile.method, _Measured()).add(seconds, steps)
        else:
            self._images.add(seconds, self.images(unit))

    def left(self, units: Iterable[Unit]) -> Left:
        """What is left where these units are."""
        units = list(units)
        steps = {unit.key: self._steps_left(unit) for unit in units if isinstance(unit, TrainUnit)}
        images = {unit.key: self.images(unit) for unit in units if isinstance(unit, ScoreUnit)}
        with_images = {one.class_noun for one in list_class_image_sets(self.layout) if one.recorded_count()}
        times = [
            self._training_seconds(unit, steps[unit.key], with_images)
            if isinstance(unit, TrainUnit)
            else self._image_seconds(unit, images[unit.key])
            for unit in units
        ]
        known = [time for time in times if time is not None]
        seconds = sum(known, 0.0) if len(known) == len(times) else None
        return Left(sum(map(bool, steps.values())), sum(steps.values()), len(images), sum(images.values()), seconds)

    def images(self, unit: ScoreUnit) -> int:
        """The images that a cell draws."""
        from dbcli.metrics.suites import load_suite

        own = {str(self.layout.sweep_suite_file(self.plan.sweep.name, one.name)): one for one in self.plan.suites}
        suites = [own.get(name) or load_suite(name) for name in unit.suites]
        # Beside its suites every scored subject is drawn as its class alone.
        alone = 0 if unit.judge == GENERATE_ONLY else CLASS_IMAGES
        nouns = self._nouns(self._trained[unit.after])
        return sum(alone + unit.count * sum(len(suite.prompts_for(noun)) for suite in suites) for noun in nouns)

    def _nouns(self, unit: TrainUnit) -> list[str]:
        """The class nouns of a planned run's subjects; "thing" for one that a dry run has not brought in."""
        nouns = []
        for name, _ in unit.words:
            try:
                nouns.append(load_subject(self.layout, name).class_noun)
            except DreamboothError:
                nouns.append("thing")
        return nouns

    def _steps_left(self, unit: TrainUnit) -> int:
        """The steps of a run that were still to be trained when the sweep was started."""
        begun = next((run for run in reversed(self._runs) if run.work_key == unit.key), None)
        if begun is None:
            return unit.profile.train.steps
        return 0 if begun.state == "finished" else unit.profile.train.steps - begun.step

    def _training_seconds(self, unit: TrainUnit, steps: int, with_images: set[str]) -> float | None:
        if not steps:
            return 0.0
        step = self._step_seconds(unit.profile)
        return None if step is None else step * steps + self._class_image_seconds(unit, step, with_images)

    def _class_image_seconds(self, unit: TrainUnit, step: float, with_images: set[str]) -> float:
        """What the class images take that no earlier run has drawn."""
        prior = unit.profile.prior
        if not has_prior(unit.profile) or prior.folder is not None:
            return 0.0
        missing = [noun for noun in self._nouns(unit) if noun not in with_images]
        with_images.update(missing)
        return len(missing) * prior.images * step * _passes(prior) / _passes_of_a_step(unit.profile)

    def _image_seconds(self, unit: ScoreUnit, images: int) -> float | None:
        if self._images.done:
            return images * self._images.each
        profile = self._trained[unit.after].profile
        step = self._step_seconds(profile)
        return None if step is None else images * step * _passes(profile.draw) / _passes_of_a_step(profile)

    def _step_seconds(self, profile: Profile) -> float | None:
        if profile.method in self._steps:
            return self._steps[profile.method].each
        if profile.method not in self._known:
            self._known[profile.method] = _before(self._runs, profile) or self._estimated(profile)
        return self._known[profile.method]

    def _estimated(self, profile: Profile) -> float | None:
        from dbcli.workflows.memory.estimate import estimate_recipe

        if not self.may_estimate:
            return None
        known = [one for one in list_subjects(self.layout) if one.photos][:1]
        estimate = estimate_recipe(self.layout, known, profile) if known else None
        return None if estimate is None else estimate.recipes[0].step_seconds


def _before(runs: Sequence[RunRecord], profile: Profile) -> float | None:
    """Seconds a step, with all that a run takes beside its steps, in the newest run of the same method and batch."""
    for run in reversed(runs):
        train = run.profile.get("train", {})
        same = run.method == profile.method and train.get("batch_size") == profile.train.batch_size
        if same and run.state == "finished" and run.step and run.timings.get("train"):
            rest = {phase: spent for phase, spent in run.timings.items() if phase not in ("class_images", "probe")}
            return sum(rest.values()) / run.step
    return None


def _passes(draw: DrawSettings | PriorSettings) -> int:
    """Forward passes of one image through the UNet."""
    return draw.steps * (2 if draw.guidance != 1.0 else 1) + PASSES_TO_DECODE


def _passes_of_a_step(profile: Profile) -> int:
    train = profile.train
    return rows_of(profile) * train.accumulation * PASSES_A_TRAINING_ROW
