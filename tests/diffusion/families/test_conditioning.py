"""Prompts as a denoiser reads them: every tensor goes the same way."""

from __future__ import annotations

import torch

from dbcli.diffusion.families.conditioning import Conditioning

WHOLE = Conditioning(
    torch.arange(12.0).view(3, 2, 2), torch.arange(3.0).view(3, 1), torch.tensor([[True, False]] * 2 + [[True, True]])
)
DOUBLE = torch.float64


def test_rows_are_taken_of_every_tensor() -> None:
    taken = WHOLE.rows([2, 0, 2])
    assert taken.states[:, 0, 0].tolist() == [8.0, 0.0, 8.0]
    assert taken.pooled is not None and taken.pooled.flatten().tolist() == [2.0, 0.0, 2.0]
    assert taken.mask is not None and taken.mask[:, 1].tolist() == [True, False, True]
    assert len(WHOLE.rows(slice(1, None))) == 2


def test_parts_are_put_together_again() -> None:
    again = Conditioning.cat([WHOLE.rows([0]), WHOLE.rows([1, 2])])
    assert torch.equal(again.states, WHOLE.states)
    assert again.pooled is not None and WHOLE.pooled is not None and torch.equal(again.pooled, WHOLE.pooled)
    assert Conditioning.cat([Conditioning(WHOLE.states)] * 2).pooled is None


def test_one_prompt_is_shown_to_many_rows_in_the_same_memory() -> None:
    many = WHOLE.rows([1]).expand(4)
    assert many.states.shape == (4, 2, 2) and many.states.stride(0) == 0
    assert many.pooled is not None and many.pooled.flatten().tolist() == [1.0] * 4


def test_another_type_is_not_for_a_mask() -> None:
    other = WHOLE.to(torch.device("cpu"), DOUBLE)
    assert other.pooled is not None and other.mask is not None
    assert (other.states.dtype, other.pooled.dtype, other.mask.dtype) == (DOUBLE, DOUBLE, torch.bool)


def test_frames_go_with_their_rows_and_keep_their_type() -> None:
    framed = WHOLE.framed([(number, 2, 0, 0, 4, 6) for number in range(3)])
    assert WHOLE.frames is None and WHOLE.rows([0]).frames is None
    again = Conditioning.cat([framed.rows([2]), framed.rows([0])]).to(torch.device("cpu"), DOUBLE)
    assert again.frames is not None and again.frames.dtype == torch.int64
    assert again.frames.tolist() == [[2, 2, 0, 0, 4, 6], [0, 2, 0, 0, 4, 6]]
