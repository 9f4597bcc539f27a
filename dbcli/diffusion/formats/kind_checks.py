"""Whether a file is of the kind that is asked for, told from its header in a fraction of a second: without torch."""

import shlex
from pathlib import Path

from dbcli.diffusion.bases.unsupported import SUPPORTED, check_folder, check_single_file
from dbcli.diffusion.files.file_kinds import SDXL, Z_IMAGE, kind_of
from dbcli.diffusion.files.model_files import open_weights
from dbcli.diffusion.files.original_names import under_original_names
from dbcli.diffusion.files.weight_file import WeightFile
from dbcli.diffusion.formats.factor_names import FACTORS
from dbcli.diffusion.formats.lora_names import BUNDLED
from dbcli.errors import BaseMissing, OtherBase, UnsupportedFile

READABLE = ("LoRA", "DoRA", "LoKr", "LoHa")
# What there are bases of, be it from folders alone.
FAMILIES = (*SUPPORTED, Z_IMAGE)


def check_base_kind(path: Path, *, needs_vae: bool) -> None:
    """Raises for a `.safetensors` file or a folder that is there and is another kind of model than a base.

    Other paths and names pass: whether they are a base is for `judge_base` to say. Raises UnsupportedFile, BaseMissing
    where a part is absent, UnsafeFile for a damaged header.
    """
    if path.is_dir():
        check_folder(path)
    elif path.is_file() and path.suffix.lower() == ".safetensors":
        stored = open_weights(path)
        check_single_file(under_original_names(stored), stored, needs_vae=needs_vae)


def check_lora(weights: WeightFile) -> None:
    """Raises UnsupportedFile for what is no LoRA for a family that there is, BaseMissing for a file without layers."""
    if not weights.names():
        raise BaseMissing(f"{weights.path} contains no layers.", hint="Download it again, or look for another file.")
    kind = kind_of(weights)
    if kind.kind != "adapter":
        takers = {"embedding": "import-embedding", "checkpoint": "init myproj --base"}
        taker = takers.get(kind.kind)
        hint = f"dreambooth {taker} {shlex.quote(str(weights.path))}" if taker else None
        raise UnsupportedFile(f"{weights.path} is {kind.title}, not a LoRA.", hint=hint)
    if kind.made_for not in ("", *FAMILIES):
        raise UnsupportedFile(
            f"{weights.path} is {kind.title}; only LoRAs for Stable Diffusion 1, 2 and XL and for Z-Image can be read."
        )
    other = next((one for one in kind.settling if one not in READABLE), None)
    if other is not None:
        what = kind.title if other == kind.adapter else f"{kind.title}, with layers of {other}"
        raise UnsupportedFile(
            f"{weights.path} is {what}; only LoRA, DoRA, LoKr and LoHa can be read.",
            hint="merge it into its base with the program that made it, and use that as the base",
        )


def only_merges(weights: WeightFile) -> bool:
    """Whether DoRA's magnitudes in an adapter's file are such as PEFT does not know, so that nothing trains it further.

    They are along the inputs, `[1, in]`, or of a LoKr or LoHa.
    """
    names = set(weights.names())
    for name in names:
        stem, _, last = name.rpartition(".")
        if last == "dora_scale":
            outputs, inputs = (*weights.shape(name), 1, 1)[:2]
            if (outputs == 1 and inputs > 1) or any(f"{stem}.{factor}" in names for factor in FACTORS):
                return True
    return False


def check_embedding(weights: WeightFile) -> None:
    """Raises UnsupportedFile for what is no embedding for Stable Diffusion and brings none along."""
    kind = kind_of(weights)
    if any(BUNDLED.fullmatch(name) for name in weights.names()):
        return
    if kind.kind == "embedding" and kind.made_for in ("", *SUPPORTED):
        return
    hint = f"dreambooth import-lora {shlex.quote(str(weights.path))}" if kind.kind == "adapter" else None
    raise UnsupportedFile(f"{weights.path} is {kind.title}, not an embedding for Stable Diffusion.", hint=hint)


def check_family(weights: WeightFile, title: str) -> None:
    """Raises UnsupportedFile for a file that is for another family than that of the base, `title`.

    A file for Stable Diffusion 1 or 2 can be one for XL, some of whose layers are called alike: there shapes tell.
    """
    kind = kind_of(weights)
    if kind.made_for not in ("", title) and (kind.made_for in (SDXL, Z_IMAGE) or title == Z_IMAGE):
        versions = "" if title in (SDXL, Z_IMAGE) else " 1.x or 2.x"
        raise OtherBase(
            f"{weights.path} is {kind.title}; this project's base is of {title}{versions}.",
            hint="use it in a project on the base that it was trained on",
        )
