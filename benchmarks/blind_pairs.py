"""Do the measures of likeness agree with a person's eye? Lays out pairs of images, and scores what was said of them.

    python benchmarks/blind_pairs.py lay PROJECT... --out pairs --count 200
    python benchmarks/blind_pairs.py score pairs --judge tiny-dino=folder/of/another

`lay` takes the images of every evaluation in the projects and draws pairs at random, both images of one subject but of
any of its runs, checkpoints and prompts. Its sheets show the subject's photos and numbered pairs, and nothing of what
made them. Whoever looks writes into answers.txt which image shows the photos' subject more: `A`, `B`, or `=` where the
eye cannot say. `score` then holds each measure against the answers; `=` is counted, and left out.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

sys.path.insert(0, str(Path(__file__).resolve().parent))
from machine import machine  # noqa: E402

TILE_PX, GAP_PX, HEAD_PX = 144, 10, 22
PAIRS_A_ROW, PAIRS_A_SHEET, MOST_PHOTOS = 3, 21, 7
PAIRS_FILE, ANSWERS_FILE = "pairs.json", "answers.txt"
ANSWERS = ("A", "B", "=")


@dataclass(frozen=True)
class Picture:
    """An image of a subject; `of_class` is the likeness of its run's class images to the photos (PRES)."""

    file: str
    of_class: float


@dataclass(frozen=True)
class Pair:
    """Two images of one subject, and its photos."""

    photos: tuple[str, ...]
    a: Picture
    b: Picture


@dataclass(frozen=True)
class Agreement:
    """Of the pairs in which the eye saw a difference, how many a measure orders as the eye does."""

    measure: str
    agreed: int
    pairs: int


def pictures_of(projects: Sequence[Path]) -> dict[tuple[str, ...], list[Picture]]:
    """Every evaluated image by its subject's photos; prompts that ask for another look are left out.

    A subject that several projects have is known by what its photo files contain.
    """
    from dbcli.project.files.atomic import sha256_of
    from dbcli.project.files.layout import Layout
    from dbcli.project.runs.run_store import load_run
    from dbcli.workflows.images.grids import photos_of

    found: dict[frozenset[str], tuple[tuple[str, ...], list[Picture]]] = {}
    for file in sorted(file for one in projects for file in one.resolve().glob("runs/*/eval/*/scores.json")):
        layout, scores = Layout(file.parents[4]), json.loads(file.read_text(encoding="utf-8"))
        photos = photos_of(layout, load_run(layout, file.parents[2].name))
        for subject in scores["subjects"]:
            files, of_class = photos.get(subject["name"]), subject["scores"]["pres"]
            if not files or of_class is None:
                continue
            key = frozenset(map(sha256_of, files))
            _, pool = found.setdefault(key, (tuple(map(str, files)), []))
            kept = [prompt for prompt in subject["prompts"] if prompt["keeps_look"]]
            images = [file.parent / "images" / name for prompt in kept for name in prompt["images"]]
            # An evaluation of a checkpoint, or a masked one, may lie beside the images that it scored.
            pool += [Picture(str(path), of_class["value"]) for path in images if path.is_file()]
    return dict(found.values())


def drawn_pairs(pictures: Mapping[tuple[str, ...], Sequence[Picture]], count: int, seed: int) -> list[Pair]:
    """`count` pairs at random, as many of each subject as of any other to within one, subject by subject."""
    draw, subjects = random.Random(seed), [photos for photos, pool in pictures.items() if len(pool) > 1]
    if not subjects:
        raise SystemExit("No subject has two evaluated images: dreambooth eval makes them.")
    pairs = []
    for place, photos in enumerate(subjects):
        share = count // len(subjects) + (place < count % len(subjects))
        for _ in range(share):
            a, b = draw.sample(list(pictures[photos]), 2)
            pairs.append(Pair(photos, a, b))
    return pairs


