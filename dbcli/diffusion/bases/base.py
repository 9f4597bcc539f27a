"""Base models: where they come from, and the networks and facts that training and sampling need of one."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from dbcli.diffusion.bases import hub
from dbcli.diffusion.bases.assembly import Parts, build_networks, empty_networks, match_all
from dbcli.diffusion.bases.flowing import flowing
from dbcli.diffusion.bases.folder import configs_of, embedded_folder, family_in, parts_of_folder, require_part
from dbcli.diffusion.bases.lifted import lifted
from dbcli.diffusion.bases.separate_vae import vae_parts, with_vae
from dbcli.diffusion.bases.single_file import parts_of_file, shipped_configs
from dbcli.diffusion.bases.unsupported import check_folder, check_settings, resolution_px
from dbcli.diffusion.families.family import Denoiser, Family
from dbcli.diffusion.families.process import Process
from dbcli.diffusion.files.weights_hash import WeightsDigest, base_hash, remember_digest, remembered_digest
from dbcli.diffusion.schedulers.prediction import checked_prediction
from dbcli.errors import BaseMissing, UsageError
from dbcli.hints import nearest, quoted

Kind = Literal["hub", "folder", "single-file", "embedded"]
SINGLE_FILE_SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
_PAGE = re.compile(r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/([\w.-]+/[\w.-]+)")

# The embedded base and the forms it takes, worked out while it is loaded.
FORMS: dict[str, Callable[[Parts], Parts]] = {"tiny": lambda parts: parts, "tiny-xl": lifted, "tiny-flow": flowing}
EMBEDDED_BASES = tuple(FORMS)
# Short names and the commits they mean for good; docs/bases.md says where each commit was confirmed.
KNOWN_BASES = {
    "sd-v1-4": ("CompVis/stable-diffusion-v1-4", "133a221b8aa7292a167afc5127cb63fb5005638b"),
    "sd-v1-5": ("stable-diffusion-v1-5/stable-diffusion-v1-5", "451f4fe16113bff5a5d2269ed5ad43b0592e9a14"),
    "sdxl": ("stabilityai/stable-diffusion-xl-base-1.0", "462165984030d82259a11f4367a4eed129e94a7b"),
    "zimage": ("Tongyi-MAI/Z-Image", "04cc4abb7c5069926f75c9bfde9ef43d49423021"),
}
# Which of its repository's files a short name means first, where these are not the plain ones: in float32, XL is 14 GB
# in memory. By its hub id the plain ones are taken.
KNOWN_VARIANTS = {"sdxl": "fp16"}


@dataclass(frozen=True)
class BaseReference:
    """Which base is meant: `source` is the hub id or the absolute path, `revision` 40 hex digits for the hub.

    `variant` are the weight files of a hub base that come first.
    """

    name: str
    source: str
    revision: str | None
    kind: Kind
    variant: str = ""

    @property
    def is_known(self) -> bool:
        """Whether it is one of the short names, which repositories of others may end with, too."""
        return KNOWN_BASES.get(self.name, ("",))[0] == self.source


@dataclass
class Base:
    """A base model in memory: networks in evaluation mode, without gradients, and the facts that go with them.

    `networks` are by their name in the family, `tokenizers` by the text encoder that each is for. The denoiser predicts
    `prediction_type` on scaled latents `[B, latent_channels, H / vae_factor, W / vae_factor]`; prompts are padded to
    `max_tokens`. `resolution` is the size in px it was trained at. `hash` names the weights and these facts,
    independent of the file they came in.
    """

    name: str
    source: str
    revision: str | None
    kind: Kind
    hash: str
    family: Family
    # Of diffusers' and transformers' classes, whose attributes are made from their configurations.
    tokenizers: dict[str, Any]
    networks: dict[str, Any]
    scheduler_config: dict[str, Any]
    prediction_type: str
    resolution: int
    vae_factor: int
    latent_channels: int
    max_tokens: int
    # Whether no negative prompt is zeros rather than an empty prompt.
    zero_negative: bool = False
    notes: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)

    @property
    def process(self) -> Process:
        """How noise is added and taken away."""
        return self.family.process.of(self.scheduler_config)

    @property
    def denoiser(self) -> Denoiser:
        """The denoiser with the way its family calls it."""
        return Denoiser(self.unet, self.family.denoise, self.vae_factor)

    @property
    def step_px(self) -> int:
        """What the sides of an image are multiples of, in px."""
        return self.vae_factor * self.family.patch

    @property
    def grid_px(self) -> int:
        """What they are multiples of where the denoiser halves latents without a remainder, in px."""
        levels = len(getattr(self.unet.config, "block_out_channels", (1,)))
        return self.step_px << (levels - 1)

    @property
    def unet(self) -> Any:
        """The denoiser's network."""
        return self.networks[self.family.denoiser]

    @property
    def vae(self) -> Any:
        """The autoencoder."""
        (name,) = self.family.of_kind("vae")
        return self.networks[name]

    @property
    def encoders(self) -> dict[str, Any]:
        """The text encoders by name."""
        return {name: self.networks[name] for name in self.family.encoders}

    @property
    def tunable(self) -> dict[str, Any]:
        """What a run may change: the denoiser's network, then the text encoders."""
        return {name: self.networks[name] for name in self.family.tunable}

    @property
    def configs(self) -> dict[str, Any]:
        """The networks' configurations, as tables."""
        found = {name: network.config for name, network in self.networks.items()}
        return {name: config if isinstance(config, Mapping) else config.to_dict() for name, config in found.items()}

    @property
    def text_encoder(self) -> Any:
        """The first text encoder."""
        return self.networks[self.family.encoders[0]]

    @property
    def tokenizer(self) -> Any:
        """The first text encoder's tokenizer."""
        return self.tokenizers[self.family.encoders[0]]


