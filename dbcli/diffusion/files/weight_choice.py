"""Which of a network's weight files are taken: whole or rounded, in one piece or in shards, safetensors or pickles."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dbcli.diffusion.files.model_files import read_json
from dbcli.errors import BaseMissing, UnsafeFile

# What weights are called, by the library that writes them: ending -> name before it.
Stems = Mapping[str, str]
OF_TRANSFORMERS: Stems = {"safetensors": "model", "bin": "pytorch_model"}
OF_DIFFUSERS: Stems = {"safetensors": "diffusion_pytorch_model", "bin": "diffusion_pytorch_model"}
# In order of preference after the plain name: the trained weights before their average, as they are the ones to
# continue training, then what was rounded, with more bits before fewer.
VARIANTS = ("", "fp32", "non_ema", "ema", "fp16", "bf16")
ROUNDED = ("fp16", "bf16")


@dataclass(frozen=True)
class WeightChoice:
    """The files of one network: one, or shards with the index that lists them; `variant` is "" for the plain name."""

    files: tuple[str, ...]
    index: str | None
    variant: str

    @property
    def is_rounded(self) -> bool:
        return any(word in ROUNDED for word in self.variant.split("."))


def chosen_weights(stems: Stems, names: Iterable[str], variant: str = "") -> WeightChoice | None:
    """The preferred one among the file names of a network's folder, called by `stems`; None where there is none.

    Safetensors come before pickles, then `variant`, then VARIANTS in their order, then one file before shards.
    """
    variants = (variant, *(one for one in VARIANTS if one != variant))
    present = sorted(names)
    found: list[tuple[tuple[int, int, str, bool], WeightChoice]] = []
    for rank, (ending, stem) in enumerate(stems.items()):
        whole = re.compile(rf"{stem}(?:\.([A-Za-z0-9_.]+))?\.{ending}")
        index = re.compile(rf"{stem}\.{ending}\.index(?:\.([A-Za-z0-9_]+))?\.json")
        for name in present:
            match = whole.fullmatch(name) or index.fullmatch(name)
            if match is None:
                continue
            which, in_shards = match[1] or "", match.re is index
            shards = tuple(one for one in present if _is_shard(one, stem, ending, which))
            choice = WeightChoice(shards, name, which) if in_shards else WeightChoice((name,), None, which)
            order = variants.index(which) if which in variants else len(variants)
            found.append(((rank, order, which, in_shards), choice))
    return min(found, key=lambda one: one[0])[1] if found else None


def _is_shard(name: str, stem: str, ending: str, variant: str) -> bool:
    """diffusers has written the variant before the number, and after it."""
    said = re.escape(f".{variant}") if variant else ""
    return bool(re.fullmatch(rf"{stem}({said}-\d{{5}}-of-\d{{5}}|-\d{{5}}-of-\d{{5}}{said})\.{ending}", name))


def files_of(folder: Path, choice: WeightChoice) -> list[Path]:
    """Where a choice's weights lie: what the index lists, where there is one.

    Raises BaseMissing naming a shard that is not there, UnsafeFile for an index that is none.
    """
    if choice.index is None:
        return [folder / name for name in choice.files]
    index = folder / choice.index
    listed = read_json(index).get("weight_map")
    if not isinstance(listed, dict) or not listed or not all(_is_plain(name) for name in listed.values()):
        raise UnsafeFile(f"{index} does not list the files of a model.")
    files = [folder / name for name in sorted(set(listed.values()))]
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise BaseMissing(
            f"{folder} lacks {len(missing)} of {len(files)} files with weights, starting with {missing[0].name}.",
            hint="Download or copy the whole folder again.",
        )
    return files


def _is_plain(name: object) -> bool:
    return isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}", name) is not None
