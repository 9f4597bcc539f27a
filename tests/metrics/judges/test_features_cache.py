"""Features are computed once, kept by content, and made again when the kept ones are damaged."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from dbcli.errors import PhotoError
from dbcli.metrics.judges.features_cache import FeatureStore
from dbcli.metrics.judges.judge import Judges
from tests.metrics.judge_makers import write_pictures


def test_rows_come_in_the_order_of_the_paths(judges: Judges, tmp_path: Path) -> None:
    paths = write_pictures(tmp_path, 5, seed=1)
    store = FeatureStore(batch_size=2)
    forward, backward = (store.features(order, [judges.dino])[0] for order in (paths, paths[::-1]))
    torch.testing.assert_close(forward, backward.flip(0))
    direct = judges.dino.encode_images([Image.open(path) for path in paths])
    torch.testing.assert_close(forward, direct, atol=1e-5, rtol=0)


def test_unchanged_files_are_not_encoded_again(judges: Judges, tmp_path: Path) -> None:
    paths = write_pictures(tmp_path / "pictures", 3, seed=2)
    first = FeatureStore(tmp_path / "kept")
    features = first.features(paths, [judges.dino, judges.clip])
    assert (first.hits, first.misses) == (0, 3)
    second = FeatureStore(tmp_path / "kept")
    again = second.features(paths, [judges.dino, judges.clip])
    assert (second.hits, second.misses) == (3, 0)
    assert all(torch.equal(a, b) for a, b in zip(features, again, strict=True))


def test_a_copy_under_another_name_is_the_same_file(judges: Judges, tmp_path: Path) -> None:
    paths = write_pictures(tmp_path, 1, seed=3)
    shutil.copy(paths[0], tmp_path / "copy.png")
    store = FeatureStore()
    found = store.features([*paths, tmp_path / "copy.png"], [judges.dino])[0]
    assert store.misses == 1
    assert torch.equal(found[0], found[1])


def test_a_changed_file_is_encoded_again(judges: Judges, tmp_path: Path) -> None:
    paths = write_pictures(tmp_path / "pictures", 1, seed=4)
    store = FeatureStore(tmp_path / "kept")
    before = store.features(paths, [judges.dino])[0]
    Image.new("RGB", (64, 64), "orange").save(paths[0])
    assert not torch.equal(store.features(paths, [judges.dino])[0], before)


def test_a_damaged_entry_is_made_again(judges: Judges, tmp_path: Path) -> None:
    paths = write_pictures(tmp_path / "pictures", 1, seed=5)
    features = FeatureStore(tmp_path / "kept").features(paths, [judges.dino])[0]
    (entry,) = (tmp_path / "kept").rglob("*.safetensors")
    entry.write_bytes(entry.read_bytes()[:20])
    assert torch.equal(FeatureStore(tmp_path / "kept").features(paths, [judges.dino])[0], features)
    assert torch.equal(FeatureStore(tmp_path / "kept").features(paths, [judges.dino])[0], features)


def test_no_paths_give_no_rows(judges: Judges) -> None:
    assert FeatureStore().features([], [judges.dino, judges.clip])[1].shape == (0, 0)


def test_a_missing_file_is_named(judges: Judges, tmp_path: Path) -> None:
    with pytest.raises(PhotoError, match="gone.png"):
        FeatureStore().features([tmp_path / "gone.png"], [judges.dino])


def test_files_are_encoded_in_the_batches_they_would_have_had_at_once(judges: Judges, tmp_path: Path) -> None:
    # The last bits of a feature depend on its batch: what a stopped evaluation left open is made in the same company.
    paths = write_pictures(tmp_path / "pictures", 5, seed=7)
    whole = FeatureStore(tmp_path / "whole", batch_size=4).features(paths, [judges.dino])[0]
    FeatureStore(tmp_path / "parts", batch_size=4).features(paths, [judges.dino])
    kept = sorted((tmp_path / "parts").rglob("*.safetensors"))
    for lost in (kept[0], kept[2], kept[4]):
        lost.unlink()
        again = FeatureStore(tmp_path / "parts", batch_size=4).features(paths, [judges.dino])[0]
        assert torch.equal(again, whole)
