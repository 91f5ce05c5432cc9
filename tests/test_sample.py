"""Pictures out of a trained GAN: sheets, files, a film and the nearest real images; and whose folder they go to."""

import dataclasses
import json
import pathlib
import re
import subprocess
import sys

import cv2
import numpy as np
import PIL.Image
import pytest

from experiments import output
from ssl_jax import generator, sheet, types
from ssl_jax.analysis import memorisation
from ssl_jax.data import source
from tests import gan_runs, runs

SHEETS = ["grid.png", "classes.png", "truncation.png", "interpolation.gif", "neighbours.png"]


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    """Both runs, what three calls did (the second and third into one folder), and the first call's record."""
    folder = gan_runs.train(tmp_path_factory, "sample")
    run, same = f"--run={folder / 'classes'}", f"--out={folder / 'same'}"
    plain = [f"--run={folder / 'plain'}", f"--out={folder / 'plain_out'}", f"--data_dir={folder / 'data'}"]
    everything = ["--images=12", "--interpolate=2", "--truncation=0.5,1", "--neighbours=3"]
    few = ["--images=2", "--interpolate=2", "--truncation=1.5", "--neighbours=1", "--data=digits:test[:5%]"]
    made = gan_runs.calls(
        "sample",
        [run, f"--out={folder / 'all'}", "--seed=5", "--count=9", *everything],
        [run, same, "--seed=5", "--count=70", "--images=70"],
        [run, same, "--seed=5", "--count=1", "--images=3"],
        [*plain, "--count=2", *few],
    )
    assert [call["error"] for call in made] == [""] * 4 and not any(call["said"] for call in made)
    return folder, made, json.loads((folder / "all" / "samples.json").read_text())


def picture(file):
    with PIL.Image.open(file) as image:
        return np.asarray(image)


def cells(file, columns, rows):
    """A sheet's enlarged 8x8 images, uint8 [rows, columns, 8, 8], one number a pixel."""
    whole = picture(file)
    assert whole.shape == (66 * rows - 2, 66 * columns - 2, 3)
    assert (whole == whole[..., :1]).all()
    return np.stack([[whole[66 * r :, 66 * c :, 0][4:64:8, 4:64:8] for c in range(columns)] for r in range(rows)])


def sampled(folder, count, seed=5, form="classes"):
    tickets = np.stack([np.full(count, seed), np.arange(count)], axis=1)
    return generator.load(folder / form).sample(tickets)[..., 0]


def test_a_call_writes_what_it_says(setting):
    folder, made, record = setting
    words = ["null", "eins", "zwei_drei", *"3456789"]
    names = [f"images/{number:06d}_{words[number % 10]}.png" for number in range(12)]
    assert record["files"] == [*SHEETS, *names]
    there = {str(path.relative_to(folder / "all")) for path in (folder / "all").rglob("*") if path.is_file()}
    assert there == {"samples.json", *record["files"]}
    told = {name: record[name] for name in ("run", "step", "checkpoint", "seed", "finished")}
    assert told == {"run": str(folder / "classes"), "step": 40, "checkpoint": "last", "seed": 5, "finished": True}
    assert f"generator of {folder / 'classes'}, its last checkpoint, step 40" in made[0]["printed"]
    assert f"{folder / 'all'}: {', '.join(SHEETS)}, 12 files in images" in made[0]["printed"]


def test_a_seed_gives_the_same_images_however_many_are_asked_for(setting):
    folder, _, record = setting
    images = [picture(folder / "all" / name) for name in record["files"] if "/" in name]
    assert images[0].shape == (8, 8)  # a grey picture stays grey
    np.testing.assert_array_equal(images, sampled(folder, 12))
    np.testing.assert_array_equal(cells(folder / "all" / "grid.png", 3, 3).reshape(9, 8, 8), images[:9])
    # 70 images fill more than one batch; of the third call's, fewer are left.
    np.testing.assert_array_equal(cells(folder / "same" / "grid.png", 1, 1)[0, 0], images[0])
    assert len(set(np.stack(images).reshape(12, -1).mean(axis=1))) == 12


