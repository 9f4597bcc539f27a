"""What a run trains of its base: the parts its method opens, on the weights of the run it continues."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dbcli.errors import ConfigError
from dbcli.project.files.layout import Layout
from dbcli.project.runs.checkpoints import LORA_FILE
from dbcli.project.runs.run_store import RunRecord, RunSubject
from dbcli.project.settings.profile_settings import Profile
from dbcli.workflows.models.base_demands import check_ranks
from dbcli.workflows.models.layer_targets import require_layers
from dbcli.workflows.models.textual_inversion import INVERSION, open_words

if TYPE_CHECKING:
    from dbcli.diffusion.adapters.attach import Trainable
    from dbcli.diffusion.bases.base import Base
    from dbcli.diffusion.formats.lora import LoraWeights
    from dbcli.diffusion.formats.timestep_ranks import TimestepRanks


def take_over(layout: Layout, parent: RunRecord, base: Base) -> LoraWeights | None:
    """Puts the weights of a full run into a base, in place; or reads the adapter of a LoRA run.

    Only denoiser and text encoders change: the base's autoencoder is what every run has.
    """
    folder = layout.weights_dir(parent.name)
    if parent.method == "full":
        from dbcli.diffusion.bases.base import load_base

        device = base.unet.device
        # There may be no room for both, and what is in cycles of references would stay until Python looks for it.
        for network in base.tunable.values():
            network.to("meta")
        tuned = load_base(str(folder), device=device, offline=True)
        base.networks |= tuned.tunable
        return None
    from dbcli.diffusion.formats.lora_files import read_lora

    return read_lora(folder / LORA_FILE, base)


def start_trainable(
    layout: Layout, record: RunRecord, profile: Profile, base: Base, parent: RunRecord | None
) -> Trainable:
    """Opens what a run trains of its base, from the weights of `parent` where the run continues one."""
    lora = None if parent is None else take_over(layout, parent, base)
    return make_trainable(base, profile, record.subjects, lora)


def make_trainable(
    base: Base, profile: Profile, subjects: Sequence[RunSubject], lora: LoraWeights | None = None
) -> Trainable:
    """Opens the parts of a base that the profile's method trains.

    Word vectors are those of the subjects; `lora` is an adapter to go on with.
    """
    import torch

    from dbcli.diffusion.adapters.attach import LoraOptions, add_lora, make_full
    from dbcli.diffusion.bases.quantized import shrink
    from dbcli.diffusion.precision import recomputed

    if profile.train.text_encoder and not base.family.trains_text:
        raise ConfigError(
            f"train.text_encoder: the text encoder of {base.name} is not trained.",
            hint="--set train.text_encoder=false",
        )
    if profile.train.gradient_checkpointing:
        unet: Any = base.unet
        unet.enable_gradient_checkpointing(recomputed)
    if profile.method == "full":
        dtype = torch.bfloat16 if profile.train.stochastic_rounding else torch.float32
        return make_full(base.tunable, train_text=profile.train.text_encoder, dtype=dtype)
    if profile.method == INVERSION:
        return open_words(base, profile, subjects)
    # A text encoder that a LoRA has no layers for gets its first ones.
    if lora is None or profile.train.text_encoder:
        require_layers(base, profile.lora)
    if profile.lora.base != "full":
        shrink(base.unet, profile.lora.base, ends=base.family.ends, offload=profile.lora.offload)
    options = LoraOptions(
        rank=profile.lora.rank,
        alpha=profile.lora.alpha,
        targets=profile.lora.targets,
        text_targets=profile.lora.text_targets,
        dropout=profile.lora.dropout,
        dora=profile.lora.dora,
        train_text=profile.train.text_encoder,
        seed=profile.train.seed,
        rank_stabilised=profile.lora.rslora,
        initialisation=profile.lora.init,
        schedule=_schedule(base, profile.lora.least_rank),
        kind=profile.lora.kind,
        factor=profile.lora.factor,
        decompose_both=profile.lora.decompose_both,
        tucker=profile.lora.tucker,
    )
    return add_lora(base.tunable, options, lora)


def _schedule(base: Base, least_rank: int) -> TimestepRanks | None:
    from dbcli.diffusion.formats.timestep_ranks import TimestepRanks

    if least_rank == 0:
        return None
    check_ranks(base.name, least_rank, is_flow=base.process.begins_with_noise)
    return TimestepRanks(least_rank, timesteps=int(base.process.level_at(1.0)))
