"""The house: who may import whom. Every import of every file is read, nested ones included."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "dbcli"
ROOMS = ("cli", "workflows", "project", "diffusion", "metrics", "reports")
# room -> the rooms it may import beside itself; errors and the version are everybody's.
ALLOWED = {
    "cli": {"workflows"},
    "workflows": {"project", "diffusion", "metrics", "reports"},
    "project": set(),
    "diffusion": set(),
    "metrics": set(),
    "reports": {"project"},
}
HEAVY = (
    "torch",
    "numpy",
    "diffusers",
    "transformers",
    "peft",
    "open_clip",
    "timm",
    "PIL",
    "matplotlib",
    "pydantic",
    "prompt_toolkit",
)
# What only a certain room may import, anywhere in its files.
ONLY_IN = {
    "rich": {"cli"},
    "typer": {"cli"},
    "prompt_toolkit": {"cli"},
    "torch": {"diffusion", "metrics", "workflows"},
    "numpy": {"diffusion", "metrics", "reports"},
    "diffusers": {"diffusion"},
    "transformers": {"diffusion", "metrics"},
    "peft": {"diffusion"},
    "accelerate": {"diffusion"},
    "open_clip": {"metrics"},
    "timm": {"metrics"},
    "matplotlib": {"reports"},
    "jinja2": {"reports"},
    "click": set(),
}


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str | None:
    first = path.relative_to(PACKAGE).parts[0]
    return first if first in ROOMS else None


def imports(tree: ast.AST) -> Iterator[tuple[str, bool]]:
    """Every imported module's dotted name, and whether it is only for types."""
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in typing_only) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, id(node) in typing_only


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_only_what_its_room_may(path: Path) -> None:
    room = room_of(path)
    faults = []
    for module, typing_only in imports(ast.parse(path.read_text(encoding="utf-8"))):
        parts = module.split(".")
        if parts[0] == "dbcli" and len(parts) > 1 and parts[1] in ROOMS and room is not None:
            allowed = {room} | ALLOWED[room]
            # Names for annotations couple nothing at run time; the command line prints records it never makes.
            if parts[1] not in allowed and not (typing_only and room == "cli"):
                faults.append(module)
        elif parts[0] in ONLY_IN and room not in ONLY_IN[parts[0]] and not typing_only:
            faults.append(module)
    assert faults == []


def test_importing_the_program_loads_nothing_heavy() -> None:
    code = f"import sys; import dbcli.cli.app; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_load_nothing_heavy(option: str) -> None:
    code = (
        "import sys, atexit\n"
        f"atexit.register(lambda: print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr))\n"
        f"from dbcli.cli.app import main; main([{option!r}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "dreambooth" in done.stdout


def test_no_file_has_a_name_without_a_subject() -> None:
    assert [path for path in files() if path.stem in {"utils", "helpers", "common", "misc"}] == []
