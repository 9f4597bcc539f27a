"""What scoring left beside a run, read back without anything heavy."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dbcli.project.files.layout import Layout
from dbcli.project.files.names import printable
from dbcli.project.files.records import json_or_nothing

# Many times what the largest suite with hundreds of subjects writes.
MAX_SCORES_BYTES = 256_000_000
INTERFERENCE_SUITE, INTERFERENCE_FILE = "interference", "interference.json"
# The part of a judge that stands beside the others, where it is installed.
FACES = "face"
_NO_DIFFERENCE = frozenset({"source", "revision", "library"})


@dataclass(frozen=True)
class RunScores:
    """One suite's scores of a run: the folder's name, each metric's mean, and which judges gave them.

    `judged_by` is a hash of what decides what the judges say: scores of another one do not compare, whatever the names.
    `is_whole` is what `is_of_result` says of them.
    """

    suite: str
    values: Mapping[str, float]
    judges: str
    judged_by: str
    is_whole: bool
    written: float
    verdicts: Sequence[Mapping[str, str]] = ()

    @property
    def protocol(self) -> tuple[str, str]:
        """What scores must share to be set beside each other: the suite and the judges."""
        return self.suite, self.judged_by


def run_scores(layout: Layout, runs: Sequence[str]) -> list[list[RunScores]]:
    """What is known of each run, a suite each: from its own scoring, else from the newest comparison it was in.

    Files that are not there or cannot be read are passed over.
    """
    compared = _compared(layout)
    found = []
    for run in runs:
        own = {one.suite: one for one in _own(layout, run)}
        found.append([*own.values(), *(one for suite, one in compared.get(run, {}).items() if suite not in own)])
    return found


def _own(layout: Layout, run: str) -> list[RunScores]:
    folder = layout.evals_dir(run)
    files = sorted(folder.glob("*/scores.json")) if folder.is_dir() else []
    return [
        one
        for file in files
        for found in [json_or_nothing(file, MAX_SCORES_BYTES)]
        if (one := _scores(found, file.parent.name, file))
    ]


def _compared(layout: Layout) -> dict[str, dict[str, RunScores]]:
    """The scores that comparisons gave, by run and suite."""
    files = layout.comparisons_dir.glob("*/*/comparison.json")
    found: dict[str, dict[str, RunScores]] = {}
    for file in sorted((one for one in files if one.is_file()), key=lambda one: one.stat().st_mtime):
        parts = json_or_nothing(file, MAX_SCORES_BYTES).get("runs")
        for part in parts if isinstance(parts, list) else []:
            if isinstance(part, dict) and (one := _scores(part.get("scores"), file.parent.name, file)) is not None:
                found.setdefault(str(part.get("run")), {})[one.suite] = one
    return found


def comparable(scores: Sequence[Sequence[RunScores]]) -> list[RunScores | None]:
    """For each run the scores to set beside the others': of the suite and judges that most runs have, else its newest.

    Those that are not `is_whole` are left out.
    """
    whole = [[one for one in found if one.is_whole] for found in scores]
    counts = Counter(one.protocol for found in whole for one in found)
    newest = {one.protocol: one.written for found in whole for one in found}
    usual = max(counts, key=lambda kind: (counts[kind], newest[kind]), default=None)
    return [
        next(
            (one for one in found if one.protocol == usual),
            max(found, key=lambda one: one.written, default=None),
        )
        for found in whole
    ]


def _scores(found: Any, suite: str, file: Path) -> RunScores | None:
    try:
        overall = {name: score["value"] for name, score in found["overall"].items() if score is not None}
        values = {name: float(value) for name, value in overall.items() if value is not None}
        judges = [_named(one) for part, one in found["protocol"]["judges"].items() if part != FACES]
        judged_by = judges_key(found["protocol"]["judges"])
        is_whole = is_of_result(found)
        names = ", ".join(dict.fromkeys(judges))
        verdicts = [one["verdict"] for one in found["subjects"] if one.get("verdict")]
        return RunScores(suite, values, names, judged_by, is_whole, file.stat().st_mtime, verdicts)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def is_of_result(found: Mapping[str, Any]) -> bool:
    """Whether scores are of a run's result, and compare: not of another checkpoint, no backgrounds blanked, and by
    texts without the identifier."""
    protocol = found["protocol"]
    has_usual_texts = protocol.get("identifier_removed_from_scoring_text", True)
    return found.get("checkpoint") is None and not protocol.get("masked") and has_usual_texts


def judges_key(judges: Mapping[str, Mapping[str, Any]]) -> str:
    """8 hex digits over what decides what judges say, from their descriptions in a record.

    Where weights lie and the version of the library that read them are left out: the same judge may come another way.
    So is the judge of faces: it is asked of people alone, and has no say in the other scores.
    """
    described = {
        part: {key: value for key, value in one.items() if key not in _NO_DIFFERENCE}
        for part, one in judges.items()
        if part != FACES
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:8]


def _named(judge: Mapping[str, Any]) -> str:
    """A judge's name, with its edition from the second on: "tiny-dino 3"."""
    return f"{judge['judge']} {judge['edition']}" if judge.get("edition", 1) > 1 else str(judge["judge"])


def bleeding(layout: Layout, run: str) -> list[str]:
    """One line for every subject of a run whose pictures went to another subject when it was last measured.

    A file that is not there or cannot be read says nothing.
    """
    try:
        return bleeding_lines(
            json_or_nothing(layout.eval_dir(run, INTERFERENCE_SUITE) / INTERFERENCE_FILE).get("nearest")
        )
    except (KeyError, TypeError):
        return []


def bleeding_lines(nearest: dict[str, Any] | None) -> list[str]:
    """The same of a report's part `nearest`, None where there was one subject.

    Raises KeyError or TypeError for what is no such part.
    """
    if nearest is None:
        return []
    return [_bleeding_line(name, nearest["subjects"][name], nearest["least_share"]) for name in nearest["bleeding"]]


def _bleeding_line(name: str, found: dict[str, Any], least_share: float) -> str:
    wrong = {other: count for other, count in found["nearest"].items() if other != name and count}
    into = max(wrong, key=lambda other: wrong[other], default="another")
    return (
        f"{printable(name)} bleeds: {found['right']['value']:.0%} of its {found['pictures']} images are nearest to "
        f"its own photos (at least {least_share:.0%} should be), most of the others to those of {printable(into)}."
    )
