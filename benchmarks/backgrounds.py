"""How often is the background that `add-subject` names on tiny one that a person might name?

    python benchmarks/backgrounds.py --dataset path/to/dreambooth/dataset

`backgrounds.txt` says for each photo what is acceptable, by eye. Beside the captions as they are written, by squares
along the border and among colours, stand three others: the nearest phrase to the whole photo among scenes and colours,
the same among colours, and "on a gray background" for every photo.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image, ImageOps

from dbcli.metrics.judges.loading import load_judge
from dbcli.metrics.judges.naming import background_texts, nearest_background
from dbcli.workflows.setup.embedded_words import EmbeddedWords, embedded_words

sys.path.insert(0, str(Path(__file__).resolve().parent))
from nearest_texts import nearest_texts  # noqa: E402

JUDGEMENTS = Path(__file__).with_name("backgrounds.txt")
# What the dataset calls otherwise than the embedded base does.
NOUNS = {
    "backpack_dog": "backpack",
    "bear_plushie": "stuffed animal",
    "colorful_sneaker": "sneaker",
    "duck_toy": "duck",
    "grey_sloth_plushie": "stuffed animal",
    "monster_toy": "stuffed animal",
    "rc_car": "car",
    "robot_toy": "robot",
    "shiny_sneaker": "sneaker",
}
# Phrases of which a person may accept one and not the other of its scene.
OWN_WORDS = {"in a field": "field", "in the water": "in-water", "under water": "under-water"}
# A phrase of more words than these leaves no room in a prompt of 14 tokens.
LONGEST = 6

# A photo and its noun -> a phrase.
Names = Callable[[Image.Image, str], str]


@dataclass(frozen=True)
class Judgement:
    """What a person might name, and what is not wrong (which includes it)."""

    acceptable: frozenset[str]
    not_wrong: frozenset[str]


@dataclass(frozen=True)
class Row:
    """One way to name backgrounds: counts of photos."""

    way: str
    photos: int
    acceptable: int
    not_wrong: int
    scenes: int
    scenes_wrong: int


def read_judgements(text: str) -> dict[str, Judgement]:
    """Judgements by "subject/photo"."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    found = {}
    for line in lines:
        name, words = line.split(":")
        first, second = (part.split() for part in words.split("|"))
        found[name] = Judgement(frozenset(first), frozenset(first + second))
    return found


def word_of(phrase: str, words: EmbeddedWords) -> str:
    """The word that judgements use for a phrase."""
    if phrase in words.plain_backgrounds:
        return words.colours[words.plain_backgrounds.index(phrase)]
    scene = next(scene for scene, phrases in words.scenes.items() if phrase in phrases)
    return OWN_WORDS.get(phrase, scene)


def ways(words: EmbeddedWords) -> dict[str, Names]:
    """Ways to name a background, the shipped one first."""
    clip, plain = load_judge("tiny-clip"), words.plain_backgrounds
    texts = background_texts(clip, plain, words.nouns)
    scenes = [phrase for own in words.scenes.values() for phrase in own if len(phrase.split()) <= LONGEST]
    both = list(dict.fromkeys([*(one for one in scenes if not one.startswith(("with", "on top"))), *plain]))

    def whole(photo: Image.Image, noun: str, phrases: list[str]) -> str:
        found = nearest_texts(clip, [photo], [f"a {noun} {phrase}" for phrase in phrases])[0]
        return found.removeprefix(f"a {noun} ")

    return {
        "border, colours": lambda photo, _: plain[nearest_background(clip, photo, texts)],
        "whole, scenes and colours": lambda photo, noun: whole(photo, noun, both),
        "whole, colours": lambda photo, noun: whole(photo, noun, plain),
        "always gray": lambda photo, _: "on a gray background",
    }


def count(way: str, name: Names, judgements: Mapping[str, Judgement], dataset: Path, words: EmbeddedWords) -> Row:
    """One way over all photos."""
    acceptable = not_wrong = scenes = wrong = 0
    for photo, judged in judgements.items():
        subject = photo.split("/")[0]
        with Image.open(dataset / f"{photo}.jpg") as opened:
            upright = ImageOps.exif_transpose(opened).convert("RGB")
        word = word_of(name(upright, NOUNS.get(subject, subject.rstrip("0123456789"))), words)
        acceptable += word in judged.acceptable
        not_wrong += word in judged.not_wrong
        scenes += word not in words.colours
        wrong += word not in words.colours and word not in judged.not_wrong
    return Row(way, len(judgements), acceptable, not_wrong, scenes, wrong)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True, help="the folder with a folder of photos per subject")
    parser.add_argument("--judgements", type=Path, default=JUDGEMENTS, help="what is acceptable for each photo")
    parser.add_argument("--json", type=Path, help="writes the figures to this file")
    args = parser.parse_args()
    words, judgements = embedded_words(), read_judgements(args.judgements.read_text(encoding="utf-8"))
    rows = [count(way, name, judgements, args.dataset, words) for way, name in ways(words).items()]
    print(f"{'':26}{'acceptable':>12}{'not wrong':>12}{'scenes':>9}{'wrong':>7}   of {len(judgements)} photos")
    for row in rows:
        print(f"{row.way:26}{row.acceptable:12}{row.not_wrong:12}{row.scenes:9}{row.scenes_wrong:7}")
    if args.json:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
