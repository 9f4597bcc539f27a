"""Sweep files: what they may say, how they multiply out, and that every fault is told at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from dbcli.errors import ConfigError, UsageError
from dbcli.project.settings.profiles import known_keys
from dbcli.project.sweeps.cells import cells_of
from dbcli.project.sweeps.sweep_files import SweepFile, load_sweep, read_sweep, shipped_sweeps

GRID = """
name: rates
settings: {train: {steps: 30}, prior.images: 8}
subject: dog
grid:
  train.learning_rate: [1e-6, 5e-6]
  prior:
    on: {prior.enabled: true}
    off: {prior.enabled: false, train.steps: 20}
"""
SEQUENCE = """
name: words
average_over: [pair]
grid:
  arrangement:
    shared:
      allow_collision: true
      runs:
        - {subject: $first, identifier: wkz}
        - {subject: $second, identifier: wkz, from: previous, rehearsal: false}
    together:
      subject: [$first, $second]
      identifier: {$first: aaa, $second: bbb}
  pair:
    dog and cat: {$first: dog, $second: cat}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def read(folder: Path, text: str) -> SweepFile:
    return read_sweep(written(folder, text))


def test_a_grid_multiplies_out_the_last_axis_fastest_and_the_axis_wins(tmp_path: Path) -> None:
    cells = cells_of(read(tmp_path, GRID))
    assert [cell.label for cell in cells] == [
        "learning rate 1e-6 · on",
        "learning rate 1e-6 · off",
        "learning rate 5e-6 · on",
        "learning rate 5e-6 · off",
    ]
    assert [cell.stages[0].settings["train.steps"] for cell in cells] == [30, 20, 30, 20]
    assert cells[2].stages[0].settings == {
        "train.steps": 30,
        "prior.images": 8,
        "train.learning_rate": 5e-6,
        "prior.enabled": True,
    }
    assert {cell.stages[0].subjects for cell in cells} == {("dog",)}


def test_a_sequence_takes_its_words_from_the_axes(tmp_path: Path) -> None:
    shared, together = cells_of(read(tmp_path, SEQUENCE))
    assert [(stage.subjects, dict(stage.identifiers)) for stage in shared.stages] == [
        (("dog",), {"dog": "wkz"}),
        (("cat",), {"cat": "wkz"}),
    ]
    assert [(one.continues, one.settings, one.allow_collision) for one in shared.stages] == [
        (False, {}, True),
        (True, {"train.rehearsal_share": 0.0}, True),
    ]
    assert together.stages[0].subjects == ("dog", "cat")
    assert dict(together.stages[0].identifiers) == {"dog": "aaa", "cat": "bbb"}
    assert not together.stages[0].allow_collision


def test_every_fault_of_a_file_is_told_together_with_its_place(tmp_path: Path) -> None:
    text = """
name: "no name"
judje: tiny
settings: {train.stepz: 3}
pictures: {count: 0, prompts: x, suites: quick}
average_over: [seed]
subject: 3
grid:
  train.learning_rates: [1e-4]
  prior.images: []
  twice: {a: {runs: [{subject: $a, from: previous}]}, b: 4}
"""
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    for fault in (
        "name: The sweep name 'no name'",
        "judje: is not a known key; did you mean judge?",
        "settings, train.stepz: is not a known key; did you mean train.steps?",
        "pictures, count: should be greater than or equal to 1 (found 0)",
        "pictures, prompts: should be a list (found 'x')",
        "pictures, suites: is not a known key; did you mean suite?",
        "average_over: seed is not an axis",
        "subject: should be a subject's name, or a list of names that learn together (found 3)",
        "grid, train.learning_rates: is not a known key; did you mean train.learning_rate?",
        "grid, prior.images: should be a list of values",
        "grid, twice, a, runs: run 1, from: there is no run before it",
        "grid, twice, b: should be a mapping (found 4)",
    ):
        assert fault in caught.value.message


