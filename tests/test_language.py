"""The field's standard words: identifiers use them, and odd phrases stay out of help, errors and docs."""

from __future__ import annotations

import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Home-made word -> the field's own.
STANDARD = {
    "Company": "ProcessGroup",
    "Share": "RowShard",
    "Alone": "SingleProcess",
    "Staff": "Launcher",
    "Follower": "Worker",
    "followers": "workers",
    "following": "worker",
    "several": "launch",
    "Lesson": "TrainingData",
    "lesson": "data",
    "lessons": "data",
    "Material": "TrainingData",
    "material": "data",
    "materials": "data",
    "RowPlan": "BatchSampler",
    "Schedule": "LoopSettings",
    "Keeper": "Checkpoints",
    "keeper": "checkpoints",
    "WeightByWeight": "OptimizerInBackward",
    "resting": "offload",
    "imagined": "meta",
    "imagine": "meta",
    "Outlook": "MemoryEstimate",
    "outlook": "estimate",
    "Forecast": "MemoryEstimate",
    "forecast": "estimate",
    "forecasts": "estimates",
    "foretell": "estimate",
    "foretold": "estimated",
    "Standing": "ProjectStatus",
    "standing": "status",
    "StopWish": "StopSignal",
    "wish": "stop, request",
    "wishes": "options",
    "wished": "stopped, requested",
    "Wish": "Request",
    "Wishes": "Options",
    "Cast": "RunSelection",
    "told": "to_wire, said",
    "retold": "from_wire",
    "turning": "spin",
    "arithmetic": "precision, dtype",
    "processors": "CPU",
    "picture": "image",
    "pictures": "images",
    "Picture": "Image",
    "Pictures": "Images",
    "drawing": "sampling",
    "drawings": "generated images",
    "drawn": "generated",
}
# A package's name, and keys of users' files and of JSON, which stay: `pictures` of a sweep, `picture` of a word's
# strength.
FIXED = {"pictures", "picture", "AdamWScheduleFree", "FusedAdamWScheduleFree"}
_COUNTED = "pictures?|images?|steps?|photos?|rows?|lines?|words?|files?|seconds|tokens?|minutes|points?|cells?|runs?"
_EACH = "prompt|subject|step|run|cell|probe|batch|image|picture|photo|class|epoch|noun|judge|layer|row|process"
ODD = (
    # "four images a prompt", where "four images per prompt" is meant; not "what a step sees".
    rf"\b({_COUNTED}) an? ({_EACH})(?=[.,:;)|]|$| (in|with|without|and|each|unless|at|for|of the)\b)",
    r"how manieth",
    r"orders and crops",
    r"What should not be there",
    r"Where to, instead of",
    r"kept in mind",
    r"Look at machine and project",
    r"\bforet(ell|old|ells)\b",
    r"\bforecasts?\b",
    r'(?<!")\boutlook\b',  # a key of `train --dry-run --json`
    r"gone on from",
    r"asks to be visited",
    r"--class tell\b",
    r"waited for without end",
    r"gone through once more",
    r"in which numbers",
    r"\bthe machine's memory\b",
    r"\b(a|the|two|processor) processors?\b(?!'s)(?!_)",
    r"\bfalling asleep\b|\bfalls? asleep\b",
)


def parts(identifier: str) -> list[str]:
    """`told_apart` and `StopWish` as their words, and the whole."""
    pieces = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", identifier)
    return [*pieces, identifier]


def home_made(source: str) -> list[str]:
    """The identifiers of a file in which a word is not the field's."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    names = {token.string for token in tokens if token.type == tokenize.NAME} - FIXED
    return sorted(name for name in names if any(part in STANDARD for part in parts(name)))


def odd_phrases(text: str) -> list[str]:
    """The phrases of a text that a reader has to read twice."""
    flat = " ".join(text.split())
    return [found.group(0) for pattern in ODD for found in re.finditer(pattern, flat)]


def modules() -> list[Path]:
    return sorted((ROOT / "dbcli").rglob("*.py"))


def pages() -> list[Path]:
    return sorted([*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md"), ROOT / "benchmarks" / "README.md"])


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_identifiers_are_the_fields_words(path: Path) -> None:
    assert home_made(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_are_named_in_the_fields_words(path: Path) -> None:
    assert [part for part in parts(path.stem) if part in STANDARD] == []


@pytest.mark.parametrize("path", [*pages(), *modules()], ids=lambda path: str(path.relative_to(ROOT)))
def test_help_errors_and_docs_have_no_odd_phrases(path: Path) -> None:
    assert odd_phrases(path.read_text(encoding="utf-8")) == []


def test_a_home_made_word_is_found() -> None:
    assert home_made("def follow(staff: Company, stop_wish: int) -> None:\n    told_apart = 1\n") == [
        "Company",
        "stop_wish",
        "told_apart",
    ]
    assert home_made("def wishful(): pass") == []


def test_an_odd_phrase_is_found_across_lines() -> None:
    assert odd_phrases("four pictures\na prompt, foretold") == ["pictures a prompt", "foretold"]
