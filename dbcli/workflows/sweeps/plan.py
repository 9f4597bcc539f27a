"""Settling a sweep: every cell with its settings, subjects and words, and what of it is done already."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dbcli.errors import Collision, ConfigError, DreamboothError, UsageError
from dbcli.project.files.layout import Layout
from dbcli.project.files.names import check_no_twin, names_in
from dbcli.project.prompts.identifiers import render_with
from dbcli.project.runs.run_store import RunRecord, RunSubject
from dbcli.project.seeds import RANDOM, first_seed, is_seed, settled
from dbcli.project.settings.profile_settings import Profile
from dbcli.project.settings.project_settings import load_settings
from dbcli.project.subjects.photo_notes import captions_of, mask_hashes
from dbcli.project.subjects.subject_record import Subject
from dbcli.project.sweeps.cells import CellRequest, StageRequest, cells_of
from dbcli.project.sweeps.sweep_files import SweepFile, SweepImages
from dbcli.project.sweeps.sweep_records import CellRecord, key_of, load_cell, runs_by_key
from dbcli.workflows.evaluation.evaluate import CLASS_IMAGES
from dbcli.workflows.prompts.reading import check_length
from dbcli.workflows.runs.labels import rendered_label
from dbcli.workflows.setup.base_facts import facts_of
from dbcli.workflows.setup.effective_settings import check_judge, default_judge, resolve_profile, usual_suite
from dbcli.workflows.sweeps.sweep_subjects import SweepSubjects, word_faults
from dbcli.workflows.training.prompts import check_training_prompts, settle_captions

if TYPE_CHECKING:
    from dbcli.metrics.suites import Suite

DRAW_ONLY = "none"
# Runs that are compared end at the same step: a checkpoint picked on the way would be another one in each of them, and
# how often is probed depends on the machine's speed.
USUAL_SETTINGS = {"probe.judge": "off"}
State = Literal["finished", "failed", "begun", "to do"]


@dataclass(frozen=True)
class TrainUnit:
    """One run to be made: everything that decides its weights. `after` is the key of the run it continues."""

    key: str
    title: str
    words: tuple[tuple[str, str], ...]
    profile_name: str
    profile: Profile
    after: str | None = None
    allow_collision: bool = False


@dataclass(frozen=True)
class ScoreUnit:
    """One cell to be drawn and scored: the last of `runs` (their keys) draws. Suites are names or paths."""

    key: str
    title: str
    runs: tuple[str, ...]
    suites: tuple[str, ...]
    count: int
    seed: int | None
    judge: str
    interference: bool = False

    @property
    def after(self) -> str:
        """The key of the run that draws."""
        return self.runs[-1]


Unit = TrainUnit | ScoreUnit


@dataclass(frozen=True)
class PlannedCell:
    """A cell with its work in order, and how far it is."""

    request: CellRequest
    stages: tuple[TrainUnit, ...]
    score: ScoreUnit
    state: State

    @property
    def key(self) -> str:
        return self.score.key


@dataclass(frozen=True)
class SweepPlan:
    """All cells of a sweep, settled. `suites` are those that do not ship, to be written beside the results.

    `random_seed` is what -1 became, to be kept for the next start.
    """

    sweep: SweepFile
    kind: Literal["sweep", "bench"]
    cells: tuple[PlannedCell, ...]
    suites: tuple[Suite, ...]
    random_seed: int | None = None

    def units(self) -> list[Unit]:
        """Every piece of work once, each after what it needs: cell by cell, runs before their pictures."""
        found: dict[str, Unit] = {}
        for cell in self.cells:
            for unit in (*cell.stages, cell.score):
                found.setdefault(unit.key, unit)
        return list(found.values())


def plan_sweep(
    layout: Layout,
    sweep: SweepFile,
    subjects: SweepSubjects,
    *,
    kind: Literal["sweep", "bench"] = "sweep",
    own_suites: Mapping[str, Suite] | None = None,
) -> SweepPlan:
    """Settles every cell. Raises one error with the faults of all cells: settings, subjects, words, suites.

    It is a Collision where words clash and nothing else is wrong, else a ConfigError.
    """
    check_no_twin(sweep.name, kind, names_in(layout.sweeps_dir))
    settled.begin(kept_seed(layout, sweep.name))
    requests = cells_of(sweep)
    faults: dict[str, None] = {}
    sweep = sweep.model_copy(update={"pictures": _seeded(sweep.pictures, faults)})
    try:
        check_judge(sweep.judge, also=(DRAW_ONLY,))
    except UsageError as error:
        faults[f"judge: {_with_hint(error)}"] = None
    if sweep.interference and sweep.judge == DRAW_ONLY:
        faults["interference: needs a judge, and judge is none"] = None
    suites = _suites(layout, sweep, own_suites or {}, faults)
    profiles = {
        stage: _profile(layout, sweep, stage, faults)
        for request in requests
        for stage in map(_Settings, request.stages)
    }
    names = dict.fromkeys(name for request in requests for stage in request.stages for name in stage.subjects)
    faults.update(dict.fromkeys(subjects.faults(names)))
    clashes: dict[str, None] = {}
    if not faults:
        subjects.give_words(requests)
        clashes = dict.fromkeys(word_faults(layout, requests, subjects))
        faults.update(dict.fromkeys(_promptless(requests, subjects, suites)))
        faults.update(dict.fromkeys(_prompt_faults(layout, requests, subjects, profiles, suites)))
    if faults or clashes:
        many = f"{len(faults) + len(clashes)} faults" if len(faults) + len(clashes) > 1 else "a fault"
        lines = "\n".join(f"  {line}" for line in (*faults, *clashes))
        error = ConfigError if faults else Collision
        raise error(f"The sweep '{sweep.name}' has {many}:\n{lines}")
    maker = _Maker(layout, sweep, subjects, profiles, suites)
    cells = tuple(maker.cell(request) for request in requests)
    drawn = settled.value if settled.is_used else None
    return SweepPlan(sweep, kind, cells, tuple(one for one in suites if not _ships(one)), drawn)


def kept_seed(layout: Layout, name: str) -> int | None:
    """The random seed that an earlier start of a sweep drew, so that it can go on; None where there is none."""
    try:
        found = json.loads(layout.sweep_seed_file(name).read_text(encoding="utf-8"))["random_seed"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if is_seed(found) and found != RANDOM else None


def _seeded(pictures: SweepImages, faults: dict[str, None]) -> SweepImages:
    """What every cell draws, with a random first seed drawn."""
    if pictures.seed is None:
        return pictures
    seed = settled.value if pictures.seed == RANDOM else pictures.seed
    try:
        first_seed(seed, count=max(pictures.count, CLASS_IMAGES), option="pictures, seed:")
    except UsageError as error:
        faults[error.message] = None
    return pictures.model_copy(update={"seed": seed})


def _prompt_faults(
    layout: Layout,
    requests: Sequence[CellRequest],
    subjects: SweepSubjects,
    profiles: Mapping[_Settings, tuple[str, Profile] | None],
    suites: Sequence[Suite],
) -> Iterable[str]:
    """Prompts that cannot be rendered, or whose subject the text encoder would never read; the rest is warned of."""
    seen = set()
    for request in requests:
        for stage in request.stages:
            resolved = profiles[_Settings(stage)]
            assert resolved is not None
            words = {name: subjects.word(name, stage) for name in stage.subjects}
            beside = [
                RunSubject(name=name, class_noun=subjects.get(name).class_noun, identifier=word)
                for name, word in words.items()
            ]
            for name, word in words.items():
                key = (
                    name,
                    word,
                    *words,
                    resolved[1].model_dump_json(exclude={"lora"}),
                )
                if key in seen:
                    continue
                seen.add(key)
                subject = subjects.get(name).model_copy(update={"identifier": word})
                texts = [one.template for suite in suites for one in suite.prompts_for(subject.class_noun)]
                try:
                    settle_captions(layout, [subject])
                    check_training_prompts(layout, [subject], resolved[1], subjects.progress, beside)
                    drawn = [render_with(text, {name: subject.words}) for text in texts]
                    check_length(drawn, {name: subject.words}, subjects.progress, facts_of(layout).max_tokens)
                except DreamboothError as error:
                    yield f"{name}: {error.message}"


class _Settings:
    """A run's settings as a key of a dictionary: cells that share them are resolved once."""

    def __init__(self, stage: StageRequest) -> None:
        self.stage = stage
        settings = tuple(sorted((key, repr(value)) for key, value in stage.settings.items()))
        self._key = (stage.profile, settings, len(stage.subjects))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Settings) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


