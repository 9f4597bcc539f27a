"""Timesteps: every number of steps begins at the noisiest, and every sampler arrives at the image."""

from __future__ import annotations

import inspect
import json
import re
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from dbcli.diffusion.bases.folder import embedded_folder
from dbcli.diffusion.bases.single_file import shipped_configs
from dbcli.diffusion.schedulers.noisiest_first import trailing
from dbcli.diffusion.schedulers.samplers import (
    NOISIEST,
    PUBLISHED,
    SAMPLERS,
    alphas_of,
    check_sampler,
    make_sampler,
    visited,
)
from dbcli.errors import ConfigError
from dbcli.project.settings.profiles import load_profile

V1 = shipped_configs("sd-v1")["scheduler"]
TINY = json.loads((embedded_folder() / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
ZERO_SNR = V1 | {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
CONFIGS = {"v1": V1, "tiny": TINY, "zero-snr": ZERO_SNR, "trailing": V1 | {"timestep_spacing": "trailing"}}
# The last is noise alone; for steps at the end diffusers' own trailing spacing names a timestep -1.
COUNTS = (1, 2, 3, 7, 30, 50, 61, 113, 334, 501, 600, 999, 1000)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_number_of_steps_begins_at_the_noisiest_timestep(name: str, config: dict[str, Any]) -> None:
    sampler = make_sampler(name, config)
    for steps in (*range(1, 1001, 41), *COUNTS):
        sampler.set_timesteps(steps)
        found = sampler.timesteps.tolist()
        assert round(found[0]) == 999, steps
        assert 0 <= found[-1] < 999 or steps == 1, steps
        assert sorted(found, reverse=True) == found, steps


@pytest.mark.parametrize("name", ["ddim", "ddpm", "pndm"])
def test_ddim_ddpm_and_pndm_visit_as_many_timesteps_as_there_are_steps(name: str) -> None:
    sampler = make_sampler(name, V1)
    for steps in range(1, 1001):
        sampler.set_timesteps(steps)
        assert len(set(sampler.timesteps.tolist())) == steps


def test_trailing_timesteps_by_hand() -> None:
    assert trailing(4, 1000) == [999, 749, 499, 249]
    # Thirds of 1000 are 666.67 and 333.33, each less one.
    assert trailing(3, 1000) == [999, 666, 332]
    assert trailing(1000, 1000) == list(range(999, -1, -1))


def walked(name: str, config: dict[str, Any], steps: int, timesteps: str = NOISIEST) -> float:
    """Where a sampler arrives whose UNet knows the image, which is 0.7 everywhere."""
    alphas, image = alphas_of(config).numpy(), torch.full((1, 1, 2, 2), 0.7)
    sampler = make_sampler(name, config, timesteps)
    sampler.set_timesteps(steps)
    takes_generator = "generator" in inspect.signature(sampler.step).parameters
    extra = {"generator": [torch.Generator().manual_seed(0)]} if takes_generator else {}
    latents = torch.randn(1, 1, 2, 2, generator=torch.Generator().manual_seed(1)) * sampler.init_noise_sigma
    for timestep in sampler.timesteps:
        seen = sampler.scale_model_input(latents, timestep)
        alpha = float(np.interp(float(timestep), np.arange(1000), alphas))
        noise = (seen - alpha**0.5 * image) / (1 - alpha) ** 0.5
        velocity = alpha**0.5 * noise - (1 - alpha) ** 0.5 * image
        output = velocity if config["prediction_type"] == "v_prediction" else noise
        latents = sampler.step(output, timestep, latents, **extra).prev_sample
    return float((latents - image).abs().max())


@pytest.mark.parametrize("config", [V1, ZERO_SNR], ids=["epsilon", "zero-snr"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_perfect_model_is_sampled_to_its_image_in_any_number_of_steps(name: str, config: dict[str, Any]) -> None:
    # PNDM adds up predictions of v made at different noise, which only many steps bring together.
    counts = (30, 61, 600) if name == "pndm" and config is ZERO_SNR else (1, 2, 7, 30, 61, 600)
    for steps in counts:
        # The alpha that DDIM and PNDM end at is the first one, which leaves sqrt(1 - 0.99915) = 0.03 of the noise.
        assert walked(name, config, steps) < 0.06, steps


def test_the_published_timesteps_are_diffusers_own_to_the_bit() -> None:
    for name, steps, first in (("ddim", 100, 991), ("ddim", 50, 981)):
        own, theirs = make_sampler(name, V1, PUBLISHED), diffusers.DDIMScheduler.from_config(V1)
        for sampler in (own, theirs):
            sampler.set_timesteps(steps)
        assert type(own) is diffusers.DDIMScheduler
        assert own.timesteps.tolist() == theirs.timesteps.tolist()
        assert own.timesteps[0] == first
        assert torch.equal(own.alphas_cumprod, theirs.alphas_cumprod)


def test_the_paper_profile_keeps_the_published_timesteps_of_its_own_counts() -> None:
    paper = load_profile("paper")
    for section, steps in (("draw", 100), ("prior", 50)):
        settings = paper[section]
        assert (settings["timesteps"], settings["steps"]) == ("published", steps)
        assert visited("ddim", V1, steps, settings["timesteps"]) == PUBLISHED


def test_published_timesteps_that_begin_late_or_beyond_the_last_are_never_taken() -> None:
    assert visited("ddim", V1, 600, PUBLISHED) == NOISIEST
    assert visited("ddim", V1, 1000, PUBLISHED) == NOISIEST
    assert visited("ddim", V1, 25, PUBLISHED) == PUBLISHED


def test_lists_that_are_the_same_have_one_name() -> None:
    assert visited("dpm++", V1, 25, NOISIEST) == PUBLISHED
    assert visited("ddim", V1, 25, NOISIEST) == NOISIEST


@pytest.mark.parametrize("name", ["heun", "pndm"])
def test_samplers_that_know_no_zero_terminal_snr_are_given_its_alphas(name: str) -> None:
    alphas = make_sampler(name, ZERO_SNR).alphas_cumprod
    assert alphas[-1] == 2**-24
    assert torch.equal(alphas[:-1], alphas_of(ZERO_SNR)[:-1])
    assert alphas_of(ZERO_SNR)[-1] == 0


@pytest.mark.parametrize("timesteps", [NOISIEST, PUBLISHED])
@pytest.mark.parametrize("steps", [25, 30, 50, 100])
def test_karras_noise_levels_with_zero_terminal_snr_come_to_an_end(steps: int, timesteps: str) -> None:
    # Both lists are the same for a base with leading timesteps: then it is drawn on the published one.
    assert walked("dpm++-karras", ZERO_SNR, steps, timesteps) < 1e-3


@pytest.mark.parametrize(("name", "near"), [("dpmpp", "dpm++"), ("dpmpp-sde", "dpm++-sde"), ("eulr", "euler")])
def test_a_sampler_as_others_write_it_leads_to_ours(name: str, near: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f'Did you mean "{near}"?')):
        check_sampler(name)
