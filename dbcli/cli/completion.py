"""What the Tab key offers in a shell: names from the project, and the choices that ship. Nothing heavy is loaded."""

import os
import shlex
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from types import ModuleType

import typer

from dbcli.cli.arguments import project_of

Offer = Callable[[typer.Context, str], list[str]]


def _choices() -> ModuleType:
    # Imported when the Tab key is pressed, not whenever the program starts.
    return import_module("dbcli.workflows.completions")


def _offer(names: Callable[[ModuleType, Path | None], Iterable[str]]) -> Offer:
    def offer(context: typer.Context, incomplete: str) -> list[str]:
        project = context.find_root().params.get("project") or project_of(_typed())
        return [name for name in names(_choices(), project and Path(project)) if name.startswith(incomplete)]

    return offer


def _typed() -> list[str]:
    """The words on the line so far, as the shell hands them over; -C may stand behind the command's name."""
    line = os.environ.get("_TYPER_COMPLETE_ARGS") or os.environ.get("COMP_WORDS") or ""
    try:
        return shlex.split(line)
    except ValueError:  # within a quote
        return line.split()


subjects = _offer(lambda known, project: known.subject_names(project))
runs = _offer(lambda known, project: known.run_names(project))
class_image_sets = _offer(lambda known, project: known.prior_set_names(project))
profiles = _offer(lambda known, project: known.profile_names())
bases = _offer(lambda known, project: known.BASES)
methods = _offer(lambda known, project: known.METHODS)
judges = _offer(lambda known, project: known.JUDGES)
samplers = _offer(lambda known, project: known.sampler_names())
suites = _offer(lambda known, project: known.suite_names())
sweeps = _offer(lambda known, project: known.sweep_names())
engines = _offer(lambda known, project: known.ENGINES)
logs = _offer(lambda known, project: known.LOGS)


def settings(incomplete: str) -> list[tuple[str, str]]:
    """Keys of --set with their meaning, up to the equals sign."""
    found = _choices().setting_names().items()
    return [(f"{key}=", meaning) for key, meaning in found if key.startswith(incomplete)]
