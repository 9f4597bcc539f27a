"""What a stranger made, file or word, is read as data: it runs nothing, leaves no folder, commands no terminal."""

from __future__ import annotations

import html.parser
import json
import operator
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from dbcli.diffusion.files.model_files import open_weights
from dbcli.errors import DreamboothError, UnsafeFile
from dbcli.project.files.layout import Layout
from dbcli.reports.page import PageSection, Text, render_page
from tests.project import photo_makers
from tests.reliability.conftest import JOB
from tests.reliability.processes import ROOT, ForkServer
from tests.reliability.strange_photos import mutated

# A busy machine is no fault: what would hang for ever is found by the processes' own limit.
pytestmark = pytest.mark.timeout(1800)
NewProject = Callable[[], Path]
Figures = Callable[[str], None]
HOSTILE_PROMPTS = [
    "a {dog} \x1b[31mred\x1b]0;title\x07",
    "a {dog} \x9b2J \u202eoverride\u202c",
    "<script>alert(1)</script> a {dog}",
    '"><img src=x onerror=alert(1)> a {dog}',
    "{{ 7 * 7 }} {% raw %} a {dog}",
    "[bold red]a {dog}[/bold red][/]",
    "$(touch canary) `touch canary` ; touch canary",
    "../../../canary",
    "a {dog}\nNegative prompt: x\nSteps: 1",
    "<|endoftext|> a {dog} " + "x" * 5000,
]


def test_mutated_photos_neither_crash_nor_hang_nor_fill_the_memory(tmp_path: Path, figures: Figures) -> None:
    for number, data in enumerate(mutated(1000)):
        (tmp_path / f"{number:04d}.jpg").write_bytes(data)
    command = [sys.executable, "-m", "tests.reliability.strange_photos", str(tmp_path)]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "project")])
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": paths})
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    figures(
        f"1,003 mutated photos: {found['usable']} still usable, slowest {found['slowest']:.2f} s, "
        f"peak {found['peak_kib'] / 1024:.0f} MiB, no crash"
    )
    assert found["slowest"] < 5
    assert found["peak_kib"] * 1024 < 1_000_000_000


def named(module: Any, name: str) -> Any:
    """A function by its name: what is only written into a hostile file here stands nowhere as a call of ours."""
    return operator.attrgetter(name)(module)


def calls(canary: str) -> list[tuple[Any, ...]]:
    """Thirty ways in which a pickle makes its reader do something: (callable, arguments...)."""
    import builtins
    import importlib
    import runpy
    import shutil
    import socket
    import webbrowser

    code = f"open({canary!r}, 'w')"
    shell = f"touch {canary}"
    return [
        *[(os.system, shell), (os.popen, shell), (os.mkdir, canary), (os.makedirs, canary), (os.symlink, "/", canary)],
        *[(subprocess.run, shell), (subprocess.call, ["touch", canary]), (subprocess.Popen, ["touch", canary])],
        *[(subprocess.check_output, ["touch", canary]), (subprocess.getoutput, shell)],
        *[(exec, code), (eval, code), (compile, code, "x", "exec"), (open, canary, "w"), (builtins.__import__, "os")],
        *[(importlib.import_module, "antigravity"), (runpy.run_path, canary), (runpy.run_module, "this")],
        *[(shutil.copy, __file__, canary), (shutil.copytree, str(ROOT / "profiles"), canary), (shutil.rmtree, canary)],
        *[(Path.touch, Path(canary)), (Path.write_text, Path(canary), "x"), (os.truncate, canary, 0)],
        *[(socket.create_connection, ("127.0.0.1", 9)), (webbrowser.open, "http://127.0.0.1:9")],
        *[(named(torch, "load"), canary), (named(torch, "hub.load"), "someone/something", "model")],
        (named(pickle, "loads"), b"cos\nsystem\n."),
        (os.execvp, "touch", ["touch", canary]),
    ]


class Bait:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def test_thirty_malicious_pickles_wake_no_canary(tmp_path: Path, figures: Figures) -> None:
    canary = tmp_path / "canary"
    baits = calls(str(canary))
    assert len(baits) == 30
    for number, (function, *arguments) in enumerate(baits):
        path = tmp_path / f"{number}.ckpt"
        torch.save({"state_dict": {"w": torch.ones(1), "x": Bait(function, *arguments)}}, path)
        with pytest.raises(UnsafeFile, match=path.name):
            open_weights(path)
        assert not os.path.lexists(canary)
    figures("30 malicious pickles refused by name, no canary")


NAMES = st.one_of(
    st.text(max_size=80),
    st.text(alphabet="./\\:~ \0\n-_abCON%2e\u2215\uff0f", max_size=30),
    st.sampled_from(["..", "/etc", "a/../../b", "C:\\x", "nul", "con.txt", ".hidden", "-rf", "a\0b", "~root"]),
)


