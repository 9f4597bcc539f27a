"""What of a run's settings may change while it is under way, and what it was begun with for good."""

from typing import Any

from dbcli.project.settings.profile_settings import Profile
from dbcli.project.settings.profiles import flattened

# How long, how fast and in how much memory a run trains, and what it shows meanwhile. Everything else decides what is
# learnt from which images: a run in which that changed half-way would be neither the one nor the other. Accumulation is
# of that kind: rows and noise follow from the number of the pass, so that fewer a step would take some once more.
MAY_CHANGE = frozenset(
    f"train.{name}"
    for name in (
        *("steps", "learning_rate", "text_encoder_learning_rate", "text_encoder_2_learning_rate"),
        *("schedule", "warmup_steps"),
        *("schedule_cycles", "schedule_power", "schedule_end"),
        *("optimizer", "beta1", "beta2", "weight_decay", "epsilon", "gradient_clip"),
        *("batch_size", "gradient_checkpointing", "fused_backward", "stochastic_rounding"),
        *("precision", "compile", "device", "on_divergence"),
        *("checkpoint_every", "keep_checkpoints", "keep_finished", "preview_every", "preview_prompt"),
    )
) | {"prior.batch_size", "lora.base", "lora.offload"}
SECTIONS_THAT_MAY_CHANGE = ("draw.", "probe.")
# Probes made with other settings of these are images of another kind: their scores do not compare.
OF_PROBE_IMAGES = (
    *("probe.judge", "probe.prompts", "probe.seeds", "probe.steps", "probe.sampler"),
    *("draw.guidance", "draw.negative", "draw.precision", "draw.timesteps", "draw.clip_skip"),
)
Change = tuple[Any, Any]


def changed_settings(before: Profile, after: Profile) -> dict[str, Change]:
    """Return every setting that differs, dotted key -> (value before, value after)."""
    old, new = (flattened(profile.model_dump(mode="json")) for profile in (before, after))
    return {key: (old[key], new[key]) for key in new if old[key] != new[key]}


def may_change(key: str, optimizer: str | None = None) -> bool:
    """Return whether a run that is resumed, and keeps this optimiser, may go on with another value of this setting.

    None where the optimiser changes.
    """
    if key == "train.beta1" and optimizer == "schedulefree":
        # Weights lie by it between their average and the last step's: another one would move what was averaged.
        return False
    return key in MAY_CHANGE or key.startswith(SECTIONS_THAT_MAY_CHANGE)
