"""Scoring: images of a suite's prompts by a run, measured against photos and texts, written beside the run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbcli.diffusion.distributed import SINGLE, ProcessGroup
from dbcli.errors import PromptError, UsageError
from dbcli.project.files.atomic import write_json
from dbcli.project.files.layout import Layout
from dbcli.project.files.names import check_no_twin, names_in, printable
from dbcli.project.prompts.identifiers import render_without_for
from dbcli.project.runs.run_store import RunRecord, RunSubject
from dbcli.project.seeds import first_seed
from dbcli.project.settings.profile_settings import Profile
from dbcli.workflows.class_images.generate import class_prompt
from dbcli.workflows.class_images.sentences import first_class_template
from dbcli.workflows.evaluation.faces import has_faces, with_face_notes
from dbcli.workflows.evaluation.judges import judges_of
from dbcli.workflows.evaluation.masking import PHOTOS_ONLY, Masking
from dbcli.workflows.evaluation.others import other_subjects
from dbcli.workflows.evaluation.photos import check_photos
from dbcli.workflows.evaluation.report import write_report
from dbcli.workflows.evaluation.request import EvaluateRequest, ScoringOptions
from dbcli.workflows.evaluation.score_folders import check_suite_name, images_folder, scores_folder
from dbcli.workflows.evaluation.subject_prompts import label_of, subject_prompts, subject_texts
from dbcli.workflows.evaluation.verdicts import CLASS_IMAGES, class_images_before, with_verdicts
from dbcli.workflows.images.generated import PromptSampler, in_words, words_of
from dbcli.workflows.images.grids import photos_of, write_sheet
from dbcli.workflows.launch import take_devices
from dbcli.workflows.machine_use import computing
from dbcli.workflows.models.at_checkpoint import require_checkpoint
from dbcli.workflows.models.loaded import LoadedModel, loaded_run
from dbcli.workflows.progress import Progress
from dbcli.workflows.prompts.reading import read_prompts
from dbcli.workflows.runs.choose import chosen_run
from dbcli.workflows.setup.effective_settings import (
    check_judge,
    profile_of,
    sampling_settings,
    usual_suite,
)
from dbcli.workflows.setup.named_paths import check_writable
from dbcli.workflows.signals import listening
from dbcli.workflows.subjects.sources import open_dataset

if TYPE_CHECKING:
    from dbcli.metrics.judges.judge import Judges
    from dbcli.metrics.protocol import PromptImages, SubjectImages
    from dbcli.metrics.suites import Suite

# As in the paper.
IMAGES_PER_PROMPT = 4


@dataclass(frozen=True)
class Evaluation:
    """One suite scored: the scores as in scores.json, where they lie, the page, and the grid if one was requested."""

    run: str
    suite: str
    scores: dict[str, Any]
    scores_file: Path
    report: Path
    grid: Path | None


@dataclass(frozen=True)
class Scorer:
    """A model, and how its images are generated and scored, the same for all suites of one call.

    All ranks generate; the main rank alone has the judges, and scores.
    """

    model: LoadedModel
    record: RunRecord
    sampler: PromptSampler
    judges: Judges | None
    keep_identifier: bool = False
    checkpoint: int | None = None
    masking: Masking | None = None
    faces: bool | None = None


def evaluate(
    layout: Layout, request: EvaluateRequest, progress: Progress, *, offline: bool, group: ProcessGroup = SINGLE
) -> list[Evaluation]:
    """Scores a run by one suite or several; judges are loaded first, so that a missing one costs no sampling.

    Raises JudgeMissing (exit 4), ConfigError for a suite, PromptError where no prompt fits the subject.
    """
    scoring, checkpoint = request.scoring, request.checkpoint
    check_judge(scoring.judge)
    chosen = chosen_suites(layout, scoring, progress)
    templates = [one.template for suite in chosen for one in suite.any]
    record = chosen_run(layout, request.run, checkpoint, prompts=templates)
    if record is None:
        raise PromptError("The bare base has learnt no subject to score.", hint="dreambooth eval --run NAME")
    for suite in chosen:
        check_no_twin(suite.name, "suite", [*names_in(layout.evals_dir(record.name)), *(one.name for one in chosen)])
    if checkpoint is not None:
        require_checkpoint(layout, record, checkpoint)
    seed = group.on_main(lambda: checked_seed(layout, record, scoring))
    check_suites(layout, record, chosen, progress)
    group.on_main(lambda: check_photos(layout, [record], progress))
    group.on_main(lambda: check_writable(layout.evals_dir(record.name)))
    from dbcli.workflows.evaluation.masking import load_masking

    profile, judges, masking = profile_of(layout, record), None, None
    take_devices(group, profile.train.device, progress)
    if group.is_main:
        judges = judges_of(layout, [record], scoring, profile, progress, offline=offline)
        masking = load_masking(layout, record, profile, progress, offline=offline) if request.masked else None
    with computing(f"scores of {record.name}", progress, group), listening(group) as stop:
        with group.main_first():
            offline = offline or not group.is_main
            model = loaded_run(layout, record, progress, offline=offline, checkpoint=checkpoint)
        sampler = evaluation_sampler(model.profile, record, scoring.count, seed, progress, stop, group)
        scorer = Scorer(model, record, sampler, judges, request.keep_identifier, checkpoint, masking, scoring.faces)
        return [_score_suite(scorer, suite, grid=request.grid) for suite in chosen]


def checked_seed(
    layout: Layout, record: RunRecord, scoring: ScoringOptions, *, class_images: int = CLASS_IMAGES
) -> int | None:
    """The first seed of an evaluation, a random one for -1; None where nobody said.

    Raises ConfigError for a count that cannot be, UsageError for a seed out of range or without room for the count.
    """
    settings = sampling_settings(profile_of(layout, record), {"count": scoring.count})
    images = IMAGES_PER_PROMPT if scoring.count is None else settings.count
    return None if scoring.seed is None else first_seed(scoring.seed, count=max(images, class_images))


def check_suites(layout: Layout, record: RunRecord, suites: Sequence[Suite], progress: Progress) -> None:
    """Warns of prompts that will not be read as they were meant, before anything is loaded.

    Raises PromptError where a suite has no prompt for what the run learnt, or a prompt cannot be rendered or read.
    """
    texts: list[str] = []
    words = words_of(record)
    for suite in suites:
        of_suite = [text for name in words for text in subject_texts(suite, name, words)]
        if not of_suite:
            raise _without_prompt(suite, record)
        texts += of_suite
    read_prompts(layout, texts, record, progress)


def _without_prompt(suite: Suite, record: RunRecord) -> PromptError:
    return PromptError(
        f"The suite '{suite.name}' has no prompt for {', '.join(one.class_noun for one in record.subjects)}.",
        hint="dreambooth eval --suite NAME, or --prompts FILE",
    )


def evaluation_sampler(
    profile: Profile,
    record: RunRecord,
    count: int | None,
    seed: int | None,
    progress: Progress,
    should_stop: Callable[[], bool],
    group: ProcessGroup = SINGLE,
) -> PromptSampler:
    """How an evaluation's images are generated: the run's settings and seed where nobody said, the paper's count."""
    settings = sampling_settings(profile, {"count": IMAGES_PER_PROMPT if count is None else count})
    first = profile.train.seed if seed is None else seed
    return PromptSampler(in_words(settings, words_of(record)), first, progress, should_stop, group)


