"""The UNet, and with it the text encoder that CLIP began: v-prediction on frozen latents.

A tower of two layers that stays as CLIP left it says too little of the scene: with it frozen, five of fourteen
scenes were never drawn. So it learns on here, from the denoiser's error and from naming what its captions name
(`naming.py`).

A UNet of the first edition, which has eight channels, can be gone on with: the other channels of its first and last
convolution begin at zero (`widened`). The rate stays the same for as long as there is time, and the average of the
weights is what draws; `--finish-in` lets the rate fall to zero, in a checkpoint of its own, so that the training can
be ended at any time and still be gone on with.

The error is weighted by the picture's alpha mask, so that the thing counts for more than its background, and by
min-SNR (Hang et al., 2023, eq. 8, in its form for v: min(snr, gamma) / (snr + 1)). Watch the noun-swap gap, not the
loss: how much worse the error inside the mask gets when the caption names another noun.
"""

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DConditionModel
from PIL import Image, ImageDraw
from torch import Tensor, nn
from transformers import CLIPTextModel

from dbcli.reports.grids import wrap_text
from pretraining.autoencoder import autoencoder_folder
from pretraining.clip import encode_captions, load_text_tower
from pretraining.corpus_latents import CorpusLatents, decode
from pretraining.naming import Names, naming_loss, read_labels
from pretraining.nouns import NOUNS
from pretraining.progress import (
    Average,
    Budget,
    Stop,
    load_checkpoint,
    own_time,
    save_checkpoint,
    set_rate,
    steady_rate,
)
from pretraining.settings import (
    FIRST_CHANNELS,
    LATENT_CHANNELS,
    LATENT_PX,
    TEXT_WIDTH,
    Run,
    parser,
    run_from,
)

PEAK_RATE = 1.2e-3
# Under a picture of `labelled_grid`.
LABEL_LINES, LINE_PX = 2, 12
# Share of the budget over which the rate falls to zero at its end, unless told otherwise.
FALL_SHARE = 0.7
SAVE_EACH_SECONDS, SHOW_EACH_SECONDS = 120, 900
TEXT_RATE = 0.4
NAMING_WEIGHT = 0.02
MASK_WEIGHT = 3.0
SNR_GAMMA = 5.0
EMPTY_SHARE = 0.1
NOISE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "prediction_type": "v_prediction",
}
SHOWN = [
    *(f"a {noun}" for noun in NOUNS),
    "a dog on grass",
    "a dog in space",
    "a red dog",
    "a blue dog in the snow",
    "a cat on the beach",
    "a blue teapot",
    "a teapot in the forest",
    "a green backpack",
    "a backpack in the snow",
    "a car on a wooden table",
    "a robot in front of a brick wall",
    "a fox at night",
]


def new_unet(run: Run) -> UNet2DConditionModel:
    """Return an untrained UNet of about 10 M parameters; text enters at 8 x 8 and 4 x 4."""
    return UNet2DConditionModel(
        sample_size=LATENT_PX,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=run.size.unet_channels,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )


@torch.no_grad()
def widened(run: Run, earlier: Path) -> UNet2DConditionModel:
    """Return the UNet of a diffusers folder; one with fewer latent channels gets the others, which begin at zero."""
    known = UNet2DConditionModel.from_pretrained(earlier, torch_dtype=torch.float32)
    count = known.config.in_channels
    if count == LATENT_CHANNELS:
        return known
    unet, weights = new_unet(run), known.state_dict()
    for name in ("conv_in.weight", "conv_out.weight", "conv_out.bias"):
        wide = torch.zeros_like(unet.state_dict()[name])
        if name == "conv_in.weight":
            wide[:, :count] = weights[name]
        else:
            wide[:count] = weights[name]
        weights[name] = wide
    unet.load_state_dict(weights)
    return unet


class Base(nn.Module):
    """What is trained: the UNet, the text encoder, and the heads that make the text encoder name things."""

    def __init__(self, unet: UNet2DConditionModel, text: CLIPTextModel) -> None:
        super().__init__()
        self.unet, self.text, self.names = unet, text, Names()


def snr_weights() -> Tensor:
    """Return the weight of every timestep [1000], of mean 1."""
    cumulative = DDPMScheduler(**NOISE).alphas_cumprod
    snr = cumulative / (1 - cumulative)
    weights = snr.clamp(max=SNR_GAMMA) / (snr + 1)
    return weights / weights.mean()


def masked_error(prediction: Tensor, target: Tensor, alpha: Tensor) -> Tensor:
    """Return the squared error [B] of [B, C, 16, 16], weighted 1 + 3 alpha; alpha is [B, 1, 16, 16] in [0, 1]."""
    weight = 1 + MASK_WEIGHT * alpha
    return ((prediction - target) ** 2 * weight).mean((1, 2, 3)) / weight.mean((1, 2, 3))


