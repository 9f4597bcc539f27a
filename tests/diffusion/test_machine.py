"""What is told of this machine without torch is what torch tells of it."""

from __future__ import annotations

import subprocess
import sys

import torch

from dbcli.diffusion.devices import free_memory_bytes
from dbcli.diffusion.machine import free_ram_bytes, has_surely_no_gpu, resident_bytes


def test_where_there_is_surely_no_gpu_torch_finds_none() -> None:
    assert not (has_surely_no_gpu() and (torch.cuda.is_available() or torch.backends.mps.is_available()))


def test_free_memory_is_what_the_device_says() -> None:
    # Other programs take and return memory in between.
    assert abs(free_ram_bytes() - free_memory_bytes(torch.device("cpu"))) < 2e9
    assert 10e6 < resident_bytes() < 100e9


def test_it_takes_no_torch() -> None:
    code = (
        "import sys\nfrom dbcli.diffusion import machine\n"
        "machine.has_surely_no_gpu(), machine.free_ram_bytes()\nprint('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
