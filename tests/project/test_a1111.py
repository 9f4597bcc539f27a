"""The `parameters` text: ours read by AUTOMATIC1111's grammar, theirs read by us."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbcli.project.a1111 import MAX_LINE, read_parameters
from dbcli.project.names import without_control_characters
from dbcli.project.recipes import SAMPLER_TITLES, Recipe

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


def by_their_grammar(text: str) -> dict[str, str]:
    """AUTOMATIC1111's reading, written anew from its public grammar: prompts under "Prompt" and "Negative prompt"."""
    key_value = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
    *lines, fields = text.strip().split("\n")
    if len(key_value.findall(fields)) < 3:
        lines, fields = [*lines, fields], ""
    found: dict[str, list[str]] = {"Prompt": [], "Negative prompt": []}
    part = "Prompt"
    for line in lines:
        line = line.strip()
        if line.startswith("Negative prompt:"):
            part, line = "Negative prompt", line[16:].strip()
        found[part].append(line)
    read = {name: "\n".join(texts) for name, texts in found.items()}
    for name, value in key_value.findall(fields):
        read[name] = json.loads(value) if value[:1] == '"' == value[-1:] else value
    return read


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
def test_any_recipe_is_read_by_their_grammar(prompt: str, negative: str, base: str, sampler: str) -> None:
    recipe = Recipe(**RECIPE | {"prompt": prompt, "negative": negative, "base_name": base, "sampler": sampler})
    read = by_their_grammar(recipe.a1111_parameters())
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
        ("PLMS", "pndm"),
        ("UniPC", "unipc"),
        ("ddim", "ddim"),
    ],
)
def test_their_samplers_have_our_names(title: str, name: str) -> None:
    assert read_parameters(f"a\nSteps: 1, Sampler: {title}, Seed: 1").sampler == name


def test_values_that_are_none_are_named_and_left_out() -> None:
    read = read_parameters("a\nSteps: many, Sampler: Restart, CFG scale: nan, Seed: 1e3, Size: big")
    assert (read.steps, read.sampler, read.guidance, read.seed, read.size_px) == (None,) * 5
    assert [line.partition(":")[0] for line in read.unread] == ["Steps", "CFG scale", "Seed", "Size", "Sampler"]


def test_a_prompt_without_fields_is_a_prompt() -> None:
    assert read_parameters("a dog: brown, large").prompt == "a dog: brown, large"


def test_a_line_without_end_takes_no_time() -> None:
    read = read_parameters("a\nSteps: 1, Sampler: Euler, Seed: 5, " + "x" * 900_000)
    assert (read.seed, MAX_LINE) == (5, 10_000)
