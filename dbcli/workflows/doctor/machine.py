"""A look at the machine: what it can train, draw and score with, and what is missing, each with the way to mend it."""

import shutil
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dbcli import __version__
from dbcli.deadline import within
from dbcli.errors import JudgeMissing, UsageError
from dbcli.hints import installing
from dbcli.project.files.layout import Layout
from dbcli.project.settings.project_settings import load_settings, load_user_settings
from dbcli.project.subjects.subject_store import list_subjects
from dbcli.workflows.doctor.check import Check, Look, checks_of, fault, good, note
from dbcli.workflows.progress import Progress
from dbcli.workflows.setup.open import open_project

GIGABYTE = 1e9
HUB_TIMEOUT_SECONDS = 3.0
# Weights, gradients and AdamW's two moments in float32; adapters keep the weights only. Activations come on top.
FULL_TRAINING_GB, LORA_TRAINING_GB = 16, 4
# A full run of Stable Diffusion v1 keeps its weights (4 GB) and two checkpoints with the optimiser's state (12 GB).
ROOMY_DISK_GB, LEAST_DISK_GB = 30, 2
PACKAGES = ("torch", "diffusers", "transformers", "peft", "accelerate", "safetensors", "timm", "open_clip_torch")
EXTRAS = ("pillow-heif", "bitsandbytes", "prodigyopt", "tensorboard", "wandb", "ray")


def examine(folder: Path | None, progress: Progress, *, offline: bool) -> list[Check]:
    """Every check, the machine's first, then the project's in `folder` or above; no project is no fault.

    Nothing is written, and unless `offline` one question goes to the hub. Raises UsageError for a `folder` that was
    named and is no project.
    """
    layout = _project(folder)
    looks: dict[str, Look] = {
        "program": _program,
        "libraries": _libraries,
        "device": _device,
        "memory": _memory,
        "disk": lambda: _disk(layout),
        "hub": lambda: _hub(offline),
        "judges": lambda: _judges(layout),
        "extras": _extras,
    }
    found = checks_of("machine", "Checking this machine", looks, progress)
    if layout is not None:
        from dbcli.workflows.doctor.project import project_checks

        found += project_checks(layout, progress)
    return found


def _project(folder: Path | None) -> Layout | None:
    try:
        return open_project(folder)
    except UsageError:
        if folder is not None:
            raise
        return None


def _program() -> Iterator[Check]:
    python = sys.version.split()[0]
    yield good("program", f"dreambooth {__version__} on Python {python}")


def _libraries() -> Iterator[Check]:
    there, absent = _installed(PACKAGES)
    if absent:
        yield fault("libraries", f"missing: {', '.join(absent)}", installing(*absent))
    else:
        yield good("libraries", ", ".join(there))


def _installed(packages: Sequence[str]) -> tuple[list[str], list[str]]:
    """The packages that are there, each with its version, and those that are not."""
    there, absent = [], []
    for package in packages:
        try:
            there.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            absent.append(package)
    return there, absent


def _device() -> Iterator[Check]:
    import torch

    from dbcli.diffusion.devices import device_name, pick_device
    from dbcli.workflows.setup.suggested_profile import seen_gpu

    device = pick_device("auto")
    if device.type == "cpu":
        seen = seen_gpu()
        if seen is not None:
            yield fault(
                "device",
                f"torch {torch.__version__} does not see the {seen.name}",
                "install the torch build for your GPU: https://pytorch.org/get-started/locally/",
            )
            return
        yield note("device", f"no GPU; {device_name(device)}", "--base tiny trains in minutes without one")
        return
    yield good("device", f"{device_name(device)} ({device.type})")
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        yield _training_room("GPU memory", free / GIGABYTE, total / GIGABYTE)


def _training_room(name: str, free_gb: float, total_gb: float) -> Check:
    """What a GPU's free memory is enough for with Stable Diffusion v1 at 512 px, before activations."""
    found = f"{free_gb:.1f} of {total_gb:.1f} GB free"
    if free_gb >= FULL_TRAINING_GB * 1.25:
        return good(name, f"{found}: full fine-tuning of Stable Diffusion v1 should fit")
    if free_gb >= LORA_TRAINING_GB * 1.25:
        return good(name, f"{found}: adapters for Stable Diffusion v1 should fit (--method lora)")
    fix = "close other programs on the GPU, or use --method lora with --set train.gradient_checkpointing=true"
    return note(name, f"{found}: tight for Stable Diffusion v1", fix)


