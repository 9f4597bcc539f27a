"""Seconds until the program answers: `--help` and `--version`, whole processes, warm."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path


def seconds_of(words: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "dbcli.cli.app", *words], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--runs", type=int, default=11)
    options.add_argument("--json", type=Path, help="write the figures there")
    arguments = options.parse_args()
    figures = {}
    for words in (["--help"], ["--version"], ["train", "--help"]):
        seconds_of(words)
        times = [seconds_of(words) for _ in range(arguments.runs)]
        figures[" ".join(words)] = {"min": min(times), "median": statistics.median(times), "max": max(times)}
    print("| command | min | median | max |\n|---|---|---|---|")
    for name, figure in figures.items():
        print(f"| {name} | " + " | ".join(f"{value:.3f}" for value in figure.values()) + " |")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
