"""Seconds to score a subject, in pairs with one bare forward pass of the same encoders over the same pictures."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from machine import machine, write_figures  # noqa: E402
from models import write_pictures  # noqa: E402
from pairs import table  # noqa: E402

PHOTOS, PROMPTS, A_PROMPT, CLASS_IMAGES, BATCH = 5, 25, 4, 8, 32


def material(root: Path, size_px: int) -> Any:
    """One subject: photos, four pictures for each of 25 prompts, and pictures of its class for PRES."""
    from dbcli.metrics.protocol import PromptImages, SubjectImages

    folders = {"photos": PHOTOS, "pictures": PROMPTS * A_PROMPT, "class": CLASS_IMAGES}
    files = {
        name: sorted(write_pictures(root / name, count, size_px=size_px, seed=seed).iterdir())
        for seed, (name, count) in enumerate(folders.items())
    }
    prompts = []
    for number in range(PROMPTS):
        images = files["pictures"][number * A_PROMPT : (number + 1) * A_PROMPT]
        prompts.append(PromptImages(f"a sks dog, scene {number}", f"a dog, scene {number}", tuple(images)))
    return SubjectImages("dog", "dog", tuple(files["photos"]), tuple(prompts), tuple(files["class"]))


def passes(subject: Any, judges: Any) -> list[tuple[Any, list[Path]]]:
    """Which encoder has to see which files: DINO those of PRES too."""
    seen = [*subject.photos, *(image for prompt in subject.prompts for image in prompt.images)]
    clips = [judge for judge in (judges.clip, judges.clip_l) if judge is not None]
    return [(judges.dino, [*seen, *subject.class_images]), *((judge, seen) for judge in clips)]


def batches(files: Sequence[Any]) -> list[Sequence[Any]]:
    return [files[start : start + BATCH] for start in range(0, len(files), BATCH)]


def encode(work: Sequence[tuple[Any, Sequence[Any]]]) -> None:
    """The encoders alone, on pixels that are ready: what no program can do without."""
    import torch

    with torch.inference_mode():
        for judge, ready in work:
            for pixels in ready:
                judge.encode_pixels(pixels.to(judge.device)).float().cpu()


def prepared(work: Sequence[tuple[Any, list[Path]]]) -> list[tuple[Any, list[Any]]]:
    """Files read, decoded, resized and normalised, a batch each; a file once for all encoders."""
    from dbcli.metrics.judges.features_cache import open_image

    images = {path: open_image(path) for _, files in work for path in files}
    return [
        (judge, [judge.preprocessing([images[path] for path in batch]) for batch in batches(files)])
        for judge, files in work
    ]


def timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def measure(arguments: argparse.Namespace, root: Path) -> list[dict[str, float]]:
    """One row a pair; A B and B A by turns, so that a machine that warms up favours neither."""
    from dbcli.diffusion.devices import pick_device
    from dbcli.metrics.judges.features_cache import FeatureStore
    from dbcli.metrics.judges.loading import load_judges
    from dbcli.metrics.protocol import score_images

    judges = load_judges(arguments.judge, offline=True, device=str(pick_device("auto")))
    subject = material(root, arguments.size or (64 if arguments.judge == "tiny" else 512))
    work = passes(subject, judges)
    ready = prepared(work)
    encode(ready)
    rows = []
    for number in range(arguments.pairs):
        folder = root / f"features-{number}"
        sides: dict[str, Callable[[], Any]] = {
            "scoring s": lambda folder=folder: score_images([subject], judges, store=FeatureStore(folder)),  # type: ignore[misc]
            "files and encoders s": lambda: encode(prepared(work)),
            "encoders s": lambda: encode(ready),
        }
        row = {name: timed(sides[name]) for name in sorted(sides, reverse=bool(number % 2))}
        row = {name: row[name] for name in sides}
        row["scoring/files and encoders"] = row["scoring s"] / row["files and encoders s"]
        row["scoring/encoders"] = row["scoring s"] / row["encoders s"]
        row["scored again s"] = timed(sides["scoring s"])
        rows.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)
    return rows


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--judge", default="tiny", help="tiny, paper or paper-l, which have to be on this machine")
    options.add_argument("--size", type=int, help="pixels per side; 64 for tiny, 512 for the others if left out")
    options.add_argument("--pairs", type=int, default=3)
    options.add_argument("--json", type=Path, help="write the figures there")
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(arguments, Path(folder).resolve())
    print(f"{PROMPTS} prompts x {A_PROMPT} pictures, judge {arguments.judge}; {machine()}\n\n{table(rows)}")
    write_figures(arguments.json, judge=arguments.judge, rows=rows)


if __name__ == "__main__":
    main()
