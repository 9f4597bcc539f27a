"""What figures are measured on, and the file that they are kept in."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path


def has_gpu() -> bool:
    """Whether commands that are told no device work on a CUDA GPU."""
    import torch

    return torch.cuda.is_available()


def machine() -> str:
    """Processor, GPU or number of cores, and torch's version."""
    import torch

    device = torch.cuda.get_device_name() if has_gpu() else f"{os.cpu_count()} cores"
    return f"{platform.machine()}, {device}, torch {torch.__version__}"


def write_figures(file: Path | None, **figures: object) -> None:
    """Writes figures as JSON, with what they were measured on; without a file nothing is kept."""
    if file is not None:
        file.write_text(json.dumps({"machine": machine(), **figures}, indent=2) + "\n", encoding="utf-8")
