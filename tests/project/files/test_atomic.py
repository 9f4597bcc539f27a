from __future__ import annotations

import errno
import json
import os
import random
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dbcli.errors import DiskFull
from dbcli.project.files import atomic

ROOT = Path(__file__).resolve().parents[3]


def run_python(code: str, *arguments: object) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], env=environment)


def test_a_written_file_replaces_the_old_one_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    atomic.write_text(path, "one\n")
    atomic.write_text(path, "two ü\n")
    assert path.read_bytes() == b"two \xc3\xbc\n"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_the_mode_follows_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        atomic.write_bytes(tmp_path / "a", b"")
        atomic.append_line(tmp_path / "b", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o640


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_full_disk_keeps_the_old_file_and_says_how_much_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    path = tmp_path / "run.json"
    atomic.write_bytes(path, b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, broken, full)
    with pytest.raises(DiskFull) as caught:
        atomic.write_bytes(path, b"x" * 1234)
    assert caught.value.exit_code == 5
    assert "needs 1,234 bytes" in caught.value.message and "bytes are free" in caught.value.message
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["run.json"]


def test_a_killed_writer_leaves_one_of_the_whole_versions(tmp_path: Path) -> None:
    path = tmp_path / "big"
    versions = [b"a" * 300_000, b"b" * 300_000]
    path.write_bytes(versions[0])
    code = (
        "import sys; from pathlib import Path; from dbcli.project.files.atomic import write_bytes\n"
        "path = Path(sys.argv[1]); (path.parent / 'ready').touch()\n"
        "while True: write_bytes(path, b'b' * 300_000); write_bytes(path, b'a' * 300_000)"
    )
    chance = random.Random(0)
    for _ in range(4):
        (tmp_path / "ready").unlink(missing_ok=True)
        process = run_python(code, path)
        while not (tmp_path / "ready").exists():
            assert process.poll() is None
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.03))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert path.read_bytes() in versions
    atomic.remove_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["big", "ready"]


def test_json_has_no_word_for_nan(tmp_path: Path) -> None:
    atomic.write_json(tmp_path / "a.json", {"loss": float("nan"), "all": [1.5, float("inf")], "name": "犬"})
    assert json.loads((tmp_path / "a.json").read_text("utf-8")) == {
        "loss": None,
        "all": [1.5, None],
        "name": "犬",
    }


def test_eight_processes_append_eight_thousand_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    code = (
        "import sys; from pathlib import Path; from dbcli.project.files.atomic import append_line\n"
        "for i in range(1000): append_line(Path(sys.argv[1]), f'{sys.argv[2]} {i} ' + 'x' * (i % 300))"
    )
    processes = [run_python(code, path, writer) for writer in range(8)]
    assert [process.wait() for process in processes] == [0] * 8
    lines = path.read_text().splitlines()
    assert len(lines) == 8000
    expected = {f"{writer} {i} " + "x" * (i % 300) for writer in range(8) for i in range(1000)}
    assert set(lines) == expected


def test_a_half_line_of_a_dead_writer_is_ended_before_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"step": 1}\n{"st')
    atomic.append_line(path, '{"step": 2}')
    assert path.read_bytes() == b'{"step": 1}\n{"st\n{"step": 2}\n'


@pytest.mark.parametrize("text", ["a\nb", "a\r"])
def test_a_line_with_a_line_end_is_a_bug(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match="one line"):
        atomic.append_line(tmp_path / "a", text)


def test_sha256_of_is_the_published_value(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert atomic.sha256_of(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    final = tmp_path / "step-000400"
    with pytest.raises(RuntimeError), atomic.temporary_folder(final) as folder:
        (folder / "a").write_bytes(b"1")
        raise RuntimeError
    assert os.listdir(tmp_path) == []
    with atomic.temporary_folder(final) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "a").write_bytes(b"1")
        atomic.commit_folder(folder, final)
    assert os.listdir(tmp_path) == ["step-000400"]
    assert (final / "sub" / "a").read_bytes() == b"1"


def test_a_folder_that_is_there_is_not_replaced(tmp_path: Path) -> None:
    final = tmp_path / "x"
    final.mkdir()
    with pytest.raises(FileExistsError), atomic.temporary_folder(final) as folder:
        atomic.commit_folder(folder, final)
    assert os.listdir(tmp_path) == ["x"]


def test_a_folder_is_removed_with_everything_in_it(tmp_path: Path) -> None:
    (tmp_path / "x" / "y").mkdir(parents=True)
    (tmp_path / "x" / "y" / "z").write_text("1")
    atomic.remove_folder(tmp_path / "x")
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_an_append_to_a_full_device_is_a_full_disk() -> None:
    with pytest.raises(DiskFull):
        atomic.append_line(Path("/dev/full"), "x")
