"""The page of one measurement of interference: a heat map, what was nearest to what, and the drift of the classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dbcli import __version__
from dbcli.reports.charts import Coat, heat_map
from dbcli.reports.page import (
    Block,
    Facts,
    ImageRow,
    Section,
    TableBlock,
    Text,
    embedded_chart,
    image_sections,
    render_page,
)
from dbcli.reports.tables import Table, format_interval, format_score

VERDICTS = {"apart": "stays apart", "bleeds": "bleeds", "unknown": "the judge cannot tell"}


def matrix_chart(report: Mapping[str, Any], *, coat: Coat = "light") -> bytes:
    """The matrix as a PNG. Raises ValueError without any photos to compare with."""
    matrix = report["matrix"]
    labels = [f"{row['what']} {row['name']}" for row in matrix["rows"]]
    return heat_map([row["values"] for row in matrix["rows"]], labels, matrix["columns"], coat=coat)


def interference_page(report: Mapping[str, Any], galleries: Sequence[tuple[str, Sequence[ImageRow]]] = ()) -> str:
    """The whole page as text, from interference.json and the pictures in memory."""
    sections = []
    if report["nearest"] is not None:
        sections.append(Section("Subjects", tuple(_subject_blocks(report))))
    sections.append(Section("Classes", (Text(_DRIFT), TableBlock(_drift_table(report["drift"])))))
    sections += image_sections(galleries)
    sections.append(Section("How it was measured", (Facts(tuple(_facts(report))),)))
    names = ", ".join(report["subjects"])
    lead = f"{names}: whether they stay apart." if report["nearest"] else f"{names}: what became of the class."
    title = f"{report['drawn_with']} · interference"
    return render_page(title, sections, lead=lead, foot=f"Made by dreambooth {__version__}.")


_DRIFT = (
    "The class alone, drawn by the base and by the run from the same seeds. Same seed: cosine of the two pictures, 1 "
    "where nothing changed. Other seeds: that of two pictures by the base, which is chance. PRES, the likeness of "
    "the class to the subject's photos, should not rise; DIV should not fall."
)


def _subject_blocks(report: Mapping[str, Any]) -> list[Block]:
    nearest = report["nearest"]
    blocks: list[Block] = [
        Text(f"{name} bleeds into {_into(name, nearest['subjects'][name])}.", is_warning=True)
        for name in nearest["bleeding"]
    ]
    light, dark = matrix_chart(report), matrix_chart(report, coat="dark")
    caption = "Mean cosine of each row's pictures with each column's photos"
    blocks.append(embedded_chart(light, dark, alt=_words(report), caption=caption))
    rows = [
        (
            name,
            format_interval(one["right"]),
            ", ".join(f"{other} {count}" for other, count in one["nearest"].items()),
            format_score(one["photos_right"]),
            VERDICTS[one["verdict"]],
        )
        for name, one in nearest["subjects"].items()
    ]
    rows.append(("all", format_interval(nearest["overall"]), "", f"chance {nearest['chance']:.3f}", ""))
    headers = ("asked for", "nearest to its own photos", "nearest to", "its photos", "")
    blocks.append(TableBlock(Table(headers, tuple(rows), "Share of pictures nearest to the right subject", False)))
    blocks.append(Text(nearest["rule"]))
    return blocks


def _into(name: str, found: Mapping[str, Any]) -> str:
    pictures = sum(found["nearest"].values())
    wrong = [(other, count) for other, count in found["nearest"].items() if other != name and count]
    return ", ".join(f"{other} ({count} of {pictures} pictures)" for other, count in wrong)


def _words(report: Mapping[str, Any]) -> str:
    """The matrix for those who hear it."""
    matrix = report["matrix"]
    rows = []
    for row in matrix["rows"]:
        pairs = zip(matrix["columns"], row["values"], strict=True)
        values = ", ".join(f"{name} {format_score(value)}" for name, value in pairs)
        rows.append(f"{row['what']} {row['name']}: {values}")
    return "Likeness to the photos of each subject. " + "; ".join(rows)


def _drift_table(drift: Mapping[str, Any]) -> Table:
    rows = tuple(
        (
            noun,
            format_score(one["same_seed"]),
            format_score(one["other_seeds"]),
            *(format_score(one[score][when]) for score in ("pres", "div") for when in ("before", "after")),
        )
        for noun, one in drift.items()
    )
    headers = ("class", "same seed", "other seeds", "PRES before", "after", "DIV before", "after")
    return Table(headers, rows, "Class drift")


def _facts(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    draw = report["draw"]
    facts = [
        ("Drawn with", str(report["drawn_with"])),
        ("Judge", str(report["judge"]["model"])),
        ("Seed", str(report["seed"])),
        ("Sampler", f"{draw['sampler']}, {draw['steps']} steps, guidance {draw['guidance']:g}"),
        ("Pictures a prompt", str(draw["count"])),
    ]
    if report["without_photos"]:
        facts.append(("Without photos here", ", ".join(report["without_photos"])))
    return facts
