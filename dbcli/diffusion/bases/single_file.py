"""A base that is one file in the original layout (`sd-v1-4-full-ema.ckpt`, `v2-1_768-ema-pruned.safetensors`).

The architecture is told from names and shapes and filled into two small configurations kept beside this module,
so nothing is asked of any hub. Files this program exported carry their exact configuration in their metadata.
Where a file holds both the trained weights and their moving average (`model_ema.`), the trained weights are taken:
they are the ones to train on.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from dbcli.diffusion.bases.assembly import Entry, Parts, check_config, empty_network
from dbcli.diffusion.bases.folder import embedded_folder, read_tokenizer
from dbcli.diffusion.bases.unsupported import check_channels, check_single_file
from dbcli.diffusion.families.family import Family, Original
from dbcli.diffusion.families.known import family_of_file
from dbcli.diffusion.families.sdxl import FIRST_PREFIX, SECOND_PREFIX
from dbcli.diffusion.files import original_names as names
from dbcli.diffusion.files.model_files import open_weights
from dbcli.diffusion.files.weight_file import WeightFile, require_float
from dbcli.diffusion.schedulers.prediction import EPSILON, ZERO_SNR_MARK, Said, V, said_by
from dbcli.errors import BaseMissing, UnsafeFile
from dbcli.hints import ONLY_BASES

METADATA_KEY = "dreambooth.configs"
V2_BASE_GLOBAL_STEP = "875000"  # what 512-base-ema.ckpt (Stable Diffusion 2.0 base, epsilon) says of itself
TELLING_NAME = f"{names.UNET_PREFIX}output_blocks.11.1.transformer_blocks.0.norm1.bias"
TELLING_SPREAD = 0.09
# Start and end of a text, and a word between them.
LEAST_TOKENS = 3
ZERO_SNR_SETTINGS = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
# Beside the averages these stand in a file; some keep them where the averages themselves were taken out.
EMA_COUNTERS = ("model_ema.decay", "model_ema.num_updates")


def parts_of_file(path: Path, *, prediction_type: str | None = None, needs_vae: bool = True) -> Parts:
    """Reads the header of a single-file model, finds its architecture and maps its names.

    `prediction_type` is a person's word against the file's own; of its VAE nothing is read if none is needed. Raises
    UnsupportedFile for another kind of model, BaseMissing when a part is absent, UnsafeFile when it is not sound.
    """
    stored = open_weights(path)
    weights = names.under_original_names(stored)
    check_single_file(weights, stored, needs_vae=needs_vae)
    for name in weights.names():
        if name.endswith((".weight", ".bias")):
            require_float(weights, name)
    family = family_of_file(weights.names())
    own = _own_configs(weights, family)
    version = _version(stored, weights)
    configs = own or fitted_configs(weights, version, with_vae=needs_vae)
    facts = shipped_configs(version)
    max_tokens = int(configs.pop("max_tokens", 77))
    tokenizers: dict[str, Callable[[], Any]] = {}
    for encoder, key in zip(family.encoders, ("pad_token", "pad_token_2"), strict=False):
        pad_token = configs.pop(key, facts[key])
        tokenizers[encoder] = partial(shipped_tokenizer, pad_token=pad_token, max_tokens=max_tokens)
    for component in family.parts:
        check_config(configs[component], f"{path} ({component})")
    entries = {}
    for component, part in family.parts.items():
        if part.kind == "text":
            entries[component] = _text_entries(weights, family, component, configs)
        else:
            is_read = part.kind != "vae" or needs_vae
            entries[component] = _all_entries(weights, family, component, configs[component]) if is_read else {}
    parts = Parts(family, configs, entries, [path], tokenizers, str(path))
    if own is None:
        _settle_prediction(parts, weights, version, prediction_type)
    if any(name.startswith("model_ema.") and name not in EMA_COUNTERS for name in weights.names()):
        parts.notes.append(f"{path.name} contains trained and averaged weights; the trained ones are used.")
    return parts


def shipped_configs(version: str) -> dict[str, Any]:
    """Our own configuration of `sd-v1`, `sd-v2` or `sdxl`."""
    text = resources.files("dbcli.diffusion").joinpath("configs", f"{version}.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


def shipped_tokenizer(pad_token: str, max_tokens: int) -> Any:
    """CLIP's tokenizer from the vocabulary in the package: all of Stable Diffusion 1 and 2 share it.

    As in the published folders of Stable Diffusion 2, its padding word `!` is a special word: written in a prompt
    it becomes padding.
    """
    return read_tokenizer(embedded_folder() / "tokenizer", pad_token=pad_token, model_max_length=max_tokens)


def _version(stored: WeightFile, weights: WeightFile) -> str:
    if any(name.startswith(FIRST_PREFIX) for name in weights.names()):
        return "sdxl"
    marks = (names.OPEN_CLIP_PREFIX, "text_encoders.clip_h.", "cond_stage_model.clip_h.")
    return "sd-v2" if any(name.startswith(marks) for name in stored.names()) else "sd-v1"


def _own_configs(weights: WeightFile, family: Family) -> dict[str, Any] | None:
    """The configuration that this program's own export wrote into the file, if it did."""
    text = weights.metadata.get(METADATA_KEY)
    if text is None:
        return None
    try:
        configs = json.loads(text)
        tables = [*(configs[key] for key in (*family.parts, "scheduler")), configs.get("index", {})]
        words = [configs.get(key, "") for key in ("pad_token", "pad_token_2")]
        length = configs.get("max_tokens", 77)
        if (
            all(isinstance(table, dict) for table in tables)
            and all(isinstance(word, str) for word in words)
            and isinstance(length, int)
            and length >= LEAST_TOKENS
        ):
            return dict(configs)
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise UnsafeFile(f"{weights.path}: the configuration in its metadata cannot be read.")


