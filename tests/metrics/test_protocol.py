"""The whole protocol on pictures on disk, against a second, naive implementation."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from dbcli.errors import PhotoError
from dbcli.metrics.judges.features_cache import FeatureStore
from dbcli.metrics.judges.judge import Judges
from dbcli.metrics.protocol import OtherSubject, PromptImages, SubjectImages, score_images
from dbcli.metrics.scores import DEFINITIONS, range_of
from tests.metrics.judge_makers import write_pictures

PROMPTS = (
    "a {identifier} {class} in the snow",
    "a {identifier} {class} in space",
    "a red {identifier} {class}",
)


@pytest.fixture(scope="module")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> tuple[SubjectImages, ...]:
    """Two subjects with uneven numbers of photos, prompts and pictures."""
    root = tmp_path_factory.mktemp("pictures")
    counts = {"dog": (5, (4, 3, 1), 3), "vase": (3, (2, 5), 0)}
    made = []
    for seed, (name, (photos, images, members)) in enumerate(counts.items()):
        prompts = tuple(
            PromptImages(
                template.format(**{"identifier": "sks", "class": name}),
                template.replace("{identifier} ", "").format(**{"class": name}),
                write_pictures(root / name / f"prompt-{number}", count, seed=100 * seed + number),
                template=template,
                task="recontextualisation",
                keeps_look="red" not in template,
                names_scene="red" not in template,
            )
            for number, (template, count) in enumerate(zip(PROMPTS, images, strict=False))
        )
        photo_paths = write_pictures(root / name / "photos", photos, seed=50 + seed)
        member_paths = write_pictures(root / name / "class", members, seed=70 + seed)
        made.append(SubjectImages(name, name, photo_paths, prompts, member_paths))
    return tuple(made)


@pytest.fixture(scope="module")
def scores(subjects: tuple[SubjectImages, ...], judges: Judges) -> dict:
    return score_images(subjects, judges)


def dot(a: list[float], b: list[float]) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


class Naive:
    """One picture at a time, one pair at a time, plain lists."""

    def __init__(self, judges: Judges) -> None:
        self.judges = judges
        self.seen: dict[tuple[str, Path], list[float]] = {}

    def image(self, part: str, path: Path) -> list[float]:
        if (part, path) not in self.seen:
            with Image.open(path) as image:
                self.seen[part, path] = getattr(self.judges, part).encode_images([image.convert("RGB")])[0].tolist()
        return self.seen[part, path]

    def text(self, text: str) -> list[float]:
        return self.judges.clip.encode_texts([text])[0].tolist()

    def pairs(self, part: str, a: tuple[Path, ...], b: tuple[Path, ...]) -> float:
        return mean([dot(self.image(part, left), self.image(part, right)) for left in a for right in b])

    def within(self, part: str, a: tuple[Path, ...]) -> float:
        return mean(
            [
                dot(self.image(part, a[left]), self.image(part, a[right]))
                for left in range(len(a))
                for right in range(left + 1, len(a))
            ]
        )

    def likeness(self, path: Path, photos: tuple[Path, ...]) -> float:
        return mean([dot(self.image("dino", path), self.image("dino", photo)) for photo in photos])

    def recognition(self, subject: SubjectImages, others: list[tuple[Path, ...]]) -> dict[str, float]:
        shown = [path for prompt in subject.prompts if prompt.keeps_look for path in prompt.images]
        own = [self.likeness(path, subject.photos) for path in shown]
        of_class = max(self.likeness(path, subject.photos) for path in subject.class_images)
        best = [max([of_class, *(self.likeness(path, rival) for rival in others)]) for path in shown]
        nearest_pair = max(
            dot(self.image("dino", one), self.image("dino", two))
            for one in subject.photos for two in subject.photos if one != two
        )  # fmt: skip
        near = [
            max(dot(self.image("dino", path), self.image("dino", photo)) for photo in subject.photos)
            for prompt in subject.prompts for path in prompt.images
        ]  # fmt: skip
        return {
            "beyond_class": mean(own) - self.pairs("dino", subject.class_images, subject.photos),
            "identified": mean([float(one > other) for one, other in zip(own, best, strict=True)]),
            "copies": mean([float(value > nearest_pair) for value in near]),
        }

    def subject(self, subject: SubjectImages) -> dict[str, float]:
        images = tuple(path for prompt in subject.prompts for path in prompt.images)
        matched = [
            dot(self.image("clip", path), self.text(prompt.scoring_text))
            for prompt in subject.prompts
            for path in prompt.images
        ]
        several = [prompt.images for prompt in subject.prompts if len(prompt.images) > 1]
        return {
            "dino": self.pairs("dino", images, subject.photos),
            "clip_i": self.pairs("clip", images, subject.photos),
            "clip_t": mean(matched),
            "div": mean([1 - self.within("dino", paths) for paths in several]),
        }


def test_every_score_equals_the_naive_one(scores: dict, subjects: tuple[SubjectImages, ...], judges: Judges) -> None:
    naive = Naive(judges)
    expected = [naive.subject(subject) for subject in subjects]
    for record, numbers, subject in zip(scores["subjects"], expected, subjects, strict=True):
        for metric, number in numbers.items():
            assert record["scores"][metric]["value"] == pytest.approx(number, abs=1e-5), metric
        assert record["real"]["dino"] == pytest.approx(naive.within("dino", subject.photos), abs=1e-5)
        assert record["real"]["clip_i"] == pytest.approx(naive.within("clip", subject.photos), abs=1e-5)
    for metric in expected[0]:
        overall = mean([numbers[metric] for numbers in expected])
        assert scores["overall"][metric]["value"] == pytest.approx(overall, abs=1e-5), metric
    dog = subjects[0]
    preserved = naive.pairs("dino", dog.class_images, dog.photos)
    assert scores["overall"]["pres"]["value"] == pytest.approx(preserved, abs=1e-5)
    assert scores["subjects"][1]["scores"]["pres"] is None


def test_recognition_equals_the_naive_one(subjects: tuple[SubjectImages, ...], judges: Judges) -> None:
    dog, vase = subjects
    other = OtherSubject("vase", vase.photos)
    (record,) = score_images([replace(dog, others=(other,))], judges)["subjects"]
    expected = Naive(judges).recognition(dog, [vase.photos])
    for metric, number in expected.items():
        assert record["scores"][metric]["value"] == pytest.approx(number, abs=1e-5), metric
    assert (record["class_images"], record["other_subjects"], record["scenes"]) == (3, 1, 0)
    assert record["real"]["beyond_class"] == pytest.approx(
        record["real"]["dino"] - record["scores"]["pres"]["value"], abs=1e-9
    )


def test_a_class_that_became_the_subject_does_not_hide_that_it_is_learnt(
    subjects: tuple[SubjectImages, ...], judges: Judges
) -> None:
    dog = subjects[0]
    become = replace(dog, class_images=dog.photos)
    (hidden,) = score_images([become], judges)["subjects"]
    assert hidden["scores"]["identified"]["value"] == 0
    (record,) = score_images([replace(become, class_before=dog.class_images)], judges)["subjects"]
    expected = Naive(judges).recognition(dog, [])["identified"]
    assert record["scores"]["identified"]["value"] == pytest.approx(expected, abs=1e-9)
    assert expected > 0


def test_a_prompt_that_changes_the_look_is_not_asked_for_likeness(scores: dict) -> None:
    snow, _, red = scores["subjects"][0]["prompts"]
    assert (snow["keeps_look"], red["keeps_look"]) == (True, False)
    assert snow["scores"]["beyond_class"] is not None and snow["scores"]["identified"] is not None
    assert red["scores"]["beyond_class"] is None and red["scores"]["identified"] is None
    assert red["scores"]["copies"] is not None


def test_without_rivals_or_scenes_enough_nothing_is_said(scores: dict) -> None:
    # the vase has no images of its class; of the dog's prompts two name a scene
    assert scores["subjects"][1]["scores"]["identified"] is None
    assert scores["subjects"][1]["scores"]["beyond_class"] is None
    assert scores["overall"]["scene"] is None


def test_each_prompt_is_scored_by_its_own_pictures(
    scores: dict, subjects: tuple[SubjectImages, ...], judges: Judges
) -> None:
    naive, prompt = Naive(judges), subjects[0].prompts[1]
    found = scores["subjects"][0]["prompts"][1]
    assert found["images"] == ["00.png", "01.png", "02.png"]
    expected = naive.pairs("dino", prompt.images, subjects[0].photos)
    assert found["scores"]["dino"] == pytest.approx(expected, abs=1e-5)
    assert found["scores"]["clip_t_l"] is None


def test_a_larger_clip_gets_its_own_score(subjects: tuple[SubjectImages, ...], judges: Judges) -> None:
    found = score_images(subjects[:1], replace(judges, clip_l=judges.clip))
    record = found["subjects"][0]["scores"]
    assert record["clip_t_l"]["value"] == pytest.approx(record["clip_t"]["value"], abs=1e-7)
    assert found["protocol"]["judges"]["clip_l"]["judge"] == "tiny-clip"


def test_photos_scored_against_themselves_are_flagged(subjects: tuple[SubjectImages, ...], judges: Judges) -> None:
    dog = subjects[0]
    copied = replace(dog, prompts=(replace(dog.prompts[0], images=dog.photos),))
    found = score_images([copied, subjects[1]], judges)
    assert found["copying"] == ["dog"]
    assert found["subjects"][0]["copying"] and found["subjects"][0]["prompts"][0]["copying"]
    assert found["subjects"][0]["closest"]["dino"] == pytest.approx(1, abs=1e-5)


def test_unlike_pictures_are_not_flagged(scores: dict) -> None:
    assert scores["copying"] == []


class ByName:
    """A judge that knows each picture and text by one word: what the words share is their cosine."""

    name = key = "by-name"

    def __init__(self, words: list[str]) -> None:
        self.words = words

    def describe(self) -> dict[str, str]:
        return {"model": "by-name"}

    def encode_images(self, images, batch_size: int = 32):
        # each picture's red value is the number of its word
        return self._rows([self.words[image.getpixel((0, 0))[0]] for image in images])

    def encode_texts(self, texts):
        return self._rows([text.rsplit(" ", 1)[1] for text in texts])

    def too_long(self, texts):
        return []

    def _rows(self, words: list[str]):
        return torch.nn.functional.one_hot(
            torch.tensor([self.words.index(word) for word in words]), len(self.words)
        ).float()


def test_a_shuffled_list_of_prompts_lowers_clip_t_and_the_scenes_that_are_right(tmp_path: Path) -> None:
    words = ["snow", "space", "sand", "night"]
    judge = ByName(words)
    paths = []
    for number, word in enumerate(words):
        path = tmp_path / f"{word}.png"
        Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
        paths.append(path)

    def both(texts: list[str]) -> tuple[float, float]:
        prompts = tuple(
            PromptImages(f"a sks dog in {text}", f"a dog in {text}", (path,), names_scene=True)
            for text, path in zip(texts, paths, strict=True)
        )
        found = score_images([SubjectImages("dog", "dog", (paths[0],), prompts)], Judges(judge, judge))["overall"]
        return found["clip_t"]["value"], found["scene"]["value"]

    assert both(words) == (1, 1)
    assert both(["space", "snow", "sand", "night"]) == (0.5, 0.5)
    assert both(["space", "sand", "night", "snow"]) == (0, 0)


def test_the_record_says_how_it_was_measured(scores: dict) -> None:
    protocol = json.loads(json.dumps(scores))["protocol"]
    assert protocol["identifier_removed_from_scoring_text"] is True
    assert "not multiplied" in protocol["scale"]
    assert protocol["judges"]["dino"]["preprocessing"]["crop"] == "centre 32 px"
    assert len(protocol["judges"]["clip"]["weights_sha256"]) == 64
    assert set(protocol["scores"]) == set(DEFINITIONS)
    assert all(score["pairing"] for score in protocol["scores"].values())


def test_the_same_pictures_give_the_same_record(
    scores: dict, subjects: tuple[SubjectImages, ...], judges: Judges, tmp_path: Path
) -> None:
    store = FeatureStore(tmp_path / "features")
    first = score_images(subjects, judges, store=store)
    again = FeatureStore(tmp_path / "features")
    assert score_images(subjects, judges, store=again) == first
    assert again.misses == 0
    assert first["overall"]["dino"]["value"] == pytest.approx(scores["overall"]["dino"]["value"], abs=1e-6)


def test_a_text_that_the_judge_cannot_read_to_its_end_is_named(
    subjects: tuple[SubjectImages, ...], judges: Judges, scores: dict
) -> None:
    long = "a dog " + "in the snow " * 6
    prompt = replace(subjects[0].prompts[0], scoring_text=long)
    found = score_images([replace(subjects[0], prompts=(prompt,))], judges)
    assert found["texts_cut_short"] == {"clip": [long]}
    assert scores["texts_cut_short"] == {}


def test_two_suites_with_the_same_prompt_are_two_prompts(subjects: tuple[SubjectImages, ...], judges: Judges) -> None:
    dog = subjects[0]
    twice = replace(dog, prompts=(dog.prompts[0], replace(dog.prompts[0], task="tiny")))
    found = score_images([twice], judges)
    assert found["overall"]["dino"]["low"] == pytest.approx(found["overall"]["dino"]["value"])
    assert len(found["subjects"][0]["prompts"]) == 2


def test_a_subject_without_pictures_has_no_scores(subjects: tuple[SubjectImages, ...], judges: Judges) -> None:
    found = score_images([replace(subjects[0], prompts=(), class_images=())], judges)
    assert found["overall"] == dict.fromkeys(DEFINITIONS)
    assert found["subjects"][0]["real"]["dino"] is not None


def test_intervals_stay_where_a_score_can_be(scores: dict) -> None:
    for metric, score in scores["overall"].items():
        if score and score["low"] is not None:
            least, most = range_of(metric)
            assert least <= score["low"] <= score["value"] <= score["high"] <= most
    assert (range_of("dino"), range_of("div"), range_of("scene")) == ((-1, 1), (0, 2), (0, 1))


def test_a_file_that_is_no_picture_is_named(
    subjects: tuple[SubjectImages, ...], judges: Judges, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    with pytest.raises(PhotoError, match="broken.png"):
        score_images([replace(subjects[0], photos=(broken,))], judges)
