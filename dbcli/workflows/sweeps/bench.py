"""The benchmark: many subjects, each taught by the same recipe and scored by the same suite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dbcli.errors import UsageError
from dbcli.project.files.layout import Layout
from dbcli.project.files.names import slug
from dbcli.project.settings.project_settings import load_settings
from dbcli.project.sweeps.sweep_files import parse_sweep
from dbcli.workflows.progress import Progress
from dbcli.workflows.setup.effective_settings import default_profile
from dbcli.workflows.subjects.datasets import open_dataset
from dbcli.workflows.sweeps.plan import SweepPlan, plan_sweep
from dbcli.workflows.sweeps.sweep_subjects import SweepSubjects


def plan_bench(
    layout: Layout,
    *,
    name: str | None = None,
    subjects: Sequence[str] = (),
    dataset: Path | None = None,
    profile: str | None = None,
    settings: Mapping[str, Any],
    suites: Sequence[str] = (),
    prompts: Sequence[str] = (),
    count: int = 4,
    seed: int | None = None,
    judge: str | None = None,
    dry: bool,
    progress: Progress,
) -> SweepPlan:
    """A benchmark of the named subjects, else of all of the dataset, else of all of the project.

    `settings` are dotted keys, those whose value is None left out. Without a suite: the dataset's own prompts, or
    `tiny` on the embedded base. Raises every usage, config and collision error there is.
    """
    data = open_dataset(dataset, progress) if dataset is not None else None
    found = SweepSubjects(layout, data, progress, dry=dry)
    names = list(subjects) or found.names()
    if not names:
        raise UsageError("There is no subject to train.", hint="dreambooth add-subject; or bring some with --dataset")
    project = load_settings(layout)
    own = {data.suite.name: data.suite} if data is not None else {}
    wanted = list(suites) or (list(own) if own and not prompts and not project.is_embedded else [])
    given = {key: value for key, value in settings.items() if value is not None}
    method = given.get("method")
    recipe = profile or (None if method else project.profile) or default_profile(project.base, method)
    said = {
        "name": name or f"bench-{slug(Path(recipe).stem, 'recipe')}",
        "about": f"{len(names)} subjects, one recipe.",
        "settings": given,
        "grid": {"subject": list(dict.fromkeys(names))},
        "pictures": {"suite": wanted, "prompts": list(prompts), "count": count, "seed": seed},
        "judge": judge,
    }
    sweep = parse_sweep(said | ({"profile": profile} if profile else {}), "of this benchmark")
    return plan_sweep(layout, sweep, found, kind="bench", own_suites=own)
