"""Memory that runs short, and memory foreseen: a run goes on with a smaller recipe, and takes what was said."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.reliability.conftest import RUN
from tests.reliability.processes import ForkServer, events, record, weights_hash

pytestmark = pytest.mark.timeout(1800)
NewProject = Callable[[], Path]
RECOMPUTING = "--set=train.gradient_checkpointing=true"
# Large batches of large pictures: the activations of the small base outweigh everything else.
LARGE = [
    *("train", "--subject", "dog", "--set=train.batch_size=48", "--set=images.resolution=256"),
    *("--set=prior.images=2", "--set=prior.steps=1", "--steps", 2),
]
RECOMPUTED, FUSED = "full, activations recomputed", "full, fused backward"
LORA = ["LoRA", "LoRA, activations recomputed", "LoRA, 8-bit base", "LoRA, 4-bit base"]


def steps_of(run: Path) -> list[tuple[int, str, str]]:
    return [(one["step"], one["before"], one["after"]) for one in record(run)["fallbacks"]]


def test_a_run_that_fell_back_goes_on_from_its_last_step_and_ends_as_if_nothing_had_happened(
    server: ForkServer, new_project: NewProject
) -> None:
    project, undisturbed = new_project(), new_project()
    job = [*("train", "--subject", "dog", "--method", "full", "--steps", 3), "--set=prior.enabled=false"]
    server.run(undisturbed, *job).check(0)
    server.run(project, *job, fail_at_step={"step": 3, "error": "memory", "recomputing": False}).check(0)
    run = project / "runs" / RUN
    assert steps_of(run) == [(2, "full", RECOMPUTED)]
    assert [event["step"] for event in events(run) if "loss" in event] == [1, 2, 3]
    assert weights_hash(run) == weights_hash(undisturbed / "runs" / RUN)


@pytest.mark.parametrize(
    ("words", "no_room", "way"),
    [
        # Without clipping the fused step is the plain one to the last bit, so the result is that of no fall at all.
        (["--method", "full", "--set=train.gradient_clip=0"], {"fused": False}, ["full", RECOMPUTED, FUSED]),
        (["--method", "lora"], {"packed": False}, LORA[:3]),
    ],
)
def test_a_run_falls_as_far_as_it_must_and_keeps_the_steps_it_has(
    server: ForkServer, new_project: NewProject, words: list[str], no_room: dict[str, bool], way: list[str]
) -> None:
    project, undisturbed = new_project(), new_project()
    job = ["train", "--subject", "dog", "--steps", 3, "--set=prior.enabled=false", *words]
    server.run(project, *job, fail_at_step={"step": 3, "error": "memory", **no_room}).check(0)
    run = project / "runs" / RUN
    assert steps_of(run) == [(2, before, after) for before, after in itertools.pairwise(way)]
    assert [event["step"] for event in events(run) if "loss" in event] == [1, 2, 3]
    if "fused" in no_room:
        server.run(undisturbed, *job).check(0)
        assert weights_hash(run) == weights_hash(undisturbed / "runs" / RUN)


def test_under_a_real_limit_auto_ends_on_a_smaller_rung_or_says_that_none_is_small_enough(
    server: ForkServer, new_project: NewProject
) -> None:
    project = new_project()
    job = [*LARGE, "--set=prior.enabled=false", "--profile", "auto"]
    # How much of what the first rung freed the C library gives back, and so which rung it is, no program settles.
    ended = server.run(project, *job, limit_memory={"megabytes": 110, "before_step": 1}).check(0, 5)
    found = record(project / "runs" / RUN)
    assert found["fallbacks"][0]["before"] == "full"
    assert (found["state"], found["step"]) == (("finished", 2) if ended.code == 0 else ("failed", 0))
    assert found["total_steps"] == 2
    assert ended.code == 0 or "this run has no smaller recipe" in ended.err


def test_where_no_rung_is_small_enough_a_run_ends_clearly_and_can_be_resumed(
    server: ForkServer, new_project: NewProject
) -> None:
    project = new_project()
    job = [*LARGE, "--set=prior.enabled=false", "--method", "lora", "--set=lora.base=nf4", RECOMPUTING]
    ended = server.run(project, *job, limit_memory={"megabytes": 12, "before_step": 1}).check(5)
    assert "Out of memory on the rung 'LoRA, 4-bit base'" in ended.err
    assert record(project / "runs" / RUN)["state"] == "failed"
    server.run(project, "train", "--resume").check(0)
    assert record(project / "runs" / RUN)["state"] == "finished"


@pytest.mark.parametrize(("profile", "code"), [("auto", 0), ("full", 5)])
def test_only_auto_turns_a_full_run_into_adapters(
    server: ForkServer, new_project: NewProject, profile: str, code: int
) -> None:
    project = new_project()
    job = ["train", "--subject", "dog", "--profile", profile, "--set=prior.enabled=false"]
    no_room = {"step": 2, "error": "memory", "method": "full"}
    server.run(project, *job, "--set=train.steps=3", fail_at_step=no_room).check(code)
    found = record(project / "runs" / RUN)
    assert found["method"] == ("lora" if profile == "auto" else "full")
    assert found["state"] == ("finished" if profile == "auto" else "failed")
    way = [RECOMPUTED, FUSED, "LoRA" if profile == "auto" else "full, weights in bf16"]
    assert [one["after"] for one in found["fallbacks"]] == way


def test_a_run_that_continues_a_full_one_becomes_no_lora_whose_base_nobody_has(
    server: ForkServer, new_project: NewProject
) -> None:
    project = new_project()
    job = ["train", "--subject", "dog", "--profile", "auto", "--set=prior.enabled=false", "--set=train.steps=3"]
    server.run(project, *job).check(0)
    no_room = {"step": 2, "error": "memory", "method": "full"}
    ended = server.run(project, "train", "--from", RUN, fail_at_step=no_room).check(5)
    found = record(project / "runs" / RUN.replace("0001", "0002"))
    assert (found["parent"], found["method"], found["state"]) == (RUN, "full", "failed")
    assert found["fallbacks"][-1]["after"] == "full, weights in bf16"
    assert "--profile auto" not in ended.err


@pytest.mark.parametrize(
    "words",
    [
        [],
        [RECOMPUTING],
        [RECOMPUTING, "--set=train.fused_backward=true", "--set=train.gradient_clip=0"],
        [RECOMPUTING, "--method=lora", "--set=lora.base=nf4"],
        ["--method=lora", "--set=lora.kind=lokr", "--set=lora.targets=[to_q,conv1,conv2]"],
        ["--method=lora", "--set=lora.kind=loha", "--set=lora.targets=[to_q,conv1,conv2]"],
    ],
)
def test_a_dry_run_says_within_15_percent_what_the_run_will_take(
    server: ForkServer, new_project: NewProject, words: list[str]
) -> None:
    project = new_project()
    job = [*LARGE, *words, "--json"]
    dry, wet = (json.loads(server.run(project, *job, word).check(0).out) for word in ("--dry-run", "--quiet"))
    # Both with the program's own share: how many pages of its libraries are mapped is the kernel's affair.
    said = dry["outlook"]["recipes"][0]["peak_memory_bytes"]
    assert said == pytest.approx(wet["peak_memory_bytes"], rel=0.15)
