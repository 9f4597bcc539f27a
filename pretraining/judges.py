"""The judge that is trained here: `tiny-clip`, an image tower matched to the base's own text encoder.

It is trained like CLIP with the text tower locked (Zhai et al., 2022, LiT), for the base is drawn with that
tower; it sees softened pictures too, because drawn ones are soft, and pairs of one thing, because a caption alone
teaches it nothing about which dog it is.
"""

import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import CLIPVisionModelWithProjection

from pretraining.clip import (
    contrastive_loss,
    encode_captions,
    image_tower,
    load_text_tower,
    shift,
    to_judge,
)
from pretraining.compose import choose_scene, place, recolour, rotate_hue
from pretraining.nouns import COLOURS
from pretraining.progress import Budget, Stop, falling_rate, load_checkpoint, own_time, save_checkpoint, set_rate
from pretraining.settings import TEXT_WIDTH, Run, parser, run_from
from pretraining.sprites import load_sprites

CLIP_BATCH = 128
PAIR_BLOCK = 64
PAIR_WEIGHT = 0.3
TEMPERATURE = 0.1


def pair_block(run: Run, block: int) -> np.ndarray:
    """Return pairs of pictures [64, 2, 128, 128, 3] uint8: the same thing in the same colours, twice."""
    sprites, records = load_sprites(run)
    rows = [record.row for record in records if not record.held_out]
    draw = np.random.default_rng((run.seed, 7, block))
    pairs = []
    for _ in range(PAIR_BLOCK):
        sprite = sprites[draw.choice(rows)].astype(np.float32) / 255
        if draw.random() < 0.2:
            sprite = recolour(sprite, str(draw.choice(list(COLOURS))))
        else:
            sprite = rotate_hue(sprite, draw.uniform(-180, 180) * (draw.random() < 0.6), draw.uniform(0.4, 1.3))
        pairs.append(np.stack([place(draw, choose_scene(draw)[0], sprite)[0] for _ in range(2)]))
    return np.stack(pairs)


