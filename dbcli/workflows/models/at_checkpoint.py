"""A run's model as it was at one of its checkpoints, to draw with and to score."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dbcli.errors import Refused, RunMissing
from dbcli.project.files.layout import Layout
from dbcli.project.runs.checkpoints import checked_weights, checkpoint_fault, checkpoint_folder, checkpoint_steps
from dbcli.project.runs.run_store import RunRecord
from dbcli.project.subjects.lineage import parent_of
from dbcli.workflows.models.trainable import start_trainable
from dbcli.workflows.setup.effective_settings import profile_of

if TYPE_CHECKING:
    from dbcli.diffusion.bases.base import Base


def is_result(layout: Layout, record: RunRecord, step: int) -> bool:
    """Whether the weights of a step are the finished run's result, which then are kept only once."""
    kept_once = not checkpoint_folder(layout, record.name, step).exists()
    return record.state == "finished" and step == record.result_step and kept_once


def require_checkpoint(layout: Layout, record: RunRecord, step: int) -> Path:
    """The folder of a checkpoint, whole; of a result kept only once, its own. RunMissing names those that are there."""
    folder = checkpoint_folder(layout, record.name, step)
    if is_result(layout, record, step):
        return checked_weights(layout, record)
    fault = checkpoint_fault(folder)
    if fault is None:
        return folder
    steps = {*checkpoint_steps(layout, record.name), *([record.result_step] if record.state == "finished" else [])}
    known = ", ".join(str(one) for one in sorted(steps)) or "none"
    raise RunMissing(
        f"The run {record.name} has no complete checkpoint of step {step} ({fault}); available: {known}.",
        hint="--set train.keep_checkpoints=N keeps more checkpoints of the next run",
    )


def require_base(record: RunRecord, base: Base) -> None:
    """Raises Refused where a run was trained on another base."""
    if record.base.hash != base.hash:
        raise Refused(
            f"The run {record.name} was trained on another base ({record.base.name}).",
            hint=f"dreambooth runs show {record.name}",
        )


def put_checkpoint(layout: Layout, record: RunRecord, step: int, base: Base) -> None:
    """Turns the project's base into the run's model at `step`, averages where the run kept them; ready to draw.

    The caller has required the checkpoint. Raises Refused on another base than the run's.
    """
    from dbcli.diffusion.adapters.attach import freeze
    from dbcli.diffusion.training.state_files import load_result, result_file_of_checkpoint

    require_base(record, base)
    profile = profile_of(layout, record)
    # As the result is: weights in fewer bits are for training alone.
    in_full = {
        "lora": profile.lora.model_copy(update={"base": "full", "offload": False}),
        "train": profile.train.model_copy(update={"stochastic_rounding": False}),
    }
    profile = profile.model_copy(update=in_full)
    # What the run did not train itself is as it was in the run that it went on from.
    trainable = start_trainable(layout, record, profile, base, parent_of(layout, record))
    load_result(trainable, result_file_of_checkpoint(checkpoint_folder(layout, record.name, step)))
    freeze(*base.tunable.values())
