"""Whether the subjects of a run stay apart, and what became of their classes: drawn, judged, written beside the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbcli.errors import PromptError
from dbcli.project.files.atomic import write_bytes, write_json, write_text
from dbcli.project.files.layout import Layout
from dbcli.project.prompts.identifiers import render_with
from dbcli.project.runs.interference_records import FILE_NAME, SUITE_NAME, bleeding_lines
from dbcli.project.runs.run_store import RunRecord, RunSubject
from dbcli.project.seeds import next_seed
from dbcli.project.settings.profile_settings import DrawSettings, Profile
from dbcli.workflows.class_images.draw import class_prompt
from dbcli.workflows.evaluation.evaluate import IMAGES_PER_PROMPT, check_drawing
from dbcli.workflows.evaluation.request import ScoringOptions
from dbcli.workflows.generation.generate import draw_settings
from dbcli.workflows.generation.lora_mix import Composition, RunSelection, compose, load_composition
from dbcli.workflows.images.generated import draw_size, drawn_files, in_words, recipes_for, words_of
from dbcli.workflows.images.grids import photos_of
from dbcli.workflows.machine_use import computing
from dbcli.workflows.progress import Progress
from dbcli.workflows.prompts.reading import read_prompts
from dbcli.workflows.setup.effective_settings import check_judge, default_judge, judge_sources, profile_of
from dbcli.workflows.signals import listening

if TYPE_CHECKING:
    from dbcli.diffusion.bases.base import Base
    from dbcli.metrics.judges.features_cache import FeatureStore
    from dbcli.metrics.judges.judge import Judges
    from dbcli.reports.page import ImageRow

# Places that suit a dog and a backpack alike, and that no photo decides.
PROMPTS = (
    "a photo of a {identifier} {class}",
    "a {identifier} {class} on the grass",
    "a {identifier} {class} on a wooden table",
    "a {identifier} {class} in front of a blue wall",
)
CLASS_IMAGES = 16


@dataclass(frozen=True)
class Interference:
    """One measurement: the report as in interference.json, where that lies, the page, and the heat map if any.

    `bleeding` is a line for every subject whose pictures go to another.
    """

    run: str
    report: dict[str, Any]
    file: Path
    page: Path
    heat_map: Path | None
    bleeding: list[str]


@dataclass(frozen=True)
class _Easel:
    """What drawing needs, whichever model draws."""

    layout: Layout
    profile: Profile
    settings: DrawSettings
    seed: int
    folder: Path
    progress: Progress
    should_stop: Callable[[], bool]


@dataclass(frozen=True)
class _Drawn:
    """All pictures: of each subject by prompt, and of each class noun by the base and by the run."""

    subjects: dict[str, dict[str, list[Path]]]
    before: dict[str, list[Path]]
    after: dict[str, list[Path]]


def measure_interference(
    layout: Layout, selection: RunSelection, scoring: ScoringOptions, progress: Progress, *, offline: bool
) -> Interference:
    """Draws every subject of a run (or of several composed) and every class, and says how far they stay apart.

    With one subject only the drift of its class is measured. Raises PromptError for the bare base or a run that
    knows no subject, JudgeMissing, and whatever `compose` raises.
    """
    check_judge(scoring.judge)
    composition = compose(layout, selection)
    record = composition.whole
    if record is None or not record.subjects:
        raise PromptError("There is no subject here that could interfere.", hint="dreambooth eval --run NAME")
    seed = check_drawing(layout, record, count=scoring.count, seed=scoring.seed, class_images=CLASS_IMAGES)
    templates = _templates(record, scoring.suites)
    texts = [text for one in record.subjects for text in _rendered(templates[one.name], one, record).values()]
    read_prompts(layout, texts, record, progress)
    profile = profile_of(layout, record)
    from dbcli.diffusion.devices import pick_device
    from dbcli.metrics.judges.loading import load_judges

    device = str(pick_device(profile.train.device))
    name, count = scoring.judge or default_judge(layout), scoring.count
    judges = load_judges(name, sources=judge_sources(layout), offline=offline, device=device)
    with computing(f"the interference of {record.name}", progress), listening() as stop:
        folder = layout.eval_dir(record.name, _suite_name(composition))
        settings = in_words(
            draw_settings(profile, {"count": IMAGES_PER_PROMPT if count is None else count}), words_of(record)
        )
        start = next_seed(profile.train.seed, 0) if seed is None else seed
        easel = _Easel(layout, profile, settings, start, folder / "images", progress, stop)
        drawn = _draw_all(easel, composition, record, templates, offline=offline)
        report = _judged(layout, record, drawn, judges, stop)
    report |= {
        "run": record.name,
        "drawn_with": composition.name,
        "draw": settings.model_dump(),
        "seed": start,
        "judge": judges.dino.describe(),
    }
    write_json(folder / FILE_NAME, report)
    chart = _write_page(layout, record, report, drawn, folder)
    lines = bleeding_lines(report["nearest"])
    return Interference(record.name, report, folder / FILE_NAME, folder / "report.html", chart, lines)


def _suite_name(composition: Composition) -> str:
    others = [str(record.number) for record in composition.records[1:]]
    return "-with-".join([SUITE_NAME, "-".join(others)]) if others else SUITE_NAME


def _templates(record: RunRecord, suites: Sequence[str]) -> dict[str, list[str]]:
    """The prompts of each subject, before its words are put in."""
    from dbcli.metrics.suites import load_suite

    if not suites:
        return {subject.name: list(PROMPTS) for subject in record.subjects}
    chosen = [load_suite(name) for name in suites]
    found = {
        subject.name: [one.template for suite in chosen for one in suite.prompts_for(subject.class_noun)]
        for subject in record.subjects
    }
    empty = next((name for name, templates in found.items() if not templates), None)
    if empty is not None:
        raise PromptError(f"None of these suites has a prompt for '{empty}'.", hint="leave --suite out")
    return found


def _draw_all(
    easel: _Easel, composition: Composition, record: RunRecord, templates: Mapping[str, list[str]], *, offline: bool
) -> _Drawn:
    from dbcli.diffusion.devices import pick_device
    from dbcli.workflows.models.weights import load_model

    device = pick_device(easel.profile.train.device)
    how = {"offline": offline, "device": device}
    nouns = {
        noun: class_prompt(easel.profile.prior.template, noun)
        for noun in dict.fromkeys(subject.class_noun for subject in record.subjects)
    }
    model = load_composition(easel.layout, composition, easel.progress, **how)
    subjects, extras = {}, composition.extras()
    for subject in record.subjects:
        texts = _rendered(templates[subject.name], subject, record)
        found = _images(easel, model, record, list(texts.values()), easel.settings.count, extras)
        subjects[subject.name] = dict(zip(texts, found, strict=True))
    after = _images(easel, model, record, list(nouns.values()), CLASS_IMAGES, extras)
    # One model at a time: on a small machine there is no room for two.
    del model
    base = load_model(easel.layout, None, easel.progress, **how)
    before = _images(easel, base, None, list(nouns.values()), CLASS_IMAGES, {})
    return _Drawn(subjects, dict(zip(nouns, before, strict=True)), dict(zip(nouns, after, strict=True)))


def _rendered(templates: Sequence[str], subject: RunSubject, record: RunRecord) -> dict[str, str]:
    words = {subject.name: words_of(record)[subject.name]}
    return {template: render_with(template, words) for template in dict.fromkeys(templates)}


def _images(
    easel: _Easel,
    model: Base,
    record: RunRecord | None,
    prompts: Sequence[str],
    count: int,
    extras: Mapping[str, Any],
) -> list[list[Path]]:
    """The pictures of each prompt."""
    settings = easel.settings.model_copy(update={"count": count})
    size = draw_size(model, None, None, easel.profile.images.resolution)
    recipes = recipes_for(prompts, settings, seed=easel.seed, size_px=size, base=model, record=record, extras=extras)
    return drawn_files(
        model,
        recipes,
        easel.folder,
        count=count,
        batch_size=settings.batch_size,
        progress=easel.progress,
        should_stop=easel.should_stop,
        with_what=f" with {'the base' if record is None else record.name}",
    )


def _judged(
    layout: Layout, record: RunRecord, drawn: _Drawn, judges: Judges, should_stop: Callable[[], bool]
) -> dict[str, Any]:
    """The report, from the judge's features of pictures and photos."""
    import torch

    from dbcli.metrics.interference import class_drift, likeness_row, nearest_report, photo_row
    from dbcli.metrics.judges.features_cache import FeatureStore

    store = FeatureStore(layout.cache_dir / "features", should_stop=should_stop)
    photos = {name: _features(store, judges, files) for name, files in photos_of(layout, record).items() if files}
    asked = {
        name: {prompt: _features(store, judges, files) for prompt, files in by_prompt.items()}
        for name, by_prompt in drawn.subjects.items()
        if name in photos
    }
    before, after = (
        {noun: _features(store, judges, files) for noun, files in part.items()} for part in (drawn.before, drawn.after)
    )
    rows = [_row("asked for", name, likeness_row(torch.cat([*one.values()]), photos)) for name, one in asked.items()]
    rows += [_row("a member of the class", noun, likeness_row(after[noun], photos)) for noun in after]
    rows += [_row("photos of", name, photo_row(name, photos)) for name in photos]
    of_class = {
        noun: [photos[one.name] for one in record.subjects if one.class_noun == noun and one.name in photos]
        for noun in before
    }
    return {
        "schema": 1,
        "subjects": [one.name for one in record.subjects],
        "without_photos": [one.name for one in record.subjects if one.name not in photos],
        "matrix": {"columns": list(photos), "rows": rows},
        "nearest": nearest_report(asked, photos) if len(photos) > 1 else None,
        "drift": {noun: class_drift(before[noun], after[noun], of_class[noun]) for noun in before},
    }


