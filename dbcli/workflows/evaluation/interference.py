"""Whether the subjects of a run stay apart, and what became of their classes: sampled, judged, written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbcli.errors import PromptError
from dbcli.project.files.atomic import write_bytes, write_json, write_text
from dbcli.project.files.layout import Layout
from dbcli.project.prompts.identifiers import render_for
from dbcli.project.runs.run_store import RunRecord
from dbcli.project.runs.score_files import INTERFERENCE_FILE, INTERFERENCE_SUITE, bleeding_lines
from dbcli.project.seeds import next_seed
from dbcli.project.settings.profile_settings import Profile
from dbcli.workflows.class_images.generate import class_prompt
from dbcli.workflows.class_images.sentences import first_class_template
from dbcli.workflows.evaluation.evaluate import checked_seed, evaluation_sampler
from dbcli.workflows.evaluation.judges import project_judges
from dbcli.workflows.evaluation.photos import check_photos
from dbcli.workflows.evaluation.report import seed_row
from dbcli.workflows.evaluation.request import ScoringOptions
from dbcli.workflows.evaluation.subject_prompts import subject_prompts
from dbcli.workflows.generation.lora_mix import Composition, compose, load_composition
from dbcli.workflows.generation.request import RunSelection
from dbcli.workflows.images.generated import PromptSampler, words_of
from dbcli.workflows.images.grids import opened, photos_of
from dbcli.workflows.machine_use import computing
from dbcli.workflows.models.loaded import LoadedModel
from dbcli.workflows.progress import Progress
from dbcli.workflows.prompts.reading import read_prompts
from dbcli.workflows.setup.effective_settings import check_judge, profile_of
from dbcli.workflows.setup.open import load_project_base
from dbcli.workflows.signals import listening

if TYPE_CHECKING:
    from dbcli.metrics.judges.features_cache import FeatureStore
    from dbcli.metrics.judges.judge import Judges

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

    `bleeding` is a line for every subject whose images go to another.
    """

    run: str
    report: dict[str, Any]
    file: Path
    page: Path
    heat_map: Path | None
    bleeding: list[str]


@dataclass(frozen=True)
class _Images:
    """All images: of each subject by prompt, and of each class noun by the base and by the run."""

    subjects: dict[str, dict[str, list[Path]]]
    before: dict[str, list[Path]]
    after: dict[str, list[Path]]


def measure_interference(
    layout: Layout, selection: RunSelection, scoring: ScoringOptions, progress: Progress, *, offline: bool
) -> Interference:
    """Generates every subject of a run (or of several composed) and every class, and says how far they stay apart.

    With one subject only the drift of its class is measured. Raises PromptError for the bare base or a run that
    knows no subject, JudgeMissing, and whatever `compose` raises.
    """
    check_judge(scoring.judge)
    composition = compose(layout, selection)
    for clash in composition.collisions:
        progress.warn(f"{clash}.")
    record = composition.whole
    if record is None or not record.subjects:
        raise PromptError("There is no subject here that could interfere.", hint="dreambooth eval --run NAME")
    seed = checked_seed(layout, record, scoring, class_images=CLASS_IMAGES)
    texts = _texts(record, scoring.suites)
    read_prompts(layout, [text for found in texts.values() for text in found.values()], record, progress)
    check_photos(layout, [record], progress)
    profile = profile_of(layout, record)
    judges = project_judges(layout, scoring.judge, profile, offline=offline)
    folder = layout.eval_dir(record.name, _suite_name(composition))
    first = next_seed(profile.train.seed, 0) if seed is None else seed
    with computing(f"the interference of {record.name}", progress), listening() as stop:
        sampler = evaluation_sampler(profile, record, scoring.count, first, progress, stop)
        images = _sampled(layout, composition, profile, texts, sampler, folder / "images", offline=offline)
        report = _judged(layout, record, images, judges, stop)
    report |= {
        "run": record.name,
        "drawn_with": composition.name,
        "draw": sampler.settings.model_dump(),
        "seed": first,
        "judge": judges.dino.describe(),
    }
    write_json(folder / INTERFERENCE_FILE, report)
    chart = _write_page(layout, record, report, images, folder)
    lines = bleeding_lines(report["nearest"])
    return Interference(record.name, report, folder / INTERFERENCE_FILE, folder / "report.html", chart, lines)


