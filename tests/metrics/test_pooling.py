"""Pooled scores against the same pictures scored in one go, and means worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dbcli.metrics.judges.judge import Judges
from dbcli.metrics.pooling import pool_scores
from dbcli.metrics.protocol import PromptImages, SubjectImages, score_images
from dbcli.metrics.scores import DEFINITIONS
from tests.metrics.judge_makers import write_pictures


def evaluation(name: str, values: list[float], *, images: int = 2, pres: float | None = None) -> dict[str, Any]:
    """The parts of a scores.json that pooling reads: one value a prompt, the same for every score."""
    per_prompt = [metric for metric in DEFINITIONS if metric != "pres"]
    prompts = [
        {
            "template": f"prompt {number}",
            "scoring_text": "",
            "images": ["x.png"] * images,
            "scores": dict.fromkeys(per_prompt, value),
        }
        for number, value in enumerate(values)
    ]
    return {
        "protocol": {"intervals": {"seed": 0, "resamples": 50}},
        "subjects": [
            {
                "name": name,
                "class_noun": "dog",
                "photos": 3,
                "images": images * len(values),
                "real": {"dino": 0.5, "clip_i": None},
                "copying": False,
                "scores": {"pres": None if pres is None else {"value": pres}},
                "prompts": prompts,
            }
        ],
    }


def test_subjects_count_equally_and_pictures_within_a_subject() -> None:
    pooled = pool_scores([evaluation("a", [0.2, 0.4]), evaluation("b", [0.9])])
    assert pooled["overall"]["dino"]["value"] == pytest.approx((0.3 + 0.9) / 2)
    assert pooled["real"] == {"dino": 0.5, "clip_i": None}
    assert [one["name"] for one in pooled["subjects"]] == ["a", "b"]


def test_seeds_of_one_subject_are_averaged_by_their_pictures_and_are_no_more_subjects() -> None:
    pooled = pool_scores([evaluation("a", [0.2], images=1, pres=0.1), evaluation("a", [0.6], images=3, pres=0.3)])
    assert pooled["overall"]["dino"]["value"] == pytest.approx((0.2 * 1 + 0.6 * 3) / 4)
    assert pooled["overall"]["div"]["value"] == pytest.approx(0.4)  # a mean over prompts: pictures do not count
    assert pooled["overall"]["pres"]["value"] == pytest.approx(0.2)
    assert pooled["overall"]["dino"]["low"] is None  # one cell: no interval, however many seeds
    assert pooled["subjects"][0]["images"] == 4


def test_what_the_photos_reach_beyond_the_class_of_several_seeds_is_their_mean() -> None:
    seeds = [evaluation("a", [0.2]), evaluation("a", [0.6])]
    for one, value in zip(seeds, (0.1, 0.3), strict=True):
        one["subjects"][0]["real"]["beyond_class"] = value
    pooled = pool_scores(seeds)
    assert pooled["real"]["beyond_class"] == pytest.approx(0.2)
    assert pooled["real"]["dino"] == 0.5


def test_nothing_to_pool_is_no_zero() -> None:
    with pytest.raises(ValueError, match="nothing to pool"):
        pool_scores([])


def test_evaluations_pooled_equal_the_same_pictures_scored_together(judges: Judges, tmp_path: Path) -> None:
    subjects = []
    for seed, (name, photos, images) in enumerate((("dog", 4, (3, 1)), ("vase", 2, (2, 4)))):
        prompts = tuple(
            PromptImages(
                f"a sks {name} {place}",
                f"a {name} {place}",
                write_pictures(tmp_path / name / str(number), count, seed=10 * seed + number),
                template=f"a {{identifier}} {{class}} {place}",
            )
            for number, (place, count) in enumerate(zip(("in space", "in the snow"), images, strict=True))
        )
        photo_paths = write_pictures(tmp_path / name / "photos", photos, seed=50 + seed)
        member_paths = write_pictures(tmp_path / name / "class", 2, seed=70 + seed)
        subjects.append(SubjectImages(name, name, photo_paths, prompts, member_paths))
    together = score_images(subjects, judges)
    pooled = pool_scores([score_images([one], judges) for one in subjects])
    for metric in DEFINITIONS:
        if together["overall"][metric] is None:
            assert pooled["overall"][metric] is None
        else:
            assert pooled["overall"][metric] == pytest.approx(together["overall"][metric], abs=1e-6)
    assert pooled["real"] == pytest.approx(together["real"])
    assert pooled["copying"] == together["copying"]
