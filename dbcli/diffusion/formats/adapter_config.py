"""What PEFT's configuration says of an adapter: in the metadata of diffusers' LoRA files, or beside PEFT's own.

Every field counts: those that decide the strength or the layers are read, those of training alone are passed over, and
what a plain LoRA cannot hold is refused by its name.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dbcli.diffusion.files.model_files import read_json
from dbcli.diffusion.files.weight_file import WeightFile
from dbcli.diffusion.formats.lora_writing import DIFFUSERS_METADATA_KEY
from dbcli.errors import UnsafeFile, UnsupportedFile

CONFIG_FILE = "adapter_config.json"
NETWORKS = ("unet", "transformer", "text_encoder", "text_encoder_2")

READ = frozenset(
    {"r", "lora_alpha", "alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "peft_type", "bias"}
    | {"target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "init_lora_weights"}
)
# They say how an adapter was trained or begun, or what it was called; its finished halves hold all of that.
OF_TRAINING = frozenset(
    {"task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode"}
    | {"lora_dropout", "fan_in_fan_out", "megatron_core", "loftq_config", "eva_config", "corda_config"}
    | {"lora_ga_config", "velora_config", "qalora_group_size", "runtime_config", "ensure_weight_tying"}
    # Of LoKr and LoHa: the shapes of the factors say what these came to.
    | {"rank_dropout", "module_dropout", "rank_dropout_scale", "use_effective_conv2d", "init_weights"}
    | {"decompose_both", "decompose_factor"}
)
KINDS = ("LORA", "LOKR", "LOHA")
# Beginnings that leave the base as it is. The others (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA) take part of it away.
PLAIN_BEGINNINGS = (None, True, False, "gaussian", "eva", "orthogonal", "mica")


class AdapterConfig:
    """The configuration of one network's adapter."""

    def __init__(self, table: Mapping[str, Any], file: Path) -> None:
        """Raises UnsupportedFile for a field that a plain LoRA cannot hold, UnsafeFile for one that makes no sense."""
        self.table, self.file = table, file
        for field in ("rank_pattern", "alpha_pattern"):
            if not isinstance(table.get(field) or {}, dict):
                raise self._senseless(field)
        for field, value in table.items():
            if value and field not in READ | OF_TRAINING:
                raise self._refused(field)
        if table.get("peft_type") not in (None, *KINDS):
            raise self._refused("peft_type")
        if table.get("bias") not in (None, "none"):
            raise self._refused("bias")
        beginning = table.get("init_lora_weights")
        if not isinstance(beginning, str | bool | None) or beginning not in PLAIN_BEGINNINGS:
            raise UnsupportedFile(
                f"{file}: its init_lora_weights is {beginning!r}, which changed the base before training began.",
                hint="convert it with PEFT: save_pretrained(path_initial_model_for_weight_conversion=…)",
            )

    @property
    def has_magnitudes(self) -> bool | None:
        """Whether it is DoRA; None where the configuration does not say."""
        value = self.table.get("use_dora")
        return value if isinstance(value, bool) else None

    def alpha(self, paths: tuple[str, ...], rank: int) -> float | None:
        """A layer's alpha in alpha / rank, whatever formula the file is for; None where it declares none.

        `paths` are the spellings of the layer's path. Raises UnsafeFile where the declared rank is another.
        """
        declared = self._of_layer("rank_pattern", "r", paths)
        if declared is not None and declared != rank:
            raise UnsafeFile(f"{self.file} declares the rank {declared:g} for {paths[0]}, whose halves have {rank}.")
        alpha = self._declared_alpha(paths)
        if alpha is None:
            return None
        # Rank-stabilised (Kalajdzievski 2023): alpha / sqrt(rank).
        return alpha * math.sqrt(rank) if self.table.get("use_rslora") else alpha

    def strength_of_whole(self, paths: tuple[str, ...]) -> float:
        """What PEFT multiplies whole factors of LoKr by: alpha / rank, though they have no rank; 1 if none is given."""
        rank, alpha = self._of_layer("rank_pattern", "r", paths), self._declared_alpha(paths)
        return 1.0 if rank is None or alpha is None else alpha / rank

    def _declared_alpha(self, paths: tuple[str, ...]) -> float | None:
        name = "alpha" if self.table.get("peft_type") in ("LOKR", "LOHA") else "lora_alpha"
        return self._of_layer("alpha_pattern", name, paths)

    def _of_layer(self, patterns: str, default: str, paths: tuple[str, ...]) -> float | None:
        from peft.utils.other import get_pattern_key

        table = self.table.get(patterns) or {}
        try:
            keys = [get_pattern_key(list(table), path) for path in paths]
        except re.error as error:
            raise self._senseless(patterns) from error
        value = next((table[key] for key in keys if key in table), self.table.get(default))
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise UnsafeFile(f"{self.file}: the {default} of {paths[0]} is {value!r}.")
        return float(value)

    def has_layer(self, paths: tuple[str, ...]) -> bool:
        """Whether PEFT would give this layer an adapter: it can be excluded, or not be among the targets."""
        from peft import LoraConfig
        from peft.tuners.tuners_utils import check_target_module_exists

        targets = self.table.get("target_modules")
        try:
            config = LoraConfig(
                target_modules=".*" if targets in (None, "all-linear") else targets,
                exclude_modules=self.table.get("exclude_modules"),
                layers_to_transform=self.table.get("layers_to_transform"),
                layers_pattern=self.table.get("layers_pattern"),
            )
            found = [check_target_module_exists(config, path) for path in paths]
        except (re.error, ValueError, TypeError, AttributeError) as error:
            raise self._senseless("target_modules") from error
        return any(bool(one) for one in found) and not any(type(one).__name__ == "_ExcludedModule" for one in found)

    def _refused(self, field: str) -> UnsupportedFile:
        return UnsupportedFile(
            f"{self.file}: its adapter's {field} is {_short(self.table[field])}, which the two halves of a "
            "plain LoRA cannot hold; images would be wrong.",
            hint="merge it into its base with the program that made it, and use that as the base",
        )

    def _senseless(self, field: str) -> UnsafeFile:
        return UnsafeFile(f"{self.file}: its adapter's {field} is {_short(self.table.get(field))}, which is invalid.")


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def adapter_configs(weights: WeightFile) -> dict[str, AdapterConfig]:
    """The configurations that a file declares, by network; none where there is neither metadata nor a file beside it.

    Raises UnsafeFile where they cannot be read: the adapter's strength would be a guess.
    """
    text = weights.metadata.get(DIFFUSERS_METADATA_KEY)
    if text is None:
        beside = weights.path.with_name(CONFIG_FILE)
        # PEFT's own files say nothing of themselves; any other file in that folder is not described by it.
        if not weights.path.stem.startswith("adapter_model") or not beside.is_file():
            return {}
        table: Any = read_json(beside)
    else:
        try:
            table = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UnsafeFile(f"{weights.path}: {DIFFUSERS_METADATA_KEY} in its metadata is not JSON.") from error
    if not isinstance(table, dict):
        raise UnsafeFile(f"{weights.path}: {DIFFUSERS_METADATA_KEY} in its metadata is not a table.")
    return {part: AdapterConfig(fields, weights.path) for part, fields in _by_network(table).items()}


def _by_network(table: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """diffusers writes `unet.r`; a file of one network alone says `r`."""
    if not any(key.partition(".")[0] in NETWORKS for key in table):
        return {part: dict(table) for part in NETWORKS} if table else {}
    found: dict[str, dict[str, Any]] = {}
    for key, value in table.items():
        part, _, field = key.partition(".")
        if part in NETWORKS and field:
            found.setdefault(part, {})[field] = value
    return found
