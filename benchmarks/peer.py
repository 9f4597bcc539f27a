"""diffusers' training script as a person starts it, on the work that ours is given."""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from program import Timing, timed  # noqa: E402

PHOTOS, CLASS_IMAGES = 4, 8
PROMPT, CLASS_PROMPT = "a photo of a sks dog", "a photo of a dog"
# The adapters that its script for LoRAs trains, as our settings.
SCRIPT_LORA = {"lora.rank": 4, "lora.targets": ["to_q", "to_k", "to_v", "to_out.0"]}
# With what the profiles `tiny` and `tiny-lora` trained 600 steps before they took schedule-free AdamW.
ADAMW_RATES = {"full": 3e-4, "lora": 1e-3}


@dataclass(frozen=True)
class Work:
    """What both sides do."""

    base: Path
    photos: Path
    class_images: Path
    resolution: int
    method: str
    trains_text: bool
    precision: str


@dataclass(frozen=True)
class Peaks:
    """Bytes at the peak of a whole process, and of it until its steps were over, looked at ten times a second."""

    whole: int
    in_steps: int


class Peer:
    """diffusers' script with the same base, pictures, batch, precision and rate."""

    def __init__(self, root: Path, work: Work, script: Path) -> None:
        self.work, self.script, self.folder = work, script, root / "peer"
        self.folder.mkdir()

    def timed(self, steps: int) -> Timing:
        timing = timed(self.command(steps), self.folder)
        shutil.rmtree(self.folder / "out", ignore_errors=True)
        return timing

    def peaks(self, steps: int) -> Peaks:
        """The most memory of the whole script, and until its steps are over: at its end it may load the model again."""
        is_over, most = threading.Event(), 0

        def watch() -> None:
            nonlocal most
            while not is_over.wait(0.1) and not any((self.folder / "out").rglob("*.safetensors")):
                most = max(most, _children_bytes())

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            whole = self.timed(steps).peak_bytes
        finally:
            is_over.set()
            watcher.join()
        return Peaks(whole, most)

    def command(self, steps: int) -> list[str]:
        options = {
            "pretrained_model_name_or_path": self.work.base,
            "instance_data_dir": self.work.photos,
            "class_data_dir": self.work.class_images,
            "instance_prompt": PROMPT,
            "class_prompt": CLASS_PROMPT,
            "num_class_images": CLASS_IMAGES,
            "resolution": self.work.resolution,
            "train_batch_size": 1,
            "learning_rate": "1e-6",
            "lr_scheduler": "constant",
            "lr_warmup_steps": 0,
            "max_train_steps": steps,
            "checkpointing_steps": 1_000_000,
            "mixed_precision": "no" if self.work.precision == "fp32" else self.work.precision,
            "seed": 0,
            "output_dir": self.folder / "out",
        }
        return script_command(self.script, options, *(["--train_text_encoder"] if self.work.trains_text else []))


def adamw_rate(method: str, train: Mapping[str, Any]) -> float:
    """The rate for a script, which trains by AdamW: a profile's own, or what the method's of `tiny` had with it."""
    return ADAMW_RATES[method] if train.get("optimizer") == "schedulefree" else float(train["learning_rate"])


def script_command(script: Path, options: Mapping[str, object], *flags: str) -> list[str]:
    """The command that starts a script of diffusers with prior preservation and these options."""
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    return [sys.executable, str(script), *words, "--with_prior_preservation", *flags]


def _children_bytes() -> int:
    """The memory of the largest process that this one started, itself or by another."""
    import psutil

    found = [0]
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            found.append(int(process.memory_info().rss))
    return max(found)
