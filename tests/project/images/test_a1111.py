"""The `parameters` text: ours follows the format, theirs is read by us."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbcli.diffusion.schedulers.samplers import SAMPLERS
from dbcli.project.files.names import without_control_characters
from dbcli.project.images.a1111 import fields_of, read_parameters
from dbcli.project.images.recipes import SAMPLER_TITLES, Recipe
from tests.project.images.parameters_text import by_the_format

RECIPE: dict[str, Any] = {
    "prompt": "a sks dog",
    "sampler": "ddim",
    "steps": 30,
    "guidance": 7.5,
    "seed": 42,
    "width": 512,
    "height": 768,
    "base_name": "sd-v1-4",
    "base_hash": "0123456789abcdef" * 4,
    "version": "1.2.3",
}


# What breaks such a text: its own marks, in any company.
PIECES = st.sampled_from(
    [
        "a dog",
        ", ",
        '"',
        "\\",
        "\n",
        "\r\n",
        ": ",
        "Steps: 3, ",
        "Negative prompt:",
        "Seed: 7",
        "🐶",
        "👩‍🚀",
        "犬",
        " ",
        "(",
    ]
)
TEXTS = st.one_of(st.lists(PIECES, max_size=12).map("".join), st.text(max_size=40))


def folded(text: str) -> str:
    """A prompt on one line, and at its beginning no field's name: the only changes that are allowed."""
    return re.sub(r"^(negative prompt|steps):", r"\1 :", without_control_characters(text), flags=re.IGNORECASE)


@given(prompt=TEXTS, negative=TEXTS, base=TEXTS.filter(str.strip), sampler=st.sampled_from(sorted(SAMPLER_TITLES)))
def test_any_recipe_follows_the_format(prompt: str, negative: str, base: str, sampler: str) -> None:
    recipe = Recipe(**RECIPE | {"prompt": prompt, "negative": negative, "base_name": base, "sampler": sampler})
    read = by_the_format(recipe.a1111_parameters())
    assert read["Prompt"] == folded(prompt)
    assert read["Negative prompt"] == folded(negative)
    assert read["Sampler"] == SAMPLER_TITLES[sampler]
    assert read["Model"] == without_control_characters(base)
    assert (read["Steps"], read["CFG scale"], read["Seed"], read["Size"]) == ("30", "7.5", "42", "512x768")
    assert read["Model hash"] == "0123456789"


@given(prompt=TEXTS, negative=TEXTS, sampler=st.sampled_from(sorted(SAMPLER_TITLES)))
def test_our_reader_gives_back_what_was_written(prompt: str, negative: str, sampler: str) -> None:
    recipe = Recipe(**RECIPE | {"prompt": prompt, "negative": negative, "sampler": sampler, "eta": 0.5})
    read = read_parameters(recipe.a1111_parameters())
    assert (read.prompt, read.negative, read.sampler) == (folded(prompt), folded(negative), sampler)
    assert (read.steps, read.guidance, read.seed, read.eta, read.size_px) == (30, 7.5, 42, 0.5, (512, 768))
    assert read.unread == ()


THEIRS = """masterpiece, (best quality:1.2), a cat
on a mat, <lora:add_detail:0.5>
Negative prompt: blurry,
low quality
Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 1234567890, Size: 512x768, \
Model hash: 6ce0161689, Model: v1-5-pruned, Lora hashes: "add_detail: 7c6bad76eb54, other: 1", Version: v1.9.4"""


def test_a_text_of_automatic1111() -> None:
    read = read_parameters(THEIRS)
    assert read.prompt == "masterpiece, (best quality:1.2), a cat\non a mat, <lora:add_detail:0.5>"
    assert read.negative == "blurry,\nlow quality"
    assert (read.steps, read.guidance, read.seed, read.size_px) == (20, 7.0, 1234567890, (512, 768))
    assert read.sampler == "dpm++-karras"
    assert read.values["Lora hashes"] == "add_detail: 7c6bad76eb54, other: 1"
    assert read.unread == ()


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("Euler a", "euler-a"),
        ("Euler", "euler"),
        ("DPM++ 2M Karras", "dpm++-karras"),
        ("DPM++ 2M SDE Karras", "dpm++-sde"),
        ("DPM++ 2M SDE", "dpm++-sde"),
        ("PLMS", "pndm"),
        ("UniPC", "unipc"),
        ("ddim", "ddim"),
    ],
)
def test_their_samplers_have_our_names(title: str, name: str) -> None:
    assert read_parameters(f"a\nSteps: 1, Sampler: {title}, Seed: 1").sampler == name


