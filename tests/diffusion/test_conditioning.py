"""Prompts as numbers."""

from __future__ import annotations

import pytest
import torch

from dbcli.diffusion import conditioning
from dbcli.diffusion.conditioning import FrozenPrompts, LearningPrompts, embed_prompts, token_ids
from dbcli.diffusion.vocabulary import tokens_of
from tests.diffusion import tiny_models


def test_a_control_word_in_a_prompt_does_not_end_it() -> None:
    tokenizer = tiny_models.tokenizer()
    assert torch.equal(token_ids(tokenizer, ["a dog <|endoftext|> in space"]), token_ids(tokenizer, ["a dog in space"]))


@pytest.mark.parametrize(
    ("typed", "plain"),
    [("a dog, it’s “red”", 'a dog, it\'s "red"'), ("salt &amp; pepper", "salt & pepper"), ("a ﬁne １２", "a fine 12")],
)
def test_typographic_marks_become_the_tokens_of_plain_ones(typed: str, plain: str) -> None:
    tokenizer = tiny_models.tokenizer()
    assert torch.equal(token_ids(tokenizer, [typed]), token_ids(tokenizer, [plain]))
    assert tokens_of(typed) == tokens_of(plain) == tuple(tokenizer(plain, add_special_tokens=False).input_ids)


def test_an_entity_that_spells_a_control_word_does_not_end_a_prompt() -> None:
    tokenizer = tiny_models.tokenizer()
    typed = "a dog &lt;|endoftext|&gt; in space"
    assert torch.equal(token_ids(tokenizer, [typed]), token_ids(tokenizer, ["a dog in space"]))


def test_prompts_are_padded_and_cut_to_the_tokenizers_length() -> None:
    ids = token_ids(tiny_models.tokenizer(), ["a dog", "word " * 200])
    assert ids.shape == (2, 77)


def test_of_many_prompts_a_few_are_encoded_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, prompts = tiny_models.model(), ["a dog", "a cat", "a dog", "a bear", "a bag", "a cup"]
    whole, sizes = embed_prompts(model, prompts).states, []
    (encoder,) = model.encoders.values()
    encoder.register_forward_hook(lambda module, given, found: sizes.append(len(found[0])))
    monkeypatch.setattr(conditioning, "ENCODED_AT_ONCE", 2)
    torch.testing.assert_close(embed_prompts(model, prompts).states, whole, rtol=1e-5, atol=1e-5)
    assert sizes == [2, 2, 1]


def test_equal_prompts_get_equal_embeddings_in_order() -> None:
    embedded = embed_prompts(tiny_models.model(), ["a dog", "a cat", "a dog"]).states
    assert torch.equal(embedded[0], embedded[2])
    assert not torch.equal(embedded[0], embedded[1])


def test_clip_skip_takes_an_earlier_layer_through_the_final_norm() -> None:
    text_encoder = tiny_models.networks()["text_encoder"]
    tokenizer = tiny_models.tokenizer()
    hidden = text_encoder(token_ids(tokenizer, ["a dog"]), output_hidden_states=True).hidden_states
    inner = getattr(text_encoder, "text_model", text_encoder)
    expected = inner.final_layer_norm(hidden[-2])
    assert torch.equal(embed_prompts(tiny_models.model(), ["a dog"], clip_skip=1).states, expected)


def test_both_prompt_tables_give_the_same_rows() -> None:
    model, prompts, device = tiny_models.model(), ["a sks dog", "a dog"], torch.device("cpu")
    frozen, learning = (kind(model, prompts, device) for kind in (FrozenPrompts, LearningPrompts))
    assert torch.allclose(frozen.rows([1, 0, 1]).states, learning.rows([1, 0, 1]).states, atol=1e-6)