def resolve_base(source: str, revision: str | None = None, *, offline: bool = False) -> BaseReference:
    """Says which base a word means; asks the hub only for the commit of an unpinned repository.

    `source` is `tiny`, a short name (`sd-v1-4`), a diffusers folder, a model file, or a hub id `owner/name`.
    Raises BaseMissing (no such file), Unreachable (hub), UsageError (none of these).
    """
    if not source.strip():
        raise UsageError("--base is empty.", hint=_bases_like(""))
    if source in EMBEDDED_BASES:
        return BaseReference(source, str(embedded_folder()), None, "embedded")
    if source in KNOWN_BASES:
        repository, pinned = KNOWN_BASES[source]
        pinned = pinned if revision is None else hub.resolve_revision(repository, revision, offline=offline)
        return BaseReference(source, repository, pinned, "hub", KNOWN_VARIANTS.get(source, ""))
    path = Path(source).expanduser()
    if path.is_dir():
        return BaseReference(path.resolve().name, str(path.resolve()), None, "folder")
    if path.is_file() and path.suffix == ".json":
        folder = next((one for one in path.resolve().parents if (one / "model_index.json").is_file()), None)
        hint = "give the model itself" if folder is None else f"--base {quoted(folder)}"
        raise UsageError(f"{path} is a configuration, not a model.", hint=hint)
    if path.is_file():
        return BaseReference(path.stem, str(path.resolve()), None, "single-file")
    if (page := _PAGE.match(source)) is not None:
        raise UsageError(f"{source} is a page of the hub; its id is {page[1]}.", hint=f"--base {page[1]}")
    if _looks_like_a_path(source):
        raise BaseMissing(f"There is no base model at {path}.", hint=_ways_out(path))
    if not hub.is_repository(source):
        raise UsageError(f"{source!r} is not a base model.", hint=_bases_like(source))
    commit = hub.resolve_revision(source, revision, offline=offline)
    return BaseReference(source.split("/")[1], source, commit, "hub")


