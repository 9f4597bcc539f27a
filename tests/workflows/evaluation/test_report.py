"""The strips of an evaluation's page."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from dbcli.project.seeds import LAST_SEED
from dbcli.workflows.evaluation.report import seed_row


def test_seeds_under_images_count_as_those_of_the_images_do(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.png" for number in range(3)]
    for file in files:
        Image.new("RGB", (8, 8)).save(file)
    assert seed_row("a dog", files, LAST_SEED - 1).captions == [f"seed {LAST_SEED - 1}", f"seed {LAST_SEED}", "seed 0"]