def test_a_sampler_of_one_step_is_not_taken_for_the_one_of_two_with_a_like_name() -> None:
    read = read_parameters("a\nSteps: 1, Sampler: DPM++ SDE, Seed: 1")
    assert (read.sampler, read.unread) == (None, ("Sampler: DPM++ SDE",))
    assert SAMPLER_TITLES["dpm++-sde"] == "DPM++ 2M SDE"


def test_only_samplers_that_are_there_have_a_title() -> None:
    assert set(SAMPLER_TITLES) <= set(SAMPLERS)


def test_values_that_are_none_are_named_and_left_out() -> None:
    read = read_parameters("a\nSteps: many, Sampler: Restart, CFG scale: nan, Seed: 1e3, Size: big")
    assert (read.steps, read.sampler, read.guidance, read.seed, read.size_px) == (None,) * 5
    assert [line.partition(":")[0] for line in read.unread] == ["Sampler", "Steps", "CFG scale", "Seed", "Size"]


def test_a_prompt_without_fields_is_a_prompt() -> None:
    assert read_parameters("a dog: brown, large").prompt == "a dog: brown, large"


def test_a_line_without_end_takes_no_time() -> None:
    read = read_parameters("a\nSteps: 1, Sampler: Euler, Seed: 5, " + "x" * 900_000)
    assert read.seed == 5


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        ("Steps: 20, Sampler: Euler a", [("Steps", "20"), ("Sampler", "Euler a")]),
        (
            "Model hash: ab12, Hires upscaler: R-ESRGAN 4x+",
            [("Model hash", "ab12"), ("Hires upscaler", "R-ESRGAN 4x+")],
        ),
        ("ADetailer model 2nd: x.pt, Eta/ENSD: 1", [("ADetailer model 2nd", "x.pt"), ("Eta/ENSD", "1")]),
        ('Lora hashes: "a: 1, b: 2", Seed: 3', [("Lora hashes", "a: 1, b: 2"), ("Seed", "3")]),
        ('Prompt: "say \\"hi, you\\", \\n\\\\", Seed: 3', [("Prompt", 'say "hi, you", \n\\'), ("Seed", "3")]),
        ('Model: "open, Seed: 3', [("Model", '"open'), ("Seed", "3")]),
        ('Model: "a" b, Seed: 3', [("Model", '"a" b'), ("Seed", "3")]),
        ('Model: "", Seed: 3', [("Model", ""), ("Seed", "3")]),
        ("Model: a: b, Seed: 3", [("Model", "a: b"), ("Seed", "3")]),
        ("no field, Seed: 3,, ,", [("Seed", "3")]),
        ("Tiling: , Seed: 3", [("Tiling", ""), ("Seed", "3")]),
        ("Name of a model: 模型, Größe: 1", [("Name of a model", "模型"), ("Größe", "1")]),
        ("", []),
    ],
)
def test_fields_of_a_line(line: str, fields: list[tuple[str, str]]) -> None:
    assert list(fields_of(line)) == fields


def test_a_last_line_is_of_fields_by_its_usual_keys() -> None:
    assert read_parameters("a dog\nSteps: 4, Seed: 2").steps == 4
    story = "a dog\nSeed: of doubt, mood: dark, light: low"
    assert read_parameters(story).prompt == story


def test_what_is_not_followed_is_told() -> None:
    more = "Clip skip: 2, Hires upscale: 2, Variation seed: 5, ADetailer model: face.pt, VAE: x.safetensors"
    read = read_parameters(f"a\nSteps: 1, Sampler: Euler a, Schedule type: Karras, Seed: 1, {more}, Version: v1.10")
    assert read.clip_skip == 2
    assert read.ignored == ("Schedule type Karras", "Hires upscale", "Variation seed", "ADetailer model", "VAE")
    assert read_parameters("a\nSteps: 1, Sampler: DPM++ 2M, Schedule type: Karras, Seed: 1").ignored == ()
