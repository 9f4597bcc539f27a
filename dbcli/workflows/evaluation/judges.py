"""Who scores: the judges of an evaluation, loaded before anything is generated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dbcli.project.files.layout import Layout
from dbcli.project.runs.run_store import RunRecord
from dbcli.project.settings.profile_settings import Profile
from dbcli.workflows.evaluation.faces import with_faces
from dbcli.workflows.evaluation.request import ScoringOptions
from dbcli.workflows.progress import Progress
from dbcli.workflows.setup.effective_settings import default_judge, judge_sources

if TYPE_CHECKING:
    from dbcli.metrics.judges.judge import Judges


def project_judges(layout: Layout, name: str | None, profile: Profile, *, offline: bool) -> Judges:
    """The judges of this name, the project's usual ones for None, on the profile's device. Raises JudgeMissing."""
    from dbcli.diffusion.devices import pick_device
    from dbcli.metrics.judges.loading import load_judges

    device = str(pick_device(profile.train.device))
    return load_judges(name or default_judge(layout), sources=judge_sources(layout), offline=offline, device=device)


def judges_of(
    layout: Layout,
    records: Sequence[RunRecord],
    scoring: ScoringOptions,
    profile: Profile,
    progress: Progress,
    *,
    offline: bool,
) -> Judges:
    """The judges of these runs: the project's, and for people that of faces. Raises JudgeMissing."""
    nouns = list(dict.fromkeys(subject.class_noun for record in records for subject in record.subjects))
    judges = project_judges(layout, scoring.judge, profile, offline=offline)
    return with_faces(judges, layout, nouns, scoring.faces, progress)
