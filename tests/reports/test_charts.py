"""Charts come out as pictures, take any label, and are the same each time."""

from __future__ import annotations

import io
from typing import Any

import pytest
from matplotlib.axes import Axes
from PIL import Image

from dbcli.reports.charts import heat_map, loss_curve, probe_chart, running_mean

EVENTS = [{"step": step, "subject_loss": 1 / step, "prior_loss": 0.5} for step in range(1, 60)]
PROBES = [{"step": step, "fidelity": step / 1000, "editability": 0.3} for step in (200, 100, 300)]


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content)).convert("RGB")


def test_the_running_mean_of_three() -> None:
    assert running_mean([3.0, 0.0, 6.0, 3.0], 3) == [1.5, 3.0, 3.0, 4.5]
    assert running_mean([1.0, 2.0], 1) == [1.0, 2.0]


def test_a_loss_curve_in_both_coats() -> None:
    light, dark = (opened(loss_curve(EVENTS, coat=coat)) for coat in ("light", "dark"))
    assert light.size == dark.size
    assert light.getpixel((0, 0)) == (255, 255, 255)
    assert sum(dark.getpixel((0, 0))) < 120


def test_events_without_a_loss_are_passed_over() -> None:
    odd = [
        {"event": "checkpoint", "step": 3},
        {"step": 4, "subject_loss": float("nan")},
        {"subject_loss": 1.0},
        {"step": 5, "subject_loss": "x"},
    ]
    assert loss_curve([*odd, *EVENTS]) == loss_curve(EVENTS)
    with pytest.raises(ValueError, match="no step with a loss"):
        loss_curve(odd)


def test_the_loss_on_photos_that_were_kept_back_is_drawn_where_it_was_measured() -> None:
    measured = [{"event": "held out", "step": step, "held_out_loss": 0.4} for step in (0, 30, 59)]
    assert loss_curve([*EVENTS, *measured]) != loss_curve(EVENTS)


def test_a_run_without_prior_has_one_line() -> None:
    without = [{"step": event["step"], "subject_loss": event["subject_loss"]} for event in EVENTS]
    assert loss_curve(without) != loss_curve(EVENTS)


def test_a_curve_names_no_loss_that_a_run_need_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    set_label = Axes.set_ylabel
    monkeypatch.setattr(Axes, "set_ylabel", lambda self, text: [written.append(text), set_label(self, text)][1])
    loss_curve(EVENTS)
    assert written == ["loss"]


def test_a_chart_is_the_same_each_time() -> None:
    assert loss_curve(EVENTS) == loss_curve(EVENTS)


def test_probes_are_drawn_in_the_order_of_steps() -> None:
    ordered = sorted(PROBES, key=lambda probe: probe["step"])
    assert probe_chart(PROBES, chosen_step=200, real=0.25) == probe_chart(ordered, chosen_step=200, real=0.25)
    assert probe_chart(PROBES) != probe_chart(PROBES, chosen_step=200)
    with pytest.raises(ValueError, match="no probe"):
        probe_chart([])


def words_of_axis(monkeypatch: pytest.MonkeyPatch, **how: Any) -> str:
    """What stands beneath a chart of probes: letters are outlines in the file itself."""
    written: list[str] = []
    set_label = Axes.set_xlabel
    monkeypatch.setattr(Axes, "set_xlabel", lambda self, text: [written.append(text), set_label(self, text)][1])
    assert probe_chart(PROBES, **how) != probe_chart(PROBES)
    return next(text for text in written if text)


def test_a_result_that_was_not_probed_is_marked_and_called_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert words_of_axis(monkeypatch, chosen_step=200) == "step   (circle: chosen, step 200)"
    assert words_of_axis(monkeypatch, chosen_step=999) == "step   (dashed line: the result, not probed, step 999)"


def test_probes_that_were_left_out_are_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    label = words_of_axis(monkeypatch, chosen_step=200, left_out=[150, 250])
    assert label == "step   (circle: chosen, step 200; dotted: probe left out, step 150, 250)"


def test_copying_probes_are_marked() -> None:
    assert probe_chart(PROBES) != probe_chart([{**probe, "copying": True} for probe in PROBES])


def test_a_heat_map_takes_any_label_and_empty_cells() -> None:
    content = heat_map([[0.1, None], [0.9, 0.5]], ["$x_1$ <b>", "a" * 300], ["\\frac{", "狗"])
    assert opened(content).width > 300


def test_a_heat_map_whose_labels_do_not_match_is_refused() -> None:
    with pytest.raises(ValueError, match="one row of values"):
        heat_map([[0.1]], ["a"], ["b", "c"])
