"""The benchmark: many subjects, each taught by the same recipe and scored by the same suite."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dbcli.counts import counted
from dbcli.errors import UsageError
from dbcli.project.files.layout import Layout
from dbcli.project.files.names import slug
from dbcli.project.settings.profiles import parse_set
from dbcli.project.settings.project_settings import load_settings
from dbcli.project.sweeps.sweep_files import parse_sweep
from dbcli.workflows.progress import Progress
from dbcli.workflows.setup.effective_settings import default_profile, whole_profile, with_whole_paths
from dbcli.workflows.subjects.sources import open_dataset
from dbcli.workflows.sweeps.plan import plan_sweep
from dbcli.workflows.sweeps.sweep_subjects import SweepSubjects
from dbcli.workflows.sweeps.units import SweepPlan


@dataclass(frozen=True)
class BenchRequest:
    """A benchmark as it was requested: of the named subjects, else of all of the dataset, else of all of the project.

    `sets` are "key=value" texts; with `dry` nothing is written. Without a suite: the dataset's own prompts, or `tiny`
    on the embedded base.
    """

    subjects: Sequence[str] = ()
    dataset: Path | None = None
    profile: str | None = None
    method: str | None = None
    steps: int | None = None
    sets: Sequence[str] = ()
    suites: Sequence[str] = ()
    count: int = 4
    seed: int | None = None
    judge: str | None = None
    name: str | None = None
    dry: bool = False


def plan_bench(layout: Layout, request: BenchRequest, progress: Progress) -> SweepPlan:
    """The benchmark settled for this project. Raises every usage, config and collision error there is."""
    data = None if request.dataset is None else open_dataset(request.dataset, progress)
    subjects = SweepSubjects(layout, data, progress, dry=request.dry)
    names = list(dict.fromkeys(request.subjects)) or subjects.names()
    if not names:
        raise UsageError("There is no subject to train.", hint="dreambooth add-subject; or add some with --dataset")
    project = load_settings(layout)
    settings = with_whole_paths(dict(parse_set(text) for text in request.sets), Path.cwd())
    settings |= {} if request.method is None else {"method": request.method}
    settings |= {} if request.steps is None else {"train.steps": request.steps}
    method = settings.get("method")
    kept = None if method or project.profile is None else whole_profile(project.profile, layout.root)
    recipe = request.profile or kept or default_profile(project.base, method)
    suites = list(request.suites) or ([] if project.is_embedded else list(subjects.suites))
    said = {
        "name": request.name or f"bench-{slug(Path(recipe).stem, 'recipe')}",
        "about": f"{counted(len(names), 'subject')}, one recipe.",
        "settings": settings,
        "grid": {"subject": names},
        "pictures": {"suite": suites, "count": request.count, "seed": request.seed},
        "judge": request.judge,
    }
    sweep = parse_sweep(said | ({"profile": request.profile} if request.profile else {}), "of this benchmark")
    return plan_sweep(layout, sweep, subjects, kind="bench")
