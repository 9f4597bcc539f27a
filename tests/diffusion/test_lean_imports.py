"""Imports that leave out what is not used: stand-ins become the real thing, and what they assume of libraries holds."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dbcli.diffusion import lean_imports
from dbcli.diffusion.lean_imports import DEFERRED
from dbcli.diffusion.lean_imports import lean_imports as leanly

PLANTED = "heavy_package_of_this_test"


@pytest.fixture
def heavy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package of which a class and a function in `inner` are deferred, and nothing else."""
    package = tmp_path / PLANTED
    package.mkdir()
    (package / "__init__.py").write_text("", encoding="utf-8")
    source = "class Layer:\n    size = 3\ndef doubled(n):\n    return 2 * n\nOTHER = 7\n"
    (package / "inner.py").write_text(source, encoding="utf-8")
    names = {PLANTED: frozenset[str](), f"{PLANTED}.inner": frozenset({"Layer", "doubled"})}
    monkeypatch.setattr(lean_imports, "DEFERRED", names)
    monkeypatch.setattr(lean_imports, "ROOTS", frozenset({PLANTED}))
    monkeypatch.syspath_prepend(tmp_path)
    yield PLANTED
    for name in [one for one in sys.modules if one.startswith(PLANTED)]:
        del sys.modules[name]


def taken(name: str, module: str = f"{PLANTED}.inner") -> Any:
    """What `from module import name` gives within lean imports."""
    with leanly():
        return getattr(import_module(module), name)


def is_imported(heavy: str) -> bool:
    return f"{heavy}.inner" in sys.modules


def test_a_deferred_name_imports_nothing_and_leaves_no_stand_in(heavy: str) -> None:
    taken("Layer")
    assert not [name for name in sys.modules if name.startswith(heavy)]


@pytest.mark.parametrize(
    ("name", "use", "value"),
    [
        ("doubled", lambda found: found(4), 8),
        ("Layer", lambda found: found.size, 3),
        ("Layer", lambda found: type("Own", (import_module("types").resolve_bases((found,))), {}).size, 3),
    ],
)
def test_it_is_the_real_thing_when_it_is_used(heavy: str, name: str, use: Callable[[Any], Any], value: int) -> None:
    assert use(taken(name)) == value
    assert is_imported(heavy)


def test_nothing_is_an_instance_of_a_class_before_it_is_imported(heavy: str) -> None:
    layer = taken("Layer")
    assert not isinstance(3, layer) and not is_imported(heavy)
    real = import_module(f"{heavy}.inner").Layer
    assert isinstance(real(), layer) and not isinstance(3, layer)
    assert issubclass(type("Narrow", (real,), {}), layer) and not issubclass(int, layer)


def test_a_name_that_is_not_in_the_list_imports_the_package_at_once(heavy: str) -> None:
    assert taken("OTHER") == 7
    assert type(sys.modules[heavy]) is ModuleType and type(sys.modules[f"{heavy}.inner"]) is ModuleType


def test_a_module_that_is_not_in_the_list_imports_the_package_at_once(heavy: str, tmp_path: Path) -> None:
    (tmp_path / heavy / "further.py").write_text("VALUE = 5\n", encoding="utf-8")
    with leanly():
        import_module(f"{heavy}.inner")
        assert import_module(f"{heavy}.further").VALUE == 5
        assert type(sys.modules[heavy]) is ModuleType


def test_an_imported_package_has_no_stand_ins(heavy: str) -> None:
    real = import_module(f"{heavy}.inner")
    assert taken("Layer") is real.Layer


def test_garbage_is_looked_for_as_before_afterwards() -> None:
    before = gc.get_threshold()
    with leanly():
        assert gc.get_threshold() > before
    assert gc.get_threshold() == before and gc.isenabled()


def in_a_process(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_every_deferred_name_is_in_its_library() -> None:
    """What an upgrade takes away or moves is named here; it is then imported in full, and the list needs a new line."""
    names = [(module, name) for module, names in DEFERRED.items() for name in sorted(names)]
    assert (
        in_a_process(
            f"from importlib import import_module\nfor module, name in {names!r}:\n"
            "    if not hasattr(import_module(module), name): print(module, name)"
        )
        == []
    )


def test_what_the_compiler_was_asked_for_before_it_was_imported_is_told_to_it() -> None:
    """diffusers' blocks are marked with allow_in_graph: after settling, the compiler knows them as it would have."""
    code = (
        "import sys\nfrom dbcli.diffusion.lean_imports import lean_imports, settle_compiler\n"
        "with lean_imports():\n"
        "    from torch._dynamo import allow_in_graph, disable\n"
        "    marked = allow_in_graph(len)\n"
        "    double = disable(lambda number: 2 * number)\n"
        "print(marked is len, double(4), 'torch._dynamo' in sys.modules)\n"
        "settle_compiler()\n"
        "from torch._dynamo import trace_rules\n"
        "print(trace_rules.is_callable_allowed(len), double(4))"
    )
    assert in_a_process(code) == ["True 8 False", "True 8"]