def test_no_name_leads_out_of_the_project(tmp_path: Path, figures: Figures) -> None:
    root = tmp_path / "project"
    layout, seen = Layout(root), [0, 0]
    methods = [layout.subject_dir, layout.photos_dir, layout.run_dir, layout.weights_dir, layout.class_image_set_dir]
    methods += [lambda name: layout.eval_dir("0001-dog", name), layout.run_lock, layout.class_image_set_lock]

    @settings(max_examples=2000, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(name=NAMES)
    def every_path_is_inside(name: str) -> None:
        seen[0] += 1
        for method in methods:
            try:
                path = method(name)
            except DreamboothError as error:
                assert error.exit_code in (2, 6)
                continue
            seen[1] += 1
            resolved = Path(os.path.normpath(path))
            assert resolved.is_relative_to(root) and resolved != root
            assert resolved.name == path.name

    every_path_is_inside()
    figures(f"{seen[0]:,} names through {len(methods)} kinds of path: {seen[1]:,} allowed, none outside")
    assert seen[0] >= 2000


class Scripts(html.parser.HTMLParser):
    """Counts what a browser would run."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        own = tag in ("iframe", "object", "embed") or (tag == "img" and ("src", "x") in attributes)
        if tag == "script" or own or any(name.startswith("on") for name, _ in attributes):
            self.found.append(tag)


def test_hostile_prompts_reach_no_terminal_no_file_name_and_no_page(
    server: ForkServer, new_project: NewProject, figures: Figures
) -> None:
    project = new_project()
    server.run(project, *JOB).check(0)
    drawn = []
    for prompt in HOSTILE_PROMPTS:
        for extra in ([], ["--json"]):
            ended = server.run(project, "generate", prompt, "-n", 1, "--steps", 1, "--grid", *extra).check(0, 3)
            assert not {"\x1b", "\x9b", "\x07", "\u202e"} & set(ended.out + ended.err)
            if extra and ended.code == 0:
                drawn += [image["path"] for image in json.loads(ended.out)["images"]]
    images = project / "runs" / "0001-dog" / "images"
    assert all(Path(path).parent == images and set(Path(path).stem) <= set("0123456789abcdef-") for path in drawn)
    assert not list(project.parent.rglob("canary*"))
    for words in (["runs", "show", "\x1b[31m"], ["train", "\x1b[31m"], ["\x1b[31m"], ["train", "--\x1b[2Jx"]):
        ended = server.run(project, *words)
        assert ended.code not in (0, 1) and "\x1b" not in ended.out + ended.err, words
    parser = Scripts()
    parser.feed(page_about(HOSTILE_PROMPTS))
    assert parser.found == []
    figures(f"{len(HOSTILE_PROMPTS)} hostile prompts: {len(drawn)} drawn, no raw ESC, no script node, no file outside")


def page_about(prompts: list[str]) -> str:
    sections = [PageSection(prompt, (Text(prompt), Text(prompt, is_warning=True))) for prompt in prompts]
    return render_page(prompts[2], sections, lead=prompts[3], foot=prompts[2])


def test_exif_and_places_never_leave_add_subject(
    server: ForkServer, new_project: NewProject, tmp_path: Path, figures: Figures
) -> None:
    project = new_project()
    for number, ending in enumerate(("jpg", "png", "webp", "tiff")):
        photo = photo_makers.marked().rotate(number)
        photo_makers.save(tmp_path / "photos" / f"{number}.{ending}", photo, exif=photo_makers.exif_with(6))
    server.run(project, "add-subject", "cat", "--class", "cat", tmp_path / "photos").check(0)
    kept = [path for path in (project / "subjects" / "cat").rglob("*") if path.is_file()]
    assert len(list((project / "subjects" / "cat" / "photos").glob("*.png"))) == 4
    for path in kept:
        assert b"SECRETCAMERA" not in path.read_bytes()
        if path.suffix == ".png":
            with Image.open(path) as image:
                assert not image.getexif() and not set(image.info) & {"exif", "icc_profile", "xmp", "comment"}
    figures(f"{len(kept)} files kept of 4 photos with EXIF and GPS, none of it in them")


def test_a_linked_subject_folder_is_refused(server: ForkServer, new_project: NewProject, tmp_path: Path) -> None:
    project = new_project()
    outside = tmp_path / "outside"
    (project / "subjects" / "dog").rename(outside)
    (project / "subjects" / "dog").symlink_to(outside)
    ended = server.run(project, *JOB).check(6)
    assert "symbolic link" in ended.err
