"""The autoencoder: AutoencoderKL of factor 8 with 24 channels, whose latents are fixed beforehand (`latents.py`).

First the encoder learns to give those latents and the decoder to turn them into pixels. From `ENCODER_SHARE` of the
time on the encoder stays as it is, so that a UNet can begin on its latents, and the decoder goes on alone, on what the
encoder gives, against a discriminator. Latents are given noise of every strength up to `NOISE`, because the UNet's will
not be perfect. (Letting the decoder move the channels that the first edition lacked was tried: after 700 steps they
said little.)
"""

import argparse
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from pretraining.autoencoder_losses import hinge, patch_discriminator, perceptual, pixel_loss
from pretraining.clip import to_pixels
from pretraining.corpus import make_corpus
from pretraining.latents import BLOCK_PX, Targets
from pretraining.photographs import Crops, held_out_photographs, make_photographs
from pretraining.progress import (
    Average,
    Budget,
    Stop,
    falling_rate,
    load_checkpoint,
    own_time,
    save_checkpoint,
    set_rate,
)
from pretraining.settings import FIRST_CHANNELS, LATENT_CHANNELS, PICTURE_PX, Run, parser, run_from

CROP_PX = 64
AVERAGE_DECAY = 0.998
CROPS = 12
PEAK_RATE, DISCRIMINATOR_RATE = 1.5e-3, 4e-4
HELD_OUT = 64
NOISE = 0.35
# Share of the latents whose other channels are silent: the decoder draws from the first edition's alone as well.
SILENT_SHARE = 0.15
SAVE_EACH_SECONDS = 60
# Shares of the budget: until then the encoder learns; from then on the discriminator learns, and is listened to.
ENCODER_SHARE, DISCRIMINATOR_SHARE, ADVERSARIAL_SHARE = 0.4, 0.3, 0.35
PERCEPTUAL_WEIGHT, ADVERSARIAL_WEIGHT = 0.7, 0.04


def autoencoder_folder(run: Run) -> Path:
    """Return the diffusers folder of the finished autoencoder."""
    return run.folder / "vae"


def load_autoencoder(run: Run) -> AutoencoderKL:
    """Return the finished autoencoder in float32."""
    vae = AutoencoderKL.from_pretrained(autoencoder_folder(run), torch_dtype=torch.float32)
    return vae.to(run.device, memory_format=torch.channels_last).eval()


