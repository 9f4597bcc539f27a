"""The nearest background of an image, by an embedded judge."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from dbcli.metrics.judges.judge import Judge, Judges
from dbcli.metrics.judges.loading import load_judge
from dbcli.metrics.judges.naming import background_texts, border_squares, nearest_background

COLOURS = ["red", "blue", "green", "yellow", "black", "white"]


@pytest.fixture(scope="module")
def shipped_clip() -> Judge:
    return load_judge("tiny-clip")


def test_the_shipped_judge_names_plain_colours(shipped_clip: Judge) -> None:
    colours = ["red", "blue", "green", "yellow", "black"]
    images = [Image.new("RGB", (64, 64), colour) for colour in colours]
    texts = [f"a dog on a {colour} background" for colour in colours]
    cosines = shipped_clip.encode_images(images) @ shipped_clip.encode_texts(texts).T
    assert cosines.argmax(dim=1).tolist() == list(range(len(texts)))


def test_border_squares_are_eight_quarters_along_the_middle_square_and_hold_nothing_of_its_middle() -> None:
    image = Image.new("RGB", (400, 200), "red")  # what the centre crop leaves out
    image.paste("blue", (100, 0, 300, 200))
    image.paste("red", (150, 50, 250, 150))
    assert [square.size for square in border_squares(image)] == [(50, 50)] * 8
    assert {square.getcolors()[0][1] for square in border_squares(image)} == {(0, 0, 255)}
    numbered = Image.new("L", (8, 8))
    numbered.putdata(range(64))
    firsts = [square.getpixel((0, 0)) for square in border_squares(numbered)]
    assert firsts == [0, 3, 6, 24, 30, 48, 51, 54]  # squares of two pixels; the ninth, at 27, is the middle


def test_texts_of_backgrounds_are_means_over_what_may_stand_before_them(judges: Judges) -> None:
    found = background_texts(judges.clip, ["on grass", "at night"], ["dog", "red car"])
    one = judges.clip.encode_texts(["a dog at night", "a red car at night"]).sum(dim=0)
    torch.testing.assert_close(found[1], one / one.norm())


@pytest.mark.parametrize("behind", COLOURS)
def test_a_thing_s_colour_is_not_taken_for_that_of_its_background(shipped_clip: Judge, behind: str) -> None:
    texts = background_texts(shipped_clip, [f"on a {colour} background" for colour in COLOURS], ["dog", "car", "vase"])
    for thing in COLOURS:
        image = Image.new("RGB", (256, 192), behind)
        image.paste(thing, (80, 48, 176, 144))
        assert COLOURS[nearest_background(shipped_clip, image, texts)] == behind
