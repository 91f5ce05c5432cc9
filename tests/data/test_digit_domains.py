"""`data.digit_domains` against scikit-learn's arrays and a second way to draw its second look."""

import concurrent.futures
import multiprocessing

import numpy as np
import pytest
import scipy.ndimage
from sklearn import datasets

from ssl_jax import types
from ssl_jax.data import digit_domains, prepare, source


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    digit_domains.ensure(str(folder))
    return str(folder)


def test_splits_labels_and_numbers(data_dir):
    targets = datasets.load_digits().target
    expected = {"trainA": (0, 700), "trainB": (700, 1400), "testA": (1400, 1797), "testB": (1400, 1797)}
    for split, (first, end) in expected.items():
        opened = source.open_source("digit_domains", split, data_dir)
        assert opened.image_shape == (16, 16, 3) and opened.class_names == tuple("0123456789")
        assert opened.ids() == [str(number) for number in range(first, end)]
        np.testing.assert_array_equal(opened.labels(), targets[first:end])


def test_domain_a_is_the_scan_enlarged(data_dir):
    scan = np.round(datasets.load_digits().images[1403] * 255 / 16)
    # Each 8x8 pixel lies over two, so between neighbours a quarter and three quarters are read; the rim is repeated.
    at = np.clip((np.arange(16) + 0.5) / 2 - 0.5, 0, 7)
    rows, columns = np.meshgrid(at, at, indexing="ij")
    expected = scipy.ndimage.map_coordinates(scan, [rows, columns], order=1, mode="nearest")
    image = source.open_source("digit_domains", "testA", data_dir)[3]["image"]
    assert np.abs(image - expected[..., None]).max() <= 1
    assert image.max() > 200 and image[0, 0].max() == 0


def test_both_looks_of_a_test_scan_are_one_map(data_dir):
    a, b = (source.open_source("digit_domains", split, data_dir).read_all()["image"] for split in ("testA", "testB"))
    np.testing.assert_array_equal(digit_domains.look_b(a), b)
    train = digit_domains.look_b(digit_domains.look_a(datasets.load_digits().images[700:1400]))
    np.testing.assert_array_equal(source.open_source("digit_domains", "trainB", data_dir).read_all()["image"], train)


def test_domain_b_is_ink_on_a_diagonal_gradient():
    blank = digit_domains.look_b(np.zeros((1, 16, 16, 3), np.uint8))[0].astype(int)
    assert blank[0, 0].tolist() == [255, 238, 170] and blank[15, 15].tolist() == [175, 225, 255]
    np.testing.assert_array_equal(blank, blank.transpose(1, 0, 2))
    assert np.abs(np.diff(blank, axis=0)).max() <= 4
    full = digit_domains.look_b(np.full((1, 16, 16, 3), 255, np.uint8))
    assert np.unique(full.reshape(-1, 3), axis=0).tolist() == [[100, 0, 70]]
    # One white pixel comes out as the blur's own shape, of 0.7 px.
    dot = np.zeros((1, 16, 16, 3), np.uint8)
    dot[0, 8, 8] = 255
    share = ((blank - digit_domains.look_b(dot)[0]) / (blank - [100, 0, 70]))[..., 0]
    distance = np.hypot(*(np.indices((16, 16)) - 8))
    shape = np.exp(-(distance**2) / (2 * 0.7**2))
    np.testing.assert_allclose(share, shape / shape.sum(), atol=0.01)


def test_domain_b_is_dark_on_light_where_a_is_light_on_dark(data_dir):
    a, b = (source.open_source("digit_domains", split, data_dir).read_all()["image"] for split in ("testA", "testB"))
    luma = np.array([0.299, 0.587, 0.114])
    assert np.corrcoef((a @ luma).ravel(), (b @ luma).ravel())[0, 1] < -0.95
    assert (b @ luma)[a[..., 0] == 255].mean() < 80 and (b @ luma)[a[..., 0] == 0].mean() > 200


def test_prepares_once(tmp_path):
    first = digit_domains.ensure(str(tmp_path))
    shards = {path: path.stat().st_mtime_ns for path in first.iterdir()}
    assert digit_domains.ensure(str(tmp_path)) == first
    assert {path: path.stat().st_mtime_ns for path in first.iterdir()} == shards
    assert [path.name for path in tmp_path.iterdir()] == ["digit_domains"]


def test_many_processes_may_come_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        lengths = list(pool.map(_open_and_count, [str(tmp_path)] * 2))
    assert lengths == [397] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["digit_domains"]


def test_its_name_is_taken(tmp_path):
    with pytest.raises(types.UsageError, match=r"--name=digit_domains cannot be used: .* and not digits or digit_dom"):
        prepare.images(str(tmp_path), "digit_domains", str(tmp_path / "data"))


def _open_and_count(data_dir):
    return len(source.open_source("digit_domains", "testB", data_dir))
