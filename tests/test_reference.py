"""Statistics of real images: computed once, kept under the hash of all they depend on, refused when damaged."""

import dataclasses

import numpy as np
import pytest

from ssl_jax import log, reference
from ssl_jax.types import RunError, UsageError


@dataclasses.dataclass(frozen=True)
class Shelf:
    """Examples in memory, the last batch ragged and its padding poisonous."""

    images: np.ndarray
    batch_size: int = 16

    @property
    def examples(self):
        return len(self.images)

    def batches(self):
        for first in range(0, len(self.images), self.batch_size):
            images = self.images[first : first + self.batch_size]
            missing = self.batch_size - len(images)
            padding = np.full((missing, *images.shape[1:]), 255, np.uint8)
            yield {"image": np.concatenate([images, padding]), "mask": np.arange(self.batch_size) < len(images)}


@dataclasses.dataclass
class Eye:
    """Features are the first pixels, logits as many; counts the images it has looked at."""

    width: int = 3
    digest: str = "a"
    resize: str = "none"
    name: str = "encoder"
    with_logits: bool = True
    class_names: tuple[str, ...] = ()
    looked: int = 0

    def __call__(self, images):
        assert images.dtype == np.uint8
        self.looked += len(images)
        flat = images.reshape(len(images), -1).astype(np.float32)
        return flat[:, : self.width], 0.1 * flat[:, -self.width :] if self.with_logits else None

    def describe(self):
        return "an eye"


def pictures(count=50, seed=0, shape=(4, 4, 1)):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def made(tmp_path, images=None, eye=None, keep=20, batch_size=16):
    shelf = Shelf(pictures() if images is None else images, batch_size)
    return reference.Reference(shelf, eye or Eye(), cache=str(tmp_path / "kept"), keep=keep)


def test_moments_are_of_all_images_and_features_of_some_evenly_spread(tmp_path):
    real = made(tmp_path)
    found = real.statistics()
    flat = pictures().reshape(50, -1).astype(np.float64)
    rows = np.linspace(0, 49, 20).round().astype(int)
    np.testing.assert_allclose(found.moments.mean, flat[:, :3].mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.moments.covariance(), np.cov(flat[:, :3], rowvar=False), rtol=1e-12)
    np.testing.assert_array_equal(found.features, flat[rows, :3])
    np.testing.assert_allclose(found.logits, 0.1 * flat[rows, -3:], rtol=1e-6)
    assert (found.count, found.image_shape, found.from_cache) == (50, (4, 4, 1), False)
    assert real.kept == 20 and made(tmp_path, keep=90).kept == 50
    assert real.statistics() is found and real.extractor.looked == 50


@pytest.mark.parametrize("with_logits", [True, False])
def test_what_is_kept_equals_what_was_computed_and_saves_the_work(tmp_path, with_logits):
    first = made(tmp_path, eye=Eye(with_logits=with_logits)).statistics()
    again = made(tmp_path, eye=Eye(with_logits=with_logits))
    kept = again.statistics()
    assert kept.from_cache and again.extractor.looked == 0
    assert (kept.count, kept.image_shape) == (first.count, first.image_shape)
    for name in ("mean", "scatter"):
        np.testing.assert_array_equal(getattr(kept.moments, name), getattr(first.moments, name))
    np.testing.assert_array_equal(kept.features, first.features)
    assert kept.features.dtype == np.float32
    if with_logits:
        np.testing.assert_array_equal(kept.logits, first.logits)
    else:
        assert kept.logits is None
    assert [file.suffix for file in (tmp_path / "kept").iterdir()] == [".npz"]


def test_the_key_is_of_all_that_the_statistics_depend_on_and_of_nothing_else(tmp_path):
    changed = pictures()
    changed[37, 2, 2, 0] ^= 1
    keys = [
        made(tmp_path).key(),
        made(tmp_path, images=changed).key(),
        made(tmp_path, images=pictures()[:49]).key(),
        made(tmp_path, images=pictures()[::-1]).key(),
        made(tmp_path, images=pictures().reshape(50, 2, 8, 1)).key(),
        made(tmp_path, eye=Eye(digest="b")).key(),
        made(tmp_path, eye=Eye(resize="to 299x299 px")).key(),
        made(tmp_path, keep=21).key(),
    ]
    assert len(set(keys)) == len(keys) and {len(key) for key in keys} == {64}
    assert made(tmp_path, batch_size=7).key() == keys[0]


def test_another_network_is_looked_through_anew(tmp_path):
    made(tmp_path).statistics()
    other = made(tmp_path, eye=Eye(digest="b", width=5))
    assert other.statistics().features.shape == (20, 5) and len(list((tmp_path / "kept").iterdir())) == 2


def test_without_a_folder_it_is_the_users_own(tmp_path, monkeypatch):
    shelf = Shelf(pictures())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    real = reference.Reference(shelf, Eye())
    real.statistics()
    assert (tmp_path / "xdg" / "ssl_jax" / "statistics" / f"{real.key()}.npz").is_file()
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    reference.Reference(shelf, Eye()).statistics()
    assert (tmp_path / "home" / ".cache" / "ssl_jax" / "statistics" / f"{real.key()}.npz").is_file()


@pytest.mark.parametrize("harm", ["cut", "emptied", "changed", "lacking"])
def test_a_damaged_file_is_named(tmp_path, harm):
    made(tmp_path).statistics()
    (file,) = (tmp_path / "kept").iterdir()
    with np.load(file) as archive:
        arrays = dict(archive)
    if harm == "cut":
        file.write_bytes(file.read_bytes()[:-200])
    elif harm == "emptied":
        file.write_bytes(b"")
    elif harm == "changed":
        log.replace(file, {**arrays, "features": arrays["features"] + 1})
    else:
        log.replace(file, {name: array for name, array in arrays.items() if name != "sha256"})
    with pytest.raises(RunError) as error:
        made(tmp_path).statistics()
    assert str(file) in str(error.value) and "is damaged" in str(error.value) and "delete it" in str(error.value)
    file.unlink()
    assert not made(tmp_path).statistics().from_cache


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "kept").write_text("a file")
    with pytest.raises(RunError, match=r"cannot write .*kept"):
        made(tmp_path).statistics()


def test_what_cannot_be_is_refused(tmp_path):
    with pytest.raises(UsageError, match="keep=1 of 50 images"):
        made(tmp_path, keep=1)
    with pytest.raises(UsageError, match="keep=20 of 0 images"):
        made(tmp_path, images=pictures()[:0])
    with pytest.raises(RunError, match="60 images were to be looked at, and only 50 came"):
        reference.gather(Eye(), [pictures()], 60, keep=5)


def test_what_is_beyond_the_count_is_left_out():
    found = reference.gather(Eye(), iter([pictures(30), pictures(30, seed=1), pictures(30, seed=2)]), 40, keep=40)
    both = np.concatenate([pictures(30), pictures(30, seed=1)[:10]]).reshape(40, -1)
    np.testing.assert_array_equal(found.features, both[:, :3])
    assert found.count == 40
