"""The display of long work: nothing wraps and no number is lost, at any width."""

from __future__ import annotations

import io
import re
from collections.abc import Callable

import pytest
from rich.console import Console

from dbcli.cli.terminal.bars import Bar, Bars, Curve, clock, shortened, sparkline

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


def begun(title: str, total: int, parts: int) -> tuple[Bars, Bar, Callable[[], str]]:
    file = io.StringIO()
    console = Console(file=file, width=80)
    bars = Bars(console, disable=False)

    def line() -> str:
        file.seek(file.truncate(0))
        for part in bars.get_renderables():
            console.print(part)
        return file.getvalue()

    return bars, bars.begin(title, total, parts), line


def test_images_are_counted_when_they_are_drawn_while_the_bar_moves_with_the_samplers_steps() -> None:
    bars, bar, line = begun("Class images", 32, 25)
    for _ in range(25):
        bar.advance(16)
    assert bars.tasks[0].percentage == 50
    assert " 0/32" in line()
    bar.complete(16)
    assert "16/32" in line()
    for _ in range(16):
        bar.complete()
    assert "32/32" in line()
    assert bars.tasks[0].finished


def test_a_bar_is_never_fuller_than_full() -> None:
    bars, bar, line = begun("Drawing", 1, 5)
    bar.advance(9)
    assert bars.tasks[0].percentage == 100
    assert "0/1" in line()


@pytest.mark.parametrize(("seconds", "shown"), [(9.2, "0:09"), (760, "12:40"), (3723, "1:02:03")])
def test_times_are_told_in_hours_minutes_and_seconds(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown


def test_time_left_and_time_taken_are_called_by_name() -> None:
    bars, bar, line = begun("Training", 4, 1)
    assert "left" not in line()
    assert "took" not in line()
    now = [0.0]
    bars.get_time = lambda: now[0]
    for _ in range(3):
        now[0] += 10
        bar.advance()
    assert re.search(r"3/4 0:1\d left", line())
    now[0] += 10
    bar.advance()
    assert re.search(r"4/4 took \d+:\d\d", line())


def test_what_was_said_of_the_moment_does_not_stay_under_a_full_bar() -> None:
    _, bar, line = begun("Checking this machine", 1, 1)
    bar.tell("extras")
    bar.advance()
    assert "extras" in line()
    bar.end()
    assert "extras" not in line()


def test_a_title_is_cut_between_words() -> None:
    assert shortened("Class images: a photo of a backpack", 30) == "Class images: a photo of a…"
    assert shortened("Training", 30) == "Training"
    assert shortened("incomprehensibilities", 10) == "incompreh…"


def test_a_narrow_terminal_keeps_the_loss() -> None:
    assert all(len(line) <= 40 for line in shown(40))
    assert "loss 0.1234" in shown(40)[-1]


def test_a_curve_falls_as_the_loss_falls() -> None:
    assert sparkline([1, 2, 8]) == "▁▂█"
    assert sparkline([3, 3]) == "▁▁"
    curve = Curve()
    for step in range(100):
        curve.add(100 - step)
    drawn = curve.shown(10)
    assert len(drawn) == 10
    assert (drawn[0], drawn[-1]) == ("█", "▁")
    assert list(drawn) == sorted(drawn, reverse=True)


def test_a_curve_of_a_million_steps_takes_no_more_memory_than_one_of_a_thousand() -> None:
    curve = Curve()
    for step in range(100_000):
        curve.add(float(step))
    assert len(curve._means) <= Curve.MOST
    assert list(curve.shown(8)) == sorted(curve.shown(8))


def test_a_loss_that_is_no_number_is_left_out() -> None:
    curve = Curve()
    for value in (1.0, float("nan"), float("inf"), 2.0):
        curve.add(value)
    assert curve.shown(8) == "▁█"
