"""Drawing against diffusers' own pipeline, and what a picture may depend on."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline

from dbcli.diffusion.sampling.sample import SampleRequest, SamplingSettings, rescaled_guidance, sample_images
from dbcli.diffusion.schedulers.samplers import SAMPLERS, make_sampler
from dbcli.errors import ConfigError, ImageNotFinite, Interrupted
from tests.diffusion import tiny_models

SETTINGS = SamplingSettings(steps=3, guidance=4.0, width=64, height=64, batch_size=4)


@pytest.fixture(scope="module")
def base() -> Any:
    return tiny_models.model()


def drawn(base: Any, orders: list[SampleRequest], settings: SamplingSettings = SETTINGS) -> torch.Tensor:
    return torch.stack([image for _, image in sample_images(base, orders, settings)])


@pytest.mark.parametrize(("timesteps", "spacing"), [("noisiest", "trailing"), ("published", "leading")])
def test_pictures_equal_the_plain_pipeline(base: Any, timesteps: str, spacing: str) -> None:
    pipeline = StableDiffusionPipeline(
        vae=base.vae,
        text_encoder=base.text_encoder,
        tokenizer=base.tokenizer,
        unet=base.unet,
        scheduler=DDIMScheduler.from_config(base.scheduler_config, timestep_spacing=spacing),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        ["a sks dog in space"] * 2,
        negative_prompt=["blurry"] * 2,
        num_inference_steps=4,
        guidance_scale=4.0,
        height=64,
        width=64,
        generator=[torch.Generator().manual_seed(seed) for seed in (7, 8)],
        output_type="pt",
    ).images
    settings = replace(SETTINGS, steps=4, timesteps=timesteps)
    found = drawn(base, [SampleRequest("a sks dog in space", seed, "blurry") for seed in (7, 8)], settings)
    assert torch.allclose((found.clamp(-1, 1) + 1) / 2, expected, atol=1e-4)


def test_a_picture_does_not_depend_on_its_neighbours(base: Any) -> None:
    alone = drawn(base, [SampleRequest("a dog", 3)])
    together = drawn(base, [SampleRequest("a cat", 1), SampleRequest("a dog", 3), SampleRequest("a car", 2)])
    assert torch.allclose(alone[0], together[1], atol=1e-5)


def test_the_seed_and_the_prompt_both_matter(base: Any) -> None:
    first, second, third = drawn(
        base, [SampleRequest("a dog", 1), SampleRequest("a dog", 2), SampleRequest("a cat", 1)]
    )
    assert not torch.allclose(first, second, atol=1e-3)
    assert not torch.allclose(first, third, atol=1e-3)


def test_in_half_precision_the_unet_alone_is_coarser_and_the_picture_nearly_the_same(base: Any) -> None:
    whole, half = (
        drawn(base, [SampleRequest("a dog", 1)], replace(SETTINGS, precision=precision))
        for precision in ("fp32", "bf16")
    )
    assert (half.dtype, base.unet.dtype) == (torch.float32, torch.float32)
    # Eight bits of each number instead of 24: apart, by less than two neighbouring seeds are by far.
    assert 0 < float((whole - half).abs().mean()) < 0.02


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_every_sampler_draws_and_redraws(base: Any, name: str) -> None:
    settings = SamplingSettings(sampler=name, steps=3, guidance=2.0, width=64, height=64)
    once, again = (drawn(base, [SampleRequest("a dog", 5)], settings) for _ in range(2))
    assert torch.isfinite(once).all()
    assert torch.equal(once, again)


def test_a_v_prediction_base_keeps_its_prediction_type() -> None:
    assert make_sampler("dpm++", {"prediction_type": "v_prediction"}).config.prediction_type == "v_prediction"


def test_an_unknown_sampler_names_the_known_ones() -> None:
    with pytest.raises(ConfigError) as error:
        make_sampler("dimm", {})
    assert "ddim" in str(error.value.hint)


def test_progress_counts_every_picture_and_step(base: Any) -> None:
    moved: list[int] = []
    list(sample_images(base, [SampleRequest("a dog", 1), SampleRequest("a dog", 2)], SETTINGS, on_denoise=moved.append))
    assert sum(moved) == 2 * SETTINGS.steps


def test_a_wish_to_stop_is_heard_between_two_steps(base: Any) -> None:
    moved: list[int] = []
    with pytest.raises(Interrupted):
        list(
            sample_images(
                base,
                [SampleRequest("a dog", 1)],
                SETTINGS,
                on_denoise=moved.append,
                should_stop=lambda: len(moved) == 1,
            )
        )
    assert len(moved) == 1


def test_what_is_wanted_of_many_orders_is_drawn_as_among_all_and_other_batches_are_left_out(base: Any) -> None:
    orders = [SampleRequest("a dog in space", seed) for seed in range(7)]
    whole = drawn(base, orders)
    part = dict(sample_images(base, orders, SETTINGS, wanted={5}))
    assert sorted(part) == [4, 5, 6]
    assert all(torch.equal(image, whole[index]) for index, image in part.items())


@pytest.mark.parametrize("name", ["heun", "pndm", "ddim"])
def test_progress_counts_the_steps_that_were_asked_for_whatever_the_sampler_calls(base: Any, name: str) -> None:
    moved: list[int] = []
    settings = replace(SETTINGS, sampler=name, steps=5)
    list(sample_images(base, [SampleRequest("a dog", 1), SampleRequest("a dog", 2)], settings, on_denoise=moved.append))
    assert moved == [2] * 5


@pytest.fixture
def own_weights(base: Any) -> Any:
    """The base with a UNet of its own, to be spoilt."""
    return replace(base, networks=base.networks | {"unet": copy.deepcopy(base.unet)})


def test_an_image_that_half_precision_cannot_hold_is_sampled_once_more_in_fp32(own_weights: Any) -> None:
    with torch.no_grad():
        own_weights.unet.conv_in.weight.mul_(1e6)  # fp16 ends at 65,504
    settings, order = replace(SETTINGS, batch_size=1), SampleRequest("a dog", 1)
    notes: list[str] = []
    (found,) = (
        image
        for _, image in sample_images(own_weights, [order], replace(settings, precision="fp16"), on_note=notes.append)
    )
    assert torch.equal(found, drawn(own_weights, [order], settings)[0])
    assert len(notes) == 1
    assert "fp16" in notes[0] and "fp32" in notes[0]


def test_what_is_computed_in_half_precision_around_the_sampling_is_seen_too(own_weights: Any) -> None:
    with torch.no_grad():
        own_weights.unet.conv_in.weight.mul_(1e6)
    notes: list[str] = []
    with torch.autocast("cpu", dtype=torch.float16):
        (found,) = (
            image
            for _, image in sample_images(own_weights, [SampleRequest("a dog", 1)], SETTINGS, on_note=notes.append)
        )
    assert torch.isfinite(found).all()
    assert len(notes) == 1


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_infinite_weight_ends_with_exit_5_and_is_named(own_weights: Any, precision: str) -> None:
    with torch.no_grad():
        own_weights.unet.conv_out.bias[1] = float("inf")
    with pytest.raises(ImageNotFinite, match=r"unet\.conv_out\.bias contains 1 infinite or NaN weight\.") as caught:
        drawn(own_weights, [SampleRequest("a dog", 1)], replace(SETTINGS, precision=precision))
    assert caught.value.exit_code == 5


def test_guidance_keeps_the_deviation_of_the_conditioned_prediction_in_part() -> None:
    conditioned = torch.tensor([[[[-1.0, 1.0]]]])
    guided = 3 * conditioned
    # Brought back in full it is the conditioned one again: 0.7 of that and 0.3 of three times it make 1.6.
    torch.testing.assert_close(rescaled_guidance(guided, conditioned), 1.6 * conditioned)


def test_zero_terminal_snr_rescales_guidance_and_other_bases_do_not(base: Any, monkeypatch) -> None:
    config = {**base.scheduler_config, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    zero_snr = replace(base, scheduler_config=config)
    order = [SampleRequest("a dog", 1)]
    rescaled, plain = drawn(zero_snr, order), drawn(base, order)
    monkeypatch.setattr("dbcli.diffusion.sampling.sample.GUIDANCE_RESCALE", 0.0)
    assert torch.isfinite(rescaled).all()
    assert not torch.allclose(drawn(zero_snr, order), rescaled)
    assert torch.equal(drawn(base, order), plain)
