"""The page of one evaluation: scores, images by task, the run's curve and settings, in one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbcli import __version__
from dbcli.errors import DataError
from dbcli.project.files.atomic import write_text
from dbcli.project.files.layout import Layout
from dbcli.project.images.recipes import read_recipe
from dbcli.project.runs.probe_files import ProbeRecord, load_probes, probe_images
from dbcli.project.runs.run_store import RunRecord, read_events
from dbcli.project.seeds import next_seed
from dbcli.workflows.images.grids import opened

if TYPE_CHECKING:
    from dbcli.metrics.protocol import SubjectImages
    from dbcli.reports.page import Chart, ImageRow


def write_report(
    path: Path, layout: Layout, record: RunRecord, scores: Mapping[str, Any], subjects: Sequence[SubjectImages]
) -> None:
    """Writes `report.html`: self-contained, nothing in it runs, nothing is fetched."""
    from dbcli.reports.page import evaluation_page

    page = evaluation_page(
        scores,
        title=f"{record.name} · {scores['suite']}",
        facts=_facts(record),
        galleries=[*_galleries(scores, subjects), *_on_the_way(layout, record)],
        charts=run_charts(layout, record),
        foot=f"Made by dreambooth {__version__}.",
    )
    write_text(path, page)


def _galleries(scores: Mapping[str, Any], subjects: Sequence[SubjectImages]) -> list[tuple[str, Sequence[ImageRow]]]:
    """One gallery a task, the photos of every subject first."""
    from dbcli.reports.page import ImageRow, prompt_note

    photos = [ImageRow(f"photos of {one.name}", opened(one.photos), is_photos=True) for one in subjects if one.photos]
    by_task: dict[str, list[ImageRow]] = {}
    for subject, scored in zip(subjects, scores["subjects"], strict=True):
        for prompt, found in zip(subject.prompts, scored["prompts"], strict=True):
            row = seed_row(prompt.prompt, prompt.images, scores["seed"], note=prompt_note(found))
            by_task.setdefault(prompt.task, []).append(row)
    return [(task, [*photos, *rows]) for task, rows in by_task.items()]


def seed_row(label: str, files: Sequence[Path], seed: int, *, note: str = "") -> ImageRow:
    """A strip of images with one seed after another, the first again after the last there is."""
    from dbcli.reports.page import ImageRow

    captions = [f"seed {next_seed(seed, index)}" for index in range(len(files))]
    return ImageRow(label, opened(files), note=note, captions=captions)


def run_charts(layout: Layout, record: RunRecord) -> list[Chart]:
    """The losses of a run, and the scores of the checkpoints that were probed."""
    from dbcli.reports.charts import loss_curve
    from dbcli.reports.page import embedded_chart

    charts, events, probes = [], read_events(layout, record.name), load_probes(layout, record.name)
    if any("subject_loss" in event for event in events):
        light, dark = loss_curve(events, coat="light"), loss_curve(events, coat="dark")
        alt = f"Losses over the {record.step} steps of {record.name}"
        charts.append(embedded_chart(light, dark, alt=alt, caption=f"Losses of {record.name}"))
    if probes is not None and probes.probes:
        light, dark = (probe_curve(probes, coat) for coat in ("light", "dark"))
        alt = "; ".join(f"step {one.step}: fidelity {one.fidelity:.3f}, editability {one.editability:.3f}"
                        for one in probes.probes)  # fmt: skip
        caption = f"Checkpoints of {record.name}, scored in training"
        left_out = "; ".join(f"step {one.step} left out: {one.why}" for one in probes.skipped)
        caption += f"; {left_out}" if left_out else ""
        charts.append(embedded_chart(light, dark, alt=f"Probes: {alt}", caption=caption))
    return charts


def probe_curve(probes: ProbeRecord, coat: Any = "light") -> bytes:
    """The chart of a run's probes as PNG bytes."""
    from dbcli.reports.charts import probe_chart

    entries = [one.model_dump() for one in probes.probes]
    left_out = [one.step for one in probes.skipped]
    return probe_chart(entries, chosen_step=probes.chosen, left_out=left_out, real=probes.real, coat=coat)


def _on_the_way(layout: Layout, record: RunRecord) -> list[tuple[str, Sequence[ImageRow]]]:
    """The same few images at every checkpoint that was probed."""
    from dbcli.reports.page import ImageRow

    probes = load_probes(layout, record.name)
    rows = []
    for one in probes.probes if probes is not None else []:
        chosen = " · the result" if probes is not None and one.step == probes.chosen else ""
        kept_back = "" if one.held_out is None else f" · held-out loss {one.held_out:.4f}"
        note = f"fidelity {one.fidelity:.3f} · editability {one.editability:.3f}{kept_back}{chosen}"
        files = probe_images(layout, record.name, one.step)
        rows.append(ImageRow(f"step {one.step}", opened(files), note=note, captions=[*map(_prompt_of, files)]))
    return [("checkpoints during training", rows)] if rows else []


def _prompt_of(file: Path) -> str:
    """What a stored image shows: the prompt it carries."""
    try:
        return read_recipe(file).prompt
    except DataError:
        return ""


def _steps(record: RunRecord) -> str:
    chosen = record.result_step
    return str(record.step) if chosen == record.step else f"{chosen}, the best checkpoint of {record.step}"


def _facts(record: RunRecord) -> list[tuple[str, str]]:
    words = ", ".join(one.text for one in record.subjects)
    return [
        ("Run", record.name),
        ("Words", words),
        ("Base", f"{record.base.name} ({(record.base.hash or '?')[:12]})"),
        ("Method", f"{record.method}, profile {record.profile.get('name', '?')}"),
        ("Steps", _steps(record)),
        ("Prior", str(record.prior.get("line", "?"))),
        *([("Held out", str(record.held_out["line"]))] if "line" in record.held_out else []),
        ("Device", record.device or "?"),
    ]
