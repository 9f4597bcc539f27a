"""A base that lies in a diffusers folder: `unet/`, `vae/`, `text_encoder/`, `tokenizer/`, `scheduler/`."""

import json
import shlex
from collections.abc import Callable
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from dbcli.diffusion.bases.assembly import IGNORED_NAME, Entry, Parts, quiet_libraries
from dbcli.diffusion.bases.unsupported import check_folder
from dbcli.diffusion.families.family import Family, Part
from dbcli.diffusion.families.known import DENOISERS, family_of_folder
from dbcli.diffusion.files.model_files import open_weights, read_json
from dbcli.diffusion.files.weight_choice import Stems, chosen_weights, files_of
from dbcli.diffusion.files.weight_file import how_to_get_again, require_float
from dbcli.diffusion.lean_imports import lean_imports
from dbcli.errors import BaseMissing, UnsafeFile, UnsupportedFile
from dbcli.hints import ONLY_BASES

# diffusers renamed the layers of the autoencoder's attention in 2023; older repositories keep the old names.
OLD_ATTENTION_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def parts_of_folder(folder: Path, *, needs_vae: bool = True, variant: str = "") -> Parts:
    """Reads the configurations and headers of a diffusers folder; of its VAE only if it is needed.

    Of a network's files those of the `variant` come first, as in `chosen_weights`.

    Raises UnsupportedFile for another kind of model, BaseMissing when a part is absent, UnsafeFile when one is not
    what it says.
    """
    check_folder(folder)
    family = family_in(folder)
    configs: dict[str, dict[str, Any]] = {}
    entries: dict[str, dict[str, Entry]] = {}
    files: list[Path] = []
    notes: list[str] = []
    for component, part in family.parts.items():
        is_replaced = part.kind == "vae" and not needs_vae
        if is_replaced and not (folder / "vae" / "config.json").is_file():
            configs[component] = {"scaling_factor": family.latent_scale, "latent_channels": 4}
        else:
            configs[component] = read_json(require_part(folder, f"{component}/config.json"))
            _check_class(configs[component], component, part, folder)
        entries[component] = {}
        if is_replaced:
            continue
        found, remarks = weight_files(folder / component, component, part.stems, variant)
        files += found
        notes += remarks
        entries[component] = entries_of(found)
    configs["scheduler"] = read_json(require_part(folder, "scheduler/scheduler_config.json"))
    index = folder / "model_index.json"
    configs["index"] = read_json(index) if index.is_file() else {}
    small = [folder / name / "config.json" for name in family.parts if entries[name]]
    small.append(folder / "scheduler/scheduler_config.json")
    tokenizers: dict[str, Callable[[], Any]] = {}
    for encoder in family.encoders:
        tokenizer = require_part(folder, family.parts[encoder].tokenizer)
        _require_tokenizer(tokenizer)
        small += sorted(path for path in tokenizer.iterdir() if path.is_file())
        tokenizers[encoder] = partial(read_tokenizer, tokenizer, family.parts[encoder].tokenizer_class)
    return Parts(family, configs, entries, files, tokenizers, str(folder), notes, small)


def family_in(folder: Path) -> Family:
    """The family of a folder with configurations. Raises BaseMissing where there is no denoiser's."""
    stated = denoiser_config(folder)
    return family_of_folder(read_json(stated if stated is not None else require_part(folder, "unet/config.json")))


def denoiser_config(folder: Path) -> Path | None:
    """The configuration of a folder's denoiser, if there is one."""
    found = (folder / name / "config.json" for name in DENOISERS)
    return next((path for path in found if path.is_file()), None)


def configs_of(folder: Path, family: Family) -> dict[str, dict[str, Any]]:
    """The configurations of a folder's parts, those that are there."""
    files = {part: folder / part / "config.json" for part in family.parts}
    files["scheduler"] = folder / "scheduler" / "scheduler_config.json"
    return {part: read_json(path) for part, path in files.items() if path.is_file()}


def embedded_folder() -> Path:
    """Where the small base that ships with this program lies."""
    return Path(str(resources.files("dbcli"))) / "embedded" / "sd"


