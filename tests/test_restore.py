"""Restoring pictures by a generator's latents: the degradations, the search against closed forms, and the script."""

import json
import math
import shutil

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
from scipy import ndimage

from ssl_jax import restore, types
from ssl_jax.data import source
from tests import gan_runs


def noise(*shape, seed=0, low=-1.0):
    return np.asarray(jax.random.uniform(jax.random.key(seed), shape, minval=low))


# The degradations.


def test_blur_is_scipys():
    images = noise(3, 10, 12, 3)
    damage = restore.degradation("deblur", 1.4, 10, 12)
    reach = math.ceil(3 * 1.4)
    expected = images
    for axis in (1, 2):
        # scipy calls it mirror where the border pixel itself is not repeated.
        expected = ndimage.gaussian_filter1d(expected, 1.4, axis, mode="mirror", radius=reach)
    np.testing.assert_allclose(damage.apply(images), expected, atol=2e-6)
    assert damage.size == (10, 12) and damage.missing is None and damage.strength == 1.4
    np.testing.assert_array_equal(damage.enlarged(images), images)
    np.testing.assert_array_equal(damage.completed(images, -images), images)


def test_shrinking_takes_the_mean_of_squares_and_pillow_enlarges_again():
    images = noise(2, 8, 12, 3)
    damage = restore.degradation("upscale", 4, 8, 12)
    small = np.asarray(damage.apply(images))
    expected = np.stack([images[:, 4 * r : 4 * r + 4].mean(axis=1) for r in range(2)], axis=1)
    expected = np.stack([expected[:, :, 4 * c : 4 * c + 4].mean(axis=2) for c in range(3)], axis=2)
    np.testing.assert_allclose(small, expected, atol=1e-6)
    assert damage.size == (2, 3) == small.shape[1:3]
    enlarged = damage.enlarged(small)
    for channel in range(3):
        plane = PIL.Image.fromarray(small[0, :, :, channel]).resize((12, 8), PIL.Image.Resampling.BICUBIC)
        np.testing.assert_allclose(enlarged[0, :, :, channel], np.clip(plane, -1, 1), atol=1e-5)


def test_a_hole_hides_its_pixels_and_only_its_pixels():
    images = noise(2, 8, 6, 1)
    damage = restore.degradation("inpaint", 0.5, 8, 6)
    expected = images.copy()
    expected[:, 2:5, 1:4] = 0  # 3 of 6 px, centred as far as that goes
    np.testing.assert_array_equal(damage.apply(images), expected)
    made = noise(2, 8, 6, 1, seed=1)
    joined = damage.completed(made, np.asarray(damage.apply(images)))
    np.testing.assert_array_equal(joined[:, 2:5, 1:4], made[:, 2:5, 1:4])
    np.testing.assert_array_equal(joined[:, damage.missing == 0], images[:, damage.missing == 0])
    # The error is a mean over what is known, and blind to the rest.
    error = np.asarray(damage.error(made, images))
    known = ~damage.missing
    np.testing.assert_allclose(error, np.mean((made - images)[:, known] ** 2, axis=(1, 2)), rtol=1e-5)
    mask = noise(8, 6) > 0.5
    drawn = restore.degradation("inpaint", None, 8, 6, mask)
    np.testing.assert_array_equal(drawn.missing, mask)
    assert drawn.strength == pytest.approx(mask.mean())


@pytest.mark.parametrize("task", ["deblur", "upscale", "inpaint"])
def test_gradients_go_through_every_degradation(task):
    damage = restore.degradation(task, None, 8, 8)
    images, degraded = noise(1, 8, 8, 1), np.asarray(damage.apply(noise(1, 8, 8, 1, seed=1)))
    slope = jax.grad(lambda images: damage.error(images, degraded)[0])(images)
    # The error is quadratic, so that a difference of any step is exact.
    step = noise(1, 8, 8, 1, seed=2)
    ends = [float(damage.error(images + sign * step, degraded)[0]) for sign in (1, -1)]
    assert float(jnp.sum(slope * step)) == pytest.approx((ends[0] - ends[1]) / 2, rel=1e-4)


