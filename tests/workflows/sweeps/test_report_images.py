"""The images of a sweep's report under their headings, on images of one colour each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dbcli.project.files.layout import Layout
from dbcli.project.sweeps.sweep_records import CellRecord
from dbcli.reports import grids
from dbcli.reports.grids import GridRow, draw_grid
from dbcli.workflows.progress import Silence
from dbcli.workflows.sweeps.plan import SweepRequest, plan_file
from dbcli.workflows.sweeps.report_images import Ended, galleries, grid, strips_of
from tests.cli.made_projects import untrained_project
from tests.project import photo_makers

SWEEP = """
name: study
judge: none
subject: dog
pictures: {prompts: ['a {identifier} {class} at night', 'a {identifier} {class}'], count: COUNT}
grid: {train.learning_rate: [1e-4]}
"""
COLOURS = {"night": [(250, 0, 0), (150, 0, 0)], "day": [(0, 0, 250), (0, 0, 150)]}


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return Layout(untrained_project(tmp_path_factory.mktemp("shown")))


def ended(layout: Layout, folder: Path, count: int) -> Ended:
    """A cell of two prompts with `count` images each, in the project's own images."""
    file = folder / "study.yaml"
    file.write_text(SWEEP.replace("COUNT", str(count)), encoding="utf-8")
    (cell,) = plan_file(layout, SweepRequest(str(file), dry=True), Silence()).cells
    record = CellRecord(key=cell.score.key, state="finished")
    for label, colours in COLOURS.items():
        files = [layout.base_images_dir / f"{label}-{number}.png" for number in range(count)]
        for path, colour in zip(files, colours, strict=False):
            photo_makers.save(path, Image.new("RGB", (64, 64), colour))
        record.pictures.append({"subject": "dog", "label": label, "files": [layout.shown(path) for path in files]})
    return cell, record


def left_of(image: Image.Image, colour: tuple[int, int, int]) -> int:
    """Where a tile of one colour begins in a grid, in px."""
    return int(np.nonzero((np.asarray(image) == colour).all(axis=2))[1].min())


@pytest.mark.parametrize("count", [1, 2])
def test_a_heading_stands_over_the_images_of_its_own_prompt(layout: Layout, tmp_path: Path, count: int) -> None:
    (strip,) = strips_of(layout, [ended(layout, tmp_path, count)])["dog"]
    assert strip.each == count
    assert strip.headings == ["night", "day"]


def test_an_image_that_was_removed_leaves_its_place_empty(layout: Layout, tmp_path: Path) -> None:
    cell = ended(layout, tmp_path, 2)
    whole = grid(layout, strips_of(layout, [cell]), "study")
    (layout.base_images_dir / "night-1.png").unlink()
    strips = strips_of(layout, [cell])
    assert [file and file.name for file in strips["dog"][0].files] == ["night-0.png", None, "day-0.png", "day-1.png"]
    assert strips["dog"][0].headings == ["night", "day"]
    for colour in COLOURS["day"]:
        assert left_of(grid(layout, strips, "study"), colour) == left_of(whole, colour)
    ((_, (_, row)),) = galleries(layout, strips)
    assert (len(row.images), row.captions) == (3, ["night", "day", "day"])


def test_two_cells_of_one_subject_keep_their_places_beneath_each_other(layout: Layout, tmp_path: Path) -> None:
    cell = ended(layout, tmp_path, 2)
    (layout.base_images_dir / "night-0.png").unlink()
    strips = strips_of(layout, [cell, cell])
    shown = grid(layout, strips, "study")
    assert left_of(shown, COLOURS["night"][1]) < left_of(shown, COLOURS["day"][0])
    for label in COLOURS:
        for path in layout.base_images_dir.glob(f"{label}-*.png"):
            path.unlink()
    assert strips_of(layout, [cell]) == {}


def test_cells_of_more_prompts_have_headings_of_their_own(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell, few = ended(layout, tmp_path, 2)
    others = [{**few.pictures[0], "label": str(number)} for number in range(6)]
    many = few.model_copy(update={"pictures": [*few.pictures, *others]})
    strips = strips_of(layout, [(cell, few), (cell, many)])
    assert [strip.each for strip in strips["dog"]] == [2, 1]
    drawn: list[tuple[int, list[str], int]] = []

    def draw(rows: Sequence[GridRow], **how: Any) -> Image.Image:
        drawn.extend((len(row.images), how["headings"], how["group"]) for row in rows if not row.is_photos)
        return draw_grid(rows, **how)

    monkeypatch.setattr(grids, "draw_grid", draw)
    grid(layout, strips, "study")
    labels = ["night", "day"]
    assert drawn == [(4, labels, 2), (8, [*labels, *map(str, range(6))], 1)]