def score_definitions() -> dict[str, dict[str, str]]:
    """What each score is: title, judge, pairing, and whether higher or lower is better."""
    from dbcli.metrics.scores import ALL_DEFINITIONS

    return ALL_DEFINITIONS


def chosen_suites(layout: Layout, scoring: ScoringOptions, progress: Progress) -> list[Suite]:
    """The suites asked for, each once, the project's usual one if none is.

    Raises ConfigError, PromptError or DataError, and UsageError for two that differ and share a name.
    """
    from dbcli.metrics.suites import load_suite, read_prompts

    own = [read_prompts(scoring.prompts_file)] if scoring.prompts_file is not None else []
    own += [open_dataset(scoring.dataset, progress).suite] if scoring.dataset is not None else []
    wanted = list(scoring.suites) or ([] if own else [usual_suite(layout)])
    found: dict[str, Suite] = {}
    for suite in [*(load_suite(name) for name in wanted), *own]:
        check_suite_name(suite.name)
        if found.setdefault(suite.name, suite) != suite:
            raise UsageError(
                f"Two suites are named '{printable(suite.name)}', and their scores would lie in one folder.",
                hint="rename one of the files: a suite is named after its file",
            )
    return list(found.values())


def _score_suite(scorer: Scorer, suite: Suite, *, grid: bool) -> Evaluation:
    layout, record = scorer.model.layout, scorer.record
    masked, with_identifier = scorer.masking is not None, scorer.keep_identifier
    name = scores_folder(suite.name, scorer.checkpoint, masked=masked, with_identifier=with_identifier)
    folder = layout.eval_dir(record.name, name)
    scores, subjects = scored(scorer, suite)
    file, report, sheet = folder / "scores.json", folder / "report.html", folder / "grid.png" if grid else None
    if scorer.sampler.group.is_main:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(file, scores)
        if sheet is not None:
            _write_sheet(sheet, record, suite, subjects)
        write_report(report, layout, record, scores, subjects)
    return Evaluation(record.name, suite.name, scores, file, report, sheet)


