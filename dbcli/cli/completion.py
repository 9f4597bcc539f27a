"""What the Tab key offers in a shell: names from the project, and the choices that ship. Nothing heavy is loaded."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import typer


def subjects(context: typer.Context, incomplete: str) -> list[str]:
    """Subjects of the project."""
    from dbcli.workflows.completions import subject_names

    return _fitting(subject_names(_project(context)), incomplete)


def runs(context: typer.Context, incomplete: str) -> list[str]:
    """Runs of the project, the newest first."""
    from dbcli.workflows.completions import run_names

    return _fitting(run_names(_project(context)), incomplete)


def class_image_sets(context: typer.Context, incomplete: str) -> list[str]:
    """Prior sets of the project."""
    from dbcli.workflows.completions import prior_set_names

    return _fitting(prior_set_names(_project(context)), incomplete)


def profiles(incomplete: str) -> list[str]:
    """Shipped profiles."""
    from dbcli.workflows.completions import profile_names

    return _fitting(profile_names(), incomplete)


def bases(incomplete: str) -> list[str]:
    """Bases with a short name."""
    from dbcli.workflows.completions import BASES

    return _fitting(BASES, incomplete)


def methods(incomplete: str) -> list[str]:
    """Ways to train."""
    from dbcli.workflows.completions import METHODS

    return _fitting(METHODS, incomplete)


def judges(incomplete: str) -> list[str]:
    """Sets of judges."""
    from dbcli.workflows.completions import JUDGES

    return _fitting(JUDGES, incomplete)


def samplers(incomplete: str) -> list[str]:
    """Samplers."""
    from dbcli.workflows.completions import sampler_names

    return _fitting(sampler_names(), incomplete)


def suites(incomplete: str) -> list[str]:
    """Shipped suites."""
    from dbcli.workflows.completions import suite_names

    return _fitting(suite_names(), incomplete)


def sweeps(incomplete: str) -> list[str]:
    """Shipped sweeps."""
    from dbcli.workflows.completions import sweep_names

    return _fitting(sweep_names(), incomplete)


def engines(incomplete: str) -> list[str]:
    """Where the work of a sweep is done."""
    from dbcli.workflows.completions import ENGINES

    return _fitting(ENGINES, incomplete)


def settings(incomplete: str) -> list[tuple[str, str]]:
    """Keys of --set with their meaning, up to the equals sign."""
    from dbcli.workflows.completions import setting_names

    return [(f"{key}=", meaning) for key, meaning in setting_names().items() if key.startswith(incomplete)]


def logs(incomplete: str) -> list[str]:
    """Where the numbers of a run may go beside its own record."""
    from dbcli.workflows.training.metric_loggers import LOGS

    return _fitting(LOGS, incomplete)


def _project(context: typer.Context) -> Path | None:
    folder = context.find_root().params.get("project")
    return Path(folder) if folder else None


def _fitting(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
