"""What a model file is, told from the names of its tensors, their shapes and its metadata; no weight is read."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dbcli.diffusion.files.weight_file import WeightFile

Kind = Literal[
    "checkpoint",
    "unet",
    "vae",
    "text-encoder",
    "adapter",
    "embedding",
    "controlnet",
    "motion-module",
    "unknown",
]

SD, SDXL, SD3, FLUX, Z_IMAGE = "Stable Diffusion", "Stable Diffusion XL", "Stable Diffusion 3", "Flux", "Z-Image"

# Names of whole models and of adapters alike, dots made underscores; the first that fits any name counts.
_FAMILIES = (
    (SD3, r"joint_blocks_|(^|_)text_encoder_3_|(^|_)te3_|(^|_)transformer_blocks_\d+_attn_add_[qkv]_proj"),
    ("Chroma", r"distilled_guidance_layer_"),
    ("HunyuanVideo", r"individual_token_refiner"),
    (FLUX, r"(^|_)(double|single)_blocks_\d|(^|_)single_transformer_blocks_\d"),
    ("Qwen-Image", r"(^|_)transformer_blocks_\d+_(img|txt)_(mlp|mod)_"),
    ("PixArt", r"(^|_)caption_projection_|(^|_)adaln_single_"),
    (Z_IMAGE, r"(noise|context)_refiner_\d|(^|_)layers_\d+_(attention_|adaLN_modulation|feed_forward_)"),
    ("Wan", r"(^|_)blocks_\d+_(self|cross)_attn_[qkvo](_|$)"),
    ("a language model", r"(^|_)model_layers_\d+_(self_attn|mlp)_"),
    (SDXL, r"(^|_)te2_|(^|_)text_encoder_2_|(^|_)conditioner_embedders_|(^|_)label_emb_|(^|_)add_embedding_"),
    (SDXL, r"(^|_)clip_g(_|$)"),
    # One transformer block a layer in Stable Diffusion 1 and 2, up to ten in XL.
    (SDXL, r"(^|_)(input_blocks|output_blocks|middle_block|attentions)_[\d_]+_transformer_blocks_[1-9]"),
    (SD, r"(^|_)(input_blocks|output_blocks|middle_block|down_blocks|up_blocks|mid_block)_"),
    (SD, r"(^|_)(te|te1|text_encoder|clip_l|cond_stage_model)_"),
)
_FAMILY_PATTERNS = tuple((family, re.compile(pattern)) for family, pattern in _FAMILIES)
# Flux's and its kin's joint attention is spelled like that of Stable Diffusion 3, but has single blocks too.
_BEFORE_SD3 = re.compile(r"(^|_)single_transformer_blocks_\d|(^|_)transformer_blocks_\d+_(img|txt)_(mlp|mod)_")

# What a file says of itself, in ModelSpec's `architecture` and kohya's `ss_base_model_version`; the first that fits.
_SAID = (
    (SDXL, ("stable-diffusion-xl", "sdxl")),
    (SD3, ("stable-diffusion-v3", "stable-diffusion-3", "sd3")),
    (FLUX, ("flux",)),
    (Z_IMAGE, ("z-image", "zimage", "z_image")),
    ("Chroma", ("chroma",)),
    ("Qwen-Image", ("qwen",)),
    ("Lumina", ("lumina",)),
    ("HunyuanVideo", ("hunyuan",)),
    ("Wan", ("wan2", "wan-2")),
    (SD, ("stable-diffusion-v1", "stable-diffusion-v2", "sd_v1", "sd_v2", "sd_1", "sd_2")),
)

# Parts of adapters: what the adapter is called, and how its parts are named. The most particular first.
_ADAPTERS = (
    ("LoHa", "a LoHa", r"\.hada_(w[12]_[ab]|t[12])$"),
    ("LoKr", "a LoKr", r"\.lokr_(w[12](_[ab])?|t[12])$"),
    ("GLoRA", "a GLoRA", r"\.(a1|a2|b1|b2|bm)\.weight$"),
    ("BOFT", "a BOFT", r"\.boft_[RS]$"),
    ("OFT", "an OFT", r"\.(oft_blocks|oft_diag|oft_R|rescale)(\.weight)?$"),
    ("T-LoRA", "a T-LoRA", r"\.([qp]_layer\.weight|lambda_layer)$"),
    ("(IA)³", "an (IA)³", r"\.(on_input|ia3_l(\.\w+)?)$"),
    ("VeRA", "a VeRA", r"(^|\.)vera_(lambda_[bd]|[AB])(\.|$)"),
    (
        "another of PEFT's adapters",
        "a PEFT adapter that is not a LoRA",
        r"^base_model\.(model\.)?.*\.(hra_u|bone_|miss_"
        r"|c3a_kernel|fourierft_|randlora_|vblora_|shira_|delora_|waveft_|road_|internal_xlora|adaption_|prompt_emb)",
    ),
    ("numbered LoRA", "a LoRA from the first trainers (with numbered layers)", r"^(unet|text_encoder):\d+:(up|down)"),
    ("weight differences", "a file of weight differences (.diff)", r"\.(diff|set_weight)$"),
    ("norm differences", "a file of norm differences (.w_norm)", r"\.[wb]_norm$"),
    ("bias differences", "a file of bias differences (.diff_b)", r"\.diff_b$|\.lora_B(\.\w+)?\.bias$|\.lora_up\.bias$"),
    ("sparse differences", "a file of sparse differences (.bias_values)", r"\.bias_(indices|values|size)$"),
    ("DoRA", "a DoRA", r"\.(dora_scale|lora_magnitude_vector(\.\w+)?(\.weight)?)$"),
    (
        "LoRA",
        "a LoRA",
        r"[._]lora(_linear_layer)?[._](down|up|mid)(\.\w+)?\.weight$|\.lora_[AB](\.\w+)?(\.weight)?$",
    ),
)
_ADAPTER_PATTERNS = tuple((name, re.compile(pattern)) for name, _, pattern in _ADAPTERS)
_ADAPTER_PHRASES = {name: phrase for name, phrase, _ in _ADAPTERS}
# What can lie beside the layers of a LoRA without making it something else.
_BESIDE = ("weight differences", "norm differences", "bias differences", "sparse differences", "DoRA")

# Whole models: what they are called, and how tensors of theirs are named; the first that fits any name counts.
_WHOLE: tuple[tuple[Kind, str, str], ...] = (
    ("controlnet", "a ControlNet", r"^(control_model\.|controlnet_|lllite_|input_hint_block\.|zero_convs\.)"),
    ("motion-module", "a motion module of AnimateDiff", r"motion_modules\."),
    ("checkpoint", "a model", r"^(model\.diffusion_model\.|model_ema\.|cond_stage_model\.|conditioner\.embedders\.)"),
    ("vae", "an autoencoder (VAE)", r"^(first_stage_model\.)?(encoder|decoder|(post_)?quant_conv)\.(.*conv|weight)"),
    (
        "unet",
        "a UNet or transformer alone",
        r"^(diffusion_model\.)?(conv_in|input_blocks\.0|double_blocks\.0|transformer_blocks\.0|x_embedder)\.",
    ),
    ("text-encoder", "a text encoder alone", r"^(transformer\.)?(text_model|resblocks)\.|^encoder\.layers\."),
)
_WHOLE_PATTERNS = tuple((kind, re.compile(pattern)) for kind, _, pattern in _WHOLE)
_PHRASES: dict[Kind, str] = {
    **{kind: phrase for kind, phrase, _ in _WHOLE},
    "embedding": "an embedding (textual inversion)",
    "unknown": "a file of unknown kind",
}
_WORD_VECTORS = re.compile(r"^(emb_params|\*|clip_[lg]|string_to_param(\..+)?|bundle_emb\..+)$")
_WIDEST_WORD = 75


@dataclass(frozen=True)
class FileKind:
    """What a file is, the family of models it is for ("" where nothing tells), and for an adapter all kinds in it."""

    kind: Kind
    made_for: str = ""
    adapters: tuple[str, ...] = ()

    @property
    def settling(self) -> list[str]:
        """The kinds that its layers are of, but for what can lie beside a LoRA; that alone, where there is no other."""
        return [name for name in self.adapters if name not in _BESIDE] or list(self.adapters[:1])

    @property
    def adapter(self) -> str:
        """The one kind that says most of an adapter: "LoHa" of a LoHa with biases, "DoRA" of a DoRA; "" for others."""
        settling = [name for name in self.adapters if name not in _BESIDE]
        if settling in (["LoRA"], []):
            return "DoRA" if "DoRA" in self.adapters else (settling or [*self.adapters, ""])[0]
        return settling[0]

    @property
    def title(self) -> str:
        """As part of a sentence: "a LoHa for Stable Diffusion XL", "an embedding (textual inversion)"."""
        what = _ADAPTER_PHRASES[self.adapter] if self.kind == "adapter" else _PHRASES[self.kind]
        return f"{what} for {self.made_for}" if self.made_for else what


def kind_of(weights: WeightFile) -> FileKind:
    """Tells a file's kind and family from its header alone."""
    names = weights.names()
    family = _family(names, weights.metadata)
    adapters = tuple(name for name, pattern in _ADAPTER_PATTERNS if any(pattern.search(one) for one in names))
    # LyCORIS' BOFT has OFT's names, and one dimension more: its factors.
    if "OFT" in adapters and any(one.endswith(".oft_blocks") and len(weights.shape(one)) > 3 for one in names):
        adapters = ("BOFT", *adapters)
    # Whole models first: their keys may end in `.weight` alone, those of adapters never begin like theirs.
    kind = next((kind for kind, mark in _WHOLE_PATTERNS if any(mark.search(one) for one in names)), None)
    if adapters and (kind is None or not _is_whole(names, adapters)):
        return FileKind("adapter", family, adapters)
    if kind is not None:
        return FileKind(kind, family)
    return FileKind("embedding" if _is_embedding(weights) else "unknown", family)


