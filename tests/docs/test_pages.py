"""The docs against the program: everything is documented, and everything documented exists."""

from __future__ import annotations

import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from dbcli.cli.app import app
from dbcli.cli.arguments import arranged
from dbcli.project.settings.profiles import known_keys, parse_set, shipped_profiles

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
# Typer acts on these while it parses; that they exist is tested, they are not parsed.
AT_ONCE = {"--install-completion", "--show-completion"}
# Options of other programs that the docs mention, and the page about making the embedded base, another program.
FOREIGN = {"--logdir", "--editable", "--check"}
NOT_OURS = {"embedded-base.md"}


def shell_blocks(page: Path) -> Iterator[str]:
    for language, block in FENCED.findall(page.read_text(encoding="utf-8")):
        if language in ("", "sh", "bash", "console"):
            yield block


def shown_commands(page: Path) -> Iterator[str]:
    """Every `dreambooth …` of a page, from its shell blocks and from its running text."""
    for block in shell_blocks(page):
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.split(r"\||&&|;", line):
                if re.match(r"dreambooth(?= |$)", part.strip()):
                    yield part.strip()
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    for code in INLINE.findall(text):
        if code.startswith("dreambooth ") and "..." not in code and "|" not in code:
            yield code


def all_shown() -> list[tuple[str, str]]:
    return sorted({(page.name, command) for page in PAGES for command in shown_commands(page)})


def commands(command: Any = None, words: str = "dreambooth") -> Iterator[tuple[str, Any]]:
    command = typer.main.get_command(app) if command is None else command
    yield words, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, f"{words} {name}")


def options_of(command: Any) -> set[str]:
    return {option for one in command.params for option in (*one.opts, *one.secondary_opts) if option.startswith("-")}


def parse(words: list[str]) -> None:
    """Parses a command line as the program would, without doing what it says."""
    command: Any = typer.main.get_command(app)
    rest, parent = arranged(words), None
    while True:
        context = command.make_context("dreambooth", list(rest), parent=parent)
        if not hasattr(command, "commands"):
            return
        rest = [*context._protected_args, *context.args]
        if not rest:
            return
        _, command, rest = command.resolve_command(context, rest)
        parent = context


@pytest.mark.parametrize("script", ["generate_commands.py", "generate_profiles.py"])
def test_pages_written_from_the_program_are_up_to_date(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERMINAL_WIDTH", "100")
    made = runpy.run_path(str(ROOT / "docs" / script))
    assert made["PAGE"].read_text(encoding="utf-8") == made["text"](), "make docs"


@pytest.mark.parametrize(("words", "command"), list(commands()), ids=lambda one: one if isinstance(one, str) else "")
def test_every_command_and_option_is_in_the_reference(words: str, command: Any) -> None:
    text = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    section = text.split(f"## {words}\n", 1)[1].split("\n## ", 1)[0]
    assert {option for option in options_of(command) if option not in section} == set()


def test_every_command_has_its_place_in_a_page_that_a_person_reads() -> None:
    text = "\n".join((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("tutorial.md", "how-to.md"))
    leaves = [words for words, command in commands() if not hasattr(command, "commands")]
    assert [words for words in leaves if words not in text and words != "dreambooth demo"] == []


@pytest.mark.parametrize("key", known_keys())
def test_every_setting_is_documented(key: str) -> None:
    assert f"| `{key}` |" in (ROOT / "docs" / "profiles.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", shipped_profiles())
def test_every_profile_is_documented_and_every_value_in_it_has_a_reason(name: str) -> None:
    assert f"### {name}\n" in (ROOT / "docs" / "profiles.md").read_text(encoding="utf-8")
    for line in (ROOT / "profiles" / f"{name}.yaml").read_text(encoding="utf-8").splitlines():
        if re.match(r"\s*\w+:\s*\S", line):
            assert "#" in line, f"{name}.yaml: no reason beside {line.strip()!r}"


@pytest.mark.parametrize(("page", "line"), all_shown())
def test_every_command_a_page_shows_parses(page: str, line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    if not AT_ONCE & set(words):
        try:
            parse(words)
        except typer.Exit:
            pass
        except Exception as error:
            pytest.fail(f"{page}: {line}: {error or type(error).__name__}")
    for place, word in enumerate(words):
        if word == "--set":
            parse_set(words[place + 1])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_option_and_setting_a_page_names_exists(page: Path) -> None:
    known = set().union(*(options_of(command) for _, command in commands())) | {"--help"}
    sections = {key.split(".")[0] for key in known_keys() if "." in key}
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    unknown = []
    for code in INLINE.findall(text):
        if code.startswith(("--", "dreambooth ")) and page.name not in NOT_OURS:
            unknown += [word for word in re.findall(r"(?<![\w-])--[a-z][a-z-]+", code) if word not in known | FOREIGN]
        key = re.fullmatch(r"(\w+)\.\w+", code)
        if key and key[1] in sections and code not in known_keys() and not code.endswith((".py", ".png", ".yaml")):
            unknown.append(code)
    assert unknown == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_within_the_docs_leads_somewhere(page: Path) -> None:
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", FENCED.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file) if file else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    assert dead == []


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(("words", "command"), list(commands()), ids=lambda one: one if isinstance(one, str) else "")
def test_help_shows_no_types_of_python_and_cuts_no_summary(words: str, command: Any) -> None:
    context = command.make_context("dreambooth", [], resilient_parsing=True, terminal_width=80)
    lines = context.get_help().splitlines()
    assert [line for line in lines if "list[" in line] == []
    assert [line for line in lines[1:] if line.endswith("...")] == []