def new_autoencoder(run: Run, channels: int = LATENT_CHANNELS) -> AutoencoderKL:
    """Return an untrained AutoencoderKL of factor 8."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=channels,
        block_out_channels=run.size.vae_channels,
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=8,
        sample_size=PICTURE_PX,
        mid_block_add_attention=False,
        scaling_factor=1.0,
    )


def encoder_weights(vae: AutoencoderKL) -> list[nn.Parameter]:
    """Return the weights that make latents."""
    return [*vae.encoder.parameters(), *vae.quant_conv.parameters()]


def roughen(latents: Tensor, generator: torch.Generator) -> Tensor:
    """Give latents [B, C, h, w] noise of random strength, and silence some of what the first edition did not have."""
    count = len(latents)
    strength = NOISE * torch.rand((count, 1, 1, 1), generator=generator)
    noise = strength * torch.randn(latents.shape, generator=generator)
    kept = torch.ones(count, latents.shape[1], 1, 1)
    kept[torch.rand(count, generator=generator) < SILENT_SHARE, FIRST_CHANNELS:] = 0
    return latents * kept.to(latents.device) + noise.to(latents.device)


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    """Return pixels [N, 3, H, W] in [-1, 1] as the autoencoder keeps them, in float32."""
    parts = (vae.decode(vae.encode(part).latent_dist.mode()).sample for part in pixels.split(16))
    return torch.cat([part.clamp(-1, 1).float() for part in parts])


def psnr(drawn: Tensor, pixels: Tensor) -> float:
    """Return the mean over pictures of the peak signal-to-noise ratio in dB; pixels [N, 3, H, W] in [-1, 1]."""
    error = ((drawn - pixels) / 2).square().mean((1, 2, 3))
    return float((-10 * error.log10()).mean())


class Trainer:
    """The state of a training of the autoencoder: everything that is saved and resumed."""

    def __init__(self, run: Run, vae: AutoencoderKL) -> None:
        self.run, self.step, self.used_seconds = run, 0, 0.0
        # What has begun stays, also when a larger budget makes the share that is used smaller.
        self.encoder_rests, self.adversarial = False, 0.0
        # Channels last is a fifth faster on processors.
        self.vae = vae.to(run.device, memory_format=torch.channels_last).train()
        self.discriminator = patch_discriminator().to(run.device, memory_format=torch.channels_last)
        self.average = Average(self.vae, decay=AVERAGE_DECAY)
        self.optimizers = (
            torch.optim.AdamW(self.vae.parameters(), lr=PEAK_RATE, betas=(0.9, 0.99), weight_decay=0.0),
            torch.optim.AdamW(
                self.discriminator.parameters(), lr=DISCRIMINATOR_RATE, betas=(0.5, 0.9), weight_decay=0.0
            ),
        )
        first = run.folder / "first_edition" / "vae"
        self.targets = Targets(first if first.exists() else None).to(run.device)
        self.perceptual = perceptual(run.size.name == "toy")
        if isinstance(self.perceptual, nn.Module):
            self.perceptual = self.perceptual.to(run.device)
        self.resumed = self._resume()

    def _resume(self) -> bool:
        saved = load_checkpoint(self.run.path("autoencoder.pt"))
        if saved is None:
            return self._adopt()
        self.vae.load_state_dict(saved["vae"])
        self.discriminator.load_state_dict(saved["discriminator"])
        self.targets.load_state_dict(saved["targets"], strict=False)
        self.average.load(saved["average"])
        # A checkpoint to be carried elsewhere is in half precision and without the optimizers' memory.
        for optimizer, state in zip(self.optimizers, saved.get("optimizers", ()), strict=False):
            optimizer.load_state_dict(state)
        self.step, self.used_seconds = saved["step"], saved["used_seconds"]
        self.encoder_rests, self.adversarial = saved["encoder_rests"], saved["adversarial"]
        self.rest_encoder(self.encoder_rests)
        return True

    def _adopt(self) -> bool:
        """Go on from a finished autoencoder without its checkpoint, if the run has one: its decoder alone learns on."""
        if not autoencoder_folder(self.run).exists():
            return False
        self.vae.load_state_dict(load_autoencoder(self.run).state_dict())
        self.average = Average(self.vae, decay=AVERAGE_DECAY)
        self.rest_encoder(True)
        return True

    def save(self, used_seconds: float) -> None:
        """Write the checkpoint."""
        state = {
            "vae": self.vae.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "targets": self.targets.components(),
            "average": self.average.state(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "encoder_rests": self.encoder_rests,
            "adversarial": self.adversarial,
        }
        save_checkpoint(self.run.path("autoencoder.pt"), {**state, "step": self.step, "used_seconds": used_seconds})

    def compact(self) -> dict[str, Any]:
        """Return a checkpoint to carry elsewhere: the averaged weights in half precision, no optimizers; a fifth."""

        def half(weights: dict[str, Tensor]) -> dict[str, Tensor]:
            return {name: weight.half() for name, weight in weights.items()}

        average = half(self.average.weights)
        return {
            "vae": average,
            "discriminator": half(self.discriminator.state_dict()),
            "targets": half(self.targets.components()),
            "average": {**self.average.state(), "weights": average},
            "encoder_rests": self.encoder_rests,
            "adversarial": self.adversarial,
            "step": self.step,
            "used_seconds": self.used_seconds,
        }

    def rest_encoder(self, rests: bool) -> None:
        """Let the encoder learn no more, or go on."""
        self.encoder_rests = rests
        for weight in encoder_weights(self.vae):
            weight.requires_grad_(not rests)
            weight.grad = None

    def stage(self, fraction: float) -> None:
        """Begin what is to begin at this share of the budget."""
        if fraction >= ENCODER_SHARE and not self.encoder_rests:
            kept = {k: v for k, v in self.average.weights.items() if k.startswith(("encoder.", "quant_conv."))}
            self.vae.load_state_dict(kept, strict=False)
            self.rest_encoder(True)
        self.adversarial = max(self.adversarial, min(1.0, (fraction - ADVERSARIAL_SHARE) / 0.1))

    def latents(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the latents the decoder is to see, and the loss of the encoder."""
        if self.encoder_rests:
            with torch.no_grad(), self.run.autocast():
                return self.vae.encode(pixels).latent_dist.mode().float(), pixels.new_zeros(())
        targets = self.targets(pixels)
        with self.run.autocast():
            coded = self.vae.encode(pixels).latent_dist
        missed = (coded.mean.float() - targets).square().mean()
        return targets, missed + 0.001 * (coded.logvar.float() + 8).square().mean()

    def advance(self, pixels: Tensor, fraction: float, generator: torch.Generator) -> dict[str, float]:
        """Take one step on pixels [B, 3, 64, 64]; return its terms."""
        self.stage(fraction)
        rate = falling_rate(1.0, fraction, self.step, hold=0.35, warmup_steps=100)
        set_rate(self.optimizers[0], PEAK_RATE * max(0.02, rate))
        latents, missed = self.latents(pixels)
        with self.run.autocast():
            drawn = self.vae.decode(roughen(latents, generator)).sample.float()
        terms = {
            "pixels": pixel_loss(drawn, pixels, BLOCK_PX),
            "missed": missed,
            "seen": self.perceptual(drawn, pixels),
        }
        loss = terms["pixels"] + missed + PERCEPTUAL_WEIGHT * terms["seen"]
        if self.adversarial > 0:
            terms["fooled"] = -self.discriminator(drawn).mean()
            loss = loss + ADVERSARIAL_WEIGHT * self.adversarial * terms["fooled"]
        self.optimizers[0].zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(encoder_weights(self.vae), 1.0)
        nn.utils.clip_grad_norm_([*self.vae.decoder.parameters(), *self.vae.post_quant_conv.parameters()], 1.0)
        self.optimizers[0].step()
        if fraction > DISCRIMINATOR_SHARE or self.adversarial > 0:
            self.teach_discriminator(pixels, drawn.detach(), terms)
        self.step += 1
        self.average.update(self.vae)
        return {name: float(term.detach()) for name, term in terms.items()}

    def teach_discriminator(self, pixels: Tensor, drawn: Tensor, terms: dict[str, Tensor]) -> None:
        """Take one step of the discriminator on real and drawn pixels."""
        terms["told"] = hinge(self.discriminator(pixels), self.discriminator(drawn))
        self.optimizers[1].zero_grad()
        terms["told"].backward()
        self.optimizers[1].step()