@pytest.mark.parametrize(
    "task, side, strength",
    [
        ("deblur", 8, 1.0),
        ("deblur", 28, 1.0),
        ("deblur", 64, 64 / 28),
        ("deblur", 2, 1 / 3),
        ("inpaint", 8, 0.5),
        ("upscale", 8, 2),
        ("upscale", 16, 4),
        ("upscale", 28, 4),
        ("upscale", 4, 2),
    ],
)
def test_strengths_by_default(task, side, strength):
    damage = restore.degradation(task, None, side, side)
    assert damage.strength == pytest.approx(strength)
    assert np.asarray(damage.apply(noise(1, side, side, 1))).shape == (1, *damage.size, 1)


@pytest.mark.parametrize(
    "task, strength, says",
    [
        ("deblur", 0.0, "strength=0.0: a blur's deviation in pixels lies above 0.*at most 2.33"),
        ("deblur", -1.0, "strength=-1.0"),
        ("deblur", 2.4, "at most 2.33"),
        ("deblur", math.nan, "strength=nan"),
        ("upscale", 3.0, "8x12 px are enlarged by a whole number that divides both sides: 2, 4$"),
        ("upscale", 2.5, "strength=2.5"),
        ("upscale", 1.0, "strength=1.0"),
        ("upscale", math.inf, "strength=inf"),
        ("inpaint", 0.0, "strength=0.0: a hole's share .* is 0.125 to 0.875"),
        ("inpaint", 1.0, "strength=1.0"),
        ("inpaint", 0.05, "strength=0.05"),
        ("inpaint", math.nan, "strength=nan"),
    ],
)
def test_strengths_that_cannot_be(task, strength, says):
    with pytest.raises(types.UsageError, match=says):
        restore.degradation(task, strength, 8, 12)


def test_masks_that_cannot_be():
    mask = np.eye(8, dtype=bool)
    for wrong, says in (
        (np.zeros((8, 8), bool), "marks 0 of 64"),
        (np.ones((8, 8), bool), "64 of 64"),
        (mask[:4], "4 of 32"),
    ):
        with pytest.raises(types.UsageError, match=f"{says} pixels as missing"):
            restore.degradation("inpaint", None, 8, 8, wrong)
    with pytest.raises(types.UsageError, match=r"strength=0.5 and a mask both"):
        restore.degradation("inpaint", 0.5, 8, 8, mask)
    with pytest.raises(types.UsageError, match="the task is deblur: take inpaint"):
        restore.degradation("deblur", None, 8, 8, mask)
    with pytest.raises(types.UsageError, match=r"7x7 px are enlarged by .*: 7$"):
        restore.degradation("upscale", None, 7, 7)


def test_psnr():
    truth = np.full((3, 4, 4, 1), 100, np.uint8)
    images = truth.copy()
    images[0] += 10
    images[1, 0, 0] = 200  # one of 16
    found = restore.psnr(images, truth)
    np.testing.assert_allclose(found[:2], [20 * math.log10(25.5), 10 * math.log10(255**2 / (100**2 / 16))])
    assert found[2] == math.inf
    corner = np.zeros((4, 4), bool)
    corner[0, :2] = True
    np.testing.assert_allclose(restore.psnr(images, truth, corner)[1], 10 * math.log10(255**2 / (100**2 / 2)))


# The search.

LATENT = 5
MATRIX = np.asarray(jax.random.normal(jax.random.key(3), (LATENT, 8, 8, 1))) / 4


def linear(latents, labels):
    """A generator whose best latent is known."""
    return jnp.tensordot(latents, MATRIX, axes=1)


def searched(damage, degraded, latents, images_of=linear, labels=None, told=lambda: None, **more):
    settings = restore.Settings(**{"steps": 400, "prior": 0.0} | more)
    return restore.search(images_of, degraded, damage, settings, latents=latents, labels=labels, told=told)


def starts(pictures, count, seed=9):
    return np.asarray(jax.random.normal(jax.random.key(seed), (pictures, count, LATENT)))