def _is_whole(names: Sequence[str], adapters: tuple[str, ...]) -> bool:
    """Whether most tensors are a model's own rather than an adapter's."""
    patterns = [pattern for name, pattern in _ADAPTER_PATTERNS if name in adapters]
    parts = sum(any(pattern.search(one) for pattern in patterns) or one.endswith(".alpha") for one in names)
    return parts * 2 < len(names)


def _family(names: Sequence[str], metadata: dict[str, str]) -> str:
    spelled = ["_".join(one.split(".")) for one in names]
    joint = any(_BEFORE_SD3.search(one) for one in spelled)
    patterns = _FAMILY_PATTERNS[1:] if joint else _FAMILY_PATTERNS
    by_names = next((family for family, pattern in patterns if any(pattern.search(one) for one in spelled)), "")
    if by_names not in ("", SD):
        return by_names
    # Some layers of Stable Diffusion XL are called like those of 1 and 2: the file itself may know better.
    text = " ".join(metadata.get(key, "") for key in ("modelspec.architecture", "ss_base_model_version")).lower()
    return next((family for family, marks in _SAID if any(mark in text for mark in marks)), by_names)


def _is_embedding(weights: WeightFile) -> bool:
    names = weights.names()
    if not names:
        return False
    shapes = [weights.shape(name) for name in names]
    # A word alone in its file is one however many vectors it has; among several tensors only short tables are.
    most = _WIDEST_WORD if len(names) > 1 else math.inf
    narrow = all(len(shape) == 1 or (len(shape) == 2 and shape[0] <= most) for shape in shapes)
    if all(_WORD_VECTORS.fullmatch(name) for name in names):
        return True
    return narrow and not any(name.endswith((".weight", ".bias", ".alpha")) or name == "weight" for name in names)
