"""Where generated images and class images lie, in words and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from dbcli.cli.output.numbers import counted
from dbcli.cli.terminal.screen import Screen
from dbcli.cli.terminal.tables import Column

if TYPE_CHECKING:
    from dbcli.workflows.class_images.manage import SetSummary
    from dbcli.workflows.generation.generate import Generated

SHOWN_IMAGES = 8
SET_COLUMNS = (
    Column("set"),
    Column("prompt", wraps=True, least=16),
    Column("images", right=True),
    Column("size", drop=2, right=True),
    Column("fits the base", drop=1),
)


def show_generated(screen: Screen, generated: Generated) -> None:
    """Where the images lie."""
    from dbcli.workflows.generation.generate import generated_document

    screen.document(generated_document(generated))
    count = len(generated.images)
    screen.line(f"Generated {counted(count, 'image')} with {generated.title}")
    for image in generated.images[:SHOWN_IMAGES]:
        screen.line(f"  {image.path}")
    if count > SHOWN_IMAGES:
        screen.line(f"  … and {count - SHOWN_IMAGES} more in {generated.images[0].path.parent}")
    screen.files(Grid=generated.grid)


def show_class_image_sets(screen: Screen, sets: Sequence[SetSummary]) -> None:
    """All class image sets, a line each."""
    screen.document({"sets": [asdict(one) for one in sets]})
    rows = [
        (
            one.key,
            one.prompt or "own photos",
            one.images,
            f"{one.size_bytes / 1e6:.1f} MB",
            "" if one.fits_base else "no",
        )
        for one in sets
    ]
    none = "No class images yet. A run generates its own, or: dreambooth reg make --class dog"
    screen.table(None, SET_COLUMNS, rows, empty=none)
