"""Identifiers: what is proposed, what is measured, and what is refused token by token."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from dbcli.diffusion.vocabulary import rare_words, tokens_of
from dbcli.project.prompts.token_claims import known_words
from dbcli.workflows.subjects.identifiers import random_sequences

Run = Callable[..., Any]


def add(run: Run, photos: Path, name: str, noun: str, token: str, *words: str) -> Any:
    return run("add-subject", name, "--class", noun, photos, "--token", token, *words)


def test_tokens_are_those_of_the_bases_own_tokenizer() -> None:
    from tests.diffusion import tiny_models

    texts = ["sks dog", "Xqz123 犬 🐶", "it's  a   dog", "café naïve", "<|endoftext|>"]
    tokenizer = tiny_models.tokenizer()
    for text in texts[:4]:
        assert list(tokens_of(text)) == tokenizer(text).input_ids[1:-1]
    assert tokens_of("sks") == (48136,)


def test_rare_words_are_single_tokens_the_rarest_first() -> None:
    found = rare_words()
    tokens = [tokens_of(word) for word in found]
    assert all(len(one) == 1 for one in tokens)
    assert tokens == sorted(tokens, reverse=True)
    assert len(found) == 604 + 930


@pytest.mark.parametrize(
    ("token", "why"),
    [
        ("sks", "is the identifier"),
        ("SKS", "is the identifier"),
        ("sks1", "shares a token"),
        ("cat", "class noun"),
        ("house", "plain word"),
    ],
)
def test_a_word_that_clashes_is_refused_with_a_reason_and_three_others(
    run: Run, project: Path, photos: Path, token: str, why: str
) -> None:
    assert add(run, photos, "rex", "dog", "sks").code == 0
    ended = add(run, photos, "tom", "cat", token)
    assert ended.code == 6
    assert why in ended.err
    assert ended.err.count(",") >= 2
    assert not (project / "subjects" / "tom").exists()


def test_the_words_proposed_after_a_refusal_are_accepted(run: Run, project: Path, photos: Path) -> None:
    add(run, photos, "rex", "dog", "sks")
    refused = add(run, photos, "tom", "cat", "sks")
    proposed = refused.err.split("take one of ")[1].split(";")[0].split(", ")
    assert len(proposed) == 3
    assert add(run, photos, "tom", "cat", proposed[0]).code == 0


def test_a_word_stays_with_its_subject_in_every_run(run: Run, project: Path, photos: Path) -> None:
    import shutil

    words = ["--steps", 1, "--set=prior.enabled=false"]
    assert run("train", "--subject", "dog", "--token", "xqz", *words).code == 0
    shutil.rmtree(project / "subjects" / "dog")
    assert add(run, photos, "tom", "cat", "xqz").code == 6
    assert add(run, photos, "dog", "dog", "xqz").code == 0


def test_a_collision_can_be_asked_for_and_is_recorded(run: Run, project: Path, photos: Path) -> None:
    add(run, photos, "rex", "dog", "sks")
    assert add(run, photos, "tom", "cat", "sks", "--allow-collision").code == 0
    record = run(
        "train",
        "--subject",
        "dog",
        "--token",
        "sks",
        "--allow-collision",
        "--steps",
        1,
        "--set=prior.enabled=false",
        "--json",
    ).document
    assert record["allow_collision"] is True


@pytest.mark.parametrize("word", ["", "   ", "two words", "<|endoftext|>", "a" * 80, "{dog}", "🐶", "!!!"])
def test_what_can_be_no_word_gets_a_clear_answer(run: Run, project: Path, photos: Path, word: str) -> None:
    ended = add(run, photos, "rex", "dog", word)
    assert ended.code in (2, 6)
    assert "Error: " in ended.err


@pytest.mark.parametrize("word", ["犬", "собака", "ñandú"])
def test_words_of_other_scripts_are_accepted_or_refused_by_their_tokens(
    run: Run, project: Path, photos: Path, word: str
) -> None:
    ended = add(run, photos, "rex", "dog", word)
    assert ended.code in (0, 2, 6)
    if ended.code == 0:
        record = yaml.safe_load((project / "subjects" / "rex" / "subject.yaml").read_text())
        assert record["identifier"] == word


def test_suggest_ranks_free_words_by_what_they_mean_to_the_base(run: Run, project: Path, photos: Path) -> None:
    add(run, photos, "rex", "dog", "sks")
    words = run("tokens", "suggest", "-n", 5, "--json").document["words"]
    assert len(words) == 5
    strengths = [word["strength"] for word in words]
    assert strengths == sorted(strengths)
    assert not {word["word"] for word in words} & (known_words() | {"sks"})


def test_sequences_are_one_to_three_tokens_and_come_back_with_their_seed() -> None:
    one, again, other = (random_sequences([], 20, seed=seed) for seed in (1, 1, 2))
    assert one == again
    assert one != other
    assert all(1 <= len(tokens_of(word)) <= 3 for word in one)
    assert {len(tokens_of(word)) for word in one + other} == {1, 2, 3}


def test_check_says_whose_a_word_is_and_what_it_is_known_for(run: Run, project: Path, photos: Path) -> None:
    add(run, photos, "rex", "dog", "sks")
    verdict = run("tokens", "check", "sks", "--json").document
    assert verdict["owner"] == "rex"
    assert "rifle" in verdict["meaning"]
    assert verdict["proposal"]["tokens"] == [48136]
    assert verdict["rarity"] == pytest.approx(48136 / 49406)
    assert run("tokens", "check", "cat", "--json").document["clash"] is not None


def test_list_shows_every_subjects_word(run: Run, project: Path, photos: Path) -> None:
    add(run, photos, "rex", "dog", "sks")
    listed = {one["subject"]: one["identifier"] for one in run("tokens", "list", "--json").document["identifiers"]}
    assert listed == {"dog": None, "rex": "sks"}
