"""Do the measures of likeness agree with a person's eye? Lays out pairs of images, and scores what was said of them.

    python benchmarks/blind_pairs.py lay PROJECT... --out pairs --count 200
    python benchmarks/blind_pairs.py score pairs --judge tiny-dino=folder/of/another

`lay` takes the images of every evaluation in the projects and draws pairs at random: one subject in two states of
learning, which are runs or checkpoints of them, each drawn by the same prompt. Its sheets show the subject's photos and
numbered pairs, and nothing of what made them. Whoever looks writes into answers.txt which image shows the photos'
subject more: `A`, `B`, or `=` where the eye cannot say; `A!` and `B!` where it is plain at once. `score` then holds
each measure against the answers; `=` is counted, and left out. What runs recorded on their way, the loss on photos kept
back (`images.held_out`) and the likeness of probes, is held against them as well, in pairs whose two states have it.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw

sys.path.insert(0, str(Path(__file__).resolve().parent))
from machine import write_figures  # noqa: E402

if TYPE_CHECKING:
    from dbcli.project.files.layout import Layout
    from dbcli.project.runs.run_store import RunRecord

TILE_PX, GAP_PX, HEAD_PX = 240, 14, 22
PAIRS_A_ROW, PAIRS_A_SHEET, MOST_PHOTOS = 3, 18, 6
PAIRS_FILE, ANSWERS_FILE = "pairs.json", "answers.txt"
ANSWERS = ("A!", "A", "=", "B", "B!")


@dataclass(frozen=True)
class Picture:
    """An image of a subject: the evaluation that it lies in, and its prompt as the suite words it."""

    file: str
    state: str
    asked: str


@dataclass(frozen=True)
class Pair:
    """Two images of one subject, and its photos."""

    photos: tuple[str, ...]
    a: Picture
    b: Picture


@dataclass(frozen=True)
class Agreement:
    """Of the pairs in which the eye saw a difference, how many a measure orders as the eye does; and of plain ones."""

    measure: str
    agreed: int
    pairs: int
    agreed_plain: int
    plain: int


@dataclass(frozen=True)
class Found:
    """Every evaluated image by its subject's photos, the images of the subject's class that each state drew, and what
    the run recorded when it was in that state: higher is better."""

    pictures: Mapping[tuple[str, ...], Sequence[Picture]]
    class_images: Mapping[str, Sequence[str]]
    recorded: Mapping[str, Mapping[str, float]]


def pictures_of(projects: Sequence[Path]) -> Found:
    """Every evaluated image of the projects; prompts that ask for another look are left out.

    A subject that several projects have is known by what its photo files contain.
    """
    from dbcli.project.files.atomic import sha256_of
    from dbcli.project.files.layout import Layout
    from dbcli.project.runs.run_store import load_run
    from dbcli.workflows.images.grids import photos_of
    from dbcli.workflows.setup.effective_settings import profile_of

    found: dict[frozenset[str], tuple[tuple[str, ...], list[Picture]]] = {}
    class_images: dict[str, list[str]] = {}
    recorded: dict[str, dict[str, float]] = {}
    for file in sorted(file for one in projects for file in one.resolve().glob("runs/*/eval/*/scores.json")):
        layout, scores = Layout(file.parents[4]), json.loads(file.read_text(encoding="utf-8"))
        record = load_run(layout, file.parents[2].name)
        photos, profile = photos_of(layout, record), profile_of(layout, record)
        for subject in scores["subjects"]:
            files = photos.get(subject["name"])
            members = _members(file.parent / "images", subject["class_noun"], profile)
            if not files or not members:
                continue
            key, state = frozenset(map(sha256_of, files)), f"{file.parent} {subject['name']}"
            class_images[state] = members
            recorded[state] = _recorded(layout, record, scores.get("checkpoint") or record.result_step)
            _, pool = found.setdefault(key, (tuple(map(str, files)), []))
            for prompt in subject["prompts"]:
                images = [file.parent / "images" / name for name in prompt["images"] if prompt["keeps_look"]]
                # A masked evaluation lies beside the images that it scored.
                pool += [Picture(str(path), state, prompt["template"]) for path in images if path.is_file()]
    return Found(dict(found.values()), class_images, recorded)


def _recorded(layout: Layout, record: RunRecord, step: int) -> dict[str, float]:
    """What a run of one subject recorded after a step."""
    from dbcli.project.runs.probe_files import load_probes
    from dbcli.workflows.probes.held_out import held_out_loss

    if len(record.subjects) > 1:
        return {}
    loss, probes = held_out_loss(record, step), load_probes(layout, record.name)
    fidelity = next((one.fidelity for one in (probes.probes if probes else []) if one.step == step), None)
    found = {"held-out loss, less is better": None if loss is None else -loss, "likeness of probes": fidelity}
    return {measure: value for measure, value in found.items() if value is not None}


def _members(folder: Path, class_noun: str, profile: Any) -> list[str]:
    """The images of a class that an evaluation drew, by the prompts in the files; none if it is a masked one."""
    from dbcli.project.images.recipes import read_recipe
    from dbcli.workflows.class_images.generate import class_prompt
    from dbcli.workflows.class_images.sentences import first_class_template

    wanted = class_prompt(first_class_template(profile), class_noun)
    return [str(file) for file in sorted(folder.glob("*.png")) if read_recipe(file).prompt == wanted]


def drawn_pairs(pictures: Mapping[tuple[str, ...], Sequence[Picture]], count: int, seed: int) -> list[Pair]:
    """`count` pairs at random, as many of each subject as of any other to within one, subject by subject.

    Two states that share a prompt are drawn first, each as likely as any other, then a prompt and an image of each.
    """
    draw = random.Random(seed)
    comparable = {photos: _comparable(pool) for photos, pool in pictures.items()}
    subjects = [photos for photos, choices in comparable.items() if choices]
    if not subjects:
        raise SystemExit("No subject has images of one prompt by two runs or checkpoints: dreambooth eval makes them.")
    pairs = []
    for place, photos in enumerate(subjects):
        share = count // len(subjects) + (place < count % len(subjects))
        for _ in range(share):
            states, prompts = draw.choice(comparable[photos])
            asked = draw.choice(prompts)
            a, b = (
                draw.choice([one for one in pictures[photos] if (one.state, one.asked) == (state, asked)])
                for state in draw.sample(states, 2)
            )
            pairs.append(Pair(photos, a, b))
    return pairs


def _comparable(pool: Sequence[Picture]) -> list[tuple[tuple[str, str], list[str]]]:
    """Every two states that share prompts, and these prompts."""
    asked: dict[str, set[str]] = {}
    for one in pool:
        asked.setdefault(one.state, set()).add(one.asked)
    two = [(states, sorted(asked[states[0]] & asked[states[1]])) for states in combinations(sorted(asked), 2)]
    return [(states, prompts) for states, prompts in two if prompts]


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
    found = pictures_of(projects)
    pairs = drawn_pairs(found.pictures, count, seed)
    out.mkdir(parents=True, exist_ok=True)
    used = sorted({one.state for pair in pairs for one in (pair.a, pair.b)})
    class_images = {state: found.class_images[state] for state in used}
    recorded = {state: dict(found.recorded[state]) for state in used}
    drawn = [asdict(pair) for pair in pairs]
    plain = {"seed": seed, "class_images": class_images, "recorded": recorded, "pairs": drawn}
    (out / PAIRS_FILE).write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
    sheets: list[Path] = []
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
            raise SystemExit(f"{file}, line {place}: {line!r}; wanted a number up to {count}, then A, A!, B, B! or =.")
        answers[int(number)] = said
    return answers


def agreement(measure: str, scores: Sequence[tuple[float, float]], answers: Mapping[int, str]) -> Agreement:
    """How often the image that the eye preferred scores higher; `scores` are those of A and B, pair by pair."""
    told = [(said, scores[number - 1]) for number, said in answers.items() if said != "="]
    agreed = [(said, (b > a) if said[0] == "B" else (a > b)) for said, (a, b) in told]
    plain = [flag for said, flag in agreed if said.endswith("!")]
    return Agreement(measure, sum(flag for _, flag in agreed), len(told), sum(plain), len(plain))


Likenesses = list[tuple[float, float]]


def features_by(judge: str) -> Callable[[Sequence[str]], Any]:
    """Features of files, float64 [N, D], by a judge: its kind, or KIND=SOURCE."""
    from dbcli.metrics.judges.features_cache import FeatureStore
    from dbcli.metrics.judges.loading import load_judge

    kind, _, source = judge.partition("=")
    encoder, store = load_judge(kind, source or None), FeatureStore()
    return lambda files: store.features([Path(file) for file in files], [encoder])[0].double()


def likenesses(
    pairs: Sequence[Pair], class_images: Mapping[str, Sequence[str]], features: Callable[[Sequence[str]], Any]
) -> tuple[Likenesses, Likenesses]:
    """Of A and of B the mean cosine with the photos: alone, and less that of the class images their states drew."""
    images = list(dict.fromkeys(one.file for pair in pairs for one in (pair.a, pair.b)))
    rows = dict(zip(images, features(images), strict=True))
    centres = {photos: features(photos).mean(dim=0) for photos in dict.fromkeys(pair.photos for pair in pairs)}
    classes = {state: features(files).mean(dim=0) for state, files in class_images.items()}
    alone, beyond = [], []
    for pair in pairs:
        centre, two = centres[pair.photos], (pair.a, pair.b)
        near = [float(rows[one.file] @ centre) for one in two]
        of_class = [float(classes[one.state] @ centre) for one in two]
        alone.append((near[0], near[1]))
        beyond.append((near[0] - of_class[0], near[1] - of_class[1]))
    return alone, beyond


def by_states(
    pairs: Sequence[Pair], recorded: Mapping[str, Mapping[str, float]], answers: Mapping[int, str]
) -> list[Agreement]:
    """The agreement of what runs recorded on their way, over pairs whose two states have it."""
    rows = []
    for measure in dict.fromkeys(measure for one in recorded.values() for measure in one):
        values = [(recorded[pair.a.state].get(measure), recorded[pair.b.state].get(measure)) for pair in pairs]
        known = {number: said for number, said in answers.items() if None not in values[number - 1]}
        rows.append(agreement(measure, [(a or 0.0, b or 0.0) for a, b in values], known))
    return rows


def score(folder: Path, judges: Sequence[str]) -> tuple[list[Agreement], dict[str, int]]:
    """Each measure's agreement with the answers, and how many of these there are of each kind."""
    found = json.loads((folder / PAIRS_FILE).read_text(encoding="utf-8"))
    pairs = [Pair(tuple(one["photos"]), Picture(**one["a"]), Picture(**one["b"])) for one in found["pairs"]]
    answers, rows = read_answers(folder / ANSWERS_FILE, len(pairs)), []
    for judge in ("tiny-dino", *judges):
        alone, beyond = likenesses(pairs, found["class_images"], features_by(judge))
        rows.append(agreement(f"likeness beyond the class, {judge}", beyond, answers))
        rows.append(agreement(f"likeness alone, {judge}", alone, answers))
    rows += by_states(pairs, found["recorded"], answers)
    return rows, {said: list(answers.values()).count(said) for said in ANSWERS}


def markdown(rows: Sequence[Agreement]) -> str:
    """The rows as a table."""
    lines = ["| measure | agrees with the eye | pairs | where it is plain | pairs |", "|:--|--:|--:|--:|--:|"]
    lines += [
        f"| {row.measure} | {row.agreed / max(row.pairs, 1):.1%} | {row.agreed} of {row.pairs} "
        f"| {row.agreed_plain / max(row.plain, 1):.1%} | {row.agreed_plain} of {row.plain} |"
        for row in rows
    ]
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
    write_figures(options.json, answers=said, rows=[asdict(row) for row in rows])


if __name__ == "__main__":
    main()
