"""A copy of google/dreambooth's dataset on this machine, opened; what it lists and lacks is told."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dbcli.workflows.progress import Progress

if TYPE_CHECKING:
    from dbcli.metrics.dataset import Dataset


def open_dataset(folder: Path, progress: Progress) -> Dataset:
    """The subjects, class nouns and prompts of a copy. Raises DataError for another folder."""
    from dbcli.metrics.dataset import read_dataset

    dataset = read_dataset(folder.expanduser())
    if dataset.missing:
        progress.note(f"Listed, and not in this copy: {', '.join(dataset.missing)}.")
    return dataset
