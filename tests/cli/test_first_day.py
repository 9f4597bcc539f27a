"""A first day at a real terminal of 80 columns: what the README says, then whatever the program itself says to type.

Every `Next:` and every hint is taken literally and typed. Steps and images are few, by the project's own settings, so
that nothing is added to a line.
"""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pyte
import pytest
import yaml

if sys.platform == "win32":
    pytest.skip("pseudo-terminals are a Unix thing", allow_module_level=True)

import dbcli
from tests.cli.terminals import CTRL_C, ENTER, Terminal
from tests.reliability.processes import ForkServer

PACKAGE = Path(dbcli.__file__).resolve().parent
# A machine with other work is slow; what is waited for has a patience of its own.
pytestmark = pytest.mark.timeout(900)
README = PACKAGE.parent / "README.md"
COLUMNS = 80
FEW = {
    "train": {"steps": 2, "checkpoint_every": 1},
    "prior": {"images": 2, "steps": 1},
    "draw": {"steps": 1, "count": 1},
    "probe": {"judge": "off"},
}


class Person:
    """Someone who types lines in a folder, and reads what comes."""

    def __init__(self, folder: Path, server: ForkServer) -> None:
        self.folder, self.server = folder, server
        self.screen = ""

    def types(self, line: str, *answers: str, code: int = 0) -> str:
        """Types a line, answers its questions, and returns all that was on the screen."""
        for part in line.split("; "):
            words = shlex.split(part)
            if words[0] == "cd":
                self.folder = (self.folder / words[1]).resolve()
                continue
            assert words[0] == "dreambooth", line
            with Terminal(words[1:], self.folder, server=self.server, columns=COLUMNS, rows=150) as terminal:
                for number, answer in enumerate(answers, start=1):
                    terminal.wait_for("]:", times=number)
                    terminal.type(answer + ENTER)
                ended = terminal.end()
                self.screen = replayed(terminal.raw)
                assert ended == code, f"{part}: {ended}\n{self.screen}"
        check_lines(line, self.screen)
        return self.screen

    def follows(self) -> str:
        """Types what `Next:` said, and returns it."""
        line = next_line(self.screen)
        self.types(line)
        return line

    def interrupts(self, line: str, when: str) -> None:
        """Types a line, and Ctrl-C once the screen shows a text."""
        with Terminal(shlex.split(line)[1:], self.folder, server=self.server, columns=COLUMNS, rows=150) as terminal:
            terminal.wait_for(when)
            terminal.type(CTRL_C)
            assert terminal.end() == 130, terminal.text
            self.screen = replayed(terminal.raw)


def replayed(raw: bytes) -> str:
    """What a program wrote, on a terminal so wide that it breaks nothing itself."""
    screen = pyte.Screen(400, 400)
    pyte.ByteStream(screen).feed(raw)
    return "\n".join(line.rstrip() for line in screen.display).rstrip()


def check_lines(line: str, screen: str) -> None:
    """No bar is longer than the terminal, which would break it anywhere, and none is of another program."""
    bars = [one for one in screen.splitlines() if "━" in one or "it/s" in one]
    assert [one for one in bars if len(one) > COLUMNS or "it/s]" in one] == [], line


def next_line(screen: str) -> str:
    """The command after `Next:`, on its line or, in the overview, below it."""
    found = re.search(r"^Next: (?:.*\n  )?(.*(?:dreambooth|cd) .*)$", screen, re.MULTILINE)
    assert found is not None, screen
    return found[1].strip()


def hint(screen: str) -> str:
    """The command that an error proposes, without what it says of it."""
    found = re.search(r"^  → (dreambooth .*?)(?: (?:gives|makes|starts|goes) .*|;.*)?$", screen, re.MULTILINE)
    assert found is not None, screen
    return found[1]


def words_of(screen: str) -> set[str]:
    """The words of a table, without the sentence below it that says which columns had no room."""
    return set(screen.split("No room for ")[0].split())


