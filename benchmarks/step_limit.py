"""The least that a training step can take on this machine: its multiplications at the rate of a large matrix product,
and the optimiser's reading and writing at the rate of a large copy.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from machine import machine  # noqa: E402
from models import add_size_option, write_base  # noqa: E402

# AdamW reads a weight, its gradient and two moments, and writes all but the gradient; float32.
ADAMW_BYTES = 7 * 4
SIDE, COPIED_BYTES, TIMES = 2048, 1 << 28, 5
ROWS = 2  # a photo and a class image


@dataclass(frozen=True)
class Limit:
    """What a step has to do, and how fast the machine does that, with torch's present number of threads."""

    flops: int
    optimiser_bytes: int
    flops_per_second: float
    bytes_per_second: float

    @property
    def seconds(self) -> float:
        return self.flops / self.flops_per_second + self.optimiser_bytes / self.bytes_per_second


def step_limit(base: Path, resolution: int, method: str, *, trains_text: bool) -> Limit:
    """The limit of a step of 1 + 1 rows in float32; nothing of the base is loaded."""
    import torch

    from dbcli.diffusion.estimate import footprint
    from dbcli.diffusion.estimate.cost import fake_tensors
    from dbcli.diffusion.estimate.meta_base import load_meta_base, place, placed
    from dbcli.project.settings.profiles import load_profile, resolve
    from dbcli.workflows.models.trainable import make_trainable

    profile = resolve([("", load_profile(method)), ("", {"train.text_encoder": trains_text})])
    model = load_meta_base(str(base), None)
    trainable = make_trainable(model, profile, ())
    with fake_tensors():
        place(model, torch.device("cpu"))
        trainable = placed(model, trainable)
        step = footprint.training_pass(model, trainable, footprint.Batch(ROWS, (resolution, resolution)))
    return Limit(step.flops, ADAMW_BYTES * trainable.count, product_rate(), copy_rate())


def product_rate() -> float:
    """Multiplications and additions a second of a large float32 matrix product."""
    import torch

    one, other, out = (torch.ones(SIDE, SIDE) for _ in range(3))
    return 2 * SIDE**3 / _fastest(lambda: torch.mm(one, other, out=out))


def copy_rate() -> float:
    """Bytes a second that are read or written in a copy far larger than any cache."""
    import torch

    source, target = (torch.ones(COPIED_BYTES // 4) for _ in range(2))
    return 2 * COPIED_BYTES / _fastest(lambda: target.copy_(source))


def _fastest(work: Callable[[], object]) -> float:
    """Seconds of the fastest of several runs: whatever else the machine does can only slow one down."""
    work()
    took = []
    for _ in range(TIMES):
        began = time.perf_counter()
        work()
        took.append(time.perf_counter() - began)
    return min(took)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--base", type=Path, help="a base's folder; a random one of --size if left out")
    add_size_option(options)
    options.add_argument("--resolution", type=int, default=128, help="pixels per side")
    options.add_argument("--method", choices=["full", "lora"], default="full")
    options.add_argument("--text", action="store_true", help="train the text encoder too")
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        base = arguments.base or write_base(Path(folder) / "base", arguments.size)
        found = step_limit(base.resolve(), arguments.resolution, arguments.method, trains_text=arguments.text)
    print(
        f"{machine()}\n"
        f"{found.flops / 1e9:.0f} GFLOP at {found.flops_per_second / 1e9:.0f} GFLOP/s, "
        f"{found.optimiser_bytes / 1e9:.2f} GB at {found.bytes_per_second / 1e9:.1f} GB/s: {found.seconds:.3f} s"
    )


if __name__ == "__main__":
    main()