def _looks_like_a_path(source: str) -> bool:
    """Whether a word that names nothing on this machine was meant as a path rather than as a hub id."""
    if source.startswith(("/", "./", "../", "~", "\\")) or source.lower().endswith(SINGLE_FILE_SUFFIXES):
        return True
    folder, slash, _ = source.partition("/")
    # models/mine, where there is a folder models; one/two/three and models/ are no hub ids anyway.
    return bool(slash) and (Path(folder).is_dir() or not hub.is_repository(source))


def _bases_like(source: str) -> str:
    """The base or the folder whose name is near a word, else what there is to choose from."""
    known = [*EMBEDDED_BASES, *KNOWN_BASES]
    word, here = source.strip().strip("'\""), [one.name for one in Path().iterdir() if one.is_dir()]
    found = word if word in here else nearest(word, [*known, *here])
    if found is not None:
        return f"Did you mean --base {quoted(found)}?"
    return f"Known: {', '.join(known)}; or a folder, a model file, or a hub id like owner/name."


def _ways_out(path: Path) -> str:
    """What there is instead of a path that leads nowhere: models beside it with a like name, else the usual ways."""
    beside = sorted(one.name for one in path.parent.iterdir()) if path.parent.is_dir() else []
    near = nearest(path.name, beside)
    return hub.WAYS_OUT if near is None else f"Did you mean --base {quoted(path.parent / near)}?"


def load_base(
    source: str | BaseReference,
    revision: str | None = None,
    *,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
    offline: bool = False,
    prediction_type: str | None = None,
    vae: str | None = None,
    on_download: Callable[[str], None] | None = None,
) -> Base:
    """Loads a base model; see `resolve_base` for what `source` may be.

    `prediction_type` overrules what the model says of itself (some Stable Diffusion 2 files say nothing: then it is
    told from their weights, and `notes` says so); `vae` is a file or a folder that takes the place of the model's own.
    Without a `dtype`, in which all weights are then, those of large networks stay as the files store them and compute
    as if they were float32 (`stored_layers`).
    Raises BaseMissing, Unreachable, UnsupportedFile, UnsafeFile, UsageError.
    """
    reference = source if isinstance(source, BaseReference) else resolve_base(source, revision, offline=offline)
    parts = parts_of(reference, offline=offline, on_download=on_download, prediction_type=prediction_type, vae=vae)
    known = remembered_digest(parts.files)
    digest = None if known else WeightsDigest()
    networks = build_networks(parts, dtype=dtype, device=device, digest=digest)
    if digest is not None:
        known = digest.hexdigest()
        remember_digest(parts.files, known)
    return joined(reference, parts, networks, str(known))


def latent_shape(
    source: str, revision: str | None = None, *, prediction_type: str | None = None, vae: str | None = None
) -> tuple[int, int, int]:
    """Channels of a base's latents, pixels a latent covers, and its resolution in px; only configurations are read.

    Raises BaseMissing or Unreachable where the base is not on this machine, and for a pickle, which is not opened.
    """
    reference = resolve_base(source, revision, offline=True)
    if reference.kind == "single-file" and not reference.source.endswith(".safetensors"):
        raise BaseMissing(f"{reference.source} has to be loaded before its shape is known.")
    parts = parts_of(reference, offline=True, prediction_type=prediction_type, vae=vae)
    (vae_name,) = parts.family.of_kind("vae")
    autoencoder = parts.configs[vae_name]
    factor = 2 ** (len(autoencoder["block_out_channels"]) - 1)
    return int(autoencoder["latent_channels"]), factor, resolution_px(parts.configs, parts.family, factor)


