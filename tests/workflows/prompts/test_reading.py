"""What of a prompt the text encoder reads, and what is said of the rest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dbcli.diffusion.conditioning import unread_part
from dbcli.errors import PromptError
from dbcli.project.files.layout import Layout
from dbcli.project.prompts.identifiers import Words
from dbcli.project.runs.run_store import RunBase, RunRecord, RunSubject
from dbcli.project.settings.project_settings import ProjectSettings, save_settings
from dbcli.workflows.progress import Silence
from dbcli.workflows.prompts.reading import check_length, read_prompts, unread_words
from dbcli.workflows.setup.base_facts import BaseFacts, facts_of
from tests.diffusion import tiny_models

DOG = {"dog": Words("sks", "dog")}
LONG = " ".join(["very"] * 75)


@pytest.mark.parametrize(
    ("text", "room", "lost"),
    [
        ("one two three", 3, ""),
        ("one two three four", 3, "four"),
        ("one two three, four", 3, ", four"),
        ("one two 2026 four", 4, "2026 four"),  # every digit is a token, and a number is not cut in two
        ("one two sksohwx", 3, "sksohwx"),
        ("one  “two” &amp; three", 4, "& three"),
        ("one <|endoftext|> two three", 2, "three"),
        ("", 0, ""),
    ],
)
def test_the_words_that_are_not_read_are_named(text: str, room: int, lost: str) -> None:
    assert unread_words(text, room) == lost


def test_a_learnt_word_takes_as_many_tokens_as_it_has_vectors() -> None:
    assert unread_words("a hta ball in space", 5) == ""
    assert unread_words("a HTA ball in space", 6, {"hta": 3}) == "space"
    assert unread_words("a hta_2 ball", 4, {"hta": 3}) == "ball"  # hta, _ and 2: another word


@pytest.mark.parametrize(
    "text", [f"{LONG} dog", f"{LONG}, it’s 12 犬 sksohwx", "Größe ﬁne " * 30, "a dog", "a, b. " * 40]
)
def test_no_model_is_needed_to_know_what_the_tokenizer_cuts(text: str) -> None:
    assert unread_words(text, 75) == unread_part(tiny_models.tokenizer(), text)


def test_a_word_of_the_subject_that_is_not_read_is_a_refusal() -> None:
    progress = Silence()
    with pytest.raises(PromptError, match="'sks' comes after them.*not read: 'sks dog'") as refused:
        check_length([f"{LONG} sks dog"], DOG, progress, 77)
    assert refused.value.exit_code == 3
    with pytest.raises(PromptError, match="'dog' comes after them"):
        check_length([f"{LONG.removesuffix(' very')} sks dog"], DOG, progress, 77)
    with pytest.raises(PromptError, match="'corgi dog' comes after them"):
        check_length([f"{LONG.removesuffix(' very')} corgi dog"], {"dog": Words("sks", "corgi dog")}, progress, 77)
    assert progress.warnings == []


def test_other_words_that_are_not_read_are_a_warning() -> None:
    progress = Silence()
    check_length(
        [f"a sks dog {LONG} in space with a dog", "a sks dog"], DOG, progress, 77, where=lambda text: " (here)"
    )
    assert len(progress.warnings) == 1
    assert "(here)" in progress.warnings[0]
    assert "75 tokens" in progress.warnings[0]
    assert progress.warnings[0].endswith("not read: 'very very very in space with a dog'.")


def test_many_long_texts_are_not_a_wall_of_lines() -> None:
    progress = Silence()
    check_length([f"{LONG} {number} more" for number in range(30)], {}, progress, 77)
    assert len(progress.warnings) == 6
    assert progress.warnings[-1].startswith("25 more texts")


def test_how_much_a_base_reads_is_known_before_it_is_loaded(tmp_path: Path) -> None:
    layout = Layout(tmp_path)

    def with_base(source: object) -> int:
        save_settings(layout, ProjectSettings(base=str(source)))
        return facts_of(layout).max_tokens

    assert with_base("tiny") == 16
    assert with_base("sd-v1-4") == 77
    folder = tmp_path / "base"
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "text_encoder").mkdir()
    (folder / "tokenizer" / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 10**30}))
    (folder / "text_encoder" / "config.json").write_text(
        json.dumps({"max_position_embeddings": 40, "num_hidden_layers": 12})
    )
    (folder / "vae").mkdir()
    (folder / "vae" / "config.json").write_text(json.dumps({"block_out_channels": [1, 2, 3, 4]}))
    assert with_base(folder) == 40
    assert facts_of(layout) == BaseFacts(40, 12, 8)
    places = "cond_stage_model.transformer.text_model.embeddings.position_embedding.weight"
    save_file({places: torch.zeros(248, 8)}, tmp_path / "long.safetensors")
    assert with_base(tmp_path / "long.safetensors") == 248
    (tmp_path / "bad.safetensors").write_bytes(b"no header")
    assert with_base(tmp_path / "bad.safetensors") == 77


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path)
    save_settings(layout, ProjectSettings(base="tiny"))
    return layout


def said(layout: Layout, prompt: str, method: str = "lora", name: str = "dog", noun: str = "dog") -> list[str]:
    subject = RunSubject(name=name, class_noun=noun, identifier="hta")
    progress = Silence()
    record = RunRecord(name="0001-x", method=method, subjects=[subject], base=RunBase(name="tiny", source="tiny"))
    read_prompts(layout, [prompt], record, progress)
    return [line for line in progress.warnings if not line.startswith("tiny does not know")]


def test_words_that_the_embedded_base_was_never_taught_are_told_once_with_those_it_knows(layout: Layout) -> None:
    progress = Silence()
    prompts = ["a dog in Paris", "a dog in Paris at night", "a dog in the snow", "a dog on an orange background"]
    read_prompts(layout, prompts, None, progress)
    (line,) = progress.warnings
    assert line.startswith("tiny does not know 'Paris'. Scenes it knows: on a white background, on grass, in space,")
    assert line.endswith("Colours: red, orange, yellow, green, blue, purple, pink, brown, black, white, gray.")
    save_settings(layout, ProjectSettings(base="sd-v1-4"))
    read_prompts(layout, prompts, None, progress)
    assert len(progress.warnings) == 1


@pytest.mark.parametrize("word", ["hta_2", "hta2", "HTA_1", "my_hta"])
def test_a_word_joined_to_a_learnt_vector_is_told(layout: Layout, word: str) -> None:
    warnings = said(layout, f"a {word} ball", method="textual-inversion", noun="ball")
    assert len(warnings) == 1
    assert f"'{word}' is not the word 'hta'" in warnings[0]
    assert "'hta ball' was probably meant" in warnings[0]


@pytest.mark.parametrize("prompt", ["a hta ball", "a hta-like hta ball", "a bathtab and a hta ball"])
def test_a_word_that_stands_alone_is_read(layout: Layout, prompt: str) -> None:
    assert said(layout, prompt, method="textual-inversion", noun="ball") == []


def test_a_subject_called_by_its_name_alone_is_told(layout: Layout) -> None:
    assert "{rex} or 'hta dog'" in said(layout, "a rex in the snow", name="rex")[0]
    assert "{dog} or 'hta dog'" in said(layout, "a dog in the snow")[0]
    assert said(layout, "a hta dog and another dog") == []
    assert said(layout, "a cat in the snow") == []


@pytest.mark.parametrize(
    "piece",
    [
        "(red:1.3)",
        "<lora:x:0.5>",
        "BREAK",
        "[cat:dog:0.5]",
        "(a red:-1)",
        "[cat|dog]",
        "{red|blue}",
        "((red))",
        "[[red]]",
    ],
)
def test_syntax_of_other_programs_is_told_to_be_words(layout: Layout, piece: str) -> None:
    warnings = [one for one in said(layout, f"a hta dog {piece} on") if "read as words" in one]
    assert len(warnings) == 1
    assert piece in warnings[0]


@pytest.mark.parametrize("prompt", ["a hta dog (red)", "a hta dog [sic]", "A HTA DOG AND A CAT", "a hta dog at 12:30"])
def test_plain_brackets_and_capitals_are_words(layout: Layout, prompt: str) -> None:
    assert said(layout, prompt) == []


def test_one_caption_after_several_sentences_is_told_once_as_it_loses_most() -> None:
    progress = Silence()
    texts = [f"a {LONG} sofa in a room", f"a photo of a {LONG} sofa in a room"]
    check_length(texts, {}, progress, 77, where=lambda text: " (0001.txt)")
    assert len(progress.warnings) == 1
    assert progress.warnings[0].startswith("'a photo of a")
    check_length(texts, {}, progress, 77)
    assert len(progress.warnings) == 3