@pytest.mark.parametrize("prior", [0.0, 0.05])
@pytest.mark.parametrize("task", ["deblur", "upscale", "inpaint"])
def test_a_linear_generators_latent_is_the_least_squares_solution(task, prior):
    damage = restore.degradation(task, None, 8, 8)
    degraded = np.asarray(damage.apply(noise(2, 8, 8, 1)))
    known = slice(None) if damage.missing is None else ~damage.missing.reshape(-1)
    matrix = np.asarray(damage.apply(MATRIX)).reshape(LATENT, -1)[:, known].T.astype(np.float64)
    pixels = degraded.reshape(2, -1)[:, known].astype(np.float64)
    normal = matrix.T @ matrix / len(matrix) + prior * np.eye(LATENT)
    best = np.linalg.solve(normal, matrix.T @ pixels.T / len(matrix)).T
    found = searched(damage, degraded, starts(2, 3), prior=prior)
    np.testing.assert_allclose(found.latents, best, atol=2e-3)
    least = np.mean((best @ matrix.T - pixels) ** 2, axis=1) + prior * np.sum(best**2, axis=1)
    np.testing.assert_allclose(found.objectives, least, rtol=1e-4)
    np.testing.assert_allclose(found.images, linear(found.latents, None), atol=1e-5)
    assert found.labels is None


def test_uniform_latents_stay_in_their_cube():
    damage = restore.degradation("inpaint", None, 8, 8)
    wanted = np.array([[3.0, 0.2, -2.0, 0.4, -0.1]], np.float32)
    # Columns at right angles, so that the best latent in the cube is the best one cut to it.
    columns = np.linalg.qr(np.asarray(jax.random.normal(jax.random.key(0), (48, LATENT))))[0]
    matrix = np.zeros((LATENT, 64), np.float32)
    matrix[:, ~damage.missing.reshape(-1)] = 4 * columns.T

    def orthogonal(latents, labels):
        return (latents @ matrix).reshape(-1, 8, 8, 1)

    degraded = np.asarray(orthogonal(wanted, None))
    found = searched(damage, degraded, starts(1, 2) / 4, orthogonal, law="uniform")
    np.testing.assert_allclose(found.latents, np.clip(wanted, -1, 1), atol=2e-3)
    free = searched(damage, degraded, starts(1, 2) / 4, orthogonal)
    np.testing.assert_allclose(free.latents, wanted, atol=2e-3)


def double_well(latents, labels):
    """One number, (z^2 - 1)^2 + z / 4 brighter than -1: the deeper well is near -1."""
    values = (latents**2 - 1) ** 2 + latents / 4
    return jnp.broadcast_to(values[:, :, None, None], (len(latents), 8, 8, 1))


def test_each_picture_keeps_the_best_of_its_own_starts():
    damage = restore.degradation("inpaint", None, 8, 8)
    target = np.full((2, 8, 8, 1), -0.25)
    begin = np.array([[[0.8], [-0.8], [1.2]], [[0.9], [1.1], [1.0]]])
    found = searched(damage, target, begin, double_well, steps=200, learning_rate=0.02)
    assert found.latents[0, 0] == pytest.approx(-1.0, abs=0.1) and found.objectives[0] < 1e-5
    assert found.latents[1, 0] > 0.8 and found.objectives[1] > 0.1


def test_the_best_that_was_met_is_kept_and_not_the_last():
    damage = restore.degradation("deblur", None, 8, 8)
    best = starts(1, 1)
    degraded = np.asarray(damage.apply(linear(best[0], None)))
    # Steps of length 10 leave the place near the solution, where the search begins, for good.
    found = searched(damage, degraded, best + 0.01, steps=5, learning_rate=10.0)
    np.testing.assert_allclose(found.latents, best[0] + 0.01, atol=1e-6)
    assert found.objectives[0] < 1e-3
    # And what the last step reaches counts: one step that lands on the solution.
    near = best + 0.25 * np.sign(starts(1, 1, seed=4))
    first = jax.grad(lambda z: damage.error(linear(z, None), degraded)[0])(near[0])
    landing = near[0] - 0.25 * np.sign(first)
    reached = searched(damage, degraded, near, steps=1, learning_rate=0.25)
    expected = [float(damage.error(linear(z, None), degraded)[0]) for z in (near[0], landing)]
    assert reached.objectives[0] == pytest.approx(min(expected), rel=1e-3)
    assert expected[1] < expected[0]


