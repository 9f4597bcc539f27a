"""From a recipe to ComfyUI's nodes: loaders, what is particular to the base, both prompts, the sampler, the image."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dbcli.project.images.recipes import Recipe
from dbcli.workflows.images.generated import CLIP_SKIP_KEY, LAST_LAYER
from dbcli.workflows.sharing.comfyui_graph import Link, Node, Value
from dbcli.workflows.sharing.comfyui_sampling import ComfySampling
from dbcli.workflows.sharing.recipients import FULL_STRENGTH

if TYPE_CHECKING:
    from dbcli.diffusion.bases.base import Base

# Where several files make a base: the folder -> its loader's class, the name of its file's value, and its other values.
LOADERS: dict[str, tuple[str, str, dict[str, str]]] = {
    "diffusion_models": ("UNETLoader", "unet_name", {"weight_dtype": "default"}),
    "text_encoders": ("CLIPLoader", "clip_name", {"type": "lumina2"}),
    "vae": ("VAELoader", "vae_name", {}),
}
# Channels of latents for which ComfyUI has its usual node.
USUAL_CHANNELS = 4
# Makes zeros of a prompt, whatever it says.
ZEROS = "ConditioningZeroOut"
# Stable Diffusion 2's text encoder has a layer more in ComfyUI than in its published folder, and does not use it.
SKIPPED_IN_V2 = "stable-diffusion-v2"
# Brackets are emphasis there.
BRACKETS = str.maketrans({"(": "\\(", ")": "\\)"})


@dataclass(frozen=True)
class Files:
    """What the workflow loads: `own` is the run's file or folder of files, `parts` are the base's files by folder.

    `prefix` begins the names of its images, `words` are the embeddings' files by identifier, and `needed` are the
    files of the base that have to be there already.
    """

    own: str
    prefix: str
    checkpoint: str = ""
    lora: str = ""
    parts: Mapping[str, str] = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)
    needed: list[str] = field(default_factory=list)


def workflow_nodes(recipe: Recipe, sampling: ComfySampling, files: Files, base: Base) -> list[Node]:
    """The nodes of a workflow that generates the recipe's image; each comes after those it is linked to."""
    nodes, model, clip, vae = _loaded(files, trains_text=base.family.trains_text)
    model = _with_particulars(nodes, model, base)
    clip = _with_last_layer(nodes, clip, recipe, base)
    texts = (("Prompt", recipe.prompt), ("Negative prompt", recipe.negative))
    prompts = [
        Node("CLIPTextEncode", 2, {"clip": clip}, {"text": comfy_prompt(text, files.words)}, title)
        for title, text in texts
    ]
    size = {"width": recipe.width, "height": recipe.height, "batch_size": 1}
    latents = Node("EmptyLatentImage" if base.latent_channels == USUAL_CHANNELS else "EmptySD3LatentImage", 2, {}, size)
    positive, negative = (one["CONDITIONING"] for one in prompts)
    if base.zero_negative and not recipe.negative:
        # Zeros stand in place of an empty negative prompt, as in the run's own images.
        prompts.append(Node(ZEROS, 2, {"conditioning": negative}))
        negative = prompts[-1]["CONDITIONING"]
    sampler = Node(
        "KSampler",
        3,
        {"model": model, "positive": positive, "negative": negative, "latent_image": latents["LATENT"]},
        {
            "seed": recipe.seed,
            "steps": recipe.steps,
            "cfg": recipe.guidance,
            "sampler_name": sampling.sampler,
            "scheduler": sampling.scheduler,
            "denoise": 1.0,
        },
    )
    decoded = Node("VAEDecode", 4, {"samples": sampler["LATENT"], "vae": vae})
    saved = Node("SaveImage", 4, {"images": decoded["IMAGE"]}, {"filename_prefix": files.prefix})
    return [*nodes, *prompts, latents, sampler, decoded, saved]


def comfy_prompt(text: str, words: Mapping[str, str]) -> str:
    """A prompt as ComfyUI writes it: literal brackets escaped, and the names of embeddings' files in place of words."""
    for word, file in words.items():
        text = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", f"embedding:{file}", text)
    return text.translate(BRACKETS)


def _loaded(files: Files, *, trains_text: bool) -> tuple[list[Node], Link, Link, Link]:
    """The loaders, and the links of denoiser, text encoder and autoencoder."""
    if files.parts:
        nodes = [
            Node(kind, 0, {}, {name: file, **rest})
            for place, file in files.parts.items()
            for kind, name, rest in [LOADERS[place]]
        ]
        model, clip, vae = nodes[0]["MODEL"], nodes[1]["CLIP"], nodes[2]["VAE"]
    else:
        checkpoint = Node("CheckpointLoaderSimple", 0, {}, {"ckpt_name": files.checkpoint})
        nodes, model, clip, vae = [checkpoint], checkpoint["MODEL"], checkpoint["CLIP"], checkpoint["VAE"]
    if not files.lora:
        return nodes, model, clip, vae
    strength: dict[str, Value] = {"lora_name": files.lora, "strength_model": FULL_STRENGTH}
    if not trains_text:
        lora = Node("LoraLoaderModelOnly", 1, {"model": model}, strength)
        return [*nodes, lora], lora["MODEL"], clip, vae
    lora = Node("LoraLoader", 1, {"model": model, "clip": clip}, strength | {"strength_clip": FULL_STRENGTH})
    return [*nodes, lora], lora["MODEL"], lora["CLIP"], vae


def _with_particulars(nodes: list[Node], model: Link, base: Base) -> Link:
    """What ComfyUI has to be told of a base's noise process, where its file does not say it."""
    from dbcli.diffusion.sampling.sample import GUIDANCE_RESCALE
    from dbcli.diffusion.schedulers.prediction import FLOW, V

    added: list[tuple[str, dict[str, str | float | bool]]] = []
    if base.prediction_type == FLOW:
        added.append(("ModelSamplingAuraFlow", {"shift": float(base.process.facts["shift"])}))
    elif base.prediction_type == V:
        zero_snr = base.process.rescales_guidance
        added.append(("ModelSamplingDiscrete", {"sampling": "v_prediction", "zsnr": zero_snr}))
    if base.process.rescales_guidance:
        added.append(("RescaleCFG", {"multiplier": GUIDANCE_RESCALE}))
    for kind, values in added:
        node = Node(kind, 1, {"model": model}, values)
        nodes.append(node)
        model = node["MODEL"]
    return model


def _with_last_layer(nodes: list[Node], clip: Link, recipe: Recipe, base: Base) -> Link:
    """Another layer of the text encoder than the usual one, counted from the last as ComfyUI does: -1."""
    skipped = int(recipe.extras.get(CLIP_SKIP_KEY, LAST_LAYER)) - LAST_LAYER
    if not skipped:
        return clip
    architecture = base.family.architecture(base.configs, base.prediction_type)
    last = base.family.usual_state + architecture.startswith(SKIPPED_IN_V2)
    node = Node("CLIPSetLastLayer", 1, {"clip": clip}, {"stop_at_clip_layer": -(last + skipped)})
    nodes.append(node)
    return node["CLIP"]
