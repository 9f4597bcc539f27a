"""Killed at random moments, a run of every kind on the embedded base ends as one that was not: the same bits."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.reliability.conftest import RUN, project_on
from tests.reliability.processes import ForkServer, weights_hash
from tests.reliability.test_kills import one_story

pytestmark = [pytest.mark.timeout(1800), pytest.mark.slow]
Figures = Callable[[str], None]
KILLS = 4
SHORT = [
    *("--steps=12", "--set=train.checkpoint_every=2", "--set=train.batch_size=1", "--set=images.resolution=64"),
    *("--set=probe.judge=off", "--set=images.scene_cutouts=1", "--set=images.scenes=[in the snow]"),
    *("--set=prior.images=2", "--set=prior.steps=1", "--set=prior.teacher_draws=1"),
]
FULL = ["--method=full", "--set=train.optimizer=schedulefree", *SHORT]
LORA = ["--method=lora", "--set=train.optimizer=adamw", "--set=lora.rank=4", "--set=lora.alpha=4", *SHORT]
KINDS = {
    "LoRA": LORA,
    "LoRA, EMA, dropout, text encoder": [
        *LORA,
        *("--set=train.ema=0.9", "--set=lora.dropout=0.2", "--set=train.text_encoder=true"),
    ],
    "LoKr": [*LORA, "--set=lora.kind=lokr"],
    "LoHa, a core": [*LORA, "--set=lora.kind=loha", "--set=lora.tucker=true", "--set=lora.dropout=0.2"],
    "PiSSA": [*LORA, "--set=lora.init=pissa"],
    "T-LoRA, orthogonal": [*LORA, "--set=lora.init=orthogonal", "--set=lora.least_rank=2"],
    "DoRA": [*LORA, "--set=lora.dora=true"],
    "rsLoRA, LoRA+": [*LORA, "--set=lora.rslora=true", "--set=lora.b_rate_ratio=8"],
    "PiSSA, Prodigy": [*LORA, "--set=lora.init=pissa", "--set=train.optimizer=prodigy", "--set=train.learning_rate=1"],
    "LoKr, schedule-free": [*LORA, "--set=lora.kind=lokr", "--set=train.optimizer=schedulefree"],
    "LoKr, Muon": [*LORA, "--set=lora.kind=lokr", "--set=train.optimizer=muon"],
    "full, schedule-free": FULL,
    "full, Prodigy": [*FULL, "--set=train.optimizer=prodigy", "--set=train.learning_rate=1"],
    "full, Muon": [*FULL, "--set=train.optimizer=muon"],
    "full, Adafactor": [*FULL, "--set=train.optimizer=adafactor"],
    "full, moments in bfloat16": [*FULL, "--set=train.optimizer=adamw16bit"],
    "pseudo-Huber, debiased, noise of several sizes": [
        *(*LORA, "--set=train.loss=pseudo-huber", "--set=train.debiased_estimation=true"),
        "--set=train.multires_noise=0.3",
    ],
    "captions dropped and shuffled, photos kept back": [
        *(*LORA, "--set=images.empty_share=0.3", "--set=images.caption_shuffle=words", "--set=images.held_out=1"),
    ],
    "words, schedule-free": ["--method=textual-inversion", *SHORT, "--set=train.optimizer=schedulefree"],
}


@pytest.fixture(scope="module")
def on_tiny(server: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return project_on("tiny", server, tmp_path_factory.mktemp("tiny"))


@pytest.mark.parametrize("made", ["template", "on_tiny"])
@pytest.mark.parametrize("name", KINDS)
def test_every_kind_killed_at_random_moments_ends_bit_equal(
    server: ForkServer, request: pytest.FixtureRequest, tmp_path: Path, figures: Figures, name: str, made: str
) -> None:
    job, folder = ["train", "--subject", "dog", *KINDS[name]], request.getfixturevalue(made)
    whole, killed = (Path(shutil.copytree(folder, tmp_path / one)) for one in ("whole", "killed"))
    began = time.monotonic()
    server.run(whole, *job).check(0)
    seconds = time.monotonic() - began
    hits, found = one_story(server, killed, len(name), seconds, KILLS, job)
    figures(f"{hits} SIGKILLs in a run of {seconds:.0f} s")
    assert found == weights_hash(whole / "runs" / RUN)
