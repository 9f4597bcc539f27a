"""Time to the subject: when it is reached and how its ratio is formed, by hand; ours at toy size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from PIL import Image

from tests.project import photo_makers


@pytest.fixture(scope="module")
def timing(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("time_to_subject")


@pytest.fixture
def row(timing: ModuleType) -> Any:
    """A row whose shares are all 0.5, whose likenesses are 0.4, that took 80 s and whose class moved by 0.1."""
    return timing.Row("clock", "clock", 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.0, 0.3, 0.3, 0.1, 0.2, 0.4, 0.4, 80.0)


def test_the_first_number_of_steps_that_is_behind_in_nothing_counts(timing: ModuleType, row: Any) -> None:
    # Of 24 images 4 are plain: 0.5 of all are identified, then (0.75 + 5 * 0.44) / 6 = 0.492.
    behind = replace(row, scenes=0.44, plain=0.75, train_seconds=10.0)
    level = replace(row, train_seconds=20.0)
    ahead = replace(row, plain=1.0, train_seconds=40.0)
    found = timing.Reached(row, {150: ahead, 40: behind, 80: level})
    assert (found.steps, found.ratio) == (80, 4.0)
    for key in ("plain", "scenes", "as_asked", "likeness_plain", "likeness_scenes"):
        assert not timing.reaches(replace(row, **{key: 0.39}), row)


def test_a_subject_that_was_not_reached_counts_as_slower_than_any(timing: ModuleType, row: Any) -> None:
    behind = replace(row, as_asked=0.0, near_class_after=0.0, train_seconds=30.0)
    missed = timing.Reached(row, {40: behind})
    quick, slow = (timing.Reached(row, {40: replace(row, train_seconds=seconds)}) for seconds in (20.0, 40.0))
    assert (missed.steps, missed.ratio) == (None, None)
    text = timing.markdown([missed, quick, slow])
    # Ratios 0, 4 and 2.
    assert "Reached on 2 of 3; median 2.00 times as fast." in text
    assert "| clock | 80 | 50%, 0.40, 50% | 30 | 40 | 50%, 0.40, 0% | 0.10, 0.10 | not reached |" in text
    assert timing.read(timing.stored(quick)) == quick


def test_ours_is_a_whole_command_that_draws_its_class_images_anew(
    timing: ModuleType, base: Path, tmp_path: Path
) -> None:
    from dbcli.metrics.dataset import DatasetSubject

    photos = [photo_makers.save(tmp_path / f"{number}.jpg", photo_makers.plain((200, 40, 9))) for number in range(2)]
    subject = DatasetSubject("can", "can", tuple(photos))
    layout = timing.project(tmp_path / "project", str(base))
    timing.added(layout, subject)

    def red(images: list[Image.Image]) -> dict[str, torch.Tensor]:
        rows = torch.tensor([[float(value) for value in image.getpixel((0, 0))[:2]] for image in images])
        return {"maps": rows, "top": rows}

    shown = {"can": [Image.open(photos[0])], "other": [Image.new("RGB", (8, 8), (0, 90, 0))]}
    judges = {kind: timing.Judge(red, kind, shown) for kind in ("maps", "top")}
    sets = ("train.batch_size=1", "prior.images=2", "prior.steps=1", "draw.steps=1")
    study = timing.Study(Path("none"), sets, [2], judges)
    work = tmp_path / "steps-2"
    first = study.ours(subject, 2, layout, work)
    drawn = {path: path.stat().st_mtime_ns for path in layout.class_images_dir.rglob("*.png")}
    study.ours(subject, 2, layout, work)
    again = {path: path.stat().st_mtime_ns for path in layout.class_images_dir.rglob("*.png")}
    assert drawn and all(again.get(path) != time for path, time in drawn.items())
    assert first.train_seconds > 0 and 0 <= first.plain <= 1
    assert Image.open(work / "can.png").width > 500