def parts_of(
    reference: BaseReference,
    *,
    offline: bool,
    on_download: Callable[[str], None] | None = None,
    prediction_type: str | None = None,
    vae: str | None = None,
) -> Parts:
    """Configurations and headers of a base, nothing of its weights; fetches a hub base that is not here.

    For `prediction_type` and `vae` see `load_base`. Raises BaseMissing, Unreachable, UnsupportedFile, UnsafeFile,
    ConfigError.
    """
    checked_prediction(prediction_type)
    needs_vae = vae is None
    if reference.kind == "single-file":
        parts = parts_of_file(Path(reference.source), prediction_type=prediction_type, needs_vae=needs_vae)
    elif reference.kind == "hub":
        commit = hub.resolve_revision(reference.source, reference.revision, offline=offline)
        variant = reference.variant
        folder = hub.download(reference.source, commit, offline=offline, on_download=on_download, variant=variant)
        parts = parts_of_folder(folder, needs_vae=needs_vae, variant=variant)
    else:
        parts = parts_of_folder(Path(reference.source), needs_vae=needs_vae)
        parts = FORMS[reference.name](parts) if reference.kind == "embedded" else parts
    if vae is not None:
        with_vae(parts, Path(vae).expanduser())
    parts.family.process.settle(parts.configs["scheduler"], prediction_type, parts.source)
    check_settings(parts.configs, parts.family, parts.source)
    return parts


def judge_base(
    reference: BaseReference, *, offline: bool, prediction_type: str | None = None, vae: str | None = None
) -> list[str]:
    """Tells from configurations and headers whether a base can be loaded, and what there is to say of it.

    No weights are read or fetched; of a hub base that is not here only configurations are, and of a known one not even
    those. Raises what `load_base` raises of them.
    """
    checked_prediction(prediction_type)
    if vae is not None:
        vae_parts(Path(vae).expanduser(), shipped_configs("sd-v1")["vae"])
    if reference.kind == "hub":
        assert reference.revision is not None
        place, variant = (reference.source, reference.revision), reference.variant
        if reference.is_known and hub.cached_folder(*place) is None:
            return []
        if hub.complete_folder(*place, offline=offline, variant=variant) is None:
            folder = hub.download_configs(reference.source, reference.revision)
            check_folder(folder)
            family = family_in(folder)
            for name, part in family.parts.items():
                if vae is None or part.kind != "vae":
                    require_part(folder, f"{name}/config.json")
            check_settings(configs_of(folder, family), family, reference.source)
            return []
    parts = parts_of(reference, offline=True, prediction_type=prediction_type, vae=vae)
    match_all(empty_networks(parts), parts)
    return parts.notes


def joined(reference: BaseReference, parts: Parts, networks: Mapping[str, nn.Module], weights_digest: str) -> Base:
    """Networks and the facts that go with them."""
    family = parts.family
    (vae_name,) = family.of_kind("vae")
    vae_config: Any = networks[vae_name].config
    tokenizers = {name: read() for name, read in parts.tokenizers.items()}
    vae_factor = 2 ** (len(vae_config.block_out_channels) - 1)
    scheduler = parts.configs["scheduler"]
    prediction_type = scheduler["prediction_type"]
    lengths = [int(one.model_max_length) for one in tokenizers.values()]
    text_configs: list[Any] = [networks[name].config for name in family.encoders]
    lengths += [int(config.max_position_embeddings) for config in text_configs]
    max_tokens = family.max_tokens or min(lengths)
    zero_negative = family.zero_negative(parts.configs.get("index", {}))
    facts = {
        **family.process.of(scheduler).facts,
        "latent_scale": float(vae_config.scaling_factor),
        "max_tokens": max_tokens,
        **({"zero_negative": True} if zero_negative else {}),
    }
    return Base(
        name=reference.name,
        source=reference.source,
        revision=reference.revision,
        kind=reference.kind,
        hash=base_hash(weights_digest, facts),
        family=family,
        tokenizers=tokenizers,
        networks=dict(networks),
        scheduler_config=scheduler,
        resolution=resolution_px(parts.configs, family, vae_factor),
        vae_factor=vae_factor,
        latent_channels=int(vae_config.latent_channels),
        prediction_type=prediction_type,
        max_tokens=max_tokens,
        zero_negative=zero_negative,
        notes=parts.notes,
        files=[*parts.files, *parts.small_files],
    )