def _profile(
    layout: Layout, sweep: SweepFile, settings: _Settings, faults: dict[str, None]
) -> tuple[str, Profile] | None:
    stage = settings.stage
    profile = stage.profile
    if profile is not None and sweep.beside(profile).is_file():
        profile = str(sweep.beside(profile))
    try:
        settings = USUAL_SETTINGS | dict(stage.settings)
        how: dict[str, Any] = {"origin": f"the sweep '{sweep.name}'", "subjects": len(stage.subjects)}
        return resolve_profile(layout, profile=profile, flags=settings, **how)
    except DreamboothError as error:
        first, *rest = error.message.splitlines()
        faults.update(dict.fromkeys([line.strip() for line in rest] or [_with_hint(error)]))
        return None


def _suites(layout: Layout, sweep: SweepFile, own: Mapping[str, Suite], faults: dict[str, None]) -> tuple[Suite, ...]:
    """The suites that every cell draws; those of a file lie relative to the sweep's own."""
    from dbcli.metrics.suites import Suite, SuitePrompt, load_suite, short_label

    found: list[Suite] = []
    request = sweep.pictures
    names = request.suite or (() if request.prompts else (usual_suite(layout),))
    for name in names:
        beside = sweep.beside(name)
        try:
            found.append(own[name] if name in own else load_suite(beside if beside.is_file() else name))
        except DreamboothError as error:
            faults[f"pictures, suite: {_with_hint(error)}"] = None
    if request.prompts:
        prompts = tuple(SuitePrompt(text, short_label(text), sweep.name) for text in dict.fromkeys(request.prompts))
        found.append(Suite(sweep.name, sweep.name, f"the prompts of the sweep {sweep.name}", prompts))
    return tuple(found)