def read_tokenizer(folder: Path, kind: str = "CLIPTokenizer", **settings: Any) -> Any:
    """The tokenizer of a folder, of this class, without a look at the hub; `settings` overrule its own.

    Raises UnsafeFile when its files are damaged.
    """
    _require_tokenizer(folder)
    try:
        with quiet_libraries():
            return _tokenizer_class(kind).from_pretrained(str(folder), local_files_only=True, **settings)
    except Exception as error:  # the tokenizer library raises bare Exceptions for a damaged file
        damaged = next((path for path in sorted(folder.glob("*.json")) if not _is_json(path)), folder)
        raise UnsafeFile(
            f"The tokenizer in {folder} cannot be read ({str(error)[:200]}).", hint=how_to_get_again(damaged)
        ) from error


def _tokenizer_class(kind: str) -> Any:
    with lean_imports():
        if kind == "Qwen2Tokenizer":
            from transformers.models.qwen2.tokenization_qwen2 import Qwen2Tokenizer

            return Qwen2Tokenizer
        from transformers.models.clip.tokenization_clip import CLIPTokenizer

    return CLIPTokenizer


def _require_tokenizer(folder: Path) -> None:
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        raise BaseMissing(
            f"There is no tokenizer in {folder}: it lacks tokenizer.json, or vocab.json and merges.txt.",
            hint="Download or copy the whole folder again.",
        )


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return True


def require_part(folder: Path, name: str) -> Path:
    """A file or folder that every diffusers model has. Raises BaseMissing where it does not exist."""
    path = folder / name
    if not path.exists():
        raise BaseMissing(f"{folder} is not a diffusers model: it has no {name}.", hint=_instead_of(folder))
    return path


def _instead_of(folder: Path) -> str:
    """What to give where a folder is no model: the single file in it, if there is just one."""
    files = [path for path in sorted(folder.iterdir()) if path.suffix in (".safetensors", ".ckpt")]
    if len(files) == 1:
        return f"--base {shlex.quote(str(files[0]))}"
    return "Give the folder that contains unet/, vae/, text_encoder/, tokenizer/ and scheduler/."


def _check_class(config: dict[str, Any], component: str, part: Part, folder: Path) -> None:
    wanted = part.class_name
    found = config.get("_class_name") or (config.get("architectures") or [wanted])[0]
    if found not in (wanted, *part.also):
        raise UnsupportedFile(f"{folder} has a {component} of the class {found}, not {wanted}.", hint=ONLY_BASES)


def weight_files(folder: Path, component: str, stems: Stems, variant: str = "") -> tuple[list[Path], list[str]]:
    """The files with a component's weights, and a sentence where they are neither the `variant` nor of the plain name.

    Raises BaseMissing where there is none, or where shards are lacking.
    """
    choice = chosen_weights(stems, (path.name for path in folder.iterdir() if path.is_file()), variant)
    if choice is None:
        stem = stems["safetensors"]
        raise BaseMissing(
            f"{folder} contains no weights ({stem}.safetensors, or in shards with {stem}.safetensors.index.json).",
            hint="Download or copy the whole folder again.",
        )
    name = choice.index or choice.files[0]
    notes = [f"{component}: the weights in {name} are used."] if choice.variant not in ("", variant) else []
    return files_of(folder, choice), notes


def entries_of(files: list[Path]) -> dict[str, Entry]:
    """The tensors of a network's files by today's diffusers names."""
    entries = {}
    for weights in map(open_weights, files):
        for name in weights.names():
            if not IGNORED_NAME.search(name):
                require_float(weights, name)
            entries[_today_name(name)] = Entry.of(weights, name)
    return entries


def _today_name(name: str) -> str:
    # Where a file holds a language model with its last layer, the others lie in `model`.
    name = name.removeprefix("text_model.").removeprefix("model.")
    if ".attentions." not in name:
        return name
    head, _, last = name.rpartition(".")
    stem, _, layer = head.rpartition(".")
    return f"{stem}.{OLD_ATTENTION_NAMES[layer]}.{last}" if layer in OLD_ATTENTION_NAMES else name