def test_labels_are_tried_and_the_one_that_fits_is_told():
    damage = restore.degradation("upscale", None, 8, 8)
    templates = jnp.asarray(noise(4, 8, 8, 1))

    def by_class(latents, labels):
        return 0.1 * linear(latents, None) + templates[labels]

    labels = np.tile(np.arange(4), (3, 1)).astype(np.int32)
    truth = by_class(starts(1, 3)[0] / 2, np.array([2, 0, 3]))
    found = searched(damage, np.asarray(damage.apply(truth)), starts(3, 4, seed=2), by_class, labels)
    assert found.labels.tolist() == [2, 0, 3]


def test_one_program_serves_every_batch_of_pictures():
    traced = []

    def counted(weights, latents, labels):
        traced.append(latents.shape)
        return weights * linear(latents, labels)

    damage, told = restore.degradation("deblur", None, 8, 8), []
    for scale in (1.0, 2.0):
        images_of = jax.tree_util.Partial(counted, jnp.float32(scale))
        degraded = np.asarray(damage.apply(scale * linear(starts(2, 1)[:, 0], None)))
        found = searched(damage, degraded, starts(2, 3, seed=1), images_of, told=lambda: told.append(0), steps=250)
        np.testing.assert_allclose(found.latents, starts(2, 1)[:, 0], atol=5e-3)
    assert len(told) == 2 * 251
    assert [shape for shape in traced if shape == (6, LATENT)] == [(6, LATENT)]


def test_what_cannot_be_searched():
    damage = restore.degradation("deblur", None, 8, 8)
    for wrong in ({"steps": 0}, {"learning_rate": 0.0}, {"learning_rate": math.nan}, {"prior": -1.0}):
        with pytest.raises(types.UsageError, match="must be at least 1, above 0, and at least 0"):
            restore.Settings(**wrong)
    with pytest.raises(types.RunError, match="not finite"):
        searched(damage, noise(1, 8, 8, 1), starts(1, 2), lambda latents, labels: linear(latents, labels) * jnp.nan)


# The script.

SHORT = ["--steps=20", "--starts=10"]


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    """Both runs, a folder of pictures (one broken), and what calls on them did."""
    folder = gan_runs.train(tmp_path_factory, "restore")
    scans = source.open_source("digits", "test", str(folder / "data")).read_all()["image"][:6]
    (folder / "in" / "sub").mkdir(parents=True)
    for name, scan in zip(["a.png", "b.png", "sub/a.png"], scans, strict=False):
        cv2.imwrite(str(folder / "in" / name), scan)
    # Another size, colours and a name that meets the first one's.
    large = np.broadcast_to(scans[3].repeat(5, axis=0).repeat(6, axis=1), (40, 48, 3))
    cv2.imwrite(str(folder / "in" / "a.jpg"), large)
    (folder / "in" / "broken.png").write_bytes((folder / "in" / "a.png").read_bytes()[:60])
    shutil.copytree(folder / "in", folder / "fewer")
    (folder / "fewer" / "b.png").unlink()
    mask = np.zeros((8, 8), np.uint8)
    mask[:3] = 255
    cv2.imwrite(str(folder / "mask.png"), mask)
    return folder, scans


def call(folder, *words, form="plain", out="out", given="in"):
    base = [f"--run={folder / form}", f"--input={folder / given}", f"--out={folder / out}"]
    return [*base, *SHORT, *words]


@pytest.fixture(scope="module")
def done(setting):
    folder, _ = setting
    made = gan_runs.calls(
        "restore",
        call(folder, "--task=deblur", "--strength=1.5", out="deblur"),
        call(folder, "--task=deblur", "--strength=1.5", out="again"),
        call(folder, "--task=deblur", "--strength=1.5", out="few", given="fewer"),
        call(folder, "--task=deblur", "--strength=1.5", "--seed=1", out="seed"),
        call(folder, "--task=upscale", form="classes", out="upscale"),
        call(
            folder,
            "--task=inpaint",
            f"--mask={folder / 'mask.png'}",
            "--label=zwei/drei",
            form="classes",
            out="inpaint",
        ),
    )
    assert [each["error"] for each in made] == [""] * 6
    return dict(zip(["deblur", "again", "few", "seed", "upscale", "inpaint"], made, strict=True))


NAMES = {"a.jpg": "a.png", "a.png": "a.png.png", "b.png": "b.png", "sub/a.png": "sub/a.png"}


def picture(file):
    with PIL.Image.open(file) as image:
        return np.asarray(image)


