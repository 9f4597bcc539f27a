"""A scores.json worked out by hand, for tables and pages."""

from __future__ import annotations

from typing import Any


def interval(value: float, low: float | None = None, high: float | None = None) -> dict[str, float | None]:
    return {"value": value, "low": low, "high": high}


def made_scores(prompt: str = "a sks dog in space", *, copying: bool = False) -> dict[str, Any]:
    """One evaluation of two subjects with one prompt each."""
    judge = {
        "judge": "tiny-dino",
        "model": "tiny-dino",
        "source": "embedded/tiny-dino",
        "revision": None,
        "weights_sha256": "ab" * 32,
        "preprocessing": {"resize_shorter_side_px": 64, "crop": "centre 64 px"},
    }
    subject = {
        "name": "dog",
        "class_noun": "dog",
        "photos": 5,
        "images": 4,
        "scores": {
            "dino": interval(0.712, 0.65, 0.77), "clip_i": interval(0.81),
            "clip_t": interval(0.301, 0.29, 0.31), "clip_t_l": None, "pres": None, "div": interval(0.25),
        },
        "real": {"dino": 0.7 if copying else 0.774, "clip_i": 0.885},
        "copying": copying,
        "prompts": [
            {
                "prompt": prompt,
                "scores": {"dino": 0.712, "clip_i": 0.81, "clip_t": 0.301, "clip_t_l": None, "div": None},
                "copying": copying,
            }
        ],
    }  # fmt: skip
    return {
        "schema": 1,
        "protocol": {
            "scores": {
                "dino": {"title": "DINO", "judge": "dino", "better": "higher", "pairing": "all pairs"},
                "clip_t_l": {
                    "title": "CLIP-T-L",
                    "judge": "clip_l",
                    "better": "higher",
                    "pairing": "own prompt",
                },
            },
            "judges": {"dino": judge},
            "scale": "plain cosine",
            "identifier_removed_from_scoring_text": True,
            "mean": "all pairs",
            "real": "distinct pairs",
            "masked": None,
            "intervals": {
                "level": 0.95,
                "over": "prompts",
                "method": "bootstrap",
                "resamples": 2000,
                "seed": 0,
            },
        },
        "overall": {"dino": interval(0.712, 0.65, 0.77), "clip_i": interval(0.81), "clip_t": interval(0.301)},
        "real": {"dino": 0.774, "clip_i": 0.885},
        "copying": ["dog"] if copying else [],
        "subjects": [subject, {**subject, "name": "vase"}],
    }