def sheet(photos: Sequence[str], numbered: Sequence[tuple[int, Pair]]) -> Image.Image:
    """The photos in the first row, then pairs with their numbers, A on the left."""
    step, row = TILE_PX + GAP_PX, TILE_PX + HEAD_PX
    rows = -(-len(numbered) // PAIRS_A_ROW)
    width = max(PAIRS_A_ROW * (2 * step + GAP_PX), MOST_PHOTOS * step)
    made = Image.new("RGB", (width, row * (rows + 1)), "white")
    pen = ImageDraw.Draw(made)
    pen.text((2, 4), "photos", fill="black")
    for column, file in enumerate(photos[:MOST_PHOTOS]):
        made.paste(_tile(file), (column * step, HEAD_PX))
    for place, (number, pair) in enumerate(numbered):
        left, top = place % PAIRS_A_ROW * (2 * step + GAP_PX), row * (1 + place // PAIRS_A_ROW)
        pen.text((left + 2, top + 4), f"{number} A", fill="black")
        pen.text((left + TILE_PX + 2, top + 4), "B", fill="black")
        made.paste(_tile(pair.a.file), (left, top + HEAD_PX))
        made.paste(_tile(pair.b.file), (left + TILE_PX, top + HEAD_PX))
    return made


def _tile(file: str) -> Image.Image:
    with Image.open(file) as opened:
        image = opened.convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    return square.resize((TILE_PX - 2, TILE_PX - 2), Image.Resampling.LANCZOS)


def lay(projects: Sequence[Path], out: Path, count: int, seed: int) -> list[Path]:
    """Writes the pairs, the sheets, each of one subject, and a file for the answers; one that is there is kept."""
    if (out / ANSWERS_FILE).exists():
        raise SystemExit(f"{out / ANSWERS_FILE} is there already: pairs laid anew would not be those it speaks of.")
    pairs = drawn_pairs(pictures_of(projects), count, seed)
    out.mkdir(parents=True, exist_ok=True)
    plain = {"seed": seed, "pairs": [asdict(pair) for pair in pairs]}
    (out / PAIRS_FILE).write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
    sheets = []
    for photos in dict.fromkeys(pair.photos for pair in pairs):
        own = [(number, pair) for number, pair in enumerate(pairs, 1) if pair.photos == photos]
        for start in range(0, len(own), PAIRS_A_SHEET):
            sheets.append(out / f"sheet-{len(sheets) + 1:02d}.png")
            sheet(photos, own[start : start + PAIRS_A_SHEET]).save(sheets[-1])
    lines = [f"{number} " for number in range(1, len(pairs) + 1)]
    (out / ANSWERS_FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return sheets


def read_answers(file: Path, count: int) -> dict[int, str]:
    """What was said of each pair, by its number; pairs without an answer are not in it."""
    answers = {}
    for place, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        number, _, said = line.partition(" ")
        said = said.strip().upper()
        if not line.strip() or (number.isdigit() and not said):
            continue
        if not number.isdigit() or not 1 <= int(number) <= count or said not in ANSWERS:
            raise SystemExit(f"{file}, line {place}: {line!r}; wanted a number from 1 to {count}, then A, B or =.")
        answers[int(number)] = said
    return answers


def agreement(measure: str, scores: Sequence[tuple[float, float]], answers: Mapping[int, str]) -> Agreement:
    """How often the image that the eye preferred scores higher; `scores` are those of A and B, pair by pair."""
    told = [(number, said) for number, said in answers.items() if said != "="]
    agreed = sum(scores[number - 1][said == "B"] > scores[number - 1][said == "A"] for number, said in told)
    return Agreement(measure, agreed, len(told))


def likenesses(pairs: Sequence[Pair], judge: str) -> list[tuple[float, float]]:
    """Mean cosine of A and of B with the photos, by a judge: its kind, or KIND=SOURCE."""
    from dbcli.metrics.judges.features_cache import FeatureStore
    from dbcli.metrics.judges.loading import load_judge

    kind, _, source = judge.partition("=")
    encoder, store = load_judge(kind, source or None), FeatureStore()

    def features(files: Sequence[str]) -> Any:
        return store.features([Path(file) for file in files], [encoder])[0].double()

    images = list(dict.fromkeys(one.file for pair in pairs for one in (pair.a, pair.b)))
    rows = dict(zip(images, features(images), strict=True))
    centres = {photos: features(photos).mean(dim=0) for photos in dict.fromkeys(pair.photos for pair in pairs)}
    return [
        (float(rows[pair.a.file] @ centres[pair.photos]), float(rows[pair.b.file] @ centres[pair.photos]))
        for pair in pairs
    ]


def score(folder: Path, judges: Sequence[str]) -> tuple[list[Agreement], dict[str, int]]:
    """Each measure's agreement with the answers, and how many of these there are of each kind."""
    found = json.loads((folder / PAIRS_FILE).read_text(encoding="utf-8"))["pairs"]
    pairs = [Pair(tuple(one["photos"]), Picture(**one["a"]), Picture(**one["b"])) for one in found]
    answers = read_answers(folder / ANSWERS_FILE, len(pairs))
    near = likenesses(pairs, "tiny-dino")
    beyond = [(a - pair.a.of_class, b - pair.b.of_class) for (a, b), pair in zip(near, pairs, strict=True)]
    rows = [agreement("likeness beyond the class", beyond, answers), agreement("likeness alone", near, answers)]
    rows += [agreement(f"likeness alone, {judge}", likenesses(pairs, judge), answers) for judge in judges]
    return rows, {said: list(answers.values()).count(said) for said in ANSWERS}


def markdown(rows: Sequence[Agreement]) -> str:
    """The rows as a table."""
    lines = ["| measure | agrees with the eye | pairs |", "|:--|--:|--:|"]
    lines += [f"| {row.measure} | {row.agreed / max(row.pairs, 1):.1%} | {row.agreed} of {row.pairs} |" for row in rows]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parts = parser.add_subparsers(dest="part", required=True)
    laying = parts.add_parser("lay", help="lay out pairs and a file for the answers")
    laying.add_argument("projects", type=Path, nargs="+", help="projects with evaluated runs")
    laying.add_argument("--out", type=Path, required=True, help="a folder for the sheets")
    laying.add_argument("--count", type=int, default=200, help="pairs in all; 200 if left out")
    laying.add_argument("--seed", type=int, default=0)
    scoring = parts.add_parser("score", help="hold the measures against the answers")
    scoring.add_argument("folder", type=Path, help="the folder of the sheets")
    scoring.add_argument("--judge", action="append", default=[], help="one more, KIND or KIND=SOURCE; repeat")
    scoring.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args(arguments)
    if options.part == "lay":
        sheets = lay(options.projects, options.out, options.count, options.seed)
        print(f"{len(sheets)} sheets in {options.out}. Write A, B or = behind the numbers in {ANSWERS_FILE}.")
        return
    rows, said = score(options.folder, options.judge)
    counts = ", ".join(f"{answer} {count}" for answer, count in said.items())
    print(f"Answers: {counts}\n\n{markdown(rows)}", end="")
    if options.json:
        document = {"machine": machine(), "answers": said, "rows": [asdict(row) for row in rows]}
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