def truths(setting):
    """The pictures as the script brings them to 8x8 px; all but the first are that already."""
    folder, scans = setting
    large = cv2.imread(str(folder / "in" / "a.jpg"), cv2.IMREAD_GRAYSCALE)
    # 40x48 px cover 8x8 as 8x10, of which the middle is taken.
    covered = cv2.resize(large, (10, 8), interpolation=cv2.INTER_AREA)[:, 1:9]
    return dict(zip(NAMES, [covered, *scans[:3, ..., 0]], strict=True))


def sheet_rows(file, columns):
    whole = picture(file)
    assert whole.shape == (66 * len(NAMES) - 2, 66 * columns - 2, 3)
    cells = [[whole[66 * r :, 66 * c :, 0][4:64:8, 4:64:8] for c in range(columns)] for r in range(len(NAMES))]
    return dict(zip(NAMES, cells, strict=True))


@pytest.mark.parametrize("out, columns", [("deblur", 3), ("upscale", 4), ("inpaint", 3)])
def test_every_sound_picture_is_restored_and_compared(setting, done, out, columns):
    folder, _ = setting
    record = json.loads((folder / out / "restored.json").read_text())
    assert {row["picture"]: row["restored"] for row in record["pictures"]} == NAMES
    assert record["files"] == [*NAMES.values(), "side_by_side.png"] and record["broken"] == ["broken.png"]
    assert done[out]["said"].count("\n") == 1 and done[out]["said"].startswith("not restored: ")
    assert "broken.png" in done[out]["said"]
    assert f"{folder / out}: 4 pictures restored, 1 broken left out" in done[out]["printed"]
    rows, sums = sheet_rows(folder / out / "side_by_side.png", columns), []
    plain = "psnr_bicubic" if out == "upscale" else "psnr_degraded"
    for row in record["pictures"]:
        truth, *_, before, after = rows[row["picture"]]
        np.testing.assert_array_equal(truth, truths(setting)[row["picture"]])
        np.testing.assert_array_equal(after, picture(folder / out / row["restored"]))
        values = [restore.psnr(x[None, ..., None], truth[None, ..., None])[0] for x in (before, after)]
        np.testing.assert_allclose([row[plain], row["psnr_restored"]], values)
        sums.append(values)
    line = next(line for line in done[out]["printed"].splitlines() if line.startswith("mean"))
    assert line.split()[1:3] == [f"{value:.2f}" for value in np.mean(sums, axis=0)]


def test_degraded_pictures_are_what_the_degradation_makes(setting, done):
    folder, _ = setting
    for name, (truth, blurred, _) in sheet_rows(folder / "deblur" / "side_by_side.png", 3).items():
        expected = ndimage.gaussian_filter(truth.astype(float), 1.5, mode="mirror", radius=5)
        np.testing.assert_allclose(blurred, expected, atol=0.51, err_msg=name)
    for truth, small, bicubic, _ in sheet_rows(folder / "upscale" / "side_by_side.png", 4).values():
        mean = truth.reshape(4, 2, 4, 2).mean(axis=(1, 3))
        np.testing.assert_allclose(small, mean.repeat(2, axis=0).repeat(2, axis=1), atol=0.51)
        plane = PIL.Image.fromarray(small[::2, ::2].astype(np.float32)).resize((8, 8), PIL.Image.Resampling.BICUBIC)
        np.testing.assert_allclose(bicubic, np.clip(plane, 0, 255), atol=0.51)


def test_known_pixels_stay_and_the_hole_is_scored_by_itself(setting, done):
    folder, _ = setting
    record = json.loads((folder / "inpaint" / "restored.json").read_text())
    rows = sheet_rows(folder / "inpaint" / "side_by_side.png", 3)
    hole = np.zeros((8, 8), bool)
    hole[:3] = True
    for row in record["pictures"]:
        truth, holed, restored = rows[row["picture"]]
        np.testing.assert_array_equal(restored[3:], truth[3:])
        np.testing.assert_array_equal(holed[3:], truth[3:])
        assert (holed[:3] == 128).all() and restored[:3].std() > 1
        inside = restore.psnr(restored[None, ..., None], truth[None, ..., None], hole)[0]
        assert row["psnr_restored_in_hole"] == pytest.approx(inside) and row["class"] == "zwei/drei"
    assert record["strength"] == 3 / 8 and "restored in hole" in done["inpaint"]["printed"]


