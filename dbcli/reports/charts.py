"""Charts as bytes: the loss of a run, the scores of its checkpoints, and a heat map.

Every chart is a PNG by matplotlib's Agg writer, without a display, in a light or a dark coat.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from dbcli.reports.grids import drawable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Coat = Literal["light", "dark"]


@dataclass(frozen=True)
class _Colours:
    ground: str
    ink: str
    grid: str
    first: str
    second: str
    third: str


# Blue and orange stay apart for colour-blind eyes; each has at least 3 : 1 against its ground.
_COATS: dict[Coat, _Colours] = {
    "light": _Colours("#ffffff", "#24292f", "#e4e8ec", "#0969da", "#bc4c00", "#57606a"),
    "dark": _Colours("#161b22", "#e6edf3", "#30363d", "#58a6ff", "#f0883e", "#9aa4af"),
}


def loss_curve(events: Sequence[Mapping[str, Any]], *, coat: Coat = "light") -> bytes:
    """The subject loss, and the prior loss where there is one, over steps: each step faint, their running mean bold.

    The loss on photos that were kept back, where it was measured, is a line of points.

    `events` are lines of events.jsonl; those without a step and a finite loss are passed over. Raises ValueError if
    none is left.
    """
    colours = _COATS[coat]
    series = {
        label: points
        for label, key in (("subject loss", "subject_loss"), ("prior loss", "prior_loss"))
        if (points := _points(events, key))
    }
    if "subject loss" not in series:
        raise ValueError("no step with a loss in these events")
    with _figure(colours, 7.2, 3.4) as (figure, axes):
        for (label, points), colour in zip(series.items(), (colours.first, colours.second), strict=False):
            steps, losses = zip(*points, strict=True)
            axes.plot(steps, losses, color=colour, alpha=0.22, linewidth=0.8)
            axes.plot(steps, running_mean(losses, max(1, len(losses) // 20)), color=colour, linewidth=2, label=label)
        if held_out := _points(events, "held_out_loss"):
            steps, losses = zip(*held_out, strict=True)
            axes.plot(steps, losses, color=colours.ink, linewidth=1.5, marker="o", markersize=4, label="held-out loss")
        axes.set_xlabel("step")
        axes.set_ylabel("loss")
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False, labelcolor=colours.ink, loc="upper right")
        return _saved(figure)


def probe_chart(
    probes: Sequence[Mapping[str, Any]],
    *,
    chosen_step: int | None = None,
    left_out: Sequence[int] = (),
    real: float | None = None,
    coat: Coat = "light",
) -> bytes:
    """Fidelity (DINO) and editability (CLIP-T) over steps, one panel each, and the chosen checkpoint marked
    in both: by a circle, or by a line where it was not probed.

    `left_out` are steps whose planned probe was not made.

    Each probe has `step`, `fidelity`, `editability` and, where it copies the photos, `copying`. `real`
    draws the subject's real-real value: above it lies copying. Raises ValueError without probes.
    """
    if not probes:
        raise ValueError("no probe to plot")
    colours = _COATS[coat]
    ordered = sorted(probes, key=lambda probe: int(probe["step"]))
    steps = [int(probe["step"]) for probe in ordered]
    with _figure(colours, 7.2, 4.6, panels=2) as (figure, panels):
        parts = (
            ("fidelity", "fidelity (DINO)", colours.first),
            ("editability", "editability (CLIP-T)", colours.second),
        )
        for axes, (key, label, colour) in zip(panels, parts, strict=True):
            axes.plot(steps, [probe[key] for probe in ordered], color=colour, linewidth=2, marker="o", markersize=5)
            axes.set_ylabel(label)
            for probe in ordered:
                if int(probe["step"]) == chosen_step:
                    axes.plot([chosen_step], [probe[key]], "o", markersize=13, fillstyle="none", color=colours.ink)
            if chosen_step is not None and chosen_step not in steps:
                axes.axvline(chosen_step, color=colours.ink, linewidth=1.4, linestyle="--")
            for step in left_out:
                axes.axvline(step, color=colours.third, linewidth=0.9, linestyle=":")
        _mark_copying(panels[0], ordered, real, colours)
        panels[1].set_xlabel(_steps_label(steps, chosen_step, left_out))
        return _saved(figure)


def _steps_label(steps: Sequence[int], chosen_step: int | None, left_out: Sequence[int]) -> str:
    """What the marks of a chart of probes mean."""
    words = []
    if chosen_step is not None:
        mark = "circle: chosen" if chosen_step in steps else "dashed line: the result, not probed"
        words.append(f"{mark}, step {chosen_step}")
    if left_out:
        words.append(f"dotted: probe left out, step {', '.join(map(str, left_out))}")
    return "step" + (f"   ({'; '.join(words)})" if words else "")


def _mark_copying(axes: Axes, probes: Sequence[Mapping[str, Any]], real: float | None, colours: _Colours) -> None:
    """Crosses on the probes that copy, and the line above which that begins."""
    copies = [probe for probe in probes if probe.get("copying")]
    steps, heights = [probe["step"] for probe in copies], [probe["fidelity"] for probe in copies]
    axes.plot(steps, heights, "x", color=colours.ink, markersize=9, linestyle="none")
    if real is None:
        return
    axes.axhline(real, color=colours.third, linewidth=1.2, linestyle="--")
    axes.annotate(
        "photos among themselves", (0, real), xycoords=("axes fraction", "data"), va="bottom",
        color=colours.third, fontsize=8, xytext=(4, 2), textcoords="offset points",
    )  # fmt: skip


def heat_map(
    values: Sequence[Sequence[float | None]],
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    *,
    coat: Coat = "light",
) -> bytes:
    """A table of numbers as colours, with the numbers written in; None stays empty.

    Raises ValueError where labels and values do not match in number.
    """
    if len(values) != len(row_labels) or any(len(row) != len(column_labels) for row in values) or not column_labels:
        raise ValueError("one row of values per row label, one value per column label, none of them empty")
    colours = _COATS[coat]
    numbers = [[math.nan if value is None else float(value) for value in row] for row in values]
    longest = max(len(label) for label in row_labels)
    width = min(14.0, 1.6 + 0.075 * min(longest, 42) + 0.75 * len(column_labels))
    with _figure(colours, width, 1.5 + 0.36 * len(row_labels)) as (figure, axes):
        known = [number for row in numbers for number in row if not math.isnan(number)]
        low, high = (min(known), max(known)) if known else (0.0, 1.0)
        axes.imshow(numbers, cmap="Blues" if coat == "light" else "cividis", aspect="auto", vmin=low, vmax=high)
        axes.set_xticks(
            range(len(column_labels)), [_plain(label, 24) for label in column_labels], rotation=30, ha="left"
        )
        axes.set_yticks(range(len(row_labels)), [_plain(label, 42) for label in row_labels])
        axes.xaxis.tick_top()
        axes.grid(False)
        axes.tick_params(length=0)
        for row, line in enumerate(numbers):
            for column, number in enumerate(line):
                _write_number(axes, row, column, number, (low, high), coat)
        return _saved(figure)


def running_mean(values: Sequence[float], window: int) -> list[float]:
    """Mean over `window` neighbours, centred, fewer at the ends: as long as `values`."""
    before, after = (window - 1) // 2, window // 2
    return [
        sum(part) / len(part)
        for part in (values[max(0, place - before) : place + after + 1] for place in range(len(values)))
    ]


def _points(events: Sequence[Mapping[str, Any]], key: str) -> list[tuple[int, float]]:
    """(step, value) of the events that hold both; a step trained again after a resume counts with its last value."""
    found: dict[int, float] = {}
    for event in events:
        step, value = event.get("step"), event.get(key)
        if isinstance(step, int) and isinstance(value, int | float) and math.isfinite(value):
            found[step] = float(value)
    return sorted(found.items())


def _write_number(axes: Axes, row: int, column: int, number: float, bounds: tuple[float, float], coat: Coat) -> None:
    if math.isnan(number):
        return
    low, high = bounds
    share = 0.5 if high == low else (number - low) / (high - low)
    # Blues darkens with the value, cividis brightens.
    ink = ("white" if share > 0.6 else "#24292f") if coat == "light" else ("#10151b" if share > 0.5 else "white")
    axes.text(column, row, f"{number:.3f}", ha="center", va="center", fontsize=8, color=ink)


def _plain(text: str, most: int) -> str:
    """A label on one line, cut where it is long; formulas are off, so dollar signs stay what they are."""
    one_line = drawable(text)
    return one_line if len(one_line) <= most else one_line[: most - 1] + "…"


@contextmanager
def _figure(colours: _Colours, width: float, height: float, *, panels: int = 1) -> Iterator[tuple[Figure, Any]]:
    """A figure with its axes in the coat's colours, outside pyplot: nothing global is left behind."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    settings: dict[Any, Any] = {
        "font.family": "DejaVu Sans", "font.size": 9,
        "text.parse_math": False, "axes.edgecolor": colours.grid, "axes.labelcolor": colours.ink,
        "xtick.color": colours.third, "ytick.color": colours.third,
        "axes.grid": True, "grid.color": colours.grid, "axes.axisbelow": True,
        "axes.spines.top": False, "axes.spines.right": False, "axes.facecolor": colours.ground,
    }  # fmt: skip
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(width, height), facecolor=colours.ground, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure, figure.subplots(panels, 1, sharex=True)


def _saved(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    # No version inside: the same numbers give the same bytes.
    figure.savefig(buffer, format="png", dpi=144, metadata={"Software": None})
    return buffer.getvalue()
