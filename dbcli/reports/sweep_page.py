"""The page and the Markdown of a sweep or benchmark."""

from collections.abc import Mapping, Sequence
from typing import Any

from dbcli.reports.page import (
    Block,
    ImageRow,
    PageSection,
    Text,
    image_sections,
    protocol_blocks,
    render_page,
)
from dbcli.reports.sweep_tables import (
    against_note,
    against_table,
    beside_published,
    cell_label,
    cells_table,
    differences,
    rows_table,
)
from dbcli.reports.tables import markdown


def sweep_markdown(scores: Mapping[str, Any]) -> str:
    """The tables of a sweep's scores.json, its failures, and for a benchmark what differs from what was published."""
    parts = [f"# {scores['name']}\n", *([f"{scores['about']}\n"] if scores["about"] else [])]
    parts += [f"**{line}**\n" for line in _failures(scores)]
    parts.append(markdown(rows_table(scores, with_published=beside_published(scores))))
    compared = against_table(scores)
    parts += [] if compared is None else [markdown(compared)]
    parts += [f"{line}\n" for line in against_note(scores)]
    if beside_published(scores) and _is_scored(scores):
        parts.append(f"{differences(scores)}\n")
    return "\n".join([*parts, markdown(cells_table(scores))])


def sweep_page(
    scores: Mapping[str, Any], *, galleries: Sequence[tuple[str, Sequence[ImageRow]]], foot: str = ""
) -> str:
    """One self-contained page: tables, images by subject, and how it was measured."""
    blocks: list[Block] = [Text(line, is_warning=True) for line in _failures(scores)]
    blocks.append(rows_table(scores, with_published=beside_published(scores)))
    compared = against_table(scores)
    blocks += [] if compared is None else [compared]
    blocks += [Text(line) for line in against_note(scores)]
    if beside_published(scores) and _is_scored(scores):
        blocks.append(Text(differences(scores)))
    sections = [PageSection("Scores", tuple(blocks)), *image_sections(galleries)]
    sections.append(PageSection("Cells", (cells_table(scores),)))
    protocol = next((row["scores"]["protocol"] for row in scores["rows"] if row["scores"] is not None), None)
    if protocol is not None:
        sections.append(PageSection("How it was measured", protocol_blocks(protocol)))
    return render_page(scores["name"], sections, lead=scores["about"], foot=foot)


def _is_scored(scores: Mapping[str, Any]) -> bool:
    return any(row["scores"] is not None for row in scores["rows"])


def _failures(scores: Mapping[str, Any]) -> list[str]:
    return [f"Failed: {cell_label(cell)}: {cell['error']}" for cell in scores["cells"] if cell["error"]]