def _suite_name(composition: Composition) -> str:
    others = [str(record.number) for record in composition.records[1:]]
    return "-with-".join([INTERFERENCE_SUITE, "-".join(others)]) if others else INTERFERENCE_SUITE


def _texts(record: RunRecord, suites: Sequence[str]) -> dict[str, dict[str, str]]:
    """The prompts of each subject, in its words, by their templates."""
    from dbcli.metrics.suites import load_suite

    chosen, words, found = [load_suite(name) for name in suites], words_of(record), {}
    for subject in words:
        templates = [one.template for suite in chosen for one in subject_prompts(suite, subject, words)]
        if chosen and not templates:
            raise PromptError(f"None of these suites has a prompt for '{subject}'.", hint="leave --suite out")
        found[subject] = {template: render_for(template, subject, words) for template in templates or PROMPTS}
    return found


def _sampled(
    layout: Layout,
    composition: Composition,
    profile: Profile,
    texts: Mapping[str, Mapping[str, str]],
    sampler: PromptSampler,
    folder: Path,
    *,
    offline: bool,
) -> _Images:
    from dbcli.diffusion.devices import pick_device

    device, progress = pick_device(profile.train.device), sampler.progress
    nouns = list(dict.fromkeys(one.class_noun for record in composition.records for one in record.subjects))
    of_classes = [class_prompt(first_class_template(profile), noun) for noun in nouns]
    model = load_composition(layout, composition, profile, progress, offline=offline, device=device)
    subjects = {}
    for name, found in texts.items():
        files = sampler.files(model, list(found.values()), folder)
        subjects[name] = dict(zip(found, files, strict=True))
    after = sampler.files(model, of_classes, folder, count=CLASS_IMAGES)
    # One model at a time: on a small machine there is no room for two, and what is in cycles of references would stay
    # until Python looks for it.
    for network in model.base.networks.values():
        network.to("meta")
    del model
    bare = LoadedModel(layout, None, profile, load_project_base(layout, progress, offline=offline, device=device))
    before = sampler.files(bare, of_classes, folder, count=CLASS_IMAGES)
    return _Images(subjects, dict(zip(nouns, before, strict=True)), dict(zip(nouns, after, strict=True)))


def _judged(
    layout: Layout, record: RunRecord, images: _Images, judges: Judges, should_stop: Callable[[], bool]
) -> dict[str, Any]:
    """The report, from the judge's features of images and photos."""
    import torch

    from dbcli.metrics.judges.features_cache import FeatureStore
    from dbcli.metrics.separation import class_drift, likeness_row, nearest_report, photo_row

    store = FeatureStore(layout.features_dir, should_stop=should_stop)
    photos = {name: _features(store, judges, files) for name, files in photos_of(layout, record).items() if files}
    asked = {
        name: {prompt: _features(store, judges, files) for prompt, files in by_prompt.items()}
        for name, by_prompt in images.subjects.items()
        if name in photos
    }
    before, after = (
        {noun: _features(store, judges, files) for noun, files in part.items()}
        for part in (images.before, images.after)
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
    layout: Layout, record: RunRecord, report: Mapping[str, Any], images: _Images, folder: Path
) -> Path | None:
    """report.html, and matrix.png where there are subjects to compare; returns the latter."""
    from dbcli.reports.interference_page import interference_page, matrix_chart
    from dbcli.reports.page import ImageRow

    rows = []
    for name, files in photos_of(layout, record).items():
        rows.append(ImageRow(f"photos of {name}", opened(files), is_photos=True))
        rows += [seed_row(prompt, files, report["seed"]) for prompt, files in images.subjects[name].items()]
    members = []
    for noun in images.before:
        members.append(seed_row(f"{noun}, by the base", images.before[noun], report["seed"]))
        members.append(seed_row(f"{noun}, by {record.name}", images.after[noun], report["seed"]))
    write_text(folder / "report.html", interference_page(report, [("Subjects", rows), ("Classes", members)]))
    if len(report["matrix"]["columns"]) < 2:
        return None
    path = folder / "matrix.png"
    write_bytes(path, matrix_chart(report))
    return path
