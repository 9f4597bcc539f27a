"""The embedded base as one of XL's kind: the same predictions and images, and more that can learn."""

from __future__ import annotations

import pytest
import torch

from dbcli.diffusion.adapters.attach import make_full
from dbcli.diffusion.bases.base import Base, load_base
from dbcli.diffusion.conditioning import embed_prompts
from dbcli.diffusion.families.sdxl import SDXL
from dbcli.diffusion.sampling.sample import SampleRequest, SamplingSettings, sample_images

PROMPTS = ["a dog on grass", "", "a photo of a red backpack in space", "a sks dog"]


@pytest.fixture(scope="module")
def bases() -> tuple[Base, Base]:
    return load_base("tiny"), load_base("tiny-xl")


def test_its_prediction_is_that_of_tiny_where_another_prompt_changes_it_by_a_tenth_and_more(
    bases: tuple[Base, Base],
) -> None:
    tiny, xl = bases
    assert xl.family is SDXL and xl.hash != tiny.hash
    noisy = torch.randn(4, 24, 16, 16, generator=torch.Generator().manual_seed(0))
    ours, theirs = embed_prompts(xl, PROMPTS), embed_prompts(tiny, PROMPTS)
    for timestep in (100, 500, 900):
        level = torch.tensor(timestep)
        with torch.no_grad():
            wanted, found = tiny.denoiser(noisy, level, theirs), xl.denoiser(noisy, level, ours)
            other = tiny.denoiser(noisy, level, theirs.rows([1, 0, 3, 2]))
        assert float((found - wanted).norm() / wanted.norm()) < 5e-6
        assert float((other - wanted).norm() / wanted.norm()) > 0.1


def test_it_draws_the_image_of_tiny(bases: tuple[Base, Base]) -> None:
    order, how = [SampleRequest("a dog on grass", 3)], SamplingSettings("ddim", 5, 3.0, 0.0, 128, 128)
    one, other = (next(image for _, image in sample_images(base, order, how)) for base in bases)
    assert float((one - other).abs().max()) < 1e-3


def test_its_weights_are_the_same_on_every_load_and_the_states_of_one_size(bases: tuple[Base, Base]) -> None:
    xl = bases[1]
    assert load_base("tiny-xl").hash == xl.hash
    states = embed_prompts(xl, PROMPTS).states
    assert states.shape[-1] == 3 * 128
    assert 0.3 < float(states.std()) < 3


def test_what_it_is_told_beside_the_prompt_can_be_learnt() -> None:
    xl = load_base("tiny-xl")
    make_full(xl.tunable, train_text=True)
    noisy = torch.randn(1, 24, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.enable_grad():
        conditioning = xl.family.encode(
            xl.encoders,
            {
                name: one("a dog", padding="max_length", return_tensors="pt").input_ids
                for name, one in xl.tokenizers.items()
            },
            0,
        )
        xl.denoiser(noisy, torch.tensor(500), conditioning).square().mean().backward()
    assert float(xl.unet.add_embedding.linear_2.weight.grad.abs().sum()) > 0
    for name in xl.encoders:
        table = xl.networks[name].get_input_embeddings().weight
        assert float(table.grad.abs().sum()) > 0
