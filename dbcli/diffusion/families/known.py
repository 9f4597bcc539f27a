"""The families that there are, and which of them a file or a folder is of."""

from collections.abc import Collection

from dbcli.diffusion.families.family import Config, Family
from dbcli.diffusion.families.sd import SD
from dbcli.diffusion.families.sdxl import SDXL
from dbcli.diffusion.families.z_image import Z_IMAGE

# The most particular first; the last one takes what no other does.
FAMILIES = (Z_IMAGE, SDXL, SD)
# The folders that a denoiser may lie in.
DENOISERS = tuple(dict.fromkeys(family.denoiser for family in reversed(FAMILIES)))


def family_of_file(names: Collection[str]) -> Family:
    """That of a file whose tensors have these names, in the original layout."""
    return next(family for family in FAMILIES if family.recognise_file(names))


def family_of_export(pipeline: str, architecture: str) -> Family:
    """That of a model of diffusers' class `pipeline`, or of a file that ModelSpec calls `architecture`."""
    matching = (one for one in FAMILIES if pipeline == one.pipeline or architecture.startswith(one.tag))
    return next(matching, FAMILIES[-1])


def family_of_folder(denoiser: Config) -> Family:
    """That of a folder with a denoiser of this configuration."""
    return next(family for family in FAMILIES if family.recognise_folder(denoiser))
