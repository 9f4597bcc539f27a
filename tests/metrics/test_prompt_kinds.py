"""Which prompts keep the subject's look and which name a place, over every shipped suite and the dataset's prompts."""

from __future__ import annotations

import pytest

from dbcli.metrics.prompt_kinds import keeps_look, names_scene, with_fields
from dbcli.metrics.suites import load_suite, shipped_suites

S = "{identifier} {class}"


@pytest.mark.parametrize(
    "template",
    [f"a red {S}", f"a bright red {S}", f"a photo of a purple {S}", f"a shiny {S}", f"a cube shaped {S}", f"a wet {S}",
     f"a {S} made of glass", f"a {S} in the shape of a ball", f"an oil painting of a {S} in the style of Monet",
     "a golden {dog} on the beach"],
)  # fmt: skip
def test_another_colour_material_or_shape_is_no_likeness(template: str) -> None:
    assert not keeps_look(template)
    assert not names_scene(template)


@pytest.mark.parametrize(
    "template",
    [f"a {S}", f"a photo of a {S}", f"a {S} on a red armchair", f"a red rose beside a {S}", f"a happy {S}",
     "a {dog} with a blue house in the background", "a sks dog: running"],
)  # fmt: skip
def test_a_colour_elsewhere_leaves_the_subject_as_it_is(template: str) -> None:
    assert keeps_look(template)


def test_the_task_speaks_for_prompts_whose_words_do_not() -> None:
    assert keeps_look(f"a charcoal drawing of a {S}")
    assert not keeps_look(f"a charcoal drawing of a {S}", "art rendition")


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (f"a {S} in the snow", True),
        (f"a {S} with a mountain in the background", True),
        (f"a {S} with a lighthouse behind it", True),
        (f"a {S} floating on top of water", True),
        (f"a {S} running along a sandy shore", True),
        (f"a {S} in front of a brick wall", True),
        ("a {dog} in space", True),
        (f"a {S}", False),
        (f"a {S} wearing a red hat", False),
        (f"a {S} in a chef outfit", False),
        (f"a {S} covered in stickers", False),
        (f"a {S} with a flower on top", False),
        (f"a photo of a {S} seen from above", False),
        (f"a red {S} in the snow", False),
        ("in the snow", False),
    ],
)
def test_a_scene_is_where_the_subject_is(template: str, expected: bool) -> None:
    assert names_scene(template) is expected


def test_words_that_were_typed_out_become_fields() -> None:
    assert with_fields("A red SKS dog, in space", "sks dog") == f"A red {S}, in space"
    assert with_fields("a {dog} and a sks dog", "sks dog") == "a {dog} and a sks dog"
    assert with_fields("a sks doghouse", "sks dog") == "a sks doghouse"


def test_what_the_shipped_suites_are_made_of() -> None:
    """Suite -> prompts for a dog and for a vase: how many keep the look, how many of those name a scene."""
    found = {}
    for name in shipped_suites():
        suite = load_suite(name)
        found[name] = [
            (
                sum(keeps_look(one.template, one.task) for one in prompts),
                sum(names_scene(one.template, one.task) for one in prompts),
                len(prompts),
            )
            for prompts in (suite.prompts_for("dog"), suite.prompts_for("vase"))
        ]
    assert found == {
        "accessories": [(7, 0, 7), (4, 0, 4)],
        "art-rendition": [(0, 0, 8), (0, 0, 8)],
        "demo": [(5, 4, 5), (5, 4, 5)],
        "emotions": [(7, 0, 7), (0, 0, 0)],
        "extreme-places": [(8, 8, 8), (8, 8, 8)],
        "novel-views": [(5, 0, 5), (5, 0, 5)],
        "property-change": [(0, 0, 9), (0, 0, 9)],
        "quick": [(5, 5, 5), (5, 5, 5)],
        "recontextualisation": [(10, 10, 10), (10, 10, 10)],
        "species-cross": [(0, 0, 6), (0, 0, 5)],
        "tiny": [(12, 12, 15), (12, 12, 15)],
    }
