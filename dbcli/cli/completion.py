"""What the Tab key offers in a shell: names from the project, and the choices that ship. Nothing heavy is loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from types import ModuleType

import typer

Offer = Callable[[str], list[str]]
OfferOfProject = Callable[[typer.Context, str], list[str]]


def _choices() -> ModuleType:
    # Imported when the Tab key is pressed, not whenever the program starts.
    return import_module("dbcli.workflows.completions")


def _offer(names: Callable[[ModuleType], Iterable[str]]) -> Offer:
    def offer(incomplete: str) -> list[str]:
        return [name for name in names(_choices()) if name.startswith(incomplete)]

    return offer


def _offer_of_project(names: Callable[[ModuleType, Path | None], Iterable[str]]) -> OfferOfProject:
    def offer(context: typer.Context, incomplete: str) -> list[str]:
        folder = context.find_root().params.get("project")
        found = names(_choices(), Path(folder) if folder else None)
        return [name for name in found if name.startswith(incomplete)]

    return offer


subjects = _offer_of_project(lambda known, project: known.subject_names(project))
runs = _offer_of_project(lambda known, project: known.run_names(project))
class_image_sets = _offer_of_project(lambda known, project: known.prior_set_names(project))
profiles = _offer(lambda known: known.profile_names())
bases = _offer(lambda known: known.BASES)
methods = _offer(lambda known: known.METHODS)
judges = _offer(lambda known: known.JUDGES)
samplers = _offer(lambda known: known.sampler_names())
suites = _offer(lambda known: known.suite_names())
sweeps = _offer(lambda known: known.sweep_names())
engines = _offer(lambda known: known.ENGINES)
logs = _offer(lambda known: known.log_names())


def settings(incomplete: str) -> list[tuple[str, str]]:
    """Keys of --set with their meaning, up to the equals sign."""
    found = _choices().setting_names().items()
    return [(f"{key}=", meaning) for key, meaning in found if key.startswith(incomplete)]
