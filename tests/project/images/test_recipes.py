from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from dbcli.errors import DataError
from dbcli.project.images.recipes import Recipe, png_bytes, read_recipe, read_text_chunks, save_png
from tests.project.images.parameters_text import by_the_format

RECIPE = Recipe(
    prompt="a sks dog in space",
    negative="blurry",
    sampler="ddim",
    steps=30,
    guidance=7.5,
    seed=42,
    width=512,
    height=768,
    base_name="sd-v1-4",
    base_hash="0123456789abcdef" * 4,
    run="0003-dog",
    identifiers={"dog": "sks"},
    version="1.2.3",
)


def read_by_others(text: str) -> tuple[str, str, dict[str, str]]:
    """Prompt, negative prompt and fields, as the format has them."""
    found = by_the_format(text)
    return found.pop("Prompt"), found.pop("Negative prompt"), found


def test_the_chunk_that_other_programs_read() -> None:
    assert RECIPE.a1111_parameters() == (
        "a sks dog in space\n"
        "Negative prompt: blurry\n"
        "Steps: 30, Sampler: DDIM, CFG scale: 7.5, Seed: 42, Size: 512x768, "
        "Model hash: 0123456789, Model: 0003-dog, Version: dreambooth 1.2.3"
    )


def test_without_negative_run_and_hash() -> None:
    bare = RECIPE.model_copy(
        update={"negative": " ", "run": None, "base_hash": None, "version": "", "sampler": "odd", "eta": 0.5}
    )
    assert bare.a1111_parameters() == (
        "a sks dog in space\nSteps: 30, Sampler: odd, CFG scale: 7.5, Seed: 42, Size: 512x768, Model: sd-v1-4, Eta: 0.5"
    )


@pytest.mark.parametrize(
    ("prompt", "read"),
    [
        ("one\ntwo\r\n three", "one two three"),
        ("Negative prompt: ugly", "Negative prompt : ugly"),
        ("a dog\nNegative prompt: ugly", "a dog Negative prompt: ugly"),
        ("Steps: 3, Sampler: x, Seed: 1, Size: 1x1", "Steps : 3, Sampler: x, Seed: 1, Size: 1x1"),
        ("a dog\nSteps: 3, Sampler: x, Seed: 1", "a dog Steps: 3, Sampler: x, Seed: 1"),
        ('a "dog", (red:1.2), \\ <lora:x:1>', 'a "dog", (red:1.2), \\ <lora:x:1>'),
        ("a\u2028dog\x1b[31m\0", "a dog[31m"),
        ("犬 🐶 ü", "犬 🐶 ü"),
    ],
)
def test_no_prompt_breaks_the_chunk(prompt: str, read: str) -> None:
    found = read_by_others(RECIPE.model_copy(update={"prompt": prompt, "negative": prompt}).a1111_parameters())
    assert found[:2] == (read, read)
    assert (found[2]["Seed"], found[2]["Size"], found[2]["Steps"]) == ("42", "512x768", "30")


@given(st.text(max_size=60), st.text(max_size=60))
def test_seed_and_size_survive_any_prompt(prompt: str, negative: str) -> None:
    recipe = RECIPE.model_copy(update={"prompt": prompt, "negative": negative})
    assert len(recipe.a1111_parameters().split("\n")) <= 3
    values = read_by_others(recipe.a1111_parameters())[2]
    assert (values["Seed"], values["Size"]) == ("42", "512x768")


def test_a_value_with_a_comma_is_quoted() -> None:
    text = RECIPE.model_copy(update={"run": None, "base_name": 'my "base", v: 2'}).a1111_parameters()
    assert r'Model: "my \"base\", v: 2", Version' in text
    assert read_by_others(text)[2]["Model"] == 'my "base", v: 2'


@pytest.mark.parametrize("prompt", ["a sks dog", "two\nlines", "犬 🐶", "Steps: 1", "\ud7ff\x00x"])
def test_the_recipe_comes_back_exactly(tmp_path: Path, prompt: str) -> None:
    recipe = RECIPE.model_copy(update={"prompt": prompt, "index": 7, "extras": {"clip_skip": 1}})
    save_png(tmp_path / "a.png", Image.new("RGB", (8, 8), (1, 2, 3)), recipe)
    assert os.listdir(tmp_path) == ["a.png"]
    assert read_recipe(tmp_path / "a.png") == recipe
    assert read_text_chunks(tmp_path / "a.png")["parameters"] == recipe.a1111_parameters()
    with Image.open(tmp_path / "a.png") as image:
        assert image.getpixel((0, 0)) == (1, 2, 3)


def test_a_picture_without_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png_bytes(Image.new("RGB", (8, 8))))
    assert read_text_chunks(tmp_path / "a.png") == {}
    with pytest.raises(DataError, match="contains no recipe") as caught:
        read_recipe(tmp_path / "a.png")
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"prompt": 3}', "[" * 100_000])
def test_a_damaged_recipe_is_named(tmp_path: Path, text: str) -> None:
    info = PngInfo()
    info.add_text("dreambooth", text)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", pnginfo=info)
    with pytest.raises(DataError, match=r"a\.png"):
        read_recipe(tmp_path / "a.png")


@pytest.mark.parametrize("content", [b"", b"text", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_png_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.png cannot be read"):
        read_recipe(tmp_path / "a.png")
