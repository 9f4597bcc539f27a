"""Scoring: a suite's prompts drawn with a run, measured against photos and texts, written beside the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbcli.errors import PromptError
from dbcli.project.files.atomic import write_json
from dbcli.project.files.layout import Layout
from dbcli.project.files.names import check_no_twin, names_in
from dbcli.project.prompts.identifiers import Words, render_with, render_without
from dbcli.project.runs.run_store import RunRecord, RunSubject
from dbcli.project.seeds import first_seed
from dbcli.project.settings.profile_settings import DrawSettings, Profile
from dbcli.project.settings.project_settings import load_settings
from dbcli.workflows.class_images.draw import class_prompt
from dbcli.workflows.evaluation.masking import PHOTOS_ONLY, Masking
from dbcli.workflows.evaluation.report import write_report
from dbcli.workflows.evaluation.request import EvaluateRequest, ScoringOptions
from dbcli.workflows.generation.generate import draw_settings
from dbcli.workflows.images.generated import (
    CHECKPOINT_KEY,
    draw_size,
    drawn_files,
    in_words,
    recipes_for,
    words_of,
)
from dbcli.workflows.images.grids import photos_of, write_sheet
from dbcli.workflows.machine_use import computing
from dbcli.workflows.models.at_checkpoint import require_checkpoint
from dbcli.workflows.progress import Progress
from dbcli.workflows.prompts.reading import read_prompts
from dbcli.workflows.runs.choose import chosen_run
from dbcli.workflows.setup.effective_settings import check_judge, default_judge, judge_sources, profile_of
from dbcli.workflows.setup.output_folder import check_writable
from dbcli.workflows.several import announce, check_devices, company
from dbcli.workflows.signals import listening
from dbcli.workflows.subjects.datasets import open_dataset

if TYPE_CHECKING:
    from dbcli.diffusion.bases.base import Base
    from dbcli.metrics.judges.judge import Judges
    from dbcli.metrics.protocol import PromptImages, SubjectImages
    from dbcli.metrics.suites import Suite, SuitePrompt

# The paper draws four pictures a prompt.
IMAGES_PER_PROMPT = 4
CLASS_IMAGES = 8


@dataclass(frozen=True)
class Evaluation:
    """One suite scored: the scores as in scores.json, where they lie, the page, and the grid if one was asked for."""

    run: str
    suite: str
    scores: dict[str, Any]
    scores_file: Path
    report: Path
    grid: Path | None


@dataclass(frozen=True)
class _Studio:
    """What drawing needs, the same for all suites of one call."""

    layout: Layout
    record: RunRecord
    profile: Profile
    settings: DrawSettings
    base: Base
    seed: int
    keep_identifier: bool
    progress: Progress
    should_stop: Callable[[], bool]
    checkpoint: int | None = None
    masking: Masking | None = None


def evaluate(layout: Layout, request: EvaluateRequest, progress: Progress, *, offline: bool) -> list[Evaluation]:
    """Scores a run by one suite or several; judges are loaded first, so that a missing one costs no drawing.

    Raises JudgeMissing (exit 4), ConfigError for a suite, PromptError where no prompt fits the subject.
    """
    scoring, checkpoint, processes = request.scoring, request.checkpoint, request.processes
    check_judge(scoring.judge)
    chosen = chosen_suites(layout, scoring, progress)
    record = chosen_run(
        layout, request.run, checkpoint, prompts=[one.template for suite in chosen for one in suite.any]
    )
    if record is None:
        raise PromptError("The bare base has learnt no subject to score.", hint="dreambooth eval --run NAME")
    for suite in chosen:
        check_no_twin(suite.name, "suite", [*names_in(layout.evals_dir(record.name)), *(one.name for one in chosen)])
    if checkpoint is not None:
        require_checkpoint(layout, record, checkpoint)
    seed = check_drawing(layout, record, count=scoring.count, seed=scoring.seed)
    check_suites(layout, record, chosen, progress)
    check_writable(layout.evals_dir(record.name))
    from dbcli.diffusion.devices import pick_device
    from dbcli.metrics.judges.loading import load_judges
    from dbcli.workflows.evaluation.masking import load_masking

    wanted_device = profile_of(layout, record).train.device
    check_devices(processes, wanted_device)
    device = str(pick_device(wanted_device))
    name = scoring.judge or default_judge(layout)
    judges = load_judges(name, sources=judge_sources(layout), offline=offline, device=device)
    masking = load_masking(layout, record, progress, offline=offline, device=device) if request.masked else None
    with (
        computing(f"scores of {record.name}", progress),
        listening() as stop,
        company(processes, wanted_device, stop, progress),
    ):
        studio = open_studio(
            layout,
            record,
            progress,
            stop,
            offline=offline,
            count=scoring.count,
            seed=seed,
            keep_identifier=request.keep_identifier,
            checkpoint=checkpoint,
            masking=masking,
        )
        announce("model", root=str(layout.root), run=record.name, checkpoint=checkpoint, device=wanted_device)
        return [_score_suite(studio, suite, judges, request.grid) for suite in chosen]


def check_drawing(
    layout: Layout,
    record: RunRecord,
    *,
    count: int | None,
    seed: int | None,
    class_images: int = CLASS_IMAGES,
) -> int | None:
    """The first seed of an evaluation, drawn where it is -1; None where nobody said.

    Raises ConfigError for a count that cannot be, UsageError for a seed out of range or without room for the count.
    """
    settings = draw_settings(profile_of(layout, record), {"count": count})
    images = IMAGES_PER_PROMPT if count is None else settings.count
    return None if seed is None else first_seed(seed, count=max(images, class_images))


def check_suites(layout: Layout, record: RunRecord, suites: Sequence[Suite], progress: Progress) -> None:
    """Warns of prompts that will not be read as they were meant, before anything is loaded.

    Raises PromptError where a suite has no prompt for what the run learnt, or a prompt cannot be rendered or read.
    """
    texts: list[str] = []
    for suite in suites:
        of_suite = [
            render_with(one.template, {subject.name: words_of(record)[subject.name]})
            for subject in record.subjects
            for one in suite.prompts_for(subject.class_noun)
        ]
        if not of_suite:
            raise _without_prompt(suite, record)
        texts += of_suite
    read_prompts(layout, texts, record, progress)


def _without_prompt(suite: Suite, record: RunRecord) -> PromptError:
    return PromptError(
        f"The suite '{suite.name}' has no prompt for {', '.join(one.class_noun for one in record.subjects)}.",
        hint="dreambooth eval --suite NAME, or --prompts FILE",
    )


def open_studio(
    layout: Layout,
    record: RunRecord,
    progress: Progress,
    should_stop: Callable[[], bool],
    *,
    offline: bool,
    count: int | None = None,
    seed: int | None = None,
    keep_identifier: bool = False,
    checkpoint: int | None = None,
    masking: Masking | None = None,
) -> _Studio:
    """A run's model, loaded, with all that drawing and scoring suites with it needs."""
    from dbcli.diffusion.devices import pick_device
    from dbcli.workflows.models.weights import load_model

    profile = profile_of(layout, record)
    device = pick_device(profile.train.device)
    settings = draw_settings(profile, {"count": IMAGES_PER_PROMPT if count is None else count})
    return _Studio(
        layout,
        record,
        profile,
        in_words(settings, words_of(record)),
        load_model(layout, record, progress, offline=offline, device=device, checkpoint=checkpoint),
        profile.train.seed if seed is None else seed,
        keep_identifier,
        progress,
        should_stop,
        checkpoint,
        masking,
    )