def _row(what: str, name: str, values: Mapping[str, float | None]) -> dict[str, Any]:
    return {"what": what, "name": name, "values": list(values.values())}


def _features(store: FeatureStore, judges: Judges, files: Sequence[Path]) -> Any:
    return store.features(list(files), [judges.dino])[0]


def _write_page(
    layout: Layout, record: RunRecord, report: Mapping[str, Any], drawn: _Drawn, folder: Path
) -> Path | None:
    """report.html, and matrix.png where there are subjects to compare; returns the latter."""
    from dbcli.reports.interference_page import interference_page, matrix_chart
    from dbcli.reports.page import ImageRow
    from dbcli.workflows.images.grids import opened

    rows = []
    for name, files in photos_of(layout, record).items():
        rows.append(ImageRow(f"photos of {name}", opened(files), is_photos=True))
        rows += [_strip(prompt, pictures, report["seed"]) for prompt, pictures in drawn.subjects[name].items()]
    members = []
    for noun in drawn.before:
        members.append(_strip(f"{noun}, by the base", drawn.before[noun], report["seed"]))
        members.append(_strip(f"{noun}, by {record.name}", drawn.after[noun], report["seed"]))
    write_text(folder / "report.html", interference_page(report, [("Subjects", rows), ("Classes", members)]))
    if len(report["matrix"]["columns"]) < 2:
        return None
    path = folder / "matrix.png"
    write_bytes(path, matrix_chart(report))
    return path


def _strip(label: str, files: Sequence[Path], seed: int) -> ImageRow:
    """A strip of images that were drawn with one seed after another."""
    from dbcli.reports.page import ImageRow
    from dbcli.workflows.images.grids import opened

    return ImageRow(label, opened(files), captions=[f"seed {seed + index}" for index in range(len(files))])
