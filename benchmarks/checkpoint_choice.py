"""Is the checkpoint that probes pick better than the last one? Trains subjects with probes, scores every checkpoint.

    python benchmarks/checkpoint_choice.py --dataset path/to/dreambooth/dataset --work /tmp/choice --json choice.json

Each subject is trained once on the embedded base. Then every probed checkpoint is scored by a whole suite, with seeds
that no probe saw, and ranked among its run's checkpoints by fidelity (DINO) and by editability (CLIP-T). A subject that
is finished is not done again: the same command goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dbcli.metrics.dataset import DatasetSubject, read_dataset

# The pictures of one checkpoint: few steps of a sampler that needs few, so that five subjects take under half an hour.
DRAW = ("draw.sampler=dpm++", "draw.steps=12", "prior.images=16")


@dataclass(frozen=True)
class Job:
    """What is trained and how it is scored, the same for every subject."""

    base: str
    steps: int
    every: int | None
    suite: str
    count: int
    sets: tuple[str, ...] = DRAW


@dataclass(frozen=True)
class Point:
    """One checkpoint: what probes said of it, and what the whole suite says."""

    step: int
    probe_fidelity: float
    probe_editability: float
    copying: bool
    fidelity: float
    editability: float


@dataclass(frozen=True)
class Row:
    """One subject: its checkpoints, the one picked, and the mean ranks (1 is worst) of picked, last and best."""

    subject: str
    class_noun: str
    points: list[Point]
    picked: int
    last: int
    rank_picked: float
    rank_last: float
    rank_best: float
    probe_share: float | None
    seconds: float


def subjects_of(dataset: Path | None, names: Sequence[str], count: int) -> list[DatasetSubject]:
    """The named subjects, or the first `count` of different classes; the bundled ones without a dataset."""
    if dataset is None:
        from dbcli.workflows.demo import bundled_subjects

        found = [DatasetSubject(one["name"], one["class"], tuple(one["files"])) for one in bundled_subjects()]
    else:
        found = list(read_dataset(dataset).subjects)
    if names:
        return [one for one in found if one.name in names]
    return list({one.class_noun: one for one in reversed(found)}.values())[::-1][:count]


def mean_ranks(points: Sequence[Point]) -> dict[int, float]:
    """Each step's mean of its rank by fidelity and its rank by editability; 1 is the worst, equals share a rank."""
    by_fidelity = _ranks([point.fidelity for point in points])
    by_editability = _ranks([point.editability for point in points])
    return {
        point.step: (one + other) / 2 for point, one, other in zip(points, by_fidelity, by_editability, strict=True)
    }


def _ranks(values: Sequence[float]) -> list[float]:
    return [
        1 + sum(other < value for other in values) + (sum(other == value for other in values) - 1) / 2
        for value in values
    ]


def measured(subject: DatasetSubject, job: Job, folder: Path) -> Row:
    """Trains one subject with probes in a project of its own, and scores each of its checkpoints."""
    from dbcli.project.files.layout import Layout
    from dbcli.project.runs.probe_files import load_probes
    from dbcli.workflows.evaluation.evaluate import evaluate
    from dbcli.workflows.evaluation.request import EvaluateRequest, ScoringOptions
    from dbcli.workflows.progress import Silence
    from dbcli.workflows.setup.open import init_project
    from dbcli.workflows.subjects.manage import add_subject
    from dbcli.workflows.training.plan import plan_training
    from dbcli.workflows.training.request import TrainRequest
    from dbcli.workflows.training.run import train_run

    began, quiet = time.perf_counter(), Silence()
    init_project(folder, job.base, None, offline=True)
    layout = Layout(folder.resolve())
    add_subject(layout, subject.name, subject.class_noun, list(subject.photos), "sks")
    # The embedded base's profiles keep the last checkpoint; here the choice itself is what is looked at.
    sets = [*job.sets, f"train.steps={job.steps}", "probe.judge=tiny", "probe.keep=best", "train.keep_checkpoints=999"]
    every = job.every or _planned_interval(plan_training(layout, TrainRequest([subject.name], sets=sets)).profile)
    sets += [f"train.checkpoint_every={every}"] + ([f"probe.every={job.every}"] if job.every else [])
    record = train_run(layout, plan_training(layout, TrainRequest([subject.name], sets=sets)), quiet, offline=True)
    probes = load_probes(layout, record.name)
    assert probes is not None, "the run has no room for probes: more --steps, or --every"
    points = []
    scoring = ScoringOptions([job.suite], judge="tiny", count=job.count)
    for probe in probes.probes:
        scores = evaluate(
            layout,
            EvaluateRequest(record.name, scoring, checkpoint=probe.step),
            quiet,
            offline=True,
        )[0].scores["overall"]
        dino, clip_t = scores["dino"]["value"], scores["clip_t"]["value"]
        points.append(Point(probe.step, probe.fidelity, probe.editability, probe.copying, dino, clip_t))
    ranks, last = mean_ranks(points), record.step
    picked = probes.chosen or last
    share = record.probing.get("share")
    return Row(
        subject.name, subject.class_noun, points, picked, last, ranks[picked], ranks[last], max(ranks.values()), share,
        round(time.perf_counter() - began, 1),
    )  # fmt: skip