def score_definitions() -> dict[str, dict[str, str]]:
    """What each score is: title, judge, pairing, and whether higher or lower is better."""
    from dbcli.metrics.scores import DEFINITIONS

    return DEFINITIONS


def chosen_suites(layout: Layout, scoring: ScoringOptions, progress: Progress) -> list[Suite]:
    """The suites asked for, the project's usual one if none is. Raises ConfigError, PromptError or DataError."""
    from dbcli.metrics.suites import DEFAULT_SUITE, load_suite, read_prompts

    own = [read_prompts(scoring.prompts_file)] if scoring.prompts_file is not None else []
    own += [open_dataset(scoring.dataset, progress).suite] if scoring.dataset is not None else []
    wanted = list(scoring.suites) or (
        [] if own else ["tiny" if load_settings(layout).base == "tiny" else DEFAULT_SUITE]
    )
    return [load_suite(name) for name in wanted] + own


def _score_suite(studio: _Studio, suite: Suite, judges: Judges, grid: bool) -> Evaluation:
    layout, record = studio.layout, studio.record
    folder = layout.eval_dir(record.name, _folder_name(studio, suite, is_masked=studio.masking is not None))
    scores, drawn = scored(studio, suite, judges)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "scores.json", scores)
    sheet = _sheet(studio, suite, drawn, folder) if grid else None
    report = folder / "report.html"
    write_report(report, layout, record, scores, drawn)
    return Evaluation(record.name, suite.name, scores, folder / "scores.json", report, sheet)