def scored(scorer: Scorer, suite: Suite) -> tuple[dict[str, Any], list[SubjectImages]]:
    """A suite's scores and images; those that are there are not generated again. Writes images, no scores.

    Raises PromptError where the suite has no prompt for what the run learnt.
    """
    layout, record = scorer.model.layout, scorer.record
    folder = layout.eval_dir(record.name, images_folder(suite.name, scorer.checkpoint)) / "images"
    found = [_subject_images(scorer, suite, subject, folder) for subject in record.subjects]
    subjects = [subject for subject in found if subject.prompts]
    if not subjects:
        raise _without_prompt(suite, record)
    return scorer.sampler.group.on_main(lambda: _scores(scorer, suite, subjects)), subjects


def _scores(scorer: Scorer, suite: Suite, subjects: list[SubjectImages]) -> dict[str, Any]:
    from dbcli.metrics.judges.features_cache import FeatureStore
    from dbcli.metrics.protocol import score_images

    layout, record, masking, sampler = scorer.model.layout, scorer.record, scorer.masking, scorer.sampler
    assert scorer.judges is not None  # the main rank has them
    scores: dict[str, Any] = score_images(
        subjects,
        scorer.judges,
        store=FeatureStore(layout.features_dir, should_stop=sampler.should_stop),
        identifier_removed=not scorer.keep_identifier,
        mask=None if masking is None else masking.mask,
    )
    if masking is not None and masking.photos:
        scores["protocol"]["masked"] = PHOTOS_ONLY
    scores = with_face_notes(with_verdicts(scores, record, scorer.checkpoint))
    scores |= {"run": record.name, "suite": suite.name, "draw": sampler.settings.model_dump(), "seed": sampler.seed}
    return scores | ({} if scorer.checkpoint is None else {"checkpoint": scorer.checkpoint})


def _subject_images(scorer: Scorer, suite: Suite, subject: RunSubject, folder: Path) -> SubjectImages:
    from dbcli.metrics.prompt_kinds import keeps_look, names_scene, with_fields
    from dbcli.metrics.protocol import PromptImages, SubjectImages

    model, sampler = scorer.model, scorer.sampler
    words = words_of(scorer.record)
    chosen = subject_prompts(suite, subject.name, words)
    texts = subject_texts(suite, subject.name, words)
    prompts: list[PromptImages] = []
    for one, text, images in zip(chosen, texts, sampler.files(model, texts, folder), strict=True):
        scoring = text if scorer.keep_identifier else render_without_for(one.template, subject.name, words)
        asked = with_fields(one.template, words[subject.name].text)
        kinds = {"keeps_look": keeps_look(asked, one.task), "names_scene": names_scene(asked, one.task)}
        label = label_of(one, words[subject.name])
        prompts.append(PromptImages(text, scoring, tuple(images), one.template, label, one.task, **kinds))
    members = class_prompt(first_class_template(model.profile), subject.class_noun)
    class_files = sampler.files(model, [members], folder, count=CLASS_IMAGES) if prompts else [[]]
    photos: Sequence[Path] = photos_of(model.layout, scorer.record).get(subject.name, [])
    if scorer.masking is not None:
        photos = scorer.masking.photos.get(subject.name, photos)
    return SubjectImages(
        subject.name,
        subject.class_noun,
        tuple(photos),
        tuple(prompts),
        tuple(class_files[0]),
        other_subjects(model.layout, subject.name),
        class_images_before(model.layout, scorer.record, subject.class_noun),
        has_faces(subject.class_noun, scorer.faces),
    )


def _write_sheet(path: Path, record: RunRecord, suite: Suite, subjects: Sequence[SubjectImages]) -> None:
    """grid.png: the photos in the first row, then one row per prompt."""
    photos = {subject.name: list(subject.photos) for subject in subjects if subject.photos}
    rows = {prompt.prompt: list(prompt.images) for subject in subjects for prompt in subject.prompts}
    write_sheet(path, photos, rows, title=f"{record.name} · {suite.name}")
