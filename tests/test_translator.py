"""A CycleGAN's generators out of a run folder or a file, on pictures of any size."""

import dataclasses

import jax
import numpy as np
import pytest

from ssl_jax import translator, types
from ssl_jax.models import cyclegan_weights
from tests import translator_runs


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    """The folder of both runs, and each one's method and state."""
    folder = tmp_path_factory.mktemp("translator")
    return folder, translator_runs.write_both(folder)


def picture(height, width, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


@pytest.mark.parametrize("direction", ["ab", "ba"])
@pytest.mark.parametrize("form, channels", [("colour", (3, 3)), ("grey", (1, 3))])
def test_a_translation_is_the_methods_own(setting, form, channels, direction):
    folder, trained = setting
    method, state = trained[form]
    channels = channels if direction == "ab" else channels[::-1]
    found = translator.load(folder / form, direction)
    assert (found.channels, found.made_channels) == channels and found.step == 7 and found.which == "last"
    assert found.name == f"generator_{direction}" + ("_average" if form == "colour" else "")
    image = picture(24, 32, channels[0])
    expected = method.exports[f"translate_{direction}"](state, image[None].astype(np.float32) / 127.5 - 1)[0]
    made = found.translate(image)
    assert made.shape == (24, 32, channels[1]) and made.dtype == np.float32 and made.std() > 0.1
    np.testing.assert_allclose(made, expected, atol=1e-5)


def test_odd_sides_are_mirrored_and_cut_back(setting):
    folder, _ = setting
    found = translator.load(folder / "colour", "ab")
    image = picture(21, 27)
    whole = np.concatenate([image, image[-2:-5:-1]])
    whole = np.concatenate([whole, whole[:, -2:-3:-1]], axis=1)
    assert whole.shape == (24, 28, 3)
    np.testing.assert_allclose(found.translate(image), found.translate(whole)[:21, :27], atol=1e-6)
    floats = image.astype(np.float32) / 127.5 - 1
    np.testing.assert_array_equal(found.translate(image), found.translate(floats))
    unet = translator.load(folder / "grey", "ab")
    assert unet.multiple_px == 8 and unet.translate(picture(17, 18, 1)).shape == (17, 18, 3)


def test_large_pictures_go_in_tiles(setting, monkeypatch):
    folder, _ = setting
    found, unet = (translator.load(folder / form, "ab") for form in ("colour", "grey"))
    assert found.tile_px(1024, 1024) == 0 and found.tile_px(1025, 1024) > 0
    assert found.tile_px(4096, 4096) == 128 and found.tile_px(4096, 4096, whole=True) == 0
    assert found.tile_px(20, 20, 12) == 12 and found.tile_px(10**3, 10**6) == 12
    image, told = picture(45, 30), []
    at_once = found.translate(image)
    monkeypatch.setattr(translator, "WHOLE_PX", 1000)
    monkeypatch.setattr(translator, "_AT_ONCE_PX", 500)
    in_tiles = found.translate(image, progress=lambda *counts: told.append(counts))
    assert told and told[-1][0] == told[-1][1]
    np.testing.assert_allclose(in_tiles, at_once, atol=1e-5)
    with pytest.raises(types.UsageError, match=r"48x32 px .* UNetGenerator.* cannot be computed in tiles.*--whole"):
        unet.translate(picture(45, 30, 1))
    assert unet.translate(picture(45, 30, 1), whole=True).shape == (45, 30, 3)
    with pytest.raises(types.UsageError, match="--tile_px=64: UNetGenerator"):
        unet.check_tile(64)
    with pytest.raises(types.UsageError, match="give --tile_px=12 or more"):
        found.check_tile(8)
    unet.check_tile(0)


def test_a_file_of_the_reference_implementation(setting, tmp_path):
    folder, trained = setting
    method, state = trained["colour"]
    name = "generator_ba"
    np.savez(tmp_path / "latest_net_G_B.npz", **cyclegan_weights.to_reference(state.params[name]))
    found = translator.from_file(tmp_path / "latest_net_G_B.npz")
    assert (found.channels, found.made_channels, found.which) == (3, 3, "file")
    image = picture(16, 20)
    expected = method.network("ba").apply({"params": state.params[name]}, image[None] / np.float32(127.5) - 1)[0]
    np.testing.assert_allclose(found.translate(image), expected, atol=1e-5)
    assert found.sha256 != translator.load(folder / "colour", "ba").sha256  # that is the averaged one


def test_what_does_not_do_is_said_in_one_line(setting, tmp_path):
    folder, _ = setting
    (tmp_path / "gan").mkdir()
    (tmp_path / "gan" / "config.json").write_text('{"method": {"type": "methods.gan.GAN"}, "preprocess": {}}')
    (tmp_path / "young").mkdir()
    for file in ("config.json", "summary.json"):
        (tmp_path / "young" / file).write_text((folder / "colour" / file).read_text())
    found = translator.load(folder / "colour", "ab")
    broken = dataclasses.replace(found, params=jax.tree.map(lambda leaf: leaf * np.nan, found.params))
    cases = {
        r"is no CycleGAN's run \(methods.gan.GAN\)": lambda: translator.load(tmp_path / "gan", "ab"),
        "'aa' is neither": lambda: translator.load(folder / "colour", "aa"),
        "there is no run folder": lambda: translator.load(folder / "nothing", "ab"),
        "young holds no checkpoints": lambda: translator.load(tmp_path / "young", "ab"),
        "knows no best checkpoint": lambda: translator.load(folder / "colour", "ab", which="best"),
        "no checkpoint file at": lambda: translator.from_file(tmp_path / "nothing.pth"),
        "3x5 px is too small": lambda: found.translate(picture(3, 5)),
        r"takes pictures of 3 channel\(s\), not 1": lambda: found.translate(picture(16, 16, 1)),
        "not finite": lambda: broken.translate(picture(16, 16)),
    }
    for says, call in cases.items():
        with pytest.raises((types.UsageError, types.RunError), match=says) as raised:
            call()
        assert "\n" not in str(raised.value)