def _folder_name(studio: _Studio, suite: Suite, *, is_masked: bool) -> str:
    """What lies apart: another checkpoint's pictures, and the scores of another way to look at the same ones."""
    step = "" if studio.checkpoint is None else f"-step-{studio.checkpoint}"
    return f"{suite.name}{step}{'-masked' if is_masked else ''}"


def scored(studio: _Studio, suite: Suite, judges: Judges) -> tuple[dict[str, Any], list[SubjectImages]]:
    """A suite's scores and pictures; those that are there are not drawn again. Writes pictures, no scores.

    Raises PromptError where the suite has no prompt for what the run learnt.
    """
    from dbcli.metrics.judges.features_cache import FeatureStore
    from dbcli.metrics.protocol import score_images

    layout, record, masking = studio.layout, studio.record, studio.masking
    images = layout.eval_dir(record.name, _folder_name(studio, suite, is_masked=False)) / "images"
    subjects = [_draw_subject(studio, suite, subject, images) for subject in record.subjects]
    drawn = [subject for subject in subjects if subject.prompts]
    if not drawn:
        raise _without_prompt(suite, record)
    scores = score_images(
        drawn,
        judges,
        store=FeatureStore(layout.cache_dir / "features", should_stop=studio.should_stop),
        identifier_removed=not studio.keep_identifier,
        mask=None if masking is None else masking.mask,
    )
    if masking is not None and masking.photos:
        scores["protocol"]["masked"] = PHOTOS_ONLY
    scores |= {"run": record.name, "suite": suite.name, "draw": studio.settings.model_dump(), "seed": studio.seed}
    scores |= {} if studio.checkpoint is None else {"checkpoint": studio.checkpoint}
    return scores, drawn


def _draw_subject(studio: _Studio, suite: Suite, subject: RunSubject, folder: Path) -> SubjectImages:
    from dbcli.metrics.protocol import PromptImages, SubjectImages

    words = {subject.name: words_of(studio.record)[subject.name]}
    chosen = suite.prompts_for(subject.class_noun)
    texts = [render_with(one.template, words) for one in chosen]
    files = _images(studio, texts, studio.settings.count, folder)
    prompts: list[PromptImages] = []
    for one, images in zip(chosen, files, strict=True):
        drawn = render_with(one.template, words)
        scoring = drawn if studio.keep_identifier else render_without(one.template, words)
        prompts.append(PromptImages(drawn, scoring, tuple(images), one.template, label_of(one, words), one.task))
    members = class_prompt(studio.profile.prior.template, subject.class_noun)
    class_files = _images(studio, [members], CLASS_IMAGES, folder) if prompts else [[]]
    photos: Sequence[Path] = photos_of(studio.layout, studio.record).get(subject.name, [])
    if studio.masking is not None:
        photos = studio.masking.photos.get(subject.name, photos)
    return SubjectImages(subject.name, subject.class_noun, tuple(photos), tuple(prompts), tuple(class_files[0]))


def label_of(prompt: SuitePrompt, words: Mapping[str, Words]) -> str:
    """A prompt's label with the one subject's words in place of {identifier} and {class}."""
    (own,) = words.values()
    return prompt.label.replace("{identifier}", own.identifier).replace("{class}", own.class_noun)


def _images(studio: _Studio, prompts: Sequence[str], count: int, folder: Path) -> list[list[Path]]:
    """The pictures of each prompt."""
    size = draw_size(studio.base, None, None, studio.profile.images.resolution)
    settings = studio.settings.model_copy(update={"count": count})
    extras = {} if studio.checkpoint is None else {CHECKPOINT_KEY: studio.checkpoint}
    which: dict[str, Any] = {"base": studio.base, "record": studio.record, "extras": extras}
    recipes = recipes_for(prompts, settings, seed=studio.seed, size_px=size, **which)
    return drawn_files(
        studio.base,
        recipes,
        folder,
        count=count,
        batch_size=settings.batch_size,
        progress=studio.progress,
        should_stop=studio.should_stop,
    )


def _sheet(studio: _Studio, suite: Suite, subjects: Sequence[SubjectImages], folder: Path) -> Path:
    """grid.png: the photos in the first row, then a row a prompt."""
    path = folder / "grid.png"
    photos = {subject.name: list(subject.photos) for subject in subjects if subject.photos}
    rows = {prompt.prompt: list(prompt.images) for subject in subjects for prompt in subject.prompts}
    write_sheet(path, photos, rows, title=f"{studio.record.name} · {suite.name}")
    return path
