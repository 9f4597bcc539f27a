"""How large what a denoiser computes is: the measure of a step's memory."""

from dbcli.diffusion.bases.base import Base


def width(base: Base) -> int:
    """How many channels the denoiser's first layer gives."""
    tables = (parameter for parameter in base.unet.parameters() if parameter.ndim > 1 and parameter.shape[0] > 1)
    return int(next(tables).shape[0])


def activation_bytes(base: Base, rows: int, places: int) -> int:
    """Bytes of the first layer's output in float32, for latents of so many places: few others are larger."""
    return 4 * rows * width(base) * places
