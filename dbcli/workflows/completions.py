"""What there is to choose from, for completion in a shell: names only, read without loading anything heavy."""

from collections.abc import Callable
from pathlib import Path

from dbcli.errors import DreamboothError
from dbcli.project.files.layout import Layout, find_project

# The bases with a short name; dbcli.diffusion.bases.base, which loads torch, knows their commits.
BASES = ("sd-v1-4", "sd-v1-5", "sdxl", "zimage", "tiny", "tiny-xl", "tiny-flow")
JUDGES = ("paper", "paper-l", "tiny")
ENGINES = ("local", "ray")
LOGS = ("tensorboard", "wandb")
METHODS = ("full", "lora", "textual-inversion")


def subject_names(folder: Path | None) -> list[str]:
    """The subjects of the project in `folder` or above it; none outside of a project."""
    return _folders(folder, lambda layout: layout.subjects_dir)


def run_names(folder: Path | None) -> list[str]:
    """The runs of the project, newest first: that is the one most often meant."""
    return [name for name in reversed(_folders(folder, lambda layout: layout.runs_dir)) if name[:4].isdecimal()]


def prior_set_names(folder: Path | None) -> list[str]:
    """The class images of the project, by set."""
    return _folders(folder, lambda layout: layout.class_images_dir)


def profile_names() -> list[str]:
    """The shipped profiles."""
    from dbcli.project.settings.profiles import shipped_profiles

    return ["auto", *shipped_profiles()]


def sweep_names() -> list[str]:
    """The shipped sweeps."""
    from dbcli.project.sweeps.sweep_files import shipped_sweeps

    return list(shipped_sweeps())


def setting_names() -> dict[str, str]:
    """Every key that --set takes, with its meaning."""
    from dbcli.project.settings.profiles import known_keys

    return dict(known_keys())


def suite_names() -> list[str]:
    """The shipped suites of prompts."""
    from dbcli.metrics.suites import shipped_suites

    return list(shipped_suites())


def sampler_names() -> list[str]:
    """The samplers an image can be generated with."""
    from dbcli.diffusion.schedulers.samplers import SAMPLERS

    return list(SAMPLERS)


def _folders(folder: Path | None, where: Callable[[Layout], Path]) -> list[str]:
    try:
        parent = where(find_project(folder or Path.cwd()))
        return sorted(one.name for one in parent.iterdir() if one.is_dir() and not one.name.startswith("."))
    except (DreamboothError, OSError):
        return []
