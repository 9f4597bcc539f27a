"""Tables: scores as rows of text, and rows as Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dbcli.shares import SHARES

METRICS = {
    "dino": "DINO ↑",
    "clip_i": "CLIP-I ↑",
    "clip_t": "CLIP-T ↑",
    "clip_t_l": "CLIP-T-L ↑",
    "beyond_class": "beyond class ↑",
    "identified": "identified ↑",
    "scene": "scene ↑",
    "copies": "copies ↓",
    "pres": "PRES ↓",
    "div": "DIV ↑",
    "face": "FACE ↑",
    "face_found": "face found ↑",
    "same_person": "same person ↑",
}
COPYING_NOTE = "copies: nearer to one photo than any two photos are to each other."
# Ruiz et al. (CVPR 2023) and the source study; judges, photos and samples differ from row to row.
PUBLISHED: tuple[tuple[str, Mapping[str, float]], ...] = (
    ("real images (paper)", {"dino": 0.774, "clip_i": 0.885}),
    ("DreamBooth, Imagen (paper)", {"dino": 0.696, "clip_i": 0.812, "clip_t": 0.306}),
    ("DreamBooth, Stable Diffusion (paper)", {"dino": 0.668, "clip_i": 0.803, "clip_t": 0.305}),
    ("Textual inversion, Stable Diffusion (paper)", {"dino": 0.569, "clip_i": 0.780, "clip_t": 0.255}),
    ("DreamBooth, SD v1.4 (source study, 12 × 8 images)", {"dino": 0.787, "clip_i": 0.859, "clip_t": 0.304}),
)
NOTHING = "–"


@dataclass(frozen=True)
class Table:
    """Headers and rows of text; the first column names the row, the others hold numbers where `is_numeric`."""

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    is_numeric: bool = True
    kind: str = "table"


def format_score(value: float | None, metric: str = "") -> str:
    """Three decimals, per cent for a share, or a dash."""
    if value is None:
        return NOTHING
    return f"{value:.0%}" if metric in SHARES else f"{value:.3f}"


def format_interval(score: Mapping[str, float | None] | None, metric: str = "") -> str:
    """`0.696 (0.651 to 0.741)`, without the bracket where there is no interval."""
    if score is None:
        return NOTHING
    value, low, high = (format_score(score.get(end), metric) for end in ("value", "low", "high"))
    return value if NOTHING in (low, high) else f"{value} ({low} to {high})"


def known_metrics(scores: Mapping[str, Any]) -> list[str]:
    """The metrics that any subject or the whole has a value for, in the order of columns."""
    parts = [scores["overall"], *(subject["scores"] for subject in scores["subjects"])]
    return [metric for metric in METRICS if any((part.get(metric) or {}).get("value") is not None for part in parts)]


def subject_table(scores: Mapping[str, Any]) -> Table:
    """Per subject its photos' own values, then its scores with intervals, then all subjects together."""
    metrics = known_metrics(scores)

    def real(values: Mapping[str, float | None]) -> list[str]:
        return [format_score(values.get(metric), metric) for metric in metrics]

    def found(values: Mapping[str, Any]) -> list[str]:
        return [format_interval(values.get(metric), metric) for metric in metrics]

    rows: list[tuple[str, ...]] = []
    for subject in scores["subjects"]:
        flag = " (copies the photos)" if subject["copying"] else ""
        rows.append((f"{subject['name']}: photos (real-real)", *real(subject["real"])))
        rows.append((f"{subject['name']}: generated{flag}", *found(subject["scores"])))
    if len(scores["subjects"]) > 1:
        rows.append(("all photos (real-real)", *real(scores["real"])))
        rows.append(("all generated", *found(scores["overall"])))
    caption = f"Scores with 95 % intervals; ↑ higher is better, ↓ lower; {COPYING_NOTE}"
    return Table(("", *(METRICS[metric] for metric in metrics)), tuple(rows), caption)


def prompt_table(subject: Mapping[str, Any]) -> Table:
    """One subject's scores per prompt."""
    metrics = [
        metric for metric in METRICS if any(prompt["scores"].get(metric) is not None for prompt in subject["prompts"])
    ]
    rows = tuple(
        (
            prompt["prompt"] + (" (copies the photos)" if prompt["copying"] else ""),
            *(format_score(prompt["scores"].get(metric), metric) for metric in metrics),
        )
        for prompt in subject["prompts"]
    )
    return Table(("prompt", *(METRICS[metric] for metric in metrics)), rows, f"{subject['name']}, per prompt")


def markdown(table: Table) -> str:
    """The table in GitHub's Markdown, numbers right-aligned, the caption beneath; ends in a newline."""
    lines = [
        _row(table.headers),
        "|" + "|".join([" :-- "] + [" --: " if table.is_numeric else " :-- "] * (len(table.headers) - 1)) + "|",
    ]
    lines += [_row(row) for row in table.rows]
    if table.caption:
        lines += ["", _cell(table.caption)]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _cell(text: str) -> str:
    """One line of text that Markdown shows as it stands."""
    folded = " ".join(text.split())
    for special in "\\`*_[]|<>":
        folded = folded.replace(special, f"\\{special}")
    return folded
