"""The house: who may import whom. Imports inside functions and those for types alone count like all others."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
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
MOST_MODULES = 16
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


def files(package: Path = PACKAGE) -> list[Path]:
    return sorted(package.rglob("*.py"))


def module_of(path: Path, package: Path = PACKAGE) -> str:
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.AST) -> Iterator[tuple[str, tuple[str, ...], bool]]:
    """Every imported module's dotted name, the names taken from it, and whether it is only for types."""
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, (), id(node) in typing_only) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, tuple(alias.name for alias in node.names), id(node) in typing_only


def import_graph(package: Path) -> dict[str, set[str]]:
    """Each module of a package with the modules of it that it imports, whenever and for whatever."""
    trees = {module_of(path, package): ast.parse(path.read_text(encoding="utf-8")) for path in files(package)}
    graph: dict[str, set[str]] = {module: set() for module in trees}
    for module, tree in trees.items():
        for source, names, _ in imports(tree):
            found = {f"{source}.{name}" for name in names if f"{source}.{name}" in trees}
            graph[module] |= found or ({source} & trees.keys())
    return graph


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """One circle of a graph, closed; nothing where there is none."""
    try:
        TopologicalSorter({node: others - {node} for node, others in graph.items()}).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def room_graph(graph: Mapping[str, set[str]], package: Path) -> dict[str, set[str]]:
    """The same for sub-rooms; a file that lies loose in a room is a sub-room of its own."""

    def room(module: str) -> str:
        return ".".join(module.split(".")[:3])

    packages = {module_of(path, package) for path in files(package) if path.name == "__init__.py"}
    between: dict[str, set[str]] = {}
    for module, others in graph.items():
        if module not in packages:
            between.setdefault(room(module), set()).update(room(one) for one in others if one not in packages)
    return between


def wrong_arrows(path: Path, package: Path) -> list[str]:
    """The imports of a file that its room may not have."""
    parts = path.relative_to(package).parts
    room = parts[0] if parts[0] in ROOMS else None
    faults = []
    for module, _, typing_only in imports(ast.parse(path.read_text(encoding="utf-8"))):
        names = module.split(".")
        if names[0] == package.name and len(names) > 1 and names[1] in ROOMS and room is not None:
            # The command line annotates with records that it never makes.
            if names[1] not in {room} | ALLOWED[room] and not (typing_only and room == "cli"):
                faults.append(module)
        elif names[0] in ONLY_IN and room not in ONLY_IN[names[0]] and not typing_only:
            faults.append(module)
    return faults


def crowded(package: Path) -> dict[str, int]:
    """Folders with more modules than a reader keeps in mind."""
    counts: dict[str, int] = {}
    for path in files(package):
        if path.name != "__init__.py":
            folder = module_of(path.parent / "__init__.py", package)
            counts[folder] = counts.get(folder, 0) + 1
    return {folder: count for folder, count in counts.items() if count > MOST_MODULES}


def early_workflows(path: Path, package: Path) -> list[str]:
    """The workflows that a file of the command line loads as it is imported, whatever was typed."""
    if not path.is_relative_to(package / "cli"):
        return []
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for function in [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]:
        function.body = []
    return [module for module, _, typing_only in imports(tree) if ".workflows" in module and not typing_only]


def asks_for_a_family(path: Path, package: Path) -> list[int]:
    """The lines of a file that compare a family with one of them, or its name with a word: `base.family is SD`."""
    if path.is_relative_to(package / "diffusion" / "families"):
        return []
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        sides = [node.left, *node.comparators] if isinstance(node, ast.Compare) else []
        if isinstance(node, ast.Match):
            sides = [node.subject]
        if any(re.search(r"(^|[._])family(\.(name|title|pipeline))?$", ast.unparse(side)) for side in sides):
            found.append(node.lineno)
    return found


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_only_what_its_room_may(path: Path) -> None:
    assert wrong_arrows(path, PACKAGE) == []


def test_the_command_line_loads_workflows_only_where_it_calls_them() -> None:
    found = {str(path.relative_to(PACKAGE)): early_workflows(path, PACKAGE) for path in files()}
    assert {path: modules for path, modules in found.items() if modules} == {}


def test_no_one_outside_of_the_families_asks_which_one_it_is() -> None:
    asked = {str(path.relative_to(PACKAGE)): asks_for_a_family(path, PACKAGE) for path in files()}
    assert {path: lines for path, lines in asked.items() if lines} == {}