def readme_lines() -> list[str]:
    section = README.read_text(encoding="utf-8").split("## Your first image")[1]
    return section.split("```\n")[1].strip().splitlines()


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory, server: ForkServer) -> Person:
    """A person after the lines of the README, as they stand."""
    folder = tmp_path_factory.mktemp("first day")
    (folder / "dbcli").symlink_to(PACKAGE, target_is_directory=True)
    person = Person(folder, server)
    lines = readme_lines()
    assert len(lines) == 6
    for line in lines:
        person.types(line)
        if line.startswith("dreambooth init"):
            settings = folder / "first" / "dreambooth.yaml"
            settings.write_text(yaml.safe_dump({**yaml.safe_load(settings.read_text()), "overrides": FEW}))
    return person


def add(day: Person, name: str, noun: str, photos: str) -> str:
    """Adds a subject once, and returns the word that `Next:` proposes for it."""
    if not (day.folder / "subjects" / name).exists():
        day.types(f"dreambooth add-subject {name} --class {noun} ../dbcli/embedded/photos/{photos}")
        return next_line(day.screen).split()[-1]
    return ""


def test_the_overview_after_the_readme_takes_the_result_elsewhere(day: Person) -> None:
    day.types("dreambooth")
    assert day.follows().startswith("dreambooth export 1 --to ")


def test_a_second_subject_is_taught_by_the_word_that_is_proposed(day: Person) -> None:
    word = add(day, "dotty", "teapot", "dotty")
    assert word != "mwf"
    day.types("dreambooth")
    assert f"train --subject dotty --token {word}" in day.screen
    day.types(f"dreambooth train --subject dotty --token {word}")
    day.follows()


def test_two_subjects_without_identifiers_are_asked_for_each(day: Person) -> None:
    for name in ("wolf", "fox"):
        add(day, name, name, "patch")
    day.types("dreambooth train --subject wolf,fox", "", "")
    day.follows()


def test_a_lora_goes_to_other_programs_and_comes_back(day: Person) -> None:
    day.types("dreambooth train --subject patch --method lora --profile tiny-lora")
    day.types("dreambooth export patch --to kohya --out patch.safetensors")
    day.types("dreambooth import-lora patch.safetensors")
    day.follows()


def test_an_interrupted_run_goes_on_by_its_hint(day: Person) -> None:
    day.interrupts("dreambooth train --subject patch --steps 12", "it/s")
    resumed = hint(day.screen)
    assert resumed.startswith("dreambooth train --resume ")
    day.types("dreambooth")
    assert next_line(day.screen) == resumed
    day.types(resumed)


def test_slips_are_answered_with_what_can_be_typed(day: Person) -> None:
    for line, code in (("train patch --dry-run", 2), ("subjects set Patch --class dog", 3)):
        day.types(f"dreambooth {line}", code=code)
        day.types(hint(day.screen))
    day.types("dreambooth add-subject patch --class dog ../dbcli/embedded/photos/patch", code=6)
    day.types(hint(day.screen))


def test_a_benchmark_that_is_stopped_is_proposed_again_and_ends(day: Person) -> None:
    add(day, "dotty", "teapot", "dotty")
    day.interrupts("dreambooth bench --subject patch,dotty -n 1 --suite demo --judge tiny --name day", "it/s")
    day.types("dreambooth")
    assert next_line(day.screen).startswith("dreambooth bench ")
    day.follows()
    assert "2 finished" in day.types("dreambooth bench --subject patch,dotty -n 1 --suite demo --judge tiny --name day")


@pytest.mark.parametrize("line", ["", "subjects list", "tokens list", "runs list", "runs show 1", "reg list"])
def test_no_word_of_a_table_is_broken(day: Person, line: str) -> None:
    narrow = words_of(day.types(f"dreambooth {line}".strip()))
    with Terminal(line.split(), day.folder, server=day.server, columns=400, rows=150) as terminal:
        assert terminal.end() == 0
        wide = words_of(replayed(terminal.raw))
    assert {word for word in narrow - wide if not word.endswith("…")} == set()