def test_a_second_call_replaces_the_first_ones_files(setting):
    folder, _, _ = setting
    left = sorted(path.name for path in (folder / "same" / "images").iterdir())
    assert left == ["000000_null.png", "000001_eins.png", "000002_zwei_drei.png"]
    assert sorted(path.name for path in (folder / "same").iterdir()) == [
        "classes.png",
        "grid.png",
        "images",
        "samples.json",
    ]


def test_classes_have_a_row_each_with_the_same_latents(setting):
    folder, _, _ = setting
    rows = cells(folder / "all" / "classes.png", 8, 10)
    trained = generator.load(folder / "classes")
    latents, _ = trained.latents_of(np.stack([np.full(8, 5), np.arange(8)], axis=1))
    # Number i shows class i, so the sheet's diagonal is the grid's.
    np.testing.assert_array_equal(rows[np.arange(8), np.arange(8)], sampled(folder, 8))
    expected = sheet.as_bytes(trained.generate(latents, np.full(8, 9, np.int32)))[..., 0]
    np.testing.assert_array_equal(rows[9], expected)


def test_truncation_has_a_row_a_value_with_the_same_latents(setting):
    folder, _, _ = setting
    rows = cells(folder / "all" / "truncation.png", 8, 2)
    trained = generator.load(folder / "classes")
    latents, labels = trained.latents_of(np.stack([np.full(8, 5), np.arange(8)], axis=1))
    np.testing.assert_array_equal(rows[0], sheet.as_bytes(trained.generate(latents / 2, labels))[..., 0])
    np.testing.assert_array_equal(rows[1], sampled(folder, 8))
    plain = generator.load(folder / "plain")
    latents, _ = plain.latents_of(np.stack([np.zeros(8), np.arange(8)], axis=1))
    row = cells(folder / "plain_out" / "truncation.png", 8, 1)[0]
    moved = generator.truncated(latents, 1.5, "normal")
    np.testing.assert_array_equal(row, sheet.as_bytes(plain.generate(moved, None))[..., 0])


@pytest.mark.parametrize("name, seed, form", [("all", 5, "classes"), ("plain_out", 0, "plain")])
def test_the_film_is_an_endless_loop_through_the_grids_first_images(setting, name, seed, form):
    folder, _, _ = setting
    frames, lengths = [], []
    with PIL.Image.open(folder / name / "interpolation.gif") as film:
        assert film.info["loop"] == 0
        for place in range(film.n_frames):
            film.seek(place)
            frames.append(np.asarray(film.convert("L")))
            lengths.append(film.info["duration"])
    assert sum(lengths) == 2 * 16 * 60
    shown = [frames[0][66 * r :, 66 * c :][4:64:8, 4:64:8] for r in range(2) for c in range(4)]
    np.testing.assert_array_equal(shown, sampled(folder, 8, seed, form))
    steps = [np.abs(a.astype(int) - b).mean() for a, b in zip(frames, [*frames[1:], frames[0]], strict=True)]
    # From the last frame to the first it is no longer than between any others, and half way round it is far.
    assert steps[-1] < 2 * max(steps[:-1]) and max(steps) < 0.5 * np.abs(frames[0].astype(int) - frames[16]).mean()


