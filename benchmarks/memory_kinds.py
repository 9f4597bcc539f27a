"""Memory at its peak of every kind of adapter and with every optimiser, beside what `--dry-run` says of it.

Whole runs, one after the other, on one base and the same pictures. Each row names how many values it trains: kinds are
to be compared where these are alike. Optimisers are told apart on a LoRA of a high rank, whose state weighs enough.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from machine import machine, write_figures  # noqa: E402
from memory_pairs import rung  # noqa: E402
from models import add_size_option, load_once, write_base, write_pictures  # noqa: E402
from peer import CLASS_IMAGES, PHOTOS, Work  # noqa: E402
from program import as_options  # noqa: E402
from step_time import Ours  # noqa: E402

HIGH = {"lora.rank": 512, "lora.alpha": 512}
CONVOLUTIONS = {"lora.targets": "[to_q,to_k,to_v,to_out.0,conv1,conv2]"}
LOKR, LOHA = {"lora.kind": "lokr"}, {"lora.kind": "loha"}
# Ranks and factors by which, on Stable Diffusion v1, the rows of a block train about as many values.
KINDS: dict[str, dict[str, object]] = {
    "LoRA, rank 1": {"lora.rank": 1},
    "LoKr, factor 4, rank 4": LOKR | {"lora.factor": 4},
    "LoRA, rank 4": {},
    "DoRA, rank 4": {"lora.dora": True},
    "rsLoRA, rank 4": {"lora.rslora": True},
    "LoRA+, rank 4": {"lora.b_rate_ratio": 16},
    "PiSSA, rank 4": {"lora.init": "pissa"},
    "orthogonal, rank 4": {"lora.init": "orthogonal"},
    "T-LoRA, rank 4": {"lora.least_rank": 2},
    "LoKr, factor 8, rank 32": LOKR | {"lora.factor": 8, "lora.rank": 32},
    "LoHa, rank 2": LOHA | {"lora.rank": 2},
    "LoRA, rank 8": {"lora.rank": 8},
    "LoKr, factor 8, whole matrices": LOKR | {"lora.factor": 8, "lora.rank": 4096},
    "LoHa, rank 4": LOHA,
    "LoRA, rank 4, with convolutions": CONVOLUTIONS,
    "PiSSA, rank 4, with convolutions": CONVOLUTIONS | {"lora.init": "pissa"},
    "LoKr, factor 8, rank 32, with convolutions": CONVOLUTIONS | LOKR | {"lora.factor": 8, "lora.rank": 32},
    "LoHa, rank 2, with convolutions": CONVOLUTIONS | LOHA | {"lora.rank": 2},
    "LoRA, rank 512": HIGH,
    "LoRA, rank 512, schedulefree": HIGH | {"train.optimizer": "schedulefree"},
    "LoRA, rank 512, prodigy": HIGH | {"train.optimizer": "prodigy", "train.learning_rate": 1},
    "LoRA, rank 512, muon": HIGH | {"train.optimizer": "muon"},
    "LoRA, rank 512, adamw16bit": HIGH | {"train.optimizer": "adamw16bit"},
    "LoRA, rank 512, adafactor": HIGH | {"train.optimizer": "adafactor"},
    "PiSSA, rank 512": HIGH | {"lora.init": "pissa"},
}
COLUMNS = ("values", "estimate GB", "GB", "estimate/measured", "s/step")


def measure(arguments: argparse.Namespace, root: Path) -> list[dict[str, Any]]:
    """One row a kind."""
    base = (arguments.base or write_base(root / "base", arguments.size)).resolve()
    photos = write_pictures(root / "photos", PHOTOS, size_px=2 * arguments.resolution, seed=1)
    class_images = write_pictures(root / "class", CLASS_IMAGES, size_px=arguments.resolution, seed=2)
    load_once(str(base))
    ours = Ours(root, Work(base, photos, class_images, arguments.resolution, "lora", False, arguments.precision))
    rows: list[dict[str, Any]] = []
    for name in arguments.kinds or KINDS:
        words = as_options(KINDS[name])
        row, losses = rung(ours, name, words, arguments.steps, None)
        rows.append(row | {"values": values(ours, words), "losses": losses})
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


def values(ours: Ours, words: Sequence[str]) -> int:
    """How many values a run of these options trains."""
    from dbcli.diffusion.estimate.meta_base import load_meta_base
    from dbcli.project.files.layout import Layout
    from dbcli.workflows.models.trainable import make_trainable
    from dbcli.workflows.setup.effective_settings import resolve_profile

    sets = [word.removeprefix("--set=") for word in (*as_options(ours.settings()), *words)]
    layout = Layout(ours.project.folder)
    profile = resolve_profile(layout, profile="lora", sets=sets, flags={"method": "lora"}, subjects=1)[1]
    return make_trainable(load_meta_base(str(ours.work.base), None), profile, ()).count


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [f"| | {' | '.join(COLUMNS)} |", "|---|" + "---|" * len(COLUMNS)]
    for row in rows:
        shown = [f"{row[name]:,}" if name == "values" else f"{row[name]:.2f}" for name in COLUMNS]
        lines.append(f"| {row['what']} | {' | '.join(shown)} |")
    return "\n".join(lines)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--base", type=Path, help="a base's folder; a random one of --size if left out")
    add_size_option(options)
    options.add_argument("--resolution", type=int, default=128, help="pixels per side")
    options.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="of the forward pass")
    options.add_argument("--kinds", nargs="*", choices=KINDS, metavar="NAME", help=f"only these: {', '.join(KINDS)}")
    options.add_argument("--steps", type=int, default=2)
    options.add_argument("--json", type=Path, help="write the figures there")
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(arguments, Path(folder).resolve())
    what = f"{arguments.precision}, {arguments.resolution} px, {arguments.steps} steps"
    print(f"{what}; {machine()}\n\n{table(rows)}")
    write_figures(arguments.json, what=what, rows=rows)


if __name__ == "__main__":
    main()
