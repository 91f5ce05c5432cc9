"""`data.digits` against scikit-learn's arrays."""

import concurrent.futures
import multiprocessing

import numpy as np
from sklearn import datasets

from ssl_jax.data import digits, source


def test_reads_back_what_scikit_learn_has(tmp_path):
    scans = datasets.load_digits()
    expected = np.array([[round(value * 255 / 16) for value in row] for row in scans.data]).reshape(-1, 8, 8, 1)
    assert expected.max() == 255
    for split, part in (("train", slice(0, 1400)), ("test", slice(1400, 1797))):
        opened = source.open_source("digits", split, str(tmp_path))
        assert opened.image_shape == (8, 8, 1)
        assert opened.class_names == tuple("0123456789")
        everything = opened.read_all()
        np.testing.assert_array_equal(everything["image"], expected[part])
        np.testing.assert_array_equal(everything["label"], scans.target[part])


def test_prepares_once(tmp_path):
    first = digits.ensure(str(tmp_path))
    shards = {path: path.stat().st_mtime_ns for path in first.iterdir()}
    assert digits.ensure(str(tmp_path)) == first
    assert {path: path.stat().st_mtime_ns for path in first.iterdir()} == shards
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]


def test_many_processes_may_come_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(3, mp_context=context) as pool:
        lengths = list(pool.map(_open_and_count, [str(tmp_path)] * 3))
    assert lengths == [397] * 3
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]


def test_losing_the_race_leaves_the_winner_alone(tmp_path, monkeypatch):
    winner = digits.ensure(str(tmp_path))
    before = {path.name: path.read_bytes() for path in winner.iterdir()}
    # As if the winner had come after the look and before the rename.
    monkeypatch.setattr(digits.catalog, "INFO", "not there yet")
    assert digits.ensure(str(tmp_path)) == winner
    assert {path.name: path.read_bytes() for path in winner.iterdir()} == before


def _open_and_count(data_dir):
    return len(source.open_source("digits", "test", data_dir))
