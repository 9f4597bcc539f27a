"""Settling a sweep: every cell with its settings, subjects and words, and what of it is done already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbcli.errors import Collision, ConfigError, DreamboothError
from dbcli.project.files.layout import Layout
from dbcli.project.files.names import check_no_twin, names_in
from dbcli.project.files.records import json_or_nothing
from dbcli.project.prompts.identifiers import Words
from dbcli.project.runs.run_store import RunSubject
from dbcli.project.seeds import RANDOM, first_seed, is_seed, settled
from dbcli.project.settings.profile_settings import Profile
from dbcli.project.settings.profiles import parse_set
from dbcli.project.settings.project_settings import load_settings
from dbcli.project.subjects.photo_notes import captions_of, mask_hashes
from dbcli.project.subjects.subject_record import Subject
from dbcli.project.sweeps.cells import CellRequest, StageRequest, cells_of
from dbcli.project.sweeps.sweep_files import SweepFile, SweepImages, load_sweep
from dbcli.project.sweeps.sweep_records import key_of, load_cell, runs_by_key
from dbcli.workflows.evaluation.faces import faces_at_hand, has_faces
from dbcli.workflows.evaluation.subject_prompts import subject_texts
from dbcli.workflows.evaluation.verdicts import CLASS_IMAGES
from dbcli.workflows.models.base_demands import check_demands
from dbcli.workflows.models.layer_targets import check_targets
from dbcli.workflows.progress import Progress, Silence
from dbcli.workflows.prompts.reading import check_length
from dbcli.workflows.runs.labels import rendered_label
from dbcli.workflows.setup.base_facts import facts_of
from dbcli.workflows.setup.effective_settings import (
    check_judge,
    default_judge,
    require_extras,
    resolve_profile,
    usual_suite,
    with_whole_paths,
)
from dbcli.workflows.subjects.sources import open_dataset
from dbcli.workflows.sweeps.sweep_subjects import SweepSubjects, word_faults
from dbcli.workflows.sweeps.units import GENERATE_ONLY, Kind, PlannedCell, ScoreUnit, State, SweepPlan, TrainUnit
from dbcli.workflows.training.prompts import check_training_prompts, settle_captions

if TYPE_CHECKING:
    from dbcli.metrics.suites import Suite

# Runs that are compared end at the same step: a checkpoint picked on the way would be another one in each of them, and
# how often is probed depends on the machine's speed.
USUAL_SETTINGS = {"probe.judge": "off"}
EMBEDDED_JUDGES = "tiny"


@dataclass(frozen=True)
class SweepRequest:
    """A sweep as it was requested: a shipped name or a file, and what stands in place of what it says.

    `sets` are "key=value" texts; with `dry` nothing is written.
    """

    file: str
    subjects: Sequence[str] = ()
    dataset: Path | None = None
    sets: Sequence[str] = ()
    dry: bool = False


def plan_file(layout: Layout, request: SweepRequest, progress: Progress) -> SweepPlan:
    """A sweep file settled for this project. Raises every usage, config and collision error there is.

    Unless `dry`, subjects of the dataset that the project lacks are added, and subjects without a word get one.
    """
    typed = with_whole_paths(dict(parse_set(text) for text in request.sets), Path.cwd())
    sweep = load_sweep(request.file).with_settings(typed)
    if request.subjects:
        sweep = sweep.with_subjects(list(request.subjects))
    data = None if request.dataset is None else open_dataset(request.dataset, progress)
    return plan_sweep(layout, sweep, SweepSubjects(layout, data, progress, dry=request.dry))


def plan_sweep(layout: Layout, sweep: SweepFile, subjects: SweepSubjects, *, kind: Kind = "sweep") -> SweepPlan:
    """Settles every cell. Raises one error with the faults of all cells: settings, subjects, words, suites.

    It is a Collision where words clash and nothing else is wrong, else a ConfigError.
    """
    check_no_twin(sweep.name, kind, names_in(layout.sweeps_dir))
    settled.begin(kept_seed(layout, sweep.name))
    draft = _Draft(layout, sweep, subjects, cells_of(sweep))
    draft.check_images()
    draft.settle_profiles()
    draft.check_base()
    stages = [stage for cell in draft.cells for stage in cell.stages]
    draft.faults += subjects.faults(dict.fromkeys(name for stage in stages for name in stage.subjects))
    clashes: list[str] = []
    planned: tuple[PlannedCell, ...] = ()
    if not draft.faults:
        subjects.give_words(draft.cells)
        clashes = list(word_faults(layout, draft.cells, subjects))
        draft.check_prompts()
    if not draft.faults:
        planned = tuple(draft.planned(cell) for cell in draft.cells)
        draft.check_packages(planned)
    lines = list(dict.fromkeys([*draft.faults, *clashes]))
    if lines:
        many = f"{len(lines)} faults" if len(lines) > 1 else "a fault"
        text = "\n".join(f"  {line}" for line in lines)
        raise (ConfigError if draft.faults else Collision)(f"The sweep '{sweep.name}' has {many}:\n{text}")
    own = tuple(suite for suite in draft.suites if not _ships(suite))
    return SweepPlan(sweep, kind, planned, own, settled.value if settled.is_used else None)


def kept_seed(layout: Layout, name: str) -> int | None:
    """The random seed that an earlier start of a sweep drew, so that it can go on; None where there is none."""
    found = json_or_nothing(layout.sweep_seed_file(name)).get("random_seed")
    return found if is_seed(found) and found != RANDOM else None


def _settings_key(stage: StageRequest) -> tuple[object, ...]:
    """The same for runs whose settings are the same: they are resolved once."""
    settings = tuple(sorted((key, repr(value)) for key, value in stage.settings.items()))
    return (stage.profile, settings, len(stage.subjects))


@dataclass
class _Draft:
    """A sweep on its way to a plan: what its cells share, and every fault that was found in it."""

    layout: Layout
    sweep: SweepFile
    subjects: SweepSubjects
    cells: Sequence[CellRequest]
    faults: list[str] = field(default_factory=list)
    suites: list[Suite] = field(default_factory=list)
    _profiles: dict[tuple[object, ...], tuple[str, Profile]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.settings = load_settings(self.layout)
        self.judge = self.sweep.judge or default_judge(self.layout)
        self.runs = runs_by_key(self.layout)
        self.images: SweepImages = self.sweep.pictures

    @contextmanager
    def _telling(self, place: str) -> Iterator[None]:
        try:
            yield
        except DreamboothError as error:
            self.faults.append(f"{place}{_with_hint(error)}")

    def check_images(self) -> None:
        """Settles what every cell draws, and who scores it."""
        from dbcli.metrics.suites import Suite, SuitePrompt, load_suite, short_label

        if self.images.seed is not None:
            seed = settled.value if self.images.seed == RANDOM else self.images.seed
            self.images = self.images.model_copy(update={"seed": seed})
            with self._telling(""):
                first_seed(seed, count=max(self.images.count, CLASS_IMAGES), option="pictures, seed:")
        with self._telling("judge: "):
            check_judge(self.sweep.judge, also=(GENERATE_ONLY,))
        if self.sweep.interference and self.sweep.judge == GENERATE_ONLY:
            self.faults.append("interference: needs a judge, but judge is none")
        name = self.sweep.name
        for suite in self.images.suite or ([] if self.images.prompts else [usual_suite(self.layout)]):
            # Those of a file lie relative to the sweep's own.
            beside = self.sweep.beside(suite)
            with self._telling("pictures, suite: "):
                own = self.subjects.suites.get(suite)
                self.suites.append(own or load_suite(beside if beside.is_file() else suite))
        if self.images.prompts:
            prompts = tuple(SuitePrompt(text, short_label(text), name) for text in dict.fromkeys(self.images.prompts))
            self.suites.append(Suite(name, name, f"the prompts of the sweep {name}", prompts))

    def settle_profiles(self) -> None:
        """Resolves the settings of every run."""
        for stage in {_settings_key(stage): stage for cell in self.cells for stage in cell.stages}.values():
            profile = stage.profile
            if profile is not None and self.sweep.beside(profile).is_file():
                profile = str(self.sweep.beside(profile))
            try:
                self._profiles[_settings_key(stage)] = resolve_profile(
                    self.layout,
                    profile=profile,
                    swept=USUAL_SETTINGS | dict(stage.settings),
                    origin=f"the sweep '{self.sweep.name}'",
                    subjects=len(stage.subjects),
                )
            except DreamboothError as error:
                _, *lines = error.message.splitlines()
                self.faults += [line.strip() for line in lines] or [_with_hint(error)]

    def check_base(self) -> None:
        """Finds what no base of the project's kind can do, and adapters in layers that it does not have."""
        for _, profile in self._profiles.values():
            with self._telling(""):
                check_demands(self.settings.base, profile)
        # Layers are the slower question, and most cells of a grid ask the same.
        asked = {
            (profile.method, *profile.lora.targets, None, *profile.lora.text_targets): profile
            for _, profile in self._profiles.values()
        }
        for profile in asked.values():
            try:
                check_targets(self.settings, profile)
            except DreamboothError as error:
                self.faults += error.message.splitlines()

    def check_packages(self, planned: Sequence[PlannedCell]) -> None:
        """Finds packages that are not here and that a run needs which is still to be trained."""
        left = [stage for cell in planned if cell.state != "finished" for stage in cell.stages]
        untrained = [stage for stage in left if stage.key not in self.runs or self.runs[stage.key].state != "finished"]
        for profile in {stage.profile.train.optimizer: stage.profile for stage in untrained}.values():
            with self._telling(""):
                require_extras(profile)

    def check_prompts(self) -> None:
        """Finds prompts that cannot be rendered or that the text encoder would cut before their subject."""
        nouns = dict.fromkeys(
            self.subjects.get(name).class_noun for cell in self.cells for name in cell.stages[-1].subjects
        )
        for suite in self.suites:
            lacking = [noun for noun in nouns if not suite.prompts_for(noun)]
            if lacking:
                self.faults.append(f"the suite '{suite.name}' has no prompt for {', '.join(lacking)}")
        seen, heard = set(), Silence()
        for stage in (stage for cell in self.cells for stage in cell.stages):
            profile, words = self._profiles[_settings_key(stage)][1], dict(self._words(stage))
            for name in words:
                key = (name, words[name], *words, profile.model_dump_json(exclude={"lora"}))
                if key not in seen:
                    seen.add(key)
                    with self._telling(f"{name}: "):
                        self._check_training_prompts(name, words, profile, heard)
        for known in dict.fromkeys(tuple(self._words_of_last(cell.stages).items()) for cell in self.cells):
            for name, _ in known:
                with self._telling(f"{name}: "):
                    self._check_suites(name, dict(known), heard)
        # Cells share their captions and templates.
        for line in dict.fromkeys(heard.warnings):
            self.subjects.progress.warn(line)

    def _check_training_prompts(
        self, name: str, words: Mapping[str, str], profile: Profile, progress: Progress
    ) -> None:
        nouns = {one: self.subjects.get(one).class_noun for one in words}
        beside = [RunSubject(name=one, class_noun=nouns[one], identifier=word) for one, word in words.items()]
        subject = self.subjects.get(name).model_copy(update={"identifier": words[name]})
        settle_captions(self.layout, [subject])
        check_training_prompts(self.layout, [subject], profile, progress, beside)

    def _check_suites(self, name: str, words: Mapping[str, str], progress: Progress) -> None:
        known = {one: Words(word, self.subjects.get(one).class_noun) for one, word in words.items()}
        rendered = [text for suite in self.suites for text in subject_texts(suite, name, known)]
        check_length(rendered, {name: known[name]}, progress, facts_of(self.layout).max_tokens)

    def planned(self, cell: CellRequest) -> PlannedCell:
        """A cell with its units, and how far it is by what already exists."""
        stages: list[TrainUnit] = []
        for stage in cell.stages:
            stages.append(self._train(cell, stage, stages[-1].key if stage.continues else None))
        score = self._score(cell, stages)
        record = load_cell(self.layout, score.key)
        state: State = "begun" if any(stage.key in self.runs for stage in stages) else "to do"
        return PlannedCell(cell, tuple(stages), score, state if record is None else record.state)

    def _words_of_last(self, stages: Sequence[StageRequest]) -> dict[str, str]:
        """The words that the last of a cell's runs knows, by which its images are asked for: its own, and those of the
        runs that it continues."""
        words: dict[str, str] = {}
        for stage in stages:
            words = (words if stage.continues else {}) | dict(self._words(stage))
        return words

    def _words(self, stage: StageRequest) -> tuple[tuple[str, str], ...]:
        return tuple((name, self.subjects.word(name, stage)) for name in stage.subjects)

    def _train(self, cell: CellRequest, stage: StageRequest, after: str | None) -> TrainUnit:
        name, profile = self._profiles[_settings_key(stage)]
        words, settings = self._words(stage), self.settings
        # Nothing is said where nothing was chosen about the base, so that older keys stay.
        chosen = {"prediction_type": settings.prediction_type, "vae": settings.vae_hash}
        content = {
            "base": settings.base,
            "revision": settings.revision,
            **{key: value for key, value in chosen.items() if value is not None},
            "profile": profile.model_dump(mode="json"),
            "subjects": [self._content(self.subjects.get(one), word, profile) for one, word in words],
            "after": after,
        }
        label = self._label(cell)
        title = f"{label}: {' + '.join(stage.subjects)}" if len(cell.stages) > 1 else label
        return TrainUnit(key_of(content), title, words, name, profile, after, stage.allow_collision)

    def _label(self, cell: CellRequest) -> str:
        """A cell's label with its subject's words, or "the subject" where it has several."""
        (name, word), *others = {pair for stage in cell.stages for pair in self._words(stage)}
        return rendered_label(cell.label, None if others else (word, self.subjects.get(name).class_noun))

    def _content(self, subject: Subject, word: str, profile: Profile) -> dict[str, Any]:
        """Everything about a subject that decides a run's weights."""
        is_here = self.layout.subject_file(subject.name).exists()
        masked = is_here and profile.images.mask_loss < 1
        return {
            "name": subject.name,
            "class_noun": subject.class_noun,
            "identifier": word,
            "photos": [photo.sha256 for photo in subject.photos],
            "captions": captions_of(self.layout, subject) if is_here else [],
            "masks": [one for one in mask_hashes(self.layout, subject) if one] if masked else [],
        }

    def _score(self, cell: CellRequest, stages: Sequence[TrainUnit]) -> ScoreUnit:
        runs, faces = tuple(stage.key for stage in stages), self._with_faces(cell)
        content = {
            "runs": list(runs),
            "suites": [_content_of(suite) for suite in self.suites],
            "count": self.images.count,
            "seed": self.images.seed,
            "judge": self.judge,
            **self._edition(),
            **({"interference": True} if self.sweep.interference else {}),
            **({"faces": True} if faces else {}),
        }
        return ScoreUnit(
            key=key_of(content),
            title=self._label(cell),
            runs=runs,
            suites=tuple(one.name if _ships(one) else self._suite_file(one) for one in self.suites),
            count=self.images.count,
            seed=self.images.seed,
            judge=self.judge,
            interference=self.sweep.interference,
            faces=faces,
        )

    def _with_faces(self, cell: CellRequest) -> bool:
        """Whether a cell teaches a person and the judge of faces is here; what was scored without it is scored anew."""
        if self.judge == GENERATE_ONLY:
            return False
        names = {name for stage in cell.stages for name in stage.subjects}
        people = any(has_faces(self.subjects.get(name).class_noun, None) for name in names)
        return people and faces_at_hand(self.layout)

    def _edition(self) -> dict[str, int]:
        """Which embedded judges score, from their second edition on: what the first ones said is asked anew."""
        from dbcli.metrics.judges.editions import embedded_edition

        edition = embedded_edition() if self.judge == EMBEDDED_JUDGES else 1
        return {"judge_edition": edition} if edition > 1 else {}

    def _suite_file(self, suite: Suite) -> str:
        return str(self.layout.sweep_suite_file(self.sweep.name, suite.name))


def _with_hint(error: DreamboothError) -> str:
    return f"{error.message} ({error.hint})" if error.hint else error.message


def _ships(suite: Suite) -> bool:
    from dbcli.metrics.suites import load_suite, shipped_suites

    return suite.name in shipped_suites() and load_suite(suite.name) == suite


def _content_of(suite: Suite) -> list[object]:
    parts = (suite.any, suite.live, suite.object)
    return [suite.name, *([[one.template, one.label, one.task] for one in part] for part in parts)]
