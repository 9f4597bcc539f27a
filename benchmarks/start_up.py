"""Seconds until the program answers: `--help`, and faults that the words alone show; whole processes, warm."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# A fault each of subject, sampler, seed, run, folder, suite, judge, file, kind of file and layer; exit 2, 3, 4 or 6.
FAULTS = (
    ["generate", "a {wlof} in space"],
    ["generate", "a", "{wolf}", "in", "space"],
    ["generate", "a {wolf}", "--sampler", "eular"],
    ["generate", "a {wolf}", "--seed", "4294967296"],
    ["generate", "a {wolf}", "--run", "wlof"],
    ["generate", "a {wolf}", "--out", "image.png"],
    ["generate", "very " * 20 + "a {wolf}"],
    ["eval", "--suite", "qiuck"],
    ["eval", "--judge", "papr"],
    ["train", "--subject", "wlof"],
    ["bench", "--suite", "qiuck"],
    ["sweep", "raets"],
    ["export", "wlof", "--to", "lora"],
    ["import-lora", "none.safetensors"],
    ["import-lora", "loha.safetensors"],
    ["init", "other", "--base", "loha.safetensors"],
    ["train", "--subject", "wolf", "--method", "lora", "--set", "lora.targets=[to_x]"],
)


def seconds_of(words: list[str], folder: Path | None = None) -> float:
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "dbcli.cli.app", *words], cwd=folder, capture_output=True)
    taken = time.perf_counter() - began
    if (done.returncode == 0) is not (folder is None) or done.returncode in (1, 5):
        raise SystemExit(f"{' '.join(words)}: exit {done.returncode}: {done.stderr.decode()}")
    return taken


def make_project(folder: Path) -> None:
    """A project that knows a subject and one run of it, whose weights nobody will get to."""
    import numpy as np
    from safetensors.numpy import save_file

    from dbcli.project.files.layout import Layout
    from dbcli.project.files.yaml_files import write_yaml
    from dbcli.project.runs.run_store import RunBase, RunRecord, RunSubject, create_run
    from dbcli.project.settings.project_settings import ProjectSettings, save_settings
    from dbcli.project.subjects.subject_record import Subject

    layout = Layout(folder)
    save_settings(layout, ProjectSettings(base="tiny"))
    subject = Subject(name="wolf", class_noun="dog", identifier="mwf")
    layout.subject_dir("wolf").mkdir(parents=True)
    write_yaml(layout.subject_file("wolf"), subject.to_plain())
    learnt = [RunSubject(name="wolf", class_noun="dog", identifier="mwf")]
    facts = {"state": "finished", "method": "lora", "subjects": learnt, "base": RunBase(name="tiny", source="tiny")}
    create_run(layout, "wolf", lambda name: RunRecord(name=name, **facts))
    save_file({"lora_unet_conv_in.hada_w1_a": np.zeros((4, 4), np.float32)}, folder / "loha.safetensors")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--runs", type=int, default=11)
    options.add_argument("--json", type=Path, help="write the figures there")
    arguments = options.parse_args()
    figures = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make_project(folder)
        cases = [(words, None) for words in (["--help"], ["--version"], ["train", "--help"])]
        for words, where in [*cases, *((words, folder) for words in FAULTS)]:
            seconds_of(words, where)
            times = [seconds_of(words, where) for _ in range(arguments.runs)]
            figure = {"min": min(times), "median": statistics.median(times), "max": max(times)}
            figures[" ".join(" ".join(words).split())[:60]] = figure
    help_alone = figures["--help"]["median"]
    print("| command | min | median | max | times --help |\n|---|---|---|---|---|")
    for name, figure in figures.items():
        values = " | ".join(f"{value:.3f}" for value in figure.values())
        print(f"| {name} | {values} | {figure['median'] / help_alone:.1f} |")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