def _memory() -> Iterator[Check]:
    import psutil

    memory = psutil.virtual_memory()
    found = f"{memory.available / GIGABYTE:.1f} of {memory.total / GIGABYTE:.1f} GB free"
    if memory.available < 1.5 * GIGABYTE:
        yield note("memory", found, "close other programs; even the embedded base takes about a gigabyte")
    elif memory.available < 8 * GIGABYTE:
        yield note("memory", f"{found}: loading Stable Diffusion v1 takes about 5 GB")
    else:
        yield good("memory", found)


def _disk(layout: Layout | None) -> Iterator[Check]:
    folder = layout.root if layout is not None else Path.cwd()
    free = shutil.disk_usage(folder).free / GIGABYTE
    found = f"{free:.1f} GB free in {folder}"
    if free < LEAST_DISK_GB:
        yield fault("disk", found, "free some space, or move the project to another disk")
    elif free < ROOMY_DISK_GB:
        yield note(
            "disk",
            f"{found}; a full run of Stable Diffusion v1 takes up to 28 GB",
            "train with --method lora",
        )
    else:
        yield good("disk", found)


def _hub(offline: bool) -> Iterator[Check]:
    from huggingface_hub import constants

    if offline or constants.HF_HUB_OFFLINE:
        yield note("hub", "not checked: offline")
        return
    reached = _answers(constants.ENDPOINT)
    if reached is True:
        yield good("hub", f"{constants.ENDPOINT} answers")
    else:
        fix = "--base tiny or a local model file needs no hub; behind a proxy set HTTPS_PROXY"
        yield note("hub", f"{constants.ENDPOINT} cannot be reached ({reached})", fix)


def _answers(address: str) -> bool | str:
    """True if the hub says anything at all, else why not; a silent name server has no timeout of its own."""
    import urllib.error
    import urllib.request

    def ask() -> bool | str:
        try:
            request = urllib.request.Request(address, method="HEAD", headers={"User-Agent": "dreambooth"})
            urllib.request.urlopen(request, timeout=HUB_TIMEOUT_SECONDS).close()
        except urllib.error.HTTPError:
            return True
        except (OSError, ValueError) as error:
            return str(getattr(error, "reason", error))[:80]
        return True

    try:
        return within(HUB_TIMEOUT_SECONDS + 1, ask)
    except TimeoutError:
        return f"no answer within {HUB_TIMEOUT_SECONDS:g} s"


def _judges(layout: Layout | None) -> Iterator[Check]:
    from dbcli.metrics.judges.embedded import locate as locate_embedded
    from dbcli.metrics.judges.files import locate
    from dbcli.metrics.judges.loading import HUB_SOURCES, JUDGE_SETS

    sources: dict[str, Any] = dict(HUB_SOURCES) | load_user_settings().judges
    if layout is not None:
        sources |= load_settings(layout).judges
    for name, kinds in JUDGE_SETS.items():
        missing = []
        for kind in kinds:
            try:
                # Only what is on this machine: fetching gigabytes is not a doctor's business.
                locate(kind, sources[kind], offline=True) if kind in HUB_SOURCES else locate_embedded(kind)
            except JudgeMissing:
                missing.append(kind)
        if not missing:
            yield good(f"judges {name}", f"{', '.join(kinds)}: on this machine")
        elif name == "tiny":
            yield fault(f"judges {name}", f"{', '.join(missing)} not whole", "reinstall dreambooth")
        else:
            fix = "the first `dreambooth eval` downloads it; without a network, name a local copy in dreambooth.yaml"
            yield note(f"judges {name}", f"{', '.join(missing)} not on this machine yet", fix)
    yield from _judge_of_faces(layout)


def _judge_of_faces(layout: Layout | None) -> Iterator[Check]:
    """The judge of faces where it is installed, or a subject of the project is a person; else nobody needs it."""
    from dbcli.metrics.judges.faces import load_faces, missing_packages
    from dbcli.metrics.suites import is_person

    missing = missing_packages()
    if not missing:
        try:
            yield good("judge face", f"{load_faces().library}: on this machine")
        except JudgeMissing as error:
            yield fault("judge face", error.message, error.hint)
    elif layout is not None and any(is_person(one.class_noun) for one in list_subjects(layout)):
        yield note("judge face", "not installed; DINO does not know faces", f"{installing(*missing)} (100 MB)")


def _extras() -> Iterator[Check]:
    from dbcli.metrics.judges.faces import missing_packages

    there, absent = _installed(EXTRAS)
    absent += missing_packages()
    rest = "HEIC photos, 8-bit optimiser, logs, clusters, faces"
    fix = f"{installing(*absent)} installs the rest: {rest}" if absent else None
    yield good("extras", ", ".join(there) or "none", fix)
