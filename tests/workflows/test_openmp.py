"""Threads spin while they wait for one another, as often as a person says."""

from __future__ import annotations

import os

import pytest

from dbcli.workflows.openmp import SETTING, set_spin_count


def test_threads_spin_before_they_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SETTING, "removed below, so that the test's end puts back what was there")
    monkeypatch.delenv(SETTING)
    set_spin_count()
    assert os.environ[SETTING] == "10000"


def test_what_a_person_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SETTING, "1000")
    set_spin_count()
    assert os.environ[SETTING] == "1000"
