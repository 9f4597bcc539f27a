"""What a person sees and types on a real terminal: guided init, interactive drawing, Ctrl-C; at 80 and 120 columns."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

if sys.platform == "win32":
    pytest.skip("pseudo-terminals are a Unix thing", allow_module_level=True)

from terminals import CTRL_C, CTRL_D, ENTER, TAB, UP, Terminal

Run = Callable[..., Any]
COLOUR_CODE = re.compile(rb"\x1b\[(?:3|4|9|10)\d(?:;[\d;]*)?m")


def test_init_asks_for_what_it_needs_and_proposes_a_profile(tmp_path: Path, base_folder: Path) -> None:
    with Terminal(["init"], tmp_path, columns=120) as terminal:
        terminal.wait_for("Which folder")
        terminal.type("mine" + ENTER)
        terminal.wait_for("Which base [sd-v1-4]")
        terminal.type(str(base_folder) + ENTER)
        terminal.wait_for("Train on a GPU of this machine")
        terminal.type("n" + ENTER)
        terminal.wait_for("Which profile [lora]")
        terminal.type(ENTER)
        assert terminal.end() == 0
        assert "Next: cd mine; dreambooth add-subject" in terminal.text
    assert "profile: lora" in (tmp_path / "mine" / "dreambooth.yaml").read_text()


def test_the_embedded_base_is_not_asked_about_a_gpu(tmp_path: Path) -> None:
    with Terminal(["init", "mine", "--base", "tiny"], tmp_path) as terminal:
        assert "GPU" not in terminal.wait_for("Which profile [tiny]")
        terminal.type(ENTER)
        assert terminal.end() == 0


def test_ctrl_c_at_a_question_ends_it_and_makes_nothing(tmp_path: Path) -> None:
    with Terminal(["init"], tmp_path) as terminal:
        terminal.wait_for("Which folder")
        terminal.type(CTRL_C)
        assert terminal.end() in (2, 130)
    assert list(tmp_path.iterdir()) == []


def test_interactive_drawing_from_completion_to_ctrl_d(trained_project: Path) -> None:
    with Terminal(["generate", "--interactive", "-n", "2"], trained_project) as terminal:
        terminal.wait_for("0001-dog ›")
        terminal.type("a {d" + TAB)
        terminal.wait_for("a {dog}")
        terminal.type(" in space" + ENTER)
        shown = terminal.wait_for("seed 1\n")
        assert "▀▀▀▀" in shown
        assert len(terminal.colours()) > 50
        assert len(list((trained_project / "runs" / "0001-dog" / "images").glob("*.png"))) == 2
        terminal.type(":seed 7" + ENTER)
        terminal.wait_for("seed 7 · steps 2 · n 2")
        terminal.type(UP + UP + ENTER)
        terminal.wait_for("seed 8\n")
        # Far more steps than could be done meanwhile: only Ctrl-C can end this drawing.
        terminal.type(":steps 1000" + ENTER + ":n 64" + ENTER + ":again" + ENTER)
        terminal.wait_for("Drawing 64 pictures")
        terminal.type(CTRL_C)
        terminal.wait_for("Stopped.")
        terminal.type(":steps 1" + ENTER + ":n 1" + ENTER + ":show off" + ENTER + ":bad" + ENTER)
        terminal.wait_for("There is no command :bad.")
        terminal.wait_for_prompt("0001-dog ›")
        terminal.type("half a line" + CTRL_C)
        terminal.type("a {dog} at the end" + ENTER)
        terminal.wait_for("-0000.png  seed 7", times=2)
        terminal.wait_for_prompt("0001-dog ›")
        terminal.type(CTRL_D)
        assert terminal.end() == 0
    assert "half a line" not in (trained_project / ".cache" / "prompts.history").read_text()
    assert "a {dog} in space" in (trained_project / ".cache" / "prompts.history").read_text()


@pytest.mark.parametrize(("columns", "colour"), [(80, True), (120, False)])
def test_training_shows_two_lines_that_fit(project: Path, columns: int, colour: bool) -> None:
    words = [
        "train",
        "--subject",
        "dog",
        "--token",
        "sks",
        "--steps",
        "3",
        "--set=prior.images=1",
        "--set=prior.steps=1",
    ]
    with Terminal(words, project, columns=columns, colour=colour) as terminal:
        assert terminal.end() == 0
        assert bool(COLOUR_CODE.search(terminal.raw)) is colour
        bar = next(number for number, line in enumerate(terminal.lines) if line.startswith("Training 0001-dog"))
        assert "3/3" in terminal.lines[bar]
        numbers = terminal.lines[bar + 1]
        assert re.match(r"  loss \d\.\d{4} prior \d\.\d{4} · [\d.]+ it/s · [\d.]+ GB  [▁▂▃▄▅▆▇█]{3}$", numbers), numbers
        assert any(line.startswith("Next: dreambooth generate") for line in terminal.lines)


@pytest.mark.parametrize("columns", [80, 120])
def test_words_are_never_broken_in_the_middle(project: Path, columns: int) -> None:
    with Terminal(["train", "--subject", "dog"], project, columns=columns) as terminal:
        terminal.wait_for("Which rare word stands for dog [sks]")
        terminal.type("dog" + ENTER)
        assert terminal.end() == 6
        assert all(len(line) <= columns for line in terminal.lines)
        assert "shares a token with the class noun 'dog'" in terminal.text.replace("\n", " ")