def test_no_files_import_each_other_in_a_circle() -> None:
    assert circle(import_graph(PACKAGE)) == []


def test_no_rooms_import_each_other_in_a_circle() -> None:
    assert circle(room_graph(import_graph(PACKAGE), PACKAGE)) == []


def test_no_folder_is_crowded() -> None:
    assert crowded(PACKAGE) == {}


def test_every_room_says_what_it_owns() -> None:
    silent = [
        str(path.relative_to(PACKAGE))
        for path in files()
        if path.name == "__init__.py" and not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert silent == []


def planted(folder: Path, modules: Mapping[str, str]) -> Path:
    """A small package of the same name, to see each check fail."""
    package = folder / "dbcli"
    for name, text in modules.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        for parent in (path.parent, *path.parent.parents):
            if parent.is_relative_to(package):
                (parent / "__init__.py").touch()
        path.write_text(text, encoding="utf-8")
    return package


@pytest.mark.parametrize(
    "text",
    [
        "from dbcli.workflows import a",
        "import dbcli.workflows.a",
        "def later():\n    from dbcli.workflows.a import one",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from dbcli.workflows.a import One",
    ],
)
def test_a_circle_of_files_is_found(tmp_path: Path, text: str) -> None:
    package = planted(tmp_path, {"workflows/a.py": "from dbcli.workflows.b import two", "workflows/b.py": text})
    assert set(circle(import_graph(package))) == {"dbcli.workflows.a", "dbcli.workflows.b"}


def test_a_circle_of_rooms_is_found_where_no_files_stand_in_one(tmp_path: Path) -> None:
    package = planted(
        tmp_path,
        {
            "workflows/training/run.py": "from dbcli.workflows.memory.ladder import down",
            "workflows/training/plan.py": "",
            "workflows/memory/ladder.py": "",
            "workflows/memory/estimate.py": "from dbcli.workflows.training import plan",
        },
    )
    graph = import_graph(package)
    assert circle(graph) == []
    assert set(circle(room_graph(graph, package))) == {"dbcli.workflows.training", "dbcli.workflows.memory"}


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("project/layout.py", "from dbcli.workflows.train import train", "dbcli.workflows.train"),
        ("diffusion/trainer.py", "def step():\n    import dbcli.project.runs", "dbcli.project.runs"),
        ("workflows/run.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import dbcli.cli", "dbcli.cli"),
        ("workflows/train.py", "from rich.table import Table", "rich.table"),
        ("project/runs.py", "import torch", "torch"),
    ],
)
def test_an_arrow_up_is_found(tmp_path: Path, name: str, text: str, fault: str) -> None:
    package = planted(tmp_path, {name: text})
    assert wrong_arrows(package / name, package) == [fault]


def test_a_workflow_that_is_loaded_early_is_found(tmp_path: Path) -> None:
    lazy = "def show():\n    from dbcli.workflows.a import one\n"
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from dbcli.workflows.a import One\n"
    package = planted(tmp_path, {"cli/show.py": lazy + typed, "cli/early.py": "from dbcli.workflows.a import one"})
    assert early_workflows(package / "cli/show.py", package) == []
    assert early_workflows(package / "cli/early.py", package) == ["dbcli.workflows.a"]


@pytest.mark.parametrize(
    "text",
    [
        "if base.family is SD:\n    pass",
        "x = 1 if base.family.name == 'sd' else 2",
        "while family in (SD, OTHER):\n    pass",
        "match model.family.name:\n    case 'sd':\n        pass",
        "found = [1 for one in rows if 'XL' in self.family.pipeline]",
    ],
)
def test_a_question_for_the_family_is_found(tmp_path: Path, text: str) -> None:
    names = ("diffusion/training/trainer.py", "diffusion/families/sd.py")
    package = planted(tmp_path, dict.fromkeys(names, text))
    assert [asks_for_a_family(package / name, package) for name in names] == [[1], []]


def test_a_crowded_folder_is_found(tmp_path: Path) -> None:
    package = planted(tmp_path, {f"metrics/m{number}.py": "" for number in range(MOST_MODULES + 1)})
    assert crowded(package) == {"dbcli.metrics": MOST_MODULES + 1}


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
