"""The images of a sweep's report: a strip per cell and subject, in galleries for the page and in one grid."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dbcli.errors import SubjectError
from dbcli.project.files.layout import Layout
from dbcli.project.subjects.subject_store import load_subject, photo_paths
from dbcli.project.sweeps.sweep_records import CellRecord
from dbcli.workflows.images.grids import opened
from dbcli.workflows.runs.labels import rendered_label
from dbcli.workflows.sweeps.units import PlannedCell

if TYPE_CHECKING:
    from PIL import Image

    from dbcli.reports.page import ImageRow

Ended = tuple[PlannedCell, CellRecord]
TILE_PX = 112
# More columns than this, and a grid is wider than a screen.
MOST_COLUMNS = 10
SHORT_SCORES = (("dino", "DINO", ".3f"), ("clip_t", "CLIP-T", ".3f"), ("identified", "identified", ".0%"))


@dataclass(frozen=True)
class Strip:
    """The images of one cell for one subject: `each` of every prompt, which is one where prompts are many.

    None among the files keeps the place of an image that is not there any more.
    """

    label: str
    note: str
    labels: list[str]
    files: list[Path | None]
    each: int

    @property
    def headings(self) -> list[str]:
        """One a prompt, over all its images."""
        return self.labels[:: self.each]


def strips_of(layout: Layout, ended: Sequence[Ended]) -> dict[str, list[Strip]]:
    """A strip a cell, by subject; one of which a person has removed every image since is left out."""
    found: dict[str, list[Strip]] = {}
    for cell, record in ended:
        by_subject: dict[str, list[tuple[str, Path | None]]] = {}
        each = _each(record)
        for image in record.pictures:
            files = [file if file.is_file() else None for file in (layout.root / one for one in image["files"][:each])]
            # Headings stand over as many places of every prompt.
            files += [None] * (each - len(files))
            by_subject.setdefault(image["subject"], []).extend((image["label"], file) for file in files)
        axes = " · ".join(value for name, value in cell.request.values if name != "subject")
        for name, pairs in by_subject.items():
            if any(file is not None for _, file in pairs):
                label = rendered_label(axes, words_in(layout, cell, name)) or name
                labels, paths = [one for one, _ in pairs], [one for _, one in pairs]
                found.setdefault(name, []).append(Strip(label, _note(record, name), labels, paths, each))
    return found


def _each(record: CellRecord) -> int:
    """How many images of each prompt a strip shows: as many as fit side by side, and no more than were drawn."""
    there = max((len(image["files"]) for image in record.pictures), default=1)
    return max(1, min(there, (MOST_COLUMNS - 1) // max(1, most_prompts(record))))


def most_prompts(record: CellRecord) -> int:
    """How many prompts each subject of a cell was drawn under, the most."""
    return max(Counter(image["subject"] for image in record.pictures).values(), default=0)


def words_in(layout: Layout, cell: PlannedCell, subject: str) -> tuple[str, str]:
    """A subject's word in a cell, and its class noun; what is not known any longer is the subject itself."""
    word = next((word for stage in cell.stages for name, word in stage.words if name == subject), "")
    try:
        return word, load_subject(layout, subject).class_noun
    except SubjectError:
        return word, subject


def _note(record: CellRecord, subject: str) -> str:
    """A subject's main scores by the first suite."""
    subjects = [one for scores in record.scores[:1] for one in scores["subjects"] if one["name"] == subject]
    found = [
        f"{title} {value:{form}}"
        for one in subjects
        for key, title, form in SHORT_SCORES
        if (value := (one["scores"].get(key) or {}).get("value")) is not None
    ]
    return " · ".join(found)


def _photos(layout: Layout, name: str) -> list[Image.Image]:
    try:
        return opened([path for path in photo_paths(layout, load_subject(layout, name)) if path.is_file()])
    except SubjectError:
        return []


def galleries(layout: Layout, strips: Mapping[str, list[Strip]]) -> list[tuple[str, list[ImageRow]]]:
    """One gallery a subject: its photos, then a strip a cell."""
    from dbcli.reports.page import ImageRow

    return [
        (
            name,
            [ImageRow(f"photos of {name}", _photos(layout, name), is_photos=True)]
            + [_strip_on_page(one) for one in found],
        )
        for name, found in strips.items()
    ]


def _strip_on_page(strip: Strip) -> ImageRow:
    """A strip for the page, where every image has a caption of its own and so needs no place."""
    from dbcli.reports.page import ImageRow

    there = [(label, file) for label, file in zip(strip.labels, strip.files, strict=True) if file is not None]
    images = opened([file for _, file in there])
    return ImageRow(strip.label, images, note=strip.note, captions=[label for label, _ in there])


def _in_places(files: Sequence[Path | None]) -> list[Image.Image | None]:
    return [None if file is None else opened([file])[0] for file in files]


def grid(layout: Layout, strips: Mapping[str, list[Strip]], title: str) -> Image.Image:
    """One image of all: one row per subject with a photo before its images, or where cells are many, a part each."""
    from dbcli.reports.grids import GridRow, draw_grid, stacked

    parts: list[Image.Image] = []
    if all(len(found) == 1 for found in strips.values()):
        for members in _under_same_headings([(name, strip) for name, (strip,) in strips.items()]):
            parts.append(_side_by_side(layout, members, title=None if parts else title))
        return stacked(parts)
    for name, found in strips.items():
        columns = max(len(strip.files[:MOST_COLUMNS]) for strip in found)
        photos = GridRow(f"photos of {name}", _photos(layout, name)[:columns], is_photos=True)
        heading = None if parts else title
        parts.append(draw_grid([photos], tile_px=TILE_PX, title=heading, least_columns=columns))
        # Cells of other subjects beside this one, or by other prompts, may have fewer images of each.
        for members in _under_same_headings([(strip.label, strip) for strip in found]):
            rows = [GridRow(label, _in_places(strip.files[:MOST_COLUMNS]), note=strip.note) for label, strip in members]
            first = members[0][1]
            parts.append(draw_grid(rows, tile_px=TILE_PX, headings=first.headings, group=first.each))
    return stacked(parts)


def _under_same_headings(strips: Iterable[tuple[str, Strip]]) -> list[list[tuple[str, Strip]]]:
    """Strips with their titles, those together whose images stand under the same headings."""
    groups: dict[tuple[tuple[str, ...], int], list[tuple[str, Strip]]] = {}
    for title, strip in strips:
        groups.setdefault((tuple(strip.headings), strip.each), []).append((title, strip))
    return list(groups.values())


def _side_by_side(layout: Layout, members: Sequence[tuple[str, Strip]], *, title: str | None) -> Image.Image:
    """One row per subject: its photos, as many as a prompt has images, then its images under what they show."""
    from dbcli.reports.grids import GridRow, draw_grid

    headings, each = members[0][1].headings, members[0][1].each
    rows = []
    for name, strip in members:
        photos: list[Image.Image | None] = [*_photos(layout, name)[:each]]
        photos += [None] * (each - len(photos))
        rows.append(GridRow(name, [*photos, *_in_places(strip.files[: MOST_COLUMNS - each])], note=strip.note))
    return draw_grid(rows, tile_px=TILE_PX, headings=["photos", *headings], group=each, title=title)