def _planned_interval(profile: Any) -> int:
    from dbcli.workflows.probes.schedule import plan_probes

    steps = plan_probes(profile, subjects=1, classes=1).steps
    if not steps:
        raise SystemExit(f"A run of {profile.train.steps} steps has no room for probes: --every settles the interval.")
    return steps[0]


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """Means over subjects, and the difference of picked and last with its 95 % interval."""
    from dbcli.metrics.statistics import Cell, bootstrap_interval

    differences = [row.rank_picked - row.rank_last for row in rows]
    found = bootstrap_interval([Cell(row.subject, "rank", one) for row, one in zip(rows, differences, strict=True)])
    return {
        "subjects": len(rows),
        "mean_rank_picked": sum(row.rank_picked for row in rows) / len(rows),
        "mean_rank_last": sum(row.rank_last for row in rows) / len(rows),
        "mean_rank_best": sum(row.rank_best for row in rows) / len(rows),
        "difference": found.value,
        "low": found.low,
        "high": found.high,
        "better": sum(one > 0 for one in differences),
        "equal": sum(one == 0 for one in differences),
        "worse": sum(one < 0 for one in differences),
        "held": found.value > 0,
    }


def markdown(rows: Sequence[Row], total: dict[str, Any], job: Job) -> str:
    """The table and what it says."""
    lines = [
        "| subject | checkpoints | picked | rank of picked | rank of last | best possible | probing |",
        "|:--|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        share = "–" if row.probe_share is None else f"{row.probe_share:.0%}"
        lines.append(
            f"| {row.subject} ({row.class_noun}) | {len(row.points)} | step {row.picked} of {row.last} | "
            f"{row.rank_picked:.2f} | {row.rank_last:.2f} | {row.rank_best:.2f} | {share} |"
        )
    interval = "" if total["low"] is None else f" ({total['low']:+.2f} to {total['high']:+.2f})"
    lines += [
        f"| **mean** | | | **{total['mean_rank_picked']:.2f}** | **{total['mean_rank_last']:.2f}** | "
        f"{total['mean_rank_best']:.2f} | |",
        "",
        f"Ranks among a run's checkpoints, 1 is the worst, mean of the ranks by DINO and by CLIP-T over the suite "
        f"`{job.suite}`, {job.count} pictures a prompt, seeds that no probe saw. The picked checkpoint less the last: "
        f"{total['difference']:+.2f}{interval} over {total['subjects']} subjects; better for {total['better']}, "
        f"equal for {total['equal']}, worse for {total['worse']}.",
    ]
    return "\n".join(lines) + "\n"


def run(subjects: Sequence[DatasetSubject], job: Job, work: Path) -> list[Row]:
    """Every subject's row, those that are finished read from the work folder."""
    import shutil

    rows = []
    for subject in subjects:
        file, folder = work / f"{subject.name}.json", work / subject.name
        if not file.exists():
            shutil.rmtree(folder, ignore_errors=True)
            row = measured(subject, job, folder)
            file.write_text(json.dumps({"job": asdict(job), **asdict(row)}, indent=1) + "\n", encoding="utf-8")
            print(f"{subject.name}: step {row.picked} of {row.last}, {row.seconds:.0f} s", file=sys.stderr, flush=True)
        table = json.loads(file.read_text(encoding="utf-8"))
        if table.pop("job") != json.loads(json.dumps(asdict(job))):
            raise SystemExit(f"{file} was measured with other settings: another --work, or delete it.")
        rows.append(Row(**{**table, "points": [Point(**point) for point in table["points"]]}))
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--dataset", type=Path, help="a copy of google/dreambooth's dataset; else the bundled photos")
    parser.add_argument("--names", nargs="*", default=[], help="subjects; else the first of different classes")
    parser.add_argument("--count-subjects", type=int, default=5)
    parser.add_argument("--base", default="tiny")
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--every", type=int, help="steps between probes; else what a run would plan by itself")
    parser.add_argument("--suite", default="tiny")
    parser.add_argument("--count", type=int, default=2, help="pictures a prompt")
    parser.add_argument("--set", action="append", default=[], dest="sets", help="further settings, key=value")
    parser.add_argument("--work", type=Path, required=True, help="a folder of its own: projects and finished rows")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    job = Job(options.base, options.steps, options.every, options.suite, options.count, (*DRAW, *options.sets))
    options.work.mkdir(parents=True, exist_ok=True)
    subjects = subjects_of(options.dataset, options.names, options.count_subjects)
    if not subjects:
        raise SystemExit("No subject of these names.")
    rows = run(subjects, job, options.work)
    total = summary(rows)
    print(markdown(rows, total, job), end="")
    if options.json:
        table = {"job": asdict(job), "summary": total, "rows": [asdict(row) for row in rows]}
        options.json.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
