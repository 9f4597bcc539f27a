"""One command on several GPUs: its processes started, or found, and how they work together.

The process that a person started leads. With `--gpus N` it starts N - 1 others on this machine, which do nothing but
follow (following.py); torchrun and `accelerate launch` start all N with the same command line, and those that are not
process 0 follow as well. Only the leader speaks, holds locks and writes records; pictures that several draw are written
by whoever drew them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from dbcli.errors import UsageError
from dbcli.project.files.layout import Layout
from dbcli.project.runs.run_store import RunRecord
from dbcli.project.settings.profile_settings import Profile
from dbcli.project.subjects.subject_record import Subject
from dbcli.workflows.progress import Progress
from dbcli.workflows.signals import StopSignal
from dbcli.workflows.staff import Staff

if TYPE_CHECKING:
    from dbcli.diffusion.training.parallel import Company

# What torchrun, and therefore accelerate launch, says to each process that it starts.
LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")

_current: Company | None = None


def current() -> Company | None:
    """The company that this process leads now; None where it works alone."""
    return _current


def launched_size() -> int:
    """How many processes a launcher started together with this one; 1 where none did."""
    return int(os.environ["WORLD_SIZE"]) if all(name in os.environ for name in LAUNCHED) else 1


def is_follower() -> bool:
    """Whether a launcher started this process, and not as the one that leads."""
    return launched_size() > 1 and int(os.environ["RANK"]) > 0


def asked_processes(gpus: int) -> int:
    """How many processes a command has: those of `--gpus`, or those that a launcher started.

    Raises UsageError where both are given and differ.
    """
    launched = launched_size()
    if launched > 1 and gpus not in (1, launched):
        raise UsageError(
            f"--gpus {gpus} was asked for, and a launcher started {launched} processes.",
            hint="leave --gpus out under torchrun or accelerate launch",
        )
    return launched if launched > 1 else gpus


def check_several(processes: int, profile: Profile) -> None:
    """Raises UsageError where a profile, or this machine, cannot train on so many GPUs."""
    if processes == 1:
        return
    if profile.train.fused_backward:
        raise UsageError(
            "train.fused_backward changes weights before the gradients of several GPUs could be summed.",
            hint="--set train.fused_backward=false, or leave --gpus out",
        )
    check_devices(processes, profile.train.device)


def check_devices(processes: int, device: str) -> None:
    """Raises UsageError where `processes` of them cannot have a device each."""
    if processes == 1 or device == "cpu":
        return
    import torch

    if device not in ("auto", "cuda"):
        raise UsageError(
            f"train.device is {device}: one device, and {processes} processes need one each.",
            hint="--set train.device=auto",
        )
    here = int(os.environ.get("LOCAL_WORLD_SIZE", processes)) if launched_size() > 1 else processes
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if found < here:
        raise UsageError(
            f"{here} GPUs were asked for; this machine has {found or 'none'} that can be used.",
            hint=f"--gpus {found}" if found else "leave --gpus out; --set train.device=cpu makes them processes",
        )


@contextmanager
def company(processes: int, device: str, stop: StopSignal, progress: Progress) -> Iterator[None]:
    """Other processes stand by for as long as the block lasts; nothing where `processes` is 1.

    Raises UsageError where there are too few devices, ProcessLost (exit 5) where one of them dies.
    """
    if processes == 1:
        yield
        return
    check_devices(processes, device)
    is_launched = launched_size() > 1
    staff = Staff(0 if is_launched else processes - 1, stop)
    progress.note(f"{processes} processes work together, {'on processors' if device == 'cpu' else 'a GPU each'}.")
    with staff.at_work() as found, _led(found, device == "cpu"):
        yield


@contextmanager
def _led(found: Company, on_cpu: bool) -> Iterator[None]:
    global _current
    from dbcli.diffusion.training.parallel import ProcessLost, part

    _current = found
    is_whole = True
    try:
        found.announce({"do": "take devices", "on_cpu": on_cpu})
        found.take_devices(on_cpu)
        yield
    except ProcessLost:
        is_whole = False
        raise
    finally:
        _current = None
        if is_whole:
            with suppress(ProcessLost):  # one that is gone need not be told
                found.announce({"do": "leave"})
        part()


def announce(what: str, **facts: Any) -> None:
    """Tells the others, if there are any, what to do beside this process; a fault comes out at the next common work."""
    if _current is not None:
        _current.announce({"do": what, **facts})


def tell_of_run(
    layout: Layout, record: RunRecord, base_hash: str, profile: Profile, subjects: Sequence[Subject]
) -> None:
    """Tells the others which base to load and which run is trained; its record lies in the project by now."""
    root = str(layout.root)
    announce("base", root=root, base_hash=base_hash, device=profile.train.device)
    words = [subject.to_plain() for subject in subjects]
    announce("train", root=root, run=record.name, profile=profile.model_dump(mode="json"), subjects=words)


@contextmanager
def together(what: str, **facts: Any) -> Iterator[list[dict[str, Any]]]:
    """Work that all do: the block is this process's part. The list it yields is filled at its end, also after a fault.

    Raises the block's own error, or what another process met.
    """
    reports: list[dict[str, Any]] = []
    if _current is None:
        yield reports
        return
    _current.announce({"do": what, **facts})
    error = None
    try:
        yield reports
    except Exception as fault:
        error = fault
    _current.settle(error, take=reports.extend)


def dealt(places: Iterable[int], batch_size: int) -> list[list[int]]:
    """Places among pictures that are drawn in batches, dealt to the processes batch by batch: whole ones, each once."""
    size = 1 if _current is None else _current.size
    found = sorted(places)
    batches = {batch: turn for turn, batch in enumerate(sorted({place // batch_size for place in found}))}
    return [[place for place in found if batches[place // batch_size] % size == rank] for rank in range(size)]
