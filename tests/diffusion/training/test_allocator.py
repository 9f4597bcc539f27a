"""What a process holds of memory that was freed, by glibc: real tensors in a process of its own."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from dbcli.diffusion.training.allocator import LARGE

# Tensors of 8 MB, every second of which is freed: in a heap the others hold it fast.
GAPS = f"""
import torch
from dbcli.diffusion.training.allocator import keep_freed_memory
from dbcli.diffusion.machine import own_status
torch.set_num_threads(1)
keep_freed_memory({{activation}})
before = own_status("VmRSS")
kept = [torch.zeros({2 * LARGE // 4}) for _ in range(64)]
del kept[::2]
print((own_status("VmRSS") - before) / {2 * LARGE})
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has another allocator")
@pytest.mark.parametrize(("activation", "held"), [(LARGE - 1, 64), (LARGE, 32)], ids=["small", "large"])
def test_where_activations_are_large_what_is_freed_is_returned_at_once(activation: int, held: int) -> None:
    words = [sys.executable, "-c", GAPS.format(activation=activation)]
    found = float(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    assert found == pytest.approx(held, abs=2)
