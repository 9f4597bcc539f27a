"""An independent reader of pictures: trained on the held-out sets alone, it names noun, scene, colour and style."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretraining.clip import shrink, to_judge
from pretraining.corpus import compose_pictures
from pretraining.naming import COLOUR_NAMES, NOUN_NAMES
from pretraining.progress import Budget, falling_rate, own_time, set_rate
from pretraining.scenes import SCENES
from pretraining.settings import Run

SCENE_NAMES = (*SCENES, "plain")
# No held-out set is in three dimensions.
SEEN_STYLES = ("photo", "flat", "drawing")
UNKNOWN = -100


class Classifier(nn.Module):
    """A small convolutional network with a head each for noun, scene, colour and style."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in ((3, 32), (32, 64), (64, 128), (128, 192)):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(8, after), nn.SiLU()]
            layers += [nn.Conv2d(after, after, 3, padding=1), nn.GroupNorm(8, after), nn.SiLU()]
        self.body = nn.Sequential(*layers)
        self.noun = nn.Linear(192 * 16, len(NOUN_NAMES))
        self.scene = nn.Linear(192 * 16, len(SCENE_NAMES))
        self.colour = nn.Linear(192 * 16, len(COLOUR_NAMES))
        self.style = nn.Linear(192 * 16, len(SEEN_STYLES))

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Return logits for noun, scene, colour and style of pixels [B, 3, 64, 64] in [-1, 1]."""
        features = F.dropout(self.body(pixels).flatten(1), 0.3, self.training)
        return tuple(head(features) for head in (self.noun, self.scene, self.colour, self.style))


def labels_of(noun: str, scene: str, colour: str, style: str) -> tuple[int, ...]:
    """Return the classes of one picture; a colour nobody named, and "3d", are not learnt from."""
    return (
        NOUN_NAMES.index(noun),
        SCENE_NAMES.index("plain" if scene.startswith("plain") else scene),
        COLOUR_NAMES.index(colour) if colour else UNKNOWN,
        SEEN_STYLES.index(style) if style in SEEN_STYLES else UNKNOWN,
    )


def held_out_pictures(run: Run, count: int) -> tuple[np.ndarray, Tensor]:
    """Return pictures [N, 128, 128, 3] of the held-out sets and their labels [N, 4]; kept on disk."""
    path, label_path = run.path(f"held_out_{count}.npy"), run.path(f"held_out_{count}_labels.npy")
    if not label_path.exists():
        made = list(compose_pictures(run, count, held_out=True))
        np.save(path, np.stack([image.pixels for image in made]))
        np.save(label_path, np.array([labels_of(p.noun, p.scene, p.colour, p.style) for p in made]))
    return np.load(path), torch.from_numpy(np.load(label_path))


def augment(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Bend, blur or roughen a batch: a few hands must stand for many, and drawn pictures are softer and noisier."""
    count = len(pixels)
    bend = torch.eye(2, 3).repeat(count, 1, 1) * (0.75 + 0.4 * torch.rand(count, 1, 1, generator=generator))
    bend = bend + torch.randn(count, 2, 3, generator=generator) * 0.12
    bend[:, :, 0] *= torch.where(torch.rand(count, 1, generator=generator) < 0.5, -1.0, 1.0)
    grid = F.affine_grid(bend, list(pixels.shape), align_corners=False)
    pixels = F.grid_sample(pixels, grid, padding_mode="reflection", align_corners=False)
    if torch.rand((), generator=generator) < 0.5:
        small = F.interpolate(pixels, scale_factor=0.5, mode="area")
        pixels = F.interpolate(small, size=pixels.shape[-1], mode="bilinear")
    strength = float(torch.rand((), generator=generator)) * 0.15
    return pixels + strength * torch.randn(pixels.shape, generator=generator)


def strange_colours(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Mix the colour channels of a batch at random, so that only shape can name the noun."""
    mixing = torch.rand(3, 3, generator=generator) + 0.05
    return torch.einsum("oc,bchw->bohw", mixing / mixing.sum(1, keepdim=True), pixels)


def train_classifier(run: Run, seconds: float, count: int) -> Classifier:
    """Train the classifier on `count` held-out pictures for a time; kept on disk for the same time and count."""
    torch.manual_seed(run.seed)
    model, path = Classifier(), run.path(f"classifier-{seconds:g}-{count}.pt")
    if path.exists():
        model.load_state_dict(torch.load(path, weights_only=True))
        return model.eval()
    images, labels = held_out_pictures(run, count)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    budget, step = Budget(seconds, now=own_time(torch.device("cpu"))), 0
    while budget.fraction < 1:
        set_rate(optimizer, falling_rate(1e-3, budget.fraction, step, hold=0.3, warmup_steps=50))
        generator = torch.Generator().manual_seed(step)
        rows = torch.randint(0, len(labels), (64,), generator=generator)
        pixels, told = augment(to_judge(images[rows.numpy()]), generator), labels[rows]
        if step % 2:
            pixels, told = strange_colours(pixels, generator), told.clone()
            told[:, 1:] = UNKNOWN
        heads = model(pixels)
        terms = [
            F.cross_entropy(logits, told[:, head], ignore_index=UNKNOWN, label_smoothing=0.05)
            for head, logits in enumerate(heads)
            if (told[:, head] != UNKNOWN).any()
        ]
        optimizer.zero_grad()
        torch.stack(terms).sum().backward()
        optimizer.step()
        step += 1
        if step % 100 == 0:
            print(
                f"classifier {step} {budget.used_seconds:.0f}s",
                *(f"{t.item():.3f}" for t in terms),
                flush=True,
            )
    torch.save(model.state_dict(), path)
    return model.eval()


@torch.no_grad()
def read(model: Classifier, pixels: Tensor) -> Tensor:
    """Return the classes [N, 4] (noun, scene, colour, style) seen in pixels [N, 3, H, W] in [-1, 1]."""
    return torch.cat([torch.stack([logits.argmax(1) for logits in model(shrink(p))], 1) for p in pixels.split(250)])
