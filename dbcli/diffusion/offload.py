"""Networks that have nothing to do wait in RAM instead of GPU memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from dbcli.diffusion.bases.base import Base


def idle_in_training(base: Base, *, trains_text: bool) -> list[Any]:
    """What no step needs: the autoencoder, and a text encoder that does not learn."""
    return [base.vae] if trains_text else [base.vae, base.text_encoder]


def offload(*networks: nn.Module) -> None:
    """Moves networks to RAM; where there is no GPU nothing moves."""
    for network in networks:
        network.to("cpu")


@contextmanager
def on_device(device: torch.device, *networks: nn.Module) -> Iterator[None]:
    """Inside it the networks are on a device; after it each is where it was before."""
    homes = [next(network.parameters()).device for network in networks]
    for network in networks:
        network.to(device)
    try:
        yield
    finally:
        for network, home in zip(networks, homes, strict=True):
            network.to(home)
