"""What a new project should begin with on this machine, told without loading torch."""

import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from dbcli.project.settings.project_settings import EMBEDDED_BASES
from dbcli.workflows.setup.base_facts import base_like

_TIMEOUT_SECONDS = 4.0
# Weights, gradients and AdamW's two moments at 4 bytes each for the 983 million weights of UNet and text encoder are
# 15.7 GB; with the activations of one photo and one class image a card of 24 GB is the usual one that holds them.
FULL_NEEDS_MIB = 23_000


@dataclass(frozen=True)
class SeenGpu:
    """A GPU as the system tells of it; memory in MiB where it is known."""

    name: str
    memory_mib: int | None


@dataclass(frozen=True)
class Proposal:
    """A shipped profile for a base and a machine, and the reason in one line."""

    profile: str
    reason: str


def seen_gpu() -> SeenGpu | None:
    """The first GPU that training could use, or None; asks the driver's own tool, not torch, which takes seconds."""
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return SeenGpu("Apple GPU", None)
    if Path("/dev/kfd").exists():
        return SeenGpu("AMD GPU", None)
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    query = [tool, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        listed = subprocess.run(query, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=True).stdout
        name, _, memory = listed.splitlines()[0].rpartition(",")
        return SeenGpu(name.strip(), int(memory) if memory.strip().isdecimal() else None)
    except (OSError, subprocess.SubprocessError, IndexError):
        return None


def proposed_profile(base: str, *, has_gpu: bool, memory_mib: int | None = None) -> Proposal:
    """The shipped profile that suits a base on a machine with or without a GPU."""
    if base == "tiny-flow":
        return Proposal("tiny-flow-lora", "made for this form of the embedded base: minutes on two CPU cores")
    if base in EMBEDDED_BASES:
        return Proposal("tiny", "made for the embedded base: minutes on two CPU cores")
    if base_like(base) == "zimage":
        return Proposal("zimage-lora", "small adapters, which are the one method for a flow-matching model")
    if base_like(base) == "sdxl":
        return Proposal("sdxl-lora", "small adapters and a small file; --profile sdxl-full trains every weight")
    if not has_gpu:
        return Proposal("lora", "the least work per step, but many hours without a GPU; --base tiny takes minutes")
    if memory_mib is not None and memory_mib >= FULL_NEEDS_MIB:
        return Proposal("full", "every weight is trained, for the best likeness; it should fit on the GPU")
    return Proposal("lora", "small adapters, a fraction of the memory of full fine-tuning")
