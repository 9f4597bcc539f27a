"""Which checkpoints of a run stay when another is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from dbcli.project.files.layout import Layout
from dbcli.project.runs.checkpoints import checkpoint_folder, checkpoint_steps, newest_checkpoint, save_checkpoint

RUN = "0001-dog"


def save(layout: Layout, step: int, *, keep: int, keep_first: bool = False) -> Path:
    def write(folder: Path) -> None:
        (folder / "weights.bin").write_bytes(bytes(step % 256 for _ in range(100)))

    return save_checkpoint(layout, RUN, step, write, keep=keep, keep_first=keep_first)


@pytest.mark.parametrize(("first", "left"), [(False, [300, 400]), (True, [100, 300, 400])])
def test_the_newest_stay_and_the_first_if_it_is_to(layout: Layout, first: bool, left: list[int]) -> None:
    for step in (100, 200, 300, 400):
        save(layout, step, keep=2, keep_first=first)
    assert checkpoint_steps(layout, RUN) == left


@pytest.mark.parametrize("keep", [1, 2])
def test_a_newer_one_that_is_damaged_takes_no_place_of_those_a_run_can_go_on_from(layout: Layout, keep: int) -> None:
    for step in (200, 400, 600):
        save(layout, step, keep=3)
    (checkpoint_folder(layout, RUN, 600) / "weights.bin").write_bytes(b"torn")
    written = save(layout, 450, keep=keep)
    assert written.is_dir()
    assert newest_checkpoint(layout, RUN) == written
    assert checkpoint_steps(layout, RUN) == [*([400] if keep == 2 else []), 450, 600]
    # Where the run comes to that step once more, a whole one takes its place.
    assert newest_checkpoint(layout, RUN) != save(layout, 600, keep=keep) == newest_checkpoint(layout, RUN)
