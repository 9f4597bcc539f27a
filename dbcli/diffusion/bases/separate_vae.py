"""A VAE that is given beside a base: a diffusers folder, or one file in the original layout or in diffusers' names."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dbcli.diffusion.bases.assembly import Entry, Parts, check_config
from dbcli.diffusion.bases.folder import entries_of, weight_files
from dbcli.diffusion.bases.single_file import original_names_of
from dbcli.diffusion.bases.unsupported import check_scale
from dbcli.diffusion.families.sd import SD
from dbcli.diffusion.files import original_names as names
from dbcli.diffusion.files.model_files import open_weights, read_json
from dbcli.diffusion.files.weight_choice import OF_DIFFUSERS
from dbcli.errors import BaseMissing, UnsupportedFile

OF_STABLE_DIFFUSION = (
    "--vae takes a VAE of Stable Diffusion 1.x or 2.x, such as vae-ft-mse-840000-ema-pruned.safetensors."
)
FILE_OR_FOLDER = "--vae takes a file or a diffusers folder."


@dataclass(frozen=True)
class VaeParts:
    """A VAE before it takes memory: configuration, tensors by diffusers name, and the files they come from."""

    config: dict[str, Any]
    entries: dict[str, Entry]
    files: list[Path]
    notes: list[str]


def with_vae(parts: Parts, path: Path) -> None:
    """Puts a VAE into the parts of a base that were read without one, in place.

    Raises BaseMissing where there is none, UnsupportedFile for one whose latents the base's UNet cannot read.
    """
    found = vae_parts(path, parts.configs["vae"])
    wanted = int(parts.configs[parts.family.denoiser].get("in_channels", 4))
    latents = int(found.config.get("latent_channels", 4))
    if latents != wanted:
        raise UnsupportedFile(
            f"{path} is a VAE with {latents} latent channels; the base's UNet takes {wanted}.",
            hint=OF_STABLE_DIFFUSION,
        )
    ours, theirs = (float(config.get("scaling_factor", 0.18215)) for config in (parts.configs["vae"], found.config))
    if abs(ours - theirs) > 1e-6:
        raise UnsupportedFile(
            f"{path} is a VAE with the scaling factor {theirs:g}; the base's latents have {ours:g}.",
            hint="0.13025 is that of Stable Diffusion XL, whose latents differ.",
        )
    parts.files += found.files
    parts.configs["vae"], parts.entries["vae"] = found.config, found.entries
    parts.notes += found.notes


def files_of_vae(path: Path) -> list[Path]:
    """The files that a VAE's weights come from. Raises BaseMissing where there are none."""
    return [path] if path.is_file() else weight_files(_inner(path), "vae", OF_DIFFUSERS)[0]


def vae_parts(path: Path, base_config: dict[str, Any]) -> VaeParts:
    """Configuration and header of a VAE; for a file the configuration is the base's, fitted to the file's shapes."""
    if path.is_dir():
        return _of_folder(path)
    if not path.is_file():
        raise BaseMissing(f"There is no VAE at {path}.", hint=FILE_OR_FOLDER)
    weights = names.under_original_names(open_weights(path))
    prefix = names.VAE_PREFIX if any(name.startswith(names.VAE_PREFIX) for name in weights.names()) else ""
    present = {name.removeprefix(prefix): name for name in weights.names() if name.startswith(prefix)}
    if "decoder.conv_in.weight" not in present or "encoder.conv_in.weight" not in present:
        raise UnsupportedFile(f"{path} is not a VAE (autoencoder).", hint=FILE_OR_FOLDER)
    is_diffusers = any(name.startswith("encoder.down_blocks.") for name in present)
    config = copy.deepcopy(base_config)
    config["latent_channels"] = weights.shape(present["decoder.conv_in.weight"])[1]
    if "post_quant_conv.weight" not in present:
        raise UnsupportedFile(
            f"{path} is a VAE with {config['latent_channels']} latent channels, of another family.",
            hint=OF_STABLE_DIFFUSION,
        )
    block = "encoder.down_blocks.{}.resnets.0.conv1.weight" if is_diffusers else "encoder.down.{}.block.0.conv1.weight"
    widths = [present[block.format(index)] for index in range(8) if block.format(index) in present]
    config["block_out_channels"] = [weights.shape(name)[0] for name in widths]
    if is_diffusers:
        return VaeParts(config, entries_of([path]), [path], [])
    check_config(config, f"{path} (vae)")
    originals = {
        name: present.get(original.removeprefix(names.VAE_PREFIX))
        for name, original in original_names_of(SD, "vae", config).items()
    }
    entries = {name: Entry.of(weights, stored) for name, stored in originals.items() if stored is not None}
    return VaeParts(config, entries, [path], [])


def _inner(folder: Path) -> Path:
    """The folder itself, or the part of a whole model in it."""
    return folder / "vae" if (folder / "vae" / "config.json").is_file() else folder


def _of_folder(folder: Path) -> VaeParts:
    inner = _inner(folder)
    config = read_json(inner / "config.json")
    if config.get("_class_name") != "AutoencoderKL":
        raise UnsupportedFile(f"{inner} is a {config.get('_class_name')}, not an AutoencoderKL.")
    check_scale(config, str(inner))
    files, notes = weight_files(inner, "vae", OF_DIFFUSERS)
    return VaeParts(config, entries_of(files), files, notes)
