"""What a family of models is, in data and functions; see the package."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from dbcli.diffusion.families.conditioning import Conditioning
from dbcli.diffusion.families.process import Diffusion, Flow
from dbcli.diffusion.files.weight_choice import Stems
from dbcli.diffusion.lean_imports import without_peft

PartKind = Literal["denoiser", "text", "vae"]
Config = Mapping[str, Any]
# By a part's name: networks, and the token numbers `[N, L]` that each text encoder reads.
Networks = Mapping[str, Any]
Ids = Mapping[str, torch.Tensor]
# Height and width of an image in px.
Size = tuple[int, int]
# By a part's name: the configurations of a model.
Configs = Mapping[str, Config]
Denoise = Callable[[Any, torch.Tensor, Any, Conditioning, Size], torch.Tensor]


@dataclass(frozen=True)
class Original:
    """A tensor in the original layout: its name, which third of a stacked matrix it is, or that it is turned."""

    name: str
    third: int | None = None
    transposed: bool = False


@dataclass(frozen=True)
class Part:
    """One network of a family: what it does, its class as configurations name it, and how it is built and stored.

    `build` makes it from its configuration, of which only what it needs is taken. `stems` name its weights in a
    diffusers folder; `kohya` begins the names of its layers in kohya's LoRA files, where a dot at its end keeps theirs.
    `tokenizer` is the folder of a text encoder's tokenizer, `tokenizer_class` its class in transformers, and `also` are
    other classes by which configurations name the same layers. What `is_unloaded` is out of memory but for
    the moments in which it is called (see `unloading`).
    """

    kind: PartKind
    class_name: str
    build: Callable[[Config], nn.Module]
    stems: Stems
    kohya: str = ""
    tokenizer: str = ""
    tokenizer_class: str = "CLIPTokenizer"
    also: Sequence[str] = ()
    is_unloaded: bool = False


@dataclass(frozen=True)
class Family:
    """A family of models; `parts` are its networks by their folder's name, in the order in which they are hashed.

    `title` is what files are called that are for it (`file_kinds`), `tag` what the hub calls it. The state that prompts
    are conditioned with is the `usual_state`th from the last. `tables` are the names of a word's tensors in embedding
    files where there are several, by text encoder. `process` is made of a scheduler's settings. `encode` turns the
    token numbers of prompts into their conditioning; its last argument is how many of the last layers are skipped.
    `denoise` calls the denoiser on noisy latents at their levels and gives what the process says it should predict.
    `ends` are the denoiser's first and last layers, by name with * for any part of it. `patch` is how many latents
    wide the denoiser's smallest unit is, `latent_scale` is what its VAEs' latents are multiplied by, and `vae_in_fp32`
    whether they overflow in half precision.

    `original` names a part's tensor in the original layout, without `text_model.` in diffusers' name. `architecture` is
    what ModelSpec calls a model of these configurations and this prediction, `kohya_base` what kohya's table does.
    `implementations` are what ModelSpec says of whose code files are for, by export format; of others it is diffusers.
    `kohya_name` is what kohya's own files call a part's layer behind the part's prefix, by the tunable parts'
    configurations; in front of a text encoder's comes `text_model.` as in all files. `fused` are layers that other
    programs' LoRA files have whole where the denoiser has several, by the end of their name: the ends of these layers'
    names, in the order of the rows.

    `recognise_file` goes by the names of tensors in the original layout, `recognise_folder` by the denoiser's
    configuration; `zero_negative` says by model_index.json whether no negative prompt is zeros; of such
    a base, or another, `pipeline_settings` are what that file holds beside its parts. `exports` are the formats that
    its runs can be written in, `readers` the programs that read them where these are others than usual, and
    `alpha_in_weights` says that no LoRA file of it may leave alpha to them. `comfyui_files` are the files that ComfyUI
    loads its base from, by folder of its `models/`, where that is not one checkpoint: denoiser, text encoder, VAE.

    `token_ids` reads prompts otherwise than CLIP's tokenizers do, and `max_tokens` is how much of them; `trains_text`
    is whether its text encoders can learn. `sized_by` names the part whose configuration says the size of its images
    where that is not the denoiser.
    """

    name: str
    title: str
    tag: str
    pipeline: str
    usual_state: int
    tables: Mapping[str, str]
    parts: Mapping[str, Part]
    process: type[Diffusion] | type[Flow]
    encode: Callable[[Networks, Ids, int], Conditioning]
    denoise: Denoise
    original: Callable[[str, str, Configs], Original]
    architecture: Callable[[Configs, str], str]
    kohya_base: Callable[[Configs, str], Mapping[str, object]]
    recognise_file: Callable[[Collection[str]], bool]
    recognise_folder: Callable[[Config], bool]
    zero_negative: Callable[[Config], bool]
    ends: Sequence[str]
    patch: int
    latent_scale: float
    vae_in_fp32: bool
    pipeline_settings: Callable[[bool], Mapping[str, Any]]
    token_ids: Callable[[Any, Sequence[str]], torch.Tensor] | None = None
    max_tokens: int | None = None
    trains_text: bool = True
    sized_by: str = ""
    readers: Mapping[str, str] = field(default_factory=dict)
    alpha_in_weights: bool = False
    fused: Mapping[str, Sequence[str]] = field(default_factory=dict)
    kohya_name: Callable[[str, str, Configs], str] = lambda part, layer, configs: layer
    implementations: Mapping[str, str] = field(default_factory=dict)
    exports: Sequence[str] = ("diffusers", "checkpoint", "lora", "kohya", "embedding", "embedding-invokeai", "comfyui")
    comfyui_files: Mapping[str, str] = field(default_factory=dict)

    def of_kind(self, kind: PartKind) -> list[str]:
        """The names of its parts of a kind."""
        return [name for name, part in self.parts.items() if part.kind == kind]

    @property
    def denoiser(self) -> str:
        """The name of the one part that predicts noise."""
        (name,) = self.of_kind("denoiser")
        return name

    @property
    def encoders(self) -> list[str]:
        """The names of its text encoders."""
        return self.of_kind("text")

    def implementation_of(self, target: str) -> str:
        """What ModelSpec says of whose code a file of an export format is for."""
        return self.implementations.get(target, "diffusers")

    @property
    def tunable(self) -> list[str]:
        """The names of the parts that a run may change: the denoiser, then the text encoders where they can learn."""
        return [self.denoiser, *(self.encoders if self.trains_text else [])]


@dataclass(frozen=True)
class Denoiser:
    """A network with the way its family calls it; `factor` is how many px a latent is wide."""

    network: Any
    denoise: Denoise
    factor: int

    def __call__(self, latents: torch.Tensor, levels: Any, conditioning: Conditioning) -> torch.Tensor:
        """What is predicted of latents `[B, C, h, w]` at levels `[B]`, or one for all, of the same shape."""
        size = latents.shape[-2] * self.factor, latents.shape[-1] * self.factor
        with without_peft():
            return self.denoise(self.network, latents, levels, conditioning, size)