def test_neighbours_are_the_nearest_training_images(setting):
    folder, made, record = setting
    real = source.open_source("digits", "train", str(folder / "data")).read_all()["image"][..., 0]
    rows = cells(folder / "all" / "neighbours.png", 4, 8)
    samples = sampled(folder, 9)
    distances = np.sqrt(np.sum((samples[:, None] / 255.0 - real[None] / 255.0) ** 2, axis=(2, 3)))
    np.testing.assert_array_equal(rows[:, 0], samples[:8])
    for row, found in zip(rows, distances, strict=False):
        np.testing.assert_array_equal(row[1:], real[np.argsort(found, kind="stable")[:3]])
    median = np.median(distances.min(axis=1))
    assert record["distances"]["samples"] == pytest.approx(median)
    # All 1,400 images have a median of their own, near which that of 256 lies.
    flat = real.reshape(1400, -1) / 255.0
    squares = np.sum(flat**2, axis=1)
    among = np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * flat @ flat.T, 0))
    np.fill_diagonal(among, np.inf)
    assert record["distances"]["real"] == pytest.approx(np.median(among.min(axis=1)), rel=0.05)
    printed = re.search(
        r"median distance.* of 9 samples .*: ([\d.]+); of 256 real images .*: ([\d.]+)", made[0]["printed"]
    )
    assert float(printed[1]) == pytest.approx(median, abs=1e-3)
    assert "of 20 real images" in made[3]["printed"]


def test_usage_errors_touch_nothing(setting, tmp_path):
    folder, _, _ = setting
    run, new = f"--run={folder / 'classes'}", f"--out={tmp_path / 'new'}"
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "grid.png").write_text("precious")
    (tmp_path / "file").write_text("precious")
    cases = {
        "needs --run and --out": [[run], [new]],
        "there is no run folder": [["--run=nothing", new]],
        "thesis is not empty and holds no samples.json of experiments.sample": [[run, f"--out={tmp_path / 'thesis'}"]],
        "file is a file": [[run, f"--out={tmp_path / 'file'}"]],
        "what is 'seed=3'": [[run, new, "seed=3"]],
        "--interpolate=1": [[run, new, "--interpolate=1"]],
        "--truncation=big: give numbers above 0": [[run, new, "--truncation=0.5,big"]],
        "truncation=0: it must be above 0": [[run, new, "--truncation=0"]],
        "at most 1": [[run, new, "--truncation=1.01"]],
        "add --neighbours=5": [[run, new, "--data=digits:train"]],
        "--data=digits: write NAME:SPLIT": [[run, new, "--neighbours=2", "--data=digits"]],
        "has no split 'validation'": [[run, new, "--neighbours=2", "--data=digits:validation"]],
        "has 1400 images: ask for fewer": [[run, new, "--neighbours=1400"]],
        "digits has images of 4x4x1, the run makes 8x8x1: give --size_px=8": [
            [run, new, "--neighbours=2", "--size_px=4"]
        ],
        "knows no best checkpoint": [[run, new, "--checkpoint=best"]],
    }
    wanted = [(says, words) for says, calls in cases.items() for words in calls]
    data = f"--data_dir={folder / 'data'}"
    made = gan_runs.calls("sample", *[[*words, data] for _, words in wanted])
    for (says, _), call in zip(wanted, made, strict=True):
        assert says in call["error"] and call["error"].startswith("UsageError: "), call
        assert "\n" not in call["error"]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "grid.png", "thesis"]
    assert (tmp_path / "thesis" / "grid.png").read_text() == "precious"


