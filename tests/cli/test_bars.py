"""The display of long work: nothing wraps and no number is lost, at any width."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from dbcli.cli.bars import Bars, Curve, sparkline

NUMBERS = "loss 0.1234 prior 0.0456 · 12.31 it/s · 11.2 GB"


def shown(width: int, *, colour: bool = False, title: str = "Training 0001-dog", steps: int = 40) -> list[str]:
    file = io.StringIO()
    console = Console(
        file=file,
        width=width,
        force_terminal=colour,
        color_system="truecolor" if colour else None,
        legacy_windows=False,
    )
    bars = Bars(console, disable=False)
    bar = bars.begin(title, 1000)
    for step in range(steps):
        bar.advance()
        bar.measure("0001-dog", step, {"subject_loss": 1.0 / (step + 1)})
        bar.tell(NUMBERS)
    for part in bars.get_renderables():
        console.print(part)
    return file.getvalue().rstrip("\n").split("\n")


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_two_lines_hold_bar_and_numbers_at_any_usual_width(width: int) -> None:
    first, second = (line.rstrip() for line in shown(width))
    assert max(len(first), len(second)) <= width
    assert "Training 0001-dog" in first
    assert "40/1000" in first
    assert NUMBERS in second
    assert second[-1] in "▁▂▃▄▅▆▇█"


def test_a_long_class_noun_shortens_the_title_and_not_the_bar() -> None:
    first, _ = shown(80, title="Class images: a photo of a very long-haired rubber duck toy")
    assert "…" in first
    assert "40/1000" in first


def test_a_narrow_terminal_keeps_the_loss() -> None:
    assert all(len(line) <= 40 for line in shown(40))
    assert "loss 0.1234" in shown(40)[-1]


def test_a_curve_falls_as_the_loss_falls() -> None:
    assert sparkline([1, 2, 8]) == "▁▂█"
    assert sparkline([3, 3]) == "▁▁"
    curve = Curve()
    for step in range(100):
        curve.add(100 - step)
    drawn = curve.drawn(10)
    assert len(drawn) == 10
    assert (drawn[0], drawn[-1]) == ("█", "▁")
    assert list(drawn) == sorted(drawn, reverse=True)


def test_a_curve_of_a_million_steps_takes_no_more_memory_than_one_of_a_thousand() -> None:
    curve = Curve()
    for step in range(100_000):
        curve.add(float(step))
    assert len(curve._means) <= Curve.MOST
    assert list(curve.drawn(8)) == sorted(curve.drawn(8))


def test_a_loss_that_is_no_number_is_left_out() -> None:
    curve = Curve()
    for value in (1.0, float("nan"), float("inf"), 2.0):
        curve.add(value)
    assert curve.drawn(8) == "▁█"