def test_a_seed_restores_alike_whatever_lies_beside(setting, done):
    folder, _ = setting
    for name in NAMES.values():
        first = picture(folder / "deblur" / name)
        np.testing.assert_array_equal(picture(folder / "again" / name), first)
        assert np.abs(picture(folder / "seed" / name).astype(int) - first).max() > 1
        if name != "b.png":
            # Other batches round otherwise.
            np.testing.assert_allclose(picture(folder / "few" / name).astype(int), first, atol=2)


def test_classes_are_found_by_trying(setting, done):
    folder, _ = setting
    record = json.loads((folder / "upscale" / "restored.json").read_text())
    assert {row["class"] for row in record["pictures"]} <= set(gan_runs.WORDS) and record["starts"] == 10
    assert record["prior"] == 0.0  # of the uniform law
    assert json.loads((folder / "deblur" / "restored.json").read_text())["prior"] == 1e-4


def test_pictures_that_are_degraded_already_are_restored_alike(setting, done):
    folder, _ = setting
    shots = {"upscale": slice(None, None, 2), "deblur": slice(None)}
    for out, step in shots.items():
        for name, row in sheet_rows(folder / out / "side_by_side.png", 4 if out == "upscale" else 3).items():
            if name != "a.jpg":  # whose name, and with it its starts, would be another as PNG
                file = folder / f"given_{out}" / name
                file.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(file), row[1][step, step])
    made = gan_runs.calls(
        "restore",
        call(folder, "--task=upscale", "--given=degraded", form="classes", out="from_small", given="given_upscale"),
        call(folder, "--task=deblur", "--strength=1.5", "--given=degraded", out="from_blurred", given="given_deblur"),
    )
    for each, out, whole in zip(made, ["from_small", "from_blurred"], ["upscale", "deblur"], strict=True):
        assert not each["error"] and not each["said"] and "PSNR" not in each["printed"]
        record = json.loads((folder / out / "restored.json").read_text())
        assert len(record["pictures"]) == 3 and not [k for row in record["pictures"] for k in row if "psnr" in k]
        for row in record["pictures"]:
            expected = picture(folder / whole / NAMES[row["picture"]]).astype(int)
            np.testing.assert_allclose(picture(folder / out / row["restored"]), expected, atol=2)


def test_usage_errors_touch_nothing(setting, tmp_path):
    folder, _ = setting
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "a.png").write_text("precious")
    (tmp_path / "empty").mkdir()
    (tmp_path / "rotten").mkdir()
    (tmp_path / "rotten" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    cases = {
        "needs --run, --input, --task and --out": call(folder),
        "there is no run folder": call(folder, "--task=deblur", form="nothing"),
        "empty holds no images": call(folder, "--task=deblur", given=tmp_path / "empty"),
        "thesis is not empty and holds no restored.json": call(folder, "--task=deblur", out=tmp_path / "thesis"),
        "at most 2.33": call(folder, "--task=deblur", "--strength=3"),
        "divides both sides: 2, 4, 8": call(folder, "--task=upscale", "--strength=3"),
        "is 0.125 to 0.875": call(folder, "--task=inpaint", "--strength=1"),
        "the task is deblur": call(folder, "--task=deblur", f"--mask={folder / 'mask.png'}"),
        "--mask=nothing.png cannot be read": call(folder, "--task=inpaint", "--mask=nothing.png"),
        "knows no classes": call(folder, "--task=deblur", "--label=3"),
        "--label=ein: there is no such class; near are eins": call(
            folder, "--task=deblur", "--label=ein", form="classes"
        ),
        "tries 9 of 10 classes": call(folder, "--task=deblur", "--starts=9", form="classes"),
        "learning_rate=0.0": call(folder, "--task=deblur", "--learning_rate=0"),
        "none of the 1 pictures": call(folder, "--task=deblur", given=tmp_path / "rotten"),
    }
    made = gan_runs.calls("restore", *cases.values())
    for says, each in zip(cases, made, strict=True):
        kind = "RunError" if says.startswith("none") else "UsageError"
        assert says in each["error"] and each["error"].startswith(kind) and "\n" not in each["error"], each
    assert not (folder / "out").exists()
    assert (tmp_path / "thesis" / "a.png").read_text() == "precious"