def _with_hint(error: DreamboothError) -> str:
    return f"{error.message} ({error.hint})" if error.hint else error.message


def _ships(suite: Suite) -> bool:
    from dbcli.metrics.suites import load_suite, shipped_suites

    return suite.name in shipped_suites() and load_suite(suite.name) == suite


def _promptless(requests: Sequence[CellRequest], subjects: SweepSubjects, suites: Sequence[Suite]) -> Iterable[str]:
    nouns = dict.fromkeys(subjects.get(name).class_noun for request in requests for name in request.stages[-1].subjects)
    for suite in suites:
        lacking = [noun for noun in nouns if not suite.prompts_for(noun)]
        if lacking:
            yield f"the suite '{suite.name}' has no prompt for {', '.join(lacking)}"


class _Maker:
    """Makes planned cells of wishes, with one look at what is there already."""

    def __init__(
        self,
        layout: Layout,
        sweep: SweepFile,
        subjects: SweepSubjects,
        profiles: Mapping[_Settings, tuple[str, Profile] | None],
        suites: Sequence[Suite],
    ) -> None:
        self.layout, self.sweep, self.subjects, self.profiles, self.suites = layout, sweep, subjects, profiles, suites
        self.settings = load_settings(layout)
        self.judge = sweep.judge or default_judge(layout)
        self.runs = runs_by_key(layout)

    def cell(self, request: CellRequest) -> PlannedCell:
        stages: list[TrainUnit] = []
        for stage in request.stages:
            stages.append(self._train(request, stage, stages[-1].key if stage.continues else None))
        score = self._score(request, stages)
        return PlannedCell(request, tuple(stages), score, self._state(stages, score))

    def _train(self, request: CellRequest, stage: StageRequest, after: str | None) -> TrainUnit:
        resolved = self.profiles[_Settings(stage)]
        assert resolved is not None
        name, profile = resolved
        words = tuple((one, self.subjects.word(one, stage)) for one in stage.subjects)
        content = {
            "base": self.settings.base,
            "revision": self.settings.revision,
            **self._base_choices(),
            "profile": profile.model_dump(mode="json"),
            "subjects": [self._subject(self.subjects.get(one), word, profile) for one, word in words],
            "after": after,
        }
        label = self.label(request)
        title = f"{label}: {' + '.join(stage.subjects)}" if len(request.stages) > 1 else label
        return TrainUnit(key_of(content), title, words, name, profile, after, stage.allow_collision)

    def _base_choices(self) -> dict[str, str]:
        """What was chosen about the base beside its name; nothing where nothing was, so that older keys stay."""
        choices = {"prediction_type": self.settings.prediction_type, "vae": self.settings.vae_hash}
        return {name: value for name, value in choices.items() if value is not None}

    def label(self, request: CellRequest) -> str:
        """A cell's label with its subject's words, or "the subject" where it has several."""
        words = {(self.subjects.word(one, stage), one) for stage in request.stages for one in stage.subjects}
        (word, name), *others = words
        return rendered_label(request.label, None if others else (word, self.subjects.get(name).class_noun))

    def _subject(self, subject: Subject, word: str, profile: Profile) -> dict[str, Any]:
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

    def _score(self, request: CellRequest, stages: Sequence[TrainUnit]) -> ScoreUnit:
        pictures = self.sweep.pictures
        folder = suites_folder(self.layout, self.sweep.name)
        content = {
            "runs": [stage.key for stage in stages],
            "suites": [
                [suite.name, *([[one.template, one.label, one.task] for one in part] for part in _parts(suite))]
                for suite in self.suites
            ],
            "count": pictures.count,
            "seed": pictures.seed,
            "judge": self.judge,
            **({"interference": True} if self.sweep.interference else {}),
        }
        suites = tuple(suite.name if _ships(suite) else str(folder / f"{suite.name}.yaml") for suite in self.suites)
        runs = tuple(stage.key for stage in stages)
        return ScoreUnit(
            key_of(content),
            self.label(request),
            runs,
            suites,
            pictures.count,
            pictures.seed,
            self.judge,
            self.sweep.interference,
        )

    def _state(self, stages: Sequence[TrainUnit], score: ScoreUnit) -> State:
        record = load_cell(self.layout, score.key)
        if record is not None and is_finished(record):
            return "finished"
        if record is not None:
            return "failed"
        return "begun" if any(self._is_begun(stage.key) for stage in stages) else "to do"

    def _is_begun(self, key: str) -> bool:
        run: RunRecord | None = self.runs.get(key)
        return run is not None


def _parts(suite: Suite) -> tuple[tuple[Any, ...], ...]:
    return (suite.any, suite.live, suite.object)


def is_finished(record: CellRecord) -> bool:
    """Whether a cell is done for good; a failed one is tried again."""
    return record.state == "finished"


def suites_folder(layout: Layout, name: str) -> Path:
    """Where the suites that do not ship are kept for every machine that draws."""
    return layout.sweep_dir(name) / "suites"
