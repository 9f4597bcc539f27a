"""The autoencoder's targets, its losses, and what a UNet of the first edition becomes."""

import os
import signal
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel

from pretraining.autoencoder import SILENT_SHARE, new_autoencoder, psnr, roughen
from pretraining.autoencoder_losses import hinge, patch_discriminator, pixel_loss
from pretraining.base import new_unet, widened
from pretraining.latents import Targets, principal
from pretraining.measure_autoencoder import as_seen, gradient_energy
from pretraining.progress import Stop
from pretraining.settings import FIRST_CHANNELS, LATENT_CHANNELS, TOY, Run


def smooth_pixels(count: int, side: int) -> torch.Tensor:
    coarse = torch.rand((count, 3, 9, 9), generator=torch.Generator().manual_seed(0)) * 2 - 1
    return F.interpolate(coarse, size=(side, side), mode="bicubic").clamp(-1, 1)


@pytest.fixture(scope="module")
def first_edition(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    blocks = 3
    vae = AutoencoderKL(
        latent_channels=FIRST_CHANNELS,
        block_out_channels=(8,) * blocks,
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        norm_num_groups=4,
        sample_size=64,
        mid_block_add_attention=False,
    )
    folder = tmp_path_factory.mktemp("first") / "vae"
    vae.save_pretrained(folder)
    return folder


def test_principal_components_have_the_variance_asked_for() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn((20_000, 6), generator=generator) * torch.tensor([4.0, 2.0, 1.0, 0.5, 0.1, 0.1])
    projected = (rows - rows.mean(0)) @ principal(rows - rows.mean(0), 3, variance=0.5, strongest=3).T
    # spreads 4, 2, 1; partly whitened variances are in the same ratio, and their mean is 0.5
    assert projected.var(0).tolist() == pytest.approx([0.5 * 12 / 7, 0.5 * 6 / 7, 0.5 * 3 / 7], rel=0.05)


def test_the_first_channels_are_the_first_editions_latents_of_the_shrunk_picture(first_edition: Path) -> None:
    pixels, targets = smooth_pixels(8, 128), Targets(first_edition)
    targets.fit(pixels)
    vae = AutoencoderKL.from_pretrained(first_edition)
    small = F.interpolate(pixels, size=(64, 64), mode="area")
    with torch.no_grad():
        expected = vae.encode(small).latent_dist.mode()
    latents = targets(pixels)
    assert latents.shape == (8, LATENT_CHANNELS, 16, 16)
    torch.testing.assert_close(latents[:, :FIRST_CHANNELS], expected)


def test_the_first_channels_may_be_those_of_an_autoencoder_of_the_same_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    vae = new_autoencoder(Run(tmp_path, TOY, 0, torch.device("cpu"), bfloat16=False), FIRST_CHANNELS).eval()
    vae.save_pretrained(tmp_path / "vae")
    pixels, targets = smooth_pixels(8, 128), Targets(tmp_path / "vae")
    with torch.no_grad():
        torch.testing.assert_close(targets.first_channels(pixels), vae.encode(pixels).latent_dist.mode())


def test_without_a_first_edition_the_first_channels_are_a_block_pca_of_unit_variance() -> None:
    pixels, targets = smooth_pixels(64, 64), Targets()
    targets.fit(pixels)
    latents = targets(pixels)
    assert latents.shape == (64, LATENT_CHANNELS, 8, 8)
    assert latents[:, :FIRST_CHANNELS].square().mean().item() == pytest.approx(1.0, rel=0.05)
    assert latents[:, FIRST_CHANNELS : 2 * FIRST_CHANNELS].square().mean().item() == pytest.approx(0.5, rel=0.05)


def test_the_other_channels_say_what_the_first_leave_unsaid() -> None:
    pixels, targets = smooth_pixels(64, 64), Targets()
    targets.fit(pixels)
    latents = targets(pixels)
    unsaid = targets.unsaid(pixels, latents[:, :FIRST_CHANNELS])
    rest = latents[:, FIRST_CHANNELS:].permute(0, 2, 3, 1).reshape(len(unsaid), -1)
    left = unsaid - rest @ torch.linalg.pinv(targets.rest).T
    assert left.square().mean() < 0.5 * unsaid.square().mean()


def test_a_linear_reading_of_every_component_gives_the_pixels_back() -> None:
    pixels, targets = smooth_pixels(16, 64), Targets()
    targets.fit(pixels)
    torch.testing.assert_close(targets.linear_reading(pixels, 192), pixels, atol=1e-4, rtol=0)
    assert psnr(targets.linear_reading(pixels, 8), pixels) > psnr(targets.linear_reading(pixels, 0), pixels)


def test_what_was_found_is_restored_without_fitting() -> None:
    pixels, targets, restored = smooth_pixels(16, 64), Targets(), Targets()
    targets.fit(pixels)
    restored.load_state_dict(targets.components(), strict=False)
    torch.testing.assert_close(restored(pixels), targets(pixels))


def test_some_latents_are_silent_beyond_the_first_channels_but_for_noise() -> None:
    latents = torch.full((4000, LATENT_CHANNELS, 1, 1), 10.0)
    rough = roughen(latents, torch.Generator().manual_seed(0))
    silent = (rough[:, FIRST_CHANNELS:].mean((1, 2, 3)) < 5).float().mean().item()
    assert silent == pytest.approx(SILENT_SHARE, abs=0.02)
    assert rough[:, :FIRST_CHANNELS].min() > 5


def test_the_hinge_is_zero_only_beyond_the_margin() -> None:
    assert hinge(torch.tensor([1.5]), torch.tensor([-1.5])).item() == 0
    assert hinge(torch.tensor([0.5]), torch.tensor([0.5])).item() == pytest.approx(0.5 + 1.5)


def test_a_shift_of_colour_costs_more_than_an_edge_of_the_same_size() -> None:
    real = torch.zeros(1, 3, 16, 16)
    shifted = real + 0.1
    checked = real + 0.1 * (1 - 2 * (torch.arange(16) % 2))
    # L1 .1, twice the square .02, and of the shift the colour .1
    assert pixel_loss(shifted, real, 8).item() == pytest.approx(0.22)
    assert pixel_loss(checked, real, 8).item() == pytest.approx(0.12)


def test_the_discriminator_judges_patches() -> None:
    logits = patch_discriminator()(torch.zeros(2, 3, 64, 64))
    assert logits.shape == (2, 1, 14, 14)


def test_the_signal_to_noise_ratio_is_that_of_the_usual_formula() -> None:
    pixels = torch.zeros(2, 3, 8, 8)
    # an error of 0.2 of a range of 2 is 0.1: 20 dB
    assert psnr(pixels + 0.2, pixels) == pytest.approx(20.0, rel=1e-5)


def test_the_gradient_energy_of_stripes_is_worked_out_by_hand() -> None:
    stripes = (torch.arange(8) % 2).float().expand(1, 3, 8, 8)
    # every step across is 1, none down
    assert gradient_energy(stripes) == pytest.approx(0.5)


def test_an_autoencoder_of_the_first_edition_is_measured_at_the_size_of_the_second(first_edition: Path) -> None:
    vae = AutoencoderKL.from_pretrained(first_edition).eval()
    assert as_seen(vae, smooth_pixels(2, 128)).shape == (2, 3, 128, 128)


def test_a_unet_of_the_first_edition_draws_the_same_in_its_channels_and_nothing_in_the_others(tmp_path: Path) -> None:
    torch.manual_seed(0)
    run = Run(tmp_path, TOY, 0, torch.device("cpu"), bfloat16=False)
    config = {**new_unet(run).config, "in_channels": FIRST_CHANNELS, "out_channels": FIRST_CHANNELS}
    earlier = UNet2DConditionModel.from_config(config).eval()
    earlier.save_pretrained(tmp_path / "unet")
    unet = widened(run, tmp_path / "unet").eval()
    latents, states, time = torch.randn(2, LATENT_CHANNELS, 16, 16), torch.randn(2, 16, 128), torch.tensor([10, 900])
    with torch.no_grad():
        drawn = unet(latents, time, states).sample
        expected = earlier(latents[:, :FIRST_CHANNELS], time, states).sample
    torch.testing.assert_close(drawn[:, :FIRST_CHANNELS], expected)
    assert drawn[:, FIRST_CHANNELS:].abs().max() == 0


def test_a_signal_is_a_wish_to_stop_within_its_context_and_the_usual_end_after_it() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Stop() as stop:
        assert not stop.wanted
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wanted
    assert signal.getsignal(signal.SIGTERM) == before
