from __future__ import annotations

import stat
from pathlib import Path

import pytest

from dbcli.project.settings.profiles import shipped_profiles
from dbcli.workflows.setup.suggested_profile import SeenGpu, proposed_profile, seen_gpu


@pytest.mark.parametrize(
    ("base", "has_gpu", "memory_mib", "profile"),
    [
        ("tiny", False, None, "tiny"),
        ("tiny", True, 80_000, "tiny"),
        ("sd-v1-4", False, None, "lora"),
        ("sd-v1-4", True, 24_564, "full"),
        ("sd-v1-4", True, 16_000, "lora"),
        ("sd-v1-4", True, None, "lora"),
    ],
)
def test_the_proposal_follows_base_and_machine(base: str, has_gpu: bool, memory_mib: int | None, profile: str) -> None:
    found = proposed_profile(base, has_gpu=has_gpu, memory_mib=memory_mib)
    assert found.profile == profile
    assert found.profile in shipped_profiles()
    assert found.reason


@pytest.mark.parametrize(
    ("answer", "seen"),
    [
        ('echo "NVIDIA H100 80GB HBM3, 81559"', SeenGpu("NVIDIA H100 80GB HBM3", 81_559)),
        ('echo "NVIDIA GB10, [N/A]"', SeenGpu("NVIDIA GB10", None)),
        ("exit 9", None),
        ("true", None),
    ],
)
def test_the_drivers_tool_is_asked(
    answer: str, seen: SeenGpu | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{answer}\n")
    tool.chmod(tool.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("pathlib.Path.exists", lambda path: False)
    assert seen_gpu() == seen
