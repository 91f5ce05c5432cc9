"""Principal components: how many hold which share, and reconstructions that get better to nothing."""

import dataclasses

import numpy as np
import pytest

from ssl_jax.explore import components
from ssl_jax.types import UsageError
from tests import explore_subjects


def test_a_known_spectrum_has_known_counts():
    blobs = explore_subjects.blobs(count=400, groups=1, width=4)
    columns = np.linalg.qr(np.random.default_rng(0).normal(size=(400, 4)) - 0.0)[0]
    columns -= columns.mean(axis=0)
    columns = np.linalg.qr(columns)[0]
    subject = dataclasses.replace(blobs, features=(columns * np.sqrt([0.6, 0.32, 0.06, 0.02])).astype(np.float32))
    found = components.part(subject).metrics
    assert found["share_1"] == pytest.approx(0.6, abs=1e-3) and found["share_2"] == pytest.approx(0.32, abs=1e-3)
    assert [found[f"components_{share}"] for share in (50, 90, 95, 99)] == [1, 2, 3, 4]


def test_pixels_come_back_from_all_components():
    blobs = explore_subjects.blobs()
    features = (blobs.images.reshape(120, -1) / 255).astype(np.float32)
    part = components.part(dataclasses.replace(blobs, features=features, pixels=True))
    errors = [value for name, value in part.metrics.items() if name.startswith("reconstruction_error")]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 1e-4 < errors[0]
    expected = features - features.mean(axis=0)
    assert part.metrics["reconstruction_error_1"] < np.sqrt(np.mean(expected**2))
    assert {"components.png", "reconstructions.png", "explained_variance.png"} == part.files.keys()


def test_features_of_a_network_have_no_pictures():
    assert components.part(explore_subjects.blobs()).files.keys() == {"explained_variance.png"}


def test_the_shape_of_shrunk_images_is_found_again():
    blobs = explore_subjects.blobs()
    images = np.zeros((120, 64, 48, 3), np.uint8)
    shrunk = dataclasses.replace(blobs, images=images, features=np.zeros((120, 36 * 27 * 3), np.float32))
    assert components._shape_of(shrunk) == (36, 27, 3)


def test_constant_features_are_refused():
    blobs = explore_subjects.blobs()
    with pytest.raises(UsageError, match="the same for all"):
        components.part(dataclasses.replace(blobs, features=np.ones_like(blobs.features)))