def load_pairs(run: Run) -> np.ndarray:
    """Return the pairs of a run [N, 2, 128, 128, 3]; made once and kept on disk."""
    path = run.path("pairs.npy")
    if not path.exists():
        blocks = max(1, run.size.images // 600)
        with ProcessPoolExecutor(1) as pool:
            made = list(pool.map(partial(pair_block, run), range(blocks)))
        np.save(path, np.concatenate(made))
    return np.load(path, mmap_mode="r")


def soften(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Blur a random half of pictures [B, 3, 64, 64] by up to a factor of two, add a little noise, shift the light."""
    count = len(pixels)
    strength, noise, light = torch.rand(3, count, 1, 1, 1, generator=generator)
    small = F.avg_pool2d(pixels, 2)
    blurred = F.interpolate(small, size=pixels.shape[-1], mode="bilinear", align_corners=False)
    pixels = pixels.lerp(blurred, (2 * strength - 1).clamp(min=0))
    pixels = pixels + 0.08 * noise * torch.randn(pixels.shape, generator=generator)
    return (pixels * (0.85 + 0.3 * light)).clamp(-1, 1)


def pair_loss(first: Tensor, second: Tensor) -> Tensor:
    """Return the normalised temperature-scaled loss of unit features [B, D] of two views (Chen et al., 2020, eq. 1)."""
    count = len(first)
    both = torch.cat([first, second])
    logits = both @ both.T / TEMPERATURE
    logits = logits.masked_fill(torch.eye(2 * count, dtype=torch.bool, device=both.device), -1e4)
    partner = torch.arange(2 * count, device=both.device).roll(count)
    return F.cross_entropy(logits, partner)


def fit(run: Run, name: str, module: nn.Module, seconds: float, loss_at: Callable[[int], Tensor]) -> None:
    """Train a judge on the loss of each step until its budget is spent, with a checkpoint each minute."""
    peak = 1e-3
    trainable = [weight for weight in module.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=peak, betas=(0.9, 0.98), weight_decay=0.02)
    path, step, used = run.path(f"{name}.pt"), 0, 0.0
    if (saved := load_checkpoint(path)) is not None:
        module.load_state_dict(saved["module"])
        optimizer.load_state_dict(saved["optimizer"])
        step, used = saved["step"], saved["used_seconds"]
    budget, saved_at = Budget(seconds, used, own_time(run.device)), used

    def save() -> None:
        state = {"module": module.state_dict(), "optimizer": optimizer.state_dict()}
        save_checkpoint(path, {**state, "step": step, "used_seconds": budget.used_seconds})

    with Stop() as stop:
        while budget.fraction < 1 and not stop.wanted:
            set_rate(optimizer, falling_rate(peak, budget.fraction, step, hold=0.3, warmup_steps=30))
            loss = loss_at(step)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(trainable, 1.0)
            optimizer.step()
            step += 1
            if step % 50 == 0:
                print(f"{name} {step} {budget.used_seconds:.0f}s loss {loss.item():.3f}", flush=True)
            if budget.used_seconds - saved_at > 60:
                saved_at = budget.used_seconds
                save()
    save()


class Matched(nn.Module):
    """`tiny-clip`: an image tower and the projection of the locked text tower's pooled output."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.image: CLIPVisionModelWithProjection = image_tower(run)
        self.text_projection = nn.Linear(TEXT_WIDTH, TEXT_WIDTH, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(2.6593))

    def read(self, pooled: Tensor) -> Tensor:
        """Return unit text features [B, 128] of pooled text [B, 128]."""
        return F.normalize(self.text_projection(pooled).float(), dim=-1)

    def see(self, pixels: Tensor) -> Tensor:
        """Return unit image features [B, 128] of pixels [B, 3, 64, 64]."""
        return F.normalize(self.image(pixel_values=pixels).image_embeds.float(), dim=-1)


@torch.no_grad()
def pooled_captions(run: Run) -> tuple[Tensor, Tensor]:
    """Return the pooled text output [U, 128] of every unique caption, and the caption's index [N] of every picture."""
    captions = [entry[0] for entry in json.loads(run.path("captions.json").read_text())]
    unique = sorted(set(captions))
    index = {caption: row for row, caption in enumerate(unique)}
    ids, tower = encode_captions(unique), load_text_tower(run)
    pooled = torch.cat([tower(input_ids=ids[i : i + 512]).pooler_output for i in range(0, len(ids), 512)])
    return pooled, torch.tensor([index[caption] for caption in captions])


def make_matched(run: Run, seconds: float, warm_start: Path | None = None) -> Matched:
    """Train `tiny-clip` against the locked text encoder of the base, or go on with it.

    `warm_start` is the folder of an earlier `tiny-clip`, for a text encoder that has learnt on since.
    """
    torch.manual_seed(run.seed)
    module = Matched(run).to(run.device).train()
    if warm_start is not None:
        module.image.load_state_dict(load_file(warm_start / "model.safetensors"))
        module.text_projection.load_state_dict(load_file(warm_start / "text_projection.safetensors"))
    elif (saved := load_checkpoint(run.path("clip.pt"))) is not None:
        # the image tower of the first CLIP already sees; only its partner changes
        towers = {name[6:]: value for name, value in saved["clip"].items() if name.startswith("image.")}
        module.image.load_state_dict(towers)
    pooled, groups = pooled_captions(run)
    images, pairs = np.load(run.path("pictures.npy"), mmap_mode="r"), load_pairs(run)
    batch = min(CLIP_BATCH, run.size.images // 2)
    things = min(batch // 4, len(pairs))

    def loss_at(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(run.seed * 1_000_003 + step)
        rows = torch.randint(0, len(groups), (batch,), generator=generator).sort().values
        twice = torch.randperm(len(pairs), generator=generator)[:things].sort().values.numpy()
        shown = np.concatenate([images[rows.numpy()], pairs[twice, 0], pairs[twice, 1]])
        pixels = soften(shift(to_judge(shown), generator), generator).to(run.device)
        with run.autocast():
            image = module.see(pixels)
            text = module.read(pooled[groups[rows]].to(run.device))
        scale = module.log_scale.clamp(max=4.6).exp()
        matched = contrastive_loss(text, image[:batch], scale, groups[rows].to(run.device))
        return matched + PAIR_WEIGHT * pair_loss(image[batch : batch + things], image[batch + things :])

    fit(run, "tiny-clip", module, seconds, loss_at)
    return module.eval()


def main() -> None:
    """Train the judge."""
    options = parser(main.__doc__ or "")
    options.add_argument("--seconds", type=float, help="its budget, all sittings together")
    options.add_argument("--warm-start", type=Path, help="the folder of an earlier tiny-clip to begin from")
    arguments = options.parse_args()
    run = run_from(arguments)
    make_matched(run, arguments.seconds or run.size.judge_seconds, arguments.warm_start)


if __name__ == "__main__":
    main()
