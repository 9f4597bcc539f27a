"""What figures are measured on."""

from __future__ import annotations

import os
import platform


def has_gpu() -> bool:
    """Whether commands that are told no device work on a CUDA GPU."""
    import torch

    return torch.cuda.is_available()


def machine() -> str:
    """Processor, GPU or number of cores, and torch's version."""
    import torch

    device = torch.cuda.get_device_name() if has_gpu() else f"{os.cpu_count()} cores"
    return f"{platform.machine()}, {device}, torch {torch.__version__}"
