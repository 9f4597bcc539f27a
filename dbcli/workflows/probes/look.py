"""A look at the result when training ends: images enough for a verdict in words, which goes on the run's record."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from dbcli.diffusion.distributed import SINGLE
from dbcli.errors import Interrupted
from dbcli.workflows.probes.score import Panel, generate_items, open_panel, probe_items
from dbcli.workflows.run_context import RunContext
from dbcli.workflows.setup.effective_settings import default_judge

if TYPE_CHECKING:
    from dbcli.diffusion.bases.base import Base
    from dbcli.diffusion.training.trainer import Trainer

EMBEDDED_JUDGE = "tiny"


def is_looked_at(run: RunContext) -> bool:
    """Whether the result of a run without probes is looked at all the same.

    It is where base and judges are the embedded ones: a few seconds, and the shortest runs need the advice most.
    """
    is_embedded = default_judge(run.layout) == EMBEDDED_JUDGE
    return is_embedded and run.profile.probe.judge in ("auto", EMBEDDED_JUDGE)


def look(run: RunContext, base: Base, trainer: Trainer, panel: Panel | None) -> None:
    """Draws the result once more, with seeds enough for a verdict, and puts that on record; loads judges if need be."""
    from dbcli.metrics.verdict import LEAST_IMAGES, verdict_of

    items = probe_items(run, base, math.ceil(LEAST_IMAGES / (1 + len(run.profile.probe.prompts))))
    for module in trainer.trainable.modules:
        module.eval()
    # After a signal the run is finished without its verdict; the other ranks are done, the main one draws alone.
    with suppress(Interrupted), run.progress.stage("Looking at the result", 1) as stage:
        panel = panel or open_panel(run)
        images = generate_items(replace(run, group=SINGLE), base, items, stage, "the result")
        counts = panel.score(items, images).counts
        stage.advance()
        nouns = {subject.name: subject.class_noun for subject in run.record.shown}
        steps = run.record.result_step
        found = {name: verdict_of(name, nouns[name], one, steps=steps) for name, one in counts.items()}
        run.record.probing["verdicts"] = {name: one.to_plain() for name, one in found.items() if one is not None}
