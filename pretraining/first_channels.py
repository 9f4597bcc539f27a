"""An autoencoder of 128 px for the first edition's UNet: the same encoder and decoder, kept to their first channels.

The first channels of the second edition's latents are the first edition's (`latents.py`), and its decoder has met
pictures of which these alone were said. So a UNet of 8 channels can draw at 128 px before another one is trained:

    python -m pretraining.first_channels WORK --to FIRST      FIRST/autoencoder.pt
    python -m pretraining.autoencoder --work FIRST --channels 8     its decoder gets used to it
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from pretraining.progress import load_checkpoint, save_checkpoint
from pretraining.settings import FIRST_CHANNELS


def first_channels(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return an AutoencoderKL's weights reduced to its first latent channels, which it encodes as before.

    The convolutions on either side of the latents take in the 1 x 1 ones between them, which become the identity. What
    is decoded is what was decoded with the other channels zero, but for a bias at the picture's outermost pixels.
    """
    weights = {name: weight.float() for name, weight in weights.items()}
    channels = weights["decoder.conv_in.weight"].shape[1]
    moments = [*range(FIRST_CHANNELS), *range(channels, channels + FIRST_CHANNELS)]  # means, then log variances
    mixing = weights["quant_conv.weight"][moments, :, 0, 0]
    weights["encoder.conv_out.weight"] = torch.einsum("oc,cikl->oikl", mixing, weights["encoder.conv_out.weight"])
    weights["encoder.conv_out.bias"] = mixing @ weights["encoder.conv_out.bias"] + weights["quant_conv.bias"][moments]
    reading, entry = weights["post_quant_conv.weight"][:, :FIRST_CHANNELS, 0, 0], weights["decoder.conv_in.weight"]
    weights["decoder.conv_in.weight"] = torch.einsum("ockl,ci->oikl", entry, reading)
    constant = entry.sum((2, 3)) @ weights["post_quant_conv.bias"]
    weights["decoder.conv_in.bias"] = weights["decoder.conv_in.bias"] + constant
    for name, width in (("quant_conv", len(moments)), ("post_quant_conv", FIRST_CHANNELS)):
        weights[f"{name}.weight"] = torch.eye(width)[:, :, None, None]
        weights[f"{name}.bias"] = torch.zeros(width)
    return weights


def main() -> None:
    """Keep an autoencoder's checkpoint to the first edition's channels, as the start of another run."""
    options = argparse.ArgumentParser(description=main.__doc__)
    options.add_argument("work", type=Path, help="folder of the run whose autoencoder.pt is read")
    options.add_argument("--to", type=Path, required=True, help="folder of the run that begins with it")
    arguments = options.parse_args()
    saved = load_checkpoint(arguments.work / "autoencoder.pt")
    if saved is None:
        options.error(f"{arguments.work / 'autoencoder.pt'} does not exist; run pretraining.autoencoder first.")
    weights = first_channels(saved["average"]["weights"])
    kept = {name: saved[name] for name in ("discriminator", "targets", "adversarial")}
    average = {"weights": weights, "updates": 0}
    begun = {"vae": weights, "average": average, "encoder_rests": True, "step": 0, "used_seconds": 0.0}
    arguments.to.mkdir(parents=True, exist_ok=True)
    save_checkpoint(arguments.to / "autoencoder.pt", {**kept, **begun})


if __name__ == "__main__":
    main()
