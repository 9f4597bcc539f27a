"""What every test stands on: one thread, no GPU, no network, a home of its own, and the same examples each time."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.reliability.processes import ForkServer

# Workers of pytest-xdist fill the processors; threads of theirs would take turns with each other.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["HF_HUB_OFFLINE"] = "1"
# Where models of the hub lie is settled when its library is imported: nobody's own, so that none is there.
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="no-models-")
atexit.register(shutil.rmtree, os.environ["HF_HOME"], ignore_errors=True)
for _name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "COLUMNS", "NO_COLOR", "FORCE_COLOR"):
    os.environ.pop(_name, None)
# What is promised to the last bit is promised of the CPU.
os.environ["CUDA_VISIBLE_DEVICES"] = ""
# A busy disk is no fault, and what failed once fails again.
settings.register_profile(
    "ours", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ours")


def pytest_collection_finish() -> None:
    """Half a million objects of imported libraries stay: no collection of garbage goes through them any longer."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _no_network() -> Iterator[None]:
    """The whole suite makes no connection: one that is tried fails the test that tries it."""
    connect = socket.socket.connect

    def only_local(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            raise AssertionError(f"a test tried to connect to {address}")
        connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", only_local)
        patch.setattr(socket.socket, "connect_ex", only_local)
        yield


HOMES = ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME")


@pytest.fixture(autouse=True, scope="session")
def _shared_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The home of what is made once for many tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in HOMES:
            patch.setenv(name, str(tmp_path_factory.getbasetemp() / "home" / name.lower()))
        yield


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Settings, caches and logs of the person who runs the tests are neither read nor written."""
    home: Path = tmp_path_factory.mktemp("home")
    for name in HOMES:
        monkeypatch.setenv(name, str(home / name.lower()))
    yield
    shutil.rmtree(home)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    """Starts command lines as processes that need not import anything; one for all tests of a worker."""
    made = ForkServer(tmp_path_factory.mktemp("commands"))
    yield made
    made.close()