def test_a_word_that_no_axis_fills_and_a_cell_without_a_subject_are_faults(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\$who: no axis"):
        cells_of(read(tmp_path, "name: a\nsubject: $who\n"))
    with pytest.raises(ConfigError, match="subject: is missing"):
        cells_of(read(tmp_path, "name: a\n"))


def test_a_grid_too_large_to_be_meant_is_refused(tmp_path: Path) -> None:
    axis = "[" + ", ".join(str(number) for number in range(1, 102)) + "]"
    with pytest.raises(ConfigError, match="10,201 cells"):
        read(tmp_path, f"name: a\nsubject: dog\ngrid: {{train.steps: {axis}, train.seed: {axis}}}\n")


def test_subjects_and_settings_of_the_command_line_win_over_the_file(tmp_path: Path) -> None:
    sweep = read(tmp_path, GRID).with_subjects(["cat", "vase"]).with_settings({"prior.images": 2})
    cells = cells_of(sweep)
    assert [cell.stages[0].subjects for cell in cells[::4]] == [("cat",), ("vase",)]
    assert {cell.stages[0].settings["prior.images"] for cell in cells} == {2}
    assert cells[0].label == "cat · learning rate 1e-6 · on"


def test_a_setting_of_the_grid_cannot_be_set_from_outside(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the grid of the sweep 'rates' sets it"):
        read(tmp_path, GRID).with_settings({"train.learning_rate": 1.0})
    with pytest.raises(UsageError, match="inside its runs"):
        read(tmp_path, SEQUENCE).with_subjects(["dog"])


@pytest.mark.parametrize(
    "inside", ["both: {subject: [dog, cat]}", "sequence: {runs: [{}, {subject: cat, from: previous}]}"]
)
def test_subjects_that_a_point_of_another_axis_names_cannot_be_replaced(tmp_path: Path, inside: str) -> None:
    for subject, axis in (("subject: dog", ""), ("", "subject: [dog, cat], ")):
        sweep = read(tmp_path, f"name: a\n{subject}\ngrid: {{{axis}arrangement: {{alone: {{}}, {inside}}}}}\n")
        with pytest.raises(UsageError, match="inside its runs or on another axis"):
            sweep.with_subjects(["teapot"])


def test_the_subject_at_the_top_is_replaced_in_every_run_of_a_sequence(tmp_path: Path) -> None:
    sweep = read(tmp_path, "name: a\nsubject: dog\nruns: [{}, {from: previous}]\n").with_subjects(["cat", "vase"])
    assert [[stage.subjects for stage in cell.stages] for cell in cells_of(sweep)] == [[("cat",)] * 2, [("vase",)] * 2]
    with pytest.raises(UsageError, match="names no subject"):
        read(tmp_path, "name: a\n").with_subjects(["cat"])


def test_a_setting_of_one_run_of_a_sequence_cannot_be_set_from_outside(tmp_path: Path) -> None:
    stages = "runs: [{subject: dog, train.steps: 800}, {subject: cat, from: previous}]"
    at_the_top = read(tmp_path, f"name: two\n{stages}\n")
    in_the_grid = read(tmp_path, f"name: two\nsubject: dog\ngrid: {{order: {{both: {{{stages}}}, one: {{}}}}}}\n")
    for sweep in (at_the_top, in_the_grid):
        with pytest.raises(UsageError, match="the `runs` of the sweep 'two' sets it"):
            sweep.with_settings({"train.steps": 10})
        cells = cells_of(sweep.with_settings({"train.seed": 7}))
        assert {stage.settings["train.seed"] for cell in cells for stage in cell.stages} == {7}


def test_subjects_of_the_command_line_hold_the_one_that_rows_are_compared_with(tmp_path: Path) -> None:
    text = "name: own\nagainst: dog\naverage_over: [train.seed]\ngrid: {subject: [dog, cat], train.seed: [0, 1]}\n"
    sweep = read(tmp_path, text)
    with pytest.raises(UsageError, match="--subject leaves out 'dog'"):
        sweep.with_subjects(["cat", "bird"])
    assert sweep.with_subjects(["bird", "dog"]).against == "dog"


@pytest.mark.parametrize("name", shipped_sweeps())
def test_every_shipped_sweep_says_what_it_is_and_multiplies_out(name: str) -> None:
    sweep = load_sweep(name)
    cells = cells_of(sweep)
    assert sweep.name == name
    assert sweep.about.endswith(".")
    assert len(cells) > 1
    assert all(set(stage.settings) <= set(known_keys()) for cell in cells for stage in cell.stages)


def test_a_sweep_that_does_not_ship_is_named_with_the_nearest(tmp_path: Path) -> None:
    near = shipped_sweeps()[0]
    with pytest.raises(UsageError, match=f"Did you mean '{near}'"):
        load_sweep(near + "x")


@pytest.mark.parametrize(
    ("against", "said"),
    [
        ("ON", "against: 'ON' is no point of the grid; did you mean on?"),
        ("elsewhere", "against: 'elsewhere' is no point of the grid; it has on, off"),
    ],
)
def test_a_row_to_compare_with_that_is_not_there_is_told_with_those_that_are(
    tmp_path: Path, against: str, said: str
) -> None:
    text = GRID.replace("  train.learning_rate: [1e-6, 5e-6]\n", "")
    assert read(tmp_path, f"{text}against: on\n").against == "on"
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, f"{text}against: {against}\n")
    assert [line.strip() for line in caught.value.message.splitlines()[1:]] == [said]


def test_rows_of_two_axes_cannot_be_compared_with_a_point_of_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, f"{GRID}against: on\n")
    said = "against: needs one axis that is not averaged; the grid has train.learning_rate, prior"
    assert caught.value.message.splitlines()[1:] == [f"  {said}"]
