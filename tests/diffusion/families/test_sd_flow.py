"""The embedded base under flow matching: its velocities, levels and images are those of its diffusion."""

from __future__ import annotations

import json

import pytest
import torch

from dbcli.diffusion.bases.base import Base, load_base
from dbcli.diffusion.bases.folder import embedded_folder
from dbcli.diffusion.conditioning import embed_prompts
from dbcli.diffusion.estimate.cost import fake_tensors
from dbcli.diffusion.families import sd_flow
from dbcli.diffusion.families.sd_flow import TABLE, timesteps_of
from dbcli.diffusion.sampling.sample import SampleRequest, SamplingSettings, sample_images


@pytest.fixture(scope="module")
def bases() -> tuple[Base, Base]:
    return load_base("tiny"), load_base("tiny-flow")


def test_its_table_is_that_of_the_embedded_base() -> None:
    stored = json.loads((embedded_folder() / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
    assert {key: stored[key] for key in TABLE} == TABLE
    assert stored["prediction_type"] == "v_prediction"


def test_a_level_is_told_as_the_timestep_of_the_same_ratio_of_signal_to_noise(bases: tuple[Base, Base]) -> None:
    alphas = bases[0].process.alphas.double()  # type: ignore[attr-defined]  # tiny's process is diffusion
    places = torch.tensor([0, 1, 400, 998, 999])
    ratio = (alphas[places] / (1 - alphas[places])).sqrt()
    # (1 - s) / s = r: s = 1 / (1 + r)
    assert torch.allclose(timesteps_of((1 / (1 + ratio)).float()), places.float(), atol=0.02)
    between = timesteps_of(torch.tensor([0.3, 0.31]))
    assert 0 < between[0] < between[1] < 999
    assert timesteps_of(torch.tensor([0.0, 1.0])).tolist() == [0.0, 999.0]


def test_an_estimate_may_be_the_first_to_ask_for_its_table() -> None:
    sd_flow._log_ratios.cache_clear()
    with fake_tensors():
        assert timesteps_of(torch.tensor([0.5])).shape == (1,)
    assert timesteps_of(torch.tensor([0.0, 1.0])).tolist() == [0.0, 999.0]


def test_its_velocity_is_that_of_the_image_and_noise_which_tiny_sees(bases: tuple[Base, Base]) -> None:
    tiny, flow = bases
    generator = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(2, tiny.latent_channels, 16, 16, generator=generator) for _ in range(2))
    timesteps = torch.tensor([200, 700])
    alphas = tiny.process.alphas[timesteps]  # type: ignore[attr-defined]  # as above
    ratio = (alphas / (1 - alphas)).sqrt()
    levels = 1 / (1 + ratio)
    prompts = embed_prompts(tiny, ["a dog", "a house"])
    with torch.no_grad():
        said = tiny.denoiser(tiny.process.noised(clean, noise, timesteps), timesteps, prompts)
        found = flow.denoiser(flow.process.noised(clean, noise, levels), levels, prompts)
    signal, spread = alphas.sqrt().view(-1, 1, 1, 1), (1 - alphas).sqrt().view(-1, 1, 1, 1)
    mixed = signal * clean + spread * noise
    # e = spread x + signal v, x0 = signal x - spread v
    expected = (spread * mixed + signal * said) - (signal * mixed - spread * said)
    assert float((found - expected).norm() / expected.norm()) < 1e-3


def test_it_draws_nearly_the_images_of_tiny(bases: tuple[Base, Base]) -> None:
    orders = [SampleRequest("a red car on the beach", 1), SampleRequest("a drawing of a house at night", 2)]
    drawn = {}
    for name, sampler, base in (("tiny", "ddim", bases[0]), ("flow", "euler", bases[1])):
        settings = SamplingSettings(sampler, 12, 3.0, 0.0, 128, 128)
        drawn[name] = torch.stack([image for _, image in sample_images(base, orders, settings)])
    apart, others = (drawn["tiny"] - drawn["flow"]).abs().mean(), (drawn["tiny"][0] - drawn["tiny"][1]).abs().mean()
    assert float(apart) < 0.12 < 0.4 < float(others)


def test_it_is_another_base_of_the_same_weights(bases: tuple[Base, Base]) -> None:
    tiny, flow = bases
    assert flow.hash != tiny.hash and flow.prediction_type == "flow"
    assert all(
        torch.equal(one, other) for one, other in zip(tiny.unet.parameters(), flow.unet.parameters(), strict=True)
    )