def fitted_configs(weights: WeightFile, version: str, *, with_vae: bool = True) -> dict[str, Any]:
    """The shipped configuration with the widths that the file's shapes show (fine-tunes never change them)."""
    configs = shipped_configs(version)
    unet, vae = configs["unet"], configs["vae"]
    stride = unet["layers_per_block"] + 1
    blocks = range(len(unet["block_out_channels"]))
    unet["in_channels"] = _size(weights, f"{names.UNET_PREFIX}input_blocks.0.0.weight", 1)
    unet["out_channels"] = _size(weights, f"{names.UNET_PREFIX}out.2.weight", 0)
    check_channels(unet["in_channels"], unet["out_channels"], str(weights.path))
    unet["block_out_channels"] = [
        _size(weights, f"{names.UNET_PREFIX}input_blocks.{1 + stride * block}.0.in_layers.2.weight", 0)
        for block in blocks
    ]
    # The first block with attention: XL has none in its first.
    place = 1 if "CrossAttn" in unet["down_block_types"][0] else 1 + stride
    context = f"{names.UNET_PREFIX}input_blocks.{place}.1.transformer_blocks.0.attn2.to_k.weight"
    unet["cross_attention_dim"] = _size(weights, context, 1)
    if unet.get("addition_embed_type") is not None:
        added = _size(weights, f"{names.UNET_PREFIX}label_emb.0.0.weight", 1)
        pooled = _size(weights, f"{SECOND_PREFIX}text_projection", 1)
        unet["projection_class_embeddings_input_dim"] = added
        unet["addition_time_embed_dim"] = max(1, (added - pooled) // 6)
        configs["text_encoder_2"]["projection_dim"] = pooled
    if version != "sd-v1":
        unet["attention_head_dim"] = [max(1, width // 64) for width in unet["block_out_channels"]]
    if with_vae:
        vae["latent_channels"] = _size(weights, f"{names.VAE_PREFIX}post_quant_conv.weight", 0)
        vae["block_out_channels"] = [
            _size(weights, f"{names.VAE_PREFIX}encoder.down.{block}.block.0.conv1.weight", 0)
            for block in range(len(vae["block_out_channels"]))
        ]
    family = family_of_file(weights.names())
    for encoder in family.encoders:
        _fit_text(configs[encoder], weights, _text_naming(weights, family, encoder, configs))
    return configs


def _fit_text(text: dict[str, Any], weights: WeightFile, original: Callable[[str], Original]) -> None:
    table = original("embeddings.token_embedding.weight").name
    text["vocab_size"], text["hidden_size"] = _size(weights, table, 0), _size(weights, table, 1)
    text["intermediate_size"] = _size(weights, original("encoder.layers.0.mlp.fc1.weight").name, 0)
    text["num_attention_heads"] = max(1, text["hidden_size"] // 64)


def _require(weights: WeightFile, name: str) -> None:
    if name not in set(weights.names()):
        raise BaseMissing(f"{weights.path} lacks {name}.", hint=ONLY_BASES)


def _size(weights: WeightFile, name: str, axis: int) -> int:
    _require(weights, name)
    shape = weights.shape(name)
    if len(shape) <= axis:
        raise UnsafeFile(f"{weights.path}: {name} has the shape {list(shape)}.")
    return shape[axis]


def _text_naming(
    weights: WeightFile, family: Family, encoder: str, configs: Mapping[str, Any]
) -> Callable[[str], Original]:
    """How the file names a text encoder's tensors."""
    present = weights.names()
    has_stacks = any(name.startswith(names.OPEN_CLIP_PREFIX) for name in present)
    # A few merging tools drop `text_model.` from the text encoder's names.
    is_whole = any(name.startswith(names.CLIP_PREFIX) for name in present)
    prefix = names.CLIP_PREFIX if is_whole else names.CLIP_PREFIX.removesuffix("text_model.")

    def naming(name: str) -> Original:
        original = family.original(encoder, name, configs)
        # ComfyUI names the text encoder of Stable Diffusion 2 as that of 1 is named.
        if original.name.startswith(names.CLIP_PREFIX) or (
            original.name.startswith(names.OPEN_CLIP_PREFIX) and not has_stacks
        ):
            return Original(prefix + name)
        return original

    return naming


def original_names_of(family: Family, component: str, config: dict[str, Any]) -> dict[str, str]:
    """For every tensor of a UNet or VAE of this configuration its name in the original layout."""
    network = empty_network(component, family.parts[component], config)
    return {name: family.original(component, name, {component: config}).name for name in network.state_dict()}


def _all_entries(weights: WeightFile, family: Family, component: str, config: dict[str, Any]) -> dict[str, Entry]:
    prefix = names.UNET_PREFIX if component == "unet" else names.VAE_PREFIX
    present = {name for name in weights.names() if name.startswith(prefix)}
    originals = {
        name: original for name, original in original_names_of(family, component, config).items() if original in present
    }
    # What is left has no place in the network; it is passed on so that the comparison of names can say so. Training
    # leftovers of the autoencoder (its loss, its discriminator) are no part of the model.
    left = present.difference(originals.values())
    strange = {name: name for name in sorted(left) if not name.startswith(f"{names.VAE_PREFIX}loss.")}
    return {name: Entry.of(weights, original) for name, original in (originals | strange).items()}


def _text_entries(weights: WeightFile, family: Family, encoder: str, configs: Mapping[str, Any]) -> dict[str, Entry]:
    present, original_name = set(weights.names()), _text_naming(weights, family, encoder, configs)
    entries = {}
    for name in empty_network(encoder, family.parts[encoder], configs[encoder]).state_dict():
        bare = name.removeprefix("text_model.")
        original = original_name(bare)
        if original.name in present:
            entries[bare] = _entry(weights, original)
    return entries


def _entry(weights: WeightFile, original: Original) -> Entry:
    """A tensor of the file as the network has it: a third of a stacked matrix, or one turned back."""
    entry = Entry.of(weights, original.name)
    if original.transposed:
        return Entry(entry.shape[::-1], lambda: weights.read(original.name).T.contiguous(), entry.dtype)
    if original.third is None:
        return entry
    if entry.shape[0] % 3:
        raise UnsafeFile(f"{weights.path}: {original.name} has the shape {list(entry.shape)}.")
    third = partial(_read_third, weights, original.name, original.third)
    return Entry((entry.shape[0] // 3, *entry.shape[1:]), third, entry.dtype)


def _read_third(weights: WeightFile, name: str, third: int) -> torch.Tensor:
    # In memory of its own: a view would keep the other two thirds as well.
    return weights.read(name).chunk(3)[third].clone()


def _settle_prediction(parts: Parts, weights: WeightFile, version: str, override: str | None) -> None:
    """What the person says, else what the file says of itself; Stable Diffusion 2 that says nothing is looked at."""
    where = weights.path.name
    said = Said(override, False) if override else said_by(set(weights.names()), weights.metadata, str(weights.path))
    if override == V:
        said = replace(said, zero_snr=ZERO_SNR_MARK in weights.names())
    found = said.prediction
    if version == "sd-v2":
        found = found or _of_architecture(weights.metadata) or _of_spread(parts, weights)
        # Stable Diffusion 2 comes as epsilon at 512 px and as v at 768 px.
        parts.configs["unet"]["sample_size"] = 64 if found == EPSILON else 96
    parts.configs["scheduler"]["prediction_type"] = found or EPSILON
    if said.zero_snr:
        # diffusers' PNDM knows nothing of it, and only trailing timesteps begin in pure noise.
        parts.configs["scheduler"] |= {"_class_name": "DDIMScheduler"} | ZERO_SNR_SETTINGS
    if override is None and (said.zero_snr or (version != "sd-v2" and found == V)):
        schedule = " with zero terminal SNR" if said.zero_snr else ""
        parts.notes.append(f"{where} says that it predicts v{schedule}; --prediction-type at init says otherwise.")


def _of_architecture(metadata: Mapping[str, str]) -> str | None:
    architecture = metadata.get("modelspec.architecture", "")
    if metadata.get("global_step") == V2_BASE_GLOBAL_STEP or "-512" in architecture:
        return EPSILON
    return V if "768-v" in architecture else None


def _of_spread(parts: Parts, weights: WeightFile) -> str:
    """Stable Diffusion 2 files have the same names and shapes whether they predict noise or v.

    One layer tells them apart: the biases of the last block's first norm spread by 0.06 in the 512 px base and by 0.53
    in the 768 px v model (ComfyUI sets the bound at 0.09 too).
    """
    _require(weights, TELLING_NAME)
    spread = weights.read(TELLING_NAME).float().std(correction=0).item()
    found = V if spread > TELLING_SPREAD else EPSILON
    other = EPSILON if found == V else V
    parts.notes.append(
        f"{weights.path.name} does not say what it predicts; its weights look like {found}. "
        f"If images are noise, create the project again with init --prediction-type {other}."
    )
    return found