@dataclass(frozen=True)
class Training:
    """The corpus as the UNet sees it: latents, alphas [N, 1, 16, 16], ids [U, 16] and labels [U, 4] of captions."""

    latents: CorpusLatents
    alphas: Tensor
    captions: Tensor
    swapped: Tensor
    ids: Tensor
    labels: Tensor
    empty: int


def load_training(run: Run) -> Training:
    """Load latents and alphas and tokenise every caption once; `swapped` names another noun in the same words."""
    entries = json.loads(run.path("captions.json").read_text())
    nouns = sorted({entry[1] for entry in entries})
    other = {noun: nouns[(index + len(nouns) // 2) % len(nouns)] for index, noun in enumerate(nouns)}
    swapped = [entry[0].replace(entry[1], other[entry[1]]) for entry in entries]
    captions = [entry[0] for entry in entries]
    unique = sorted({"", *captions, *swapped[:1024]})
    index = {caption: row for row, caption in enumerate(unique)}
    return Training(
        latents=CorpusLatents(run),
        alphas=torch.from_numpy(np.load(run.path("alphas.npy")))[:, None],
        captions=torch.tensor([index[caption] for caption in captions]),
        swapped=torch.tensor([index[caption] for caption in swapped[:1024]]),
        ids=encode_captions(unique),
        labels=read_labels(unique, entries),
        empty=index[""],
    )


@torch.no_grad()
def noun_swap_gap(base: "Base", data: Training, device: torch.device, timestep: int) -> float:
    """Return how much worse the error inside the mask gets with another noun, as a fraction of the right one's.

    Of the first edition's channels, so that both editions can be compared.
    """
    generator = torch.Generator().manual_seed(5)
    rows = torch.randperm(len(data.swapped), generator=generator)[:256]
    latents, mask = data.latents[rows].float(), data.alphas[rows].float()
    noise = torch.randn(latents.shape, generator=generator)
    times = torch.full((len(rows),), timestep)
    scheduler = DDPMScheduler(**NOISE)
    noised, target = scheduler.add_noise(latents, noise, times), scheduler.get_velocity(latents, noise, times)
    errors = []
    for captions in (data.captions[rows], data.swapped[rows]):
        states = base.text(input_ids=data.ids[captions].to(device)).last_hidden_state
        prediction = base.unet(noised.to(device), times.to(device), states).sample.cpu()
        known = (prediction - target)[:, :FIRST_CHANNELS]
        errors.append(float((known**2 * mask).sum() / mask.sum()))
    return errors[1] / errors[0] - 1


@torch.no_grad()
def sample(run: Run, unet: UNet2DConditionModel, prompts: list[str], steps: int = 25, guidance: float = 3.0) -> Tensor:
    """Draw one picture a prompt with DDIM; return float32 [N, 3, 128, 128] in [-1, 1]."""
    tower = load_text_tower(run)
    states = tower(input_ids=encode_captions([""] * len(prompts) + prompts)).last_hidden_state.to(run.device)
    scheduler = DDIMScheduler(**NOISE, set_alpha_to_one=False, steps_offset=1)
    scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(run.seed)
    shape = (len(prompts), LATENT_CHANNELS, LATENT_PX, LATENT_PX)
    latents = torch.randn(shape, generator=generator).to(run.device)
    for timestep in scheduler.timesteps:
        empty, told = unet(torch.cat([latents, latents]), timestep.to(run.device), states).sample.chunk(2)
        latents = scheduler.step(empty + guidance * (told - empty), timestep, latents).prev_sample
    return decode(run, latents)


def labelled_grid(images: Tensor, labels: list[str], columns: int, side_px: int = 128) -> Image.Image:
    """Join pictures [N, 3, H, W] in [-1, 1] into a grid with a label under each, never wider than its picture."""
    pen = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    lines = [wrap_text(label, side_px - 2, LABEL_LINES, pen.textlength) for label in labels]
    step = side_px + LINE_PX * max(1, *(len(one) for one in lines))
    grid = Image.new("RGB", (columns * side_px, -(-len(labels) // columns) * step), "white")
    pen = ImageDraw.Draw(grid)
    for index, (image, label) in enumerate(zip(images, lines, strict=True)):
        row, column = divmod(index, columns)
        pixels = ((image.permute(1, 2, 0) + 1) * 127.5).round().clamp(0, 255).byte().cpu().numpy()
        tile = Image.fromarray(pixels).resize((side_px, side_px), Image.Resampling.BICUBIC)
        grid.paste(tile, (column * side_px, row * step))
        for number, line in enumerate(label):
            pen.text((column * side_px + 1, row * step + side_px + LINE_PX * number), line, fill="black")
    return grid


def snapshot(run: Run, average: Average, tag: str) -> None:
    """Save the averaged UNet and text encoder as diffusers' folders, and a grid of what they draw."""
    base = Base(new_unet(run), load_text_tower(run))
    base.load_state_dict(average.weights)
    base.eval().unet.save_pretrained(run.path("unet"))
    base.text.save_pretrained(run.path("text_encoder"))
    prompts = SHOWN if run.size.name == "real" else SHOWN[:4]
    labelled_grid(sample(run, base.unet.to(run.device), prompts), prompts, 6).save(run.path(f"samples/base-{tag}.png"))


def step_loss(run: Run, base: Base, data: Training, weights: Tensor, draw: int, count: int) -> tuple[Tensor, Tensor]:
    """Return the loss of batch number `draw` of `count` pictures and its unweighted error [B]; a pure function."""
    generator = torch.Generator().manual_seed(run.seed * 1_000_003 + draw)
    rows = torch.randint(0, len(data.latents), (count,), generator=generator)
    captions = data.captions[rows].clone()
    captions[torch.rand(len(rows), generator=generator) < EMPTY_SHARE] = data.empty
    latents = data.latents[rows].float()
    noise = torch.randn(latents.shape, generator=generator)
    times = torch.randint(0, 1000, (len(rows),), generator=generator)
    scheduler = DDPMScheduler(**NOISE)
    noised, target = scheduler.add_noise(latents, noise, times), scheduler.get_velocity(latents, noise, times)
    with run.autocast():
        said = base.text(input_ids=data.ids[captions].to(run.device))
        noised, times = noised.to(run.device), times.to(run.device)
        prediction = base.unet(noised, times, said.last_hidden_state, return_dict=False)[0]
    error = masked_error(prediction.float(), target.to(run.device), data.alphas[rows].float().to(run.device))
    named = naming_loss(base.names(said.pooler_output.float()), data.labels[captions].to(run.device))
    return (error * weights.to(run.device)[times]).mean() + NAMING_WEIGHT * named, error.detach()


@dataclass(frozen=True)
class Plan:
    """How long a training of the base lasts and how it ends.

    `seconds` counts the training's own time over all sittings, and the rate falls to zero over the last `fall_seconds`
    of it; `steps` ends it whatever the clock says, for comparisons; `finish_in` ends a steady training within seconds
    from where it stands, in a checkpoint of its own.
    """

    seconds: float
    fall_seconds: float
    peak_rate: float = PEAK_RATE
    steps: int | None = None
    finish_in: float | None = None

    @property
    def checkpoint(self) -> str:
        """Name of the checkpoint that this training writes."""
        return "base.pt" if self.finish_in is None else "base-finished.pt"

    def from_here(self, used_seconds: float) -> "Plan":
        """Return the plan of a training that has used some seconds, with `finish_in` turned into an end."""
        if self.finish_in is None:
            return self
        return replace(self, seconds=used_seconds + self.finish_in, fall_seconds=self.finish_in)

    def left(self, used_seconds: float, step: int) -> float:
        """Return what is left of the peak rate, in [0, 1]; zero is the end."""
        if self.steps is not None:
            return min(1.0, (1 - step / self.steps) / FALL_SHARE)
        remaining = max(0.0, self.seconds - used_seconds)
        return min(1.0, remaining / self.fall_seconds) if self.fall_seconds else float(remaining > 0)


class Trainer:
    """The state of a training of the base: weights, optimizer, average, step, time used; saved and resumed whole."""

    def __init__(self, run: Run, base: Base, plan: Plan) -> None:
        self.run, self.base, self.plan = run, base, plan
        self.step, self.used_seconds = 0, 0.0
        self.optimizers = [
            torch.optim.AdamW(part.parameters(), betas=(0.9, 0.99), weight_decay=0.0, fused=True)
            for part in (base.unet, nn.ModuleList([base.text, base.names]))
        ]
        self.average = Average(base)
        if (saved := self._saved()) is not None:
            base.load_state_dict(saved["base"])
            for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
                optimizer.load_state_dict(state)
            self.average.load(saved["average"])
            self.step, self.used_seconds = saved["step"], saved["used_seconds"]

    def _saved(self) -> dict[str, Any] | None:
        """Return the checkpoint to go on from, and settle when the training ends."""
        if self.plan.finish_in is not None:
            finishing = load_checkpoint(self.run.path(self.plan.checkpoint))
            if finishing is not None and finishing["used_seconds"] < finishing["ends_at"]:
                ends_at, fall = finishing["ends_at"], finishing["fall_seconds"]
                self.plan = replace(self.plan, seconds=ends_at, fall_seconds=fall)
                return finishing
        saved = load_checkpoint(self.run.path("base.pt"))
        self.plan = self.plan.from_here(saved["used_seconds"] if saved else 0.0)
        return saved

    def save(self, used_seconds: float) -> None:
        """Write the checkpoint."""
        state = {
            "base": self.base.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "average": self.average.state(),
            "ends_at": self.plan.seconds,
            "fall_seconds": self.plan.fall_seconds,
        }
        save_checkpoint(self.run.path(self.plan.checkpoint), {**state, "step": self.step, "used_seconds": used_seconds})

    def advance(self, data: Training, weights: Tensor, left: float) -> float:
        """Take one step of the optimizers at `left` of the peak rate, in [0, 1]; return the mean error of its batch."""
        rate = steady_rate(self.plan.peak_rate, left, self.step, warmup_steps=100)
        for optimizer, share in zip(self.optimizers, (1.0, TEXT_RATE), strict=True):
            set_rate(optimizer, share * rate)
            optimizer.zero_grad()
        loss, error = step_loss(self.run, self.base, data, weights, self.step, self.run.size.batch_size)
        loss.backward()
        for part in (self.base.unet, self.base.text):
            nn.utils.clip_grad_norm_(part.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        self.average.update(self.base)
        return float(error.mean())


def train(run: Run, base: Base, data: Training, plan: Plan) -> None:
    """Train until the plan or a signal ends it; a checkpoint every two minutes, a grid every fifteen."""
    trainer = Trainer(run, base, plan)
    plan, budget = trainer.plan, Budget(plan.seconds, trainer.used_seconds, own_time(run.device))
    weights, errors, saved_at, shown_at = snr_weights(), [], trainer.used_seconds, trainer.used_seconds
    with Stop() as stop:
        while (left := plan.left(seconds := budget.used_seconds, trainer.step)) > 0 and not stop.wanted:
            errors.append(trainer.advance(data, weights, left))
            if trainer.step % 100 == 0:
                gaps = " ".join(f"{noun_swap_gap(base, data, run.device, time):+.1%}" for time in (500, 800))
                error = np.mean(errors)
                print(f"base {trainer.step} {seconds:.0f}s rate {left:.0%} error {error:.4f} gap {gaps}", flush=True)
                errors = []
            if seconds - saved_at > SAVE_EACH_SECONDS:
                saved_at = seconds
                trainer.save(seconds)
            if seconds - shown_at > SHOW_EACH_SECONDS:
                shown_at = seconds
                snapshot(run, trainer.average, f"{trainer.step:06d}")
        trainer.save(budget.used_seconds)
    snapshot(run, trainer.average, "stopped" if stop.wanted else "final")


def make_base(run: Run, plan: Plan | None = None, warm_start: Path | None = None) -> None:
    """Train the base of a run, or go on with it; `warm_start` names a diffusers UNet folder of either edition."""
    assert autoencoder_folder(run).exists(), "run pretraining.autoencoder first"
    torch.manual_seed(run.seed)
    # Channels last halves the time of a step on processors.
    unet = (widened(run, warm_start) if warm_start else new_unet(run)).to(memory_format=torch.channels_last)
    base = Base(unet, load_text_tower(run)).train().to(run.device)
    seconds = run.size.base_seconds
    train(run, base, load_training(run), plan or Plan(seconds, FALL_SHARE * seconds))


def main() -> None:
    """Train the UNet and the text encoder of the embedded base."""
    options: argparse.ArgumentParser = parser(main.__doc__ or "")
    options.add_argument("--seconds", type=float, help="budget of its own time, all sittings together")
    options.add_argument("--steady", action="store_true", help="keep the rate to the end; finish later by --finish-in")
    options.add_argument("--finish-in", type=float, metavar="SECONDS", help="let the rate fall to zero from here on")
    options.add_argument("--steps", type=int, help="steps in all, whatever the clock says: to compare two bases")
    options.add_argument("--warm-start", type=Path, help="a diffusers UNet folder to begin from")
    options.add_argument("--peak-rate", type=float, default=PEAK_RATE, help="learning rate of the UNet at its highest")
    arguments = options.parse_args()
    run = run_from(arguments)
    seconds = arguments.seconds or run.size.base_seconds
    fall = 0.0 if arguments.steady else FALL_SHARE * seconds
    plan = Plan(seconds, fall, arguments.peak_rate, arguments.steps, arguments.finish_in)
    make_base(run, plan, arguments.warm_start)


if __name__ == "__main__":
    main()