def test_the_command_ends_in_one_line(tmp_path):
    command = [sys.executable, "-m", "experiments.sample", "--run=nothing", f"--out={tmp_path / 'out'}"]
    done = subprocess.run(command, cwd=runs.REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: there is no run folder or file nothing")


@dataclasses.dataclass(frozen=True)
class Set:
    """Images in masked batches, as evaluators read them."""

    images: np.ndarray
    size: int

    @property
    def examples(self):
        return len(self.images)

    def batches(self):
        for first in range(0, len(self.images), self.size):
            batch = self.images[first : first + self.size]
            missing = self.size - len(batch)
            # What fills a batch up would be the nearest of all.
            full = np.concatenate([batch, np.broadcast_to(self.images[:1], (missing, *batch.shape[1:]))])
            yield {"image": full, "mask": np.arange(self.size) < len(batch)}


@pytest.mark.parametrize("size", [3, 7, 50])
def test_nearest_is_an_exhaustive_search(digits_npz, size):
    images = np.load(digits_npz)["image"][:50]
    images[31] = images[4]
    queries = np.concatenate([images[[0, 4]], 255 - images[:3]])
    found = memorisation.nearest(queries, Set(images, size), 9)
    distances = np.sqrt(np.sum((queries[:, None] / 255 - images[None] / 255) ** 2, axis=(2, 3, 4)))
    order = np.argsort(distances, axis=1, kind="stable")[:, :9]
    np.testing.assert_array_equal(found.rows, order)
    np.testing.assert_allclose(found.distances, np.take_along_axis(distances, order, axis=1), atol=1e-12)
    np.testing.assert_array_equal(found.images, images[order])
    assert found.distances[0, 0] == 0 and found.rows[1, :2].tolist() == [4, 31]
    others = memorisation.nearest(images, Set(images, size), 1, own_rows=np.arange(50))
    np.fill_diagonal(distances := np.sqrt(np.sum((images[:, None] / 255 - images[None] / 255) ** 2, (2, 3, 4))), 9e9)
    np.testing.assert_allclose(others.distances[:, 0], distances.min(axis=1), atol=1e-12)
    assert others.rows[4, 0] == 31 and others.distances[4, 0] == 0


def test_nearest_refuses_more_than_there_are(digits_npz):
    images = np.load(digits_npz)["image"][:5]
    memorisation.nearest(images, Set(images, 2), 5)
    with pytest.raises(types.UsageError, match="5 nearest images of 4: ask for 1 to 4"):
        memorisation.nearest(images, Set(images, 2), 5, own_rows=np.arange(5))


def claimed(folder):
    return output.claim(folder, "record.json", "experiments.test")


def test_an_output_folder_is_known_again_even_after_a_call_cut_short(tmp_path):
    first = claimed(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    first.begin(["a.png", "b/c.png"], {"seed": 1})
    first.write("a.png", b"a")
    second = claimed(tmp_path / "out")
    second.begin(["b/c.png"], {"seed": 2})
    assert not (tmp_path / "out" / "a.png").exists()
    second.write("b/c.png", b"c")
    second.finish(["b/c.png"], {"seed": 2})
    record = json.loads((tmp_path / "out" / "record.json").read_text())
    assert record == {"script": "experiments.test", "seed": 2, "finished": True, "files": ["b/c.png"]}
    with pytest.raises(types.UsageError, match=r"holds no record.json of experiments.other"):
        output.claim(tmp_path / "out", "record.json", "experiments.other")


def test_files_of_somebody_else_are_neither_replaced_nor_removed(tmp_path):
    claimed(tmp_path / "out").begin(["a.png"], {})
    (tmp_path / "out" / "mine.png").write_text("precious")
    with pytest.raises(types.UsageError, match=r"mine.png is not this script's"):
        claimed(tmp_path / "out").begin(["mine.png"], {})
    (tmp_path / "outside").write_text("precious")
    record = {"script": "experiments.test", "files": ["../outside", str(tmp_path / "outside")]}
    (tmp_path / "out" / "record.json").write_text(json.dumps(record))
    claimed(tmp_path / "out").begin(["b.png"], {})
    assert (tmp_path / "outside").read_text() == (tmp_path / "out" / "mine.png").read_text() == "precious"


def test_pictures_get_names_of_their_own():
    names = ["a.jpg", "a.png", "b/a.jpg", "sheet.webp", "c.tar.jpeg"]
    assert output.image_names(names, ["sheet.png"]) == ["a.png", "a.png.png", "b/a.png", "sheet.webp.png", "c.tar.png"]
    colour = np.random.default_rng(0).integers(0, 256, (3, 5, 3), np.uint8)
    for image in (colour, colour[..., :1]):
        decoded = cv2.imdecode(np.frombuffer(output.picture(image), np.uint8), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(decoded[..., ::-1] if decoded.ndim == 3 else decoded[..., None], image)
    assert pathlib.PurePosixPath(output.image_names(["x.PNG"], [])[0]).suffix == ".png"
