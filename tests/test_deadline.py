"""Work that is waited for no longer than a few seconds."""

from __future__ import annotations

import pytest

from dbcli.deadline import within


def test_within_hands_on_results_and_faults() -> None:
    assert within(5, lambda: 7) == 7
    with pytest.raises(KeyError):
        within(5, lambda: {}["nothing"])