def averaged(run: Run, trainer: Trainer) -> AutoencoderKL:
    """Return the average of a training's weights as an autoencoder of its own."""
    vae = new_autoencoder(run, trainer.vae.config.latent_channels)
    vae.load_state_dict(trainer.average.weights)
    return vae.to(run.device, memory_format=torch.channels_last).eval()


def write_autoencoder(run: Run, trainer: Trainer) -> None:
    """Write the averaged autoencoder as a diffusers folder."""
    part = run.path("vae.part")
    averaged(run, trainer).save_pretrained(part)
    shutil.rmtree(autoencoder_folder(run), ignore_errors=True)
    part.rename(autoencoder_folder(run))


class Diet:
    """Crops to learn from: half of them from the corpus, half from photographs."""

    def __init__(self, run: Run) -> None:
        self.images, self.crops = np.load(run.path("pictures.npy"), mmap_mode="r"), Crops(run)
        self.first = min(HELD_OUT, len(self.images) // 2)

    def __call__(self, count: int, side_px: int, generator: torch.Generator) -> Tensor:
        """Return crops float32 [count, 3, side, side] in [-1, 1]; the first pictures of the corpus only measure."""
        rows = torch.randint(self.first, len(self.images), (count - count // 2,), generator=generator)
        room = PICTURE_PX - side_px + 1
        top, left = torch.randint(0, room, (2,), generator=generator).tolist()
        drawn = to_pixels(self.images[rows.sort().values.numpy()])[..., top : top + side_px, left : left + side_px]
        return torch.cat([drawn, self.crops(count // 2, side_px, generator)])

    def held_out(self) -> Tensor:
        """Return the pictures of the corpus that only measure."""
        return to_pixels(self.images[: self.first])


def mean_of(name: str, terms: list[dict[str, float]]) -> float:
    """Return the mean of a term of the loss over the steps that had it."""
    return float(np.mean([term[name] for term in terms if name in term]))


def report(run: Run, trainer: Trainer, known: dict[str, Tensor]) -> None:
    """Print the signal-to-noise ratio of pictures that are not trained on."""
    vae = averaged(run, trainer)
    figures = [f"{name} {psnr(reconstruct(vae, each.to(run.device)).cpu(), each):.2f}" for name, each in known.items()]
    print(f"autoencoder {trainer.step} {' '.join(figures)} dB", flush=True)


def begin(run: Run, trainer: Trainer, diet: Diet) -> None:
    """Find, once, what the latents are to be."""
    if not trainer.resumed:
        count = 256 if run.size.name == "toy" else 3000
        trainer.targets.fit(diet(count, CROP_PX, torch.Generator().manual_seed(run.seed)).to(run.device))


def train(run: Run, trainer: Trainer, seconds: float) -> None:
    """Train on random crops until the budget is spent or the process is asked to end."""
    diet = Diet(run)
    known = {"corpus": diet.held_out(), "photographs": to_pixels(held_out_photographs(run)[0])[:HELD_OUT]}
    begin(run, trainer, diet)
    budget = Budget(seconds, trainer.used_seconds, own_time(run.device))
    saved_at, terms = trainer.used_seconds, []
    with Stop() as stop:
        while budget.fraction < 1 and not stop.wanted:
            generator = torch.Generator().manual_seed(run.seed * 1_000_003 + trainer.step)
            pixels = diet(CROPS, CROP_PX, generator).to(run.device).contiguous(memory_format=torch.channels_last)
            terms.append(trainer.advance(pixels, budget.fraction, generator))
            if trainer.step % 100 == 0:
                said = " ".join(f"{name} {mean_of(name, terms):.4f}" for name in terms[-1])
                print(f"autoencoder {trainer.step} {budget.used_seconds:.0f}s {budget.fraction:.1%} {said}", flush=True)
                terms = []
            if trainer.step % 500 == 0:
                report(run, trainer, known)
            if budget.used_seconds - saved_at > SAVE_EACH_SECONDS:
                saved_at = budget.used_seconds
                trainer.save(saved_at)
        trainer.save(budget.used_seconds)
    write_autoencoder(run, trainer)


def make_autoencoder(run: Run, seconds: float | None = None) -> None:
    """Train the autoencoder of a run, or go on with it; `seconds` counts all sittings together."""
    make_corpus(run)
    make_photographs(run)
    torch.manual_seed(run.seed)
    train(run, Trainer(run, new_autoencoder(run)), seconds or run.size.autoencoder_seconds)


def main() -> None:
    """Train the autoencoder on the corpus and the photographs."""
    options: argparse.ArgumentParser = parser(main.__doc__ or "")
    options.add_argument("--seconds", type=float, help="budget of computing time, all sittings together")
    options.add_argument("--compact", type=Path, help="only write the checkpoint here, small, to go on with elsewhere")
    arguments = options.parse_args()
    run = run_from(arguments)
    if arguments.compact is not None:
        save_checkpoint(arguments.compact, Trainer(run, new_autoencoder(run)).compact())
    else:
        make_autoencoder(run, arguments.seconds)


if __name__ == "__main__":
    main()
