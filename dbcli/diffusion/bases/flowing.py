"""The embedded base under flow matching, `tiny-flow`: the same weights and files, another scheduler."""

from __future__ import annotations

from dataclasses import replace

from dbcli.diffusion.bases.assembly import Parts
from dbcli.diffusion.families.sd_flow import SD_FLOW

SCHEDULER = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 1.0}


def flowing(parts: Parts) -> Parts:
    """The parts of the embedded base as those of `tiny-flow`."""
    return replace(parts, family=SD_FLOW, configs={**parts.configs, "scheduler": dict(SCHEDULER)})
