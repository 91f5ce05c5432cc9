"""Folders of pictures translated: what is written, what is passed over, and how a call goes on after a kill."""

import json
import os
import shutil

import numpy as np
import PIL.Image
import pytest

from experiments import output
from ssl_jax import sheet, translator
from ssl_jax.models import cyclegan_weights
from tests import gan_runs, translator_runs

SIZES = {"a.png": (21, 27), "deep/er/a.webp": (16, 40), "deep/b.jpg": (30, 20), "grey.png": (18, 18)}
GOOD = {"a.png": "a.png", "deep/b.jpg": "deep/b.png", "deep/er/a.webp": "deep/er/a.png", "grey.png": "grey.png"}
"""Where each sound picture's translation lies."""


def picture(file):
    with PIL.Image.open(file) as image:
        return np.asarray(image)


def fill(folder):
    """Pictures of several formats and sizes, one turned by its orientation tag, a broken one and a tiny one."""
    draw = np.random.default_rng(0)
    for name, (height, width) in SIZES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shape = (height, width) if name == "grey.png" else (height, width, 3)
        coarse = draw.integers(0, 256, (4, 4, *shape[2:]), np.uint8)
        image = PIL.Image.fromarray(coarse).resize((width, height))
        tags = PIL.Image.Exif()
        if name == "deep/b.jpg":
            tags[0x0112] = 6  # to be turned clockwise
        image.save(folder / name, exif=tags)
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:100])
    PIL.Image.new("RGB", (5, 3)).save(folder / "tiny.png")
    (folder / "notes.txt").write_text("no picture")


def call(folder, *more, form="colour", given="input", out="out"):
    words = [f"--input={folder / given}", f"--out={folder / out}", *more]
    return words + ([f"--run={folder / form}", "--direction=ab"] if form else [])


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    """The folder of both runs and what several calls did."""
    folder = tmp_path_factory.mktemp("translate")
    trained = translator_runs.write_both(folder)
    (folder / "input").mkdir()
    fill(folder / "input")
    for direction in ("ab", "ba"):
        arrays = cyclegan_weights.to_reference(trained["colour"][1].params[f"generator_{direction}"])
        np.savez(folder / f"{direction}.npz", **arrays)
    weights = [f"--weights={folder / 'ab.npz'}", f"--weights_back={folder / 'ba.npz'}"]
    made = gan_runs.calls(
        "translate",
        call(folder, "--cycle"),
        call(folder, "--tile_px=12", given="input/deep", out="tiles"),
        call(folder, "--size_px=24", "--format=jpg", given="input/deep", out="jpg"),
        call(folder, form="grey", given="input/deep/er", out="grey_out"),
        call(folder, "--cycle", *weights, form="", given="input/deep/er", out="files"),
    )
    assert [each["error"] for each in made] == [""] * 5
    return folder, made


def upright(folder, name, channels=3):
    image = picture(folder / "input" / name)
    if name == "deep/b.jpg":
        image = np.rot90(image, -1)
    image = np.broadcast_to(image.reshape(*image.shape[:2], -1), (*image.shape[:2], 3))
    if channels == 3:
        return image
    return np.asarray(PIL.Image.fromarray(np.ascontiguousarray(image)).convert("L"))[..., None]


def close(found, expected):
    """Equal but for what decoders and roundings of a level or two differ by."""
    assert found.shape == expected.shape
    return np.abs(found.astype(int) - expected).mean() < 1.5 and expected.std() > 10


def test_every_picture_is_translated_at_its_own_size(setting):
    folder, made = setting
    forth, back = (translator.load(folder / "colour", direction) for direction in ("ab", "ba"))
    for name, target in GOOD.items():
        expected = forth.translate(upright(folder, name))
        found = picture(folder / "out" / target)
        assert close(found, sheet.as_bytes(expected)), name
        assert close(picture(folder / "out" / "back" / target), sheet.as_bytes(back.translate(expected))), name
    assert picture(folder / "out" / "deep" / "b.png").shape == (20, 30, 3)
    said = made[0]["said"].splitlines()
    assert len(said) == 2 and all(line.startswith("not translated: ") for line in said)
    assert "broken.png" in said[0] and "tiny.png: 3x5 px is too small" in said[1]
    assert "4 pictures translated, 2 left out" in made[0]["printed"]
    assert "generator_ab_average of" in made[0]["printed"] and "back: generator_ba_average" in made[0]["printed"]


def test_the_record_says_what_was_done(setting):
    folder, _ = setting
    record = json.loads((folder / "out" / "translated.json").read_text())
    there = {str(path.relative_to(folder / "out")) for path in (folder / "out").rglob("*") if path.is_file()}
    assert {*record["files"], "translated.json"} == there and record["finished"]
    assert there == {"translated.json", "side_by_side.png", *GOOD.values(), *(f"back/{file}" for file in GOOD.values())}
    told = {name: record[name] for name in ("run", "step", "checkpoint", "direction", "generator", "left_out")}
    assert told == {
        "run": str(folder / "colour"),
        "step": 7,
        "checkpoint": "last",
        "direction": "ab",
        "generator": "generator_ab_average",
        "left_out": ["broken.png", "tiny.png"],
    }
    rows = {row["picture"]: row for row in record["pictures"]}
    row = {"translated": "deep/b.png", "back": "back/deep/b.png", "height": 20, "width": 30, "tile_px": 0}
    assert rows.keys() == GOOD.keys() and rows["deep/b.jpg"].pop("modified_ns") > 0
    assert rows["deep/b.jpg"] == {"picture": "deep/b.jpg", **row}


def test_the_sheet_has_a_row_a_picture(setting):
    folder, _ = setting
    whole = picture(folder / "out" / "side_by_side.png")
    assert whole.shape == (4 * 258 - 2, 3 * 258 - 2, 3)
    assert picture(folder / "tiles" / "side_by_side.png").shape == (2 * 258 - 2, 2 * 258 - 2, 3)
    for row, (name, target) in enumerate(sorted(GOOD.items())):
        shown = [upright(folder, name), picture(folder / "out" / target), picture(folder / "out" / "back" / target)]
        for column, image in enumerate(shown):
            cell = whole[258 * row : 258 * row + 256, 258 * column : 258 * column + 256]
            assert np.abs(cell[96:160, 96:160].mean(axis=(0, 1)) - image.mean(axis=(0, 1))).max() < 60


def test_tiles_change_nothing(setting):
    folder, _ = setting
    for target in ("b.png", "er/a.png"):
        whole, tiled = (picture(folder / out / target).astype(int) for out in ("out/deep", "tiles"))
        assert np.abs(whole - tiled).max() <= 1
    record = json.loads((folder / "tiles" / "translated.json").read_text())
    assert {row["tile_px"] for row in record["pictures"]} == {12}


def test_sizes_formats_and_channels(setting):
    folder, _ = setting
    with PIL.Image.open(folder / "jpg" / "b.jpg") as image:
        assert image.format == "JPEG" and image.size == (36, 24)
    with PIL.Image.open(folder / "jpg" / "er" / "a.jpg") as image:
        assert image.size == (60, 24)
    grey = translator.load(folder / "grey", "ab")
    expected = sheet.as_bytes(grey.translate(upright(folder, "deep/er/a.webp", 1)))
    assert close(picture(folder / "grey_out" / "a.png"), expected)


def test_files_of_the_reference_implementation(setting):
    folder, made = setting
    forth, back = (translator.from_file(folder / f"{direction}.npz") for direction in ("ab", "ba"))
    expected = forth.translate(upright(folder, "deep/er/a.webp"))
    assert close(picture(folder / "files" / "a.png"), sheet.as_bytes(expected))
    assert close(picture(folder / "files" / "back" / "a.png"), sheet.as_bytes(back.translate(expected)))
    assert f"generator of {folder / 'ab.npz'}" in made[4]["printed"]


def test_a_call_that_was_cut_short_goes_on(setting, tmp_path):
    folder, _ = setting
    inputs, out = tmp_path / "input", tmp_path / "out"
    shutil.copytree(folder / "input", inputs)
    words = [f"--input={inputs}", f"--out={out}", f"--run={folder / 'colour'}"]
    first = gan_runs.calls("translate", [*words, "--direction=ab"], [*words, "--direction=ab", "--cycle"])
    assert [each["error"] for each in first] == ["", ""]
    assert "4 pictures translated" in first[1]["printed"]  # none had its way back
    # What a kill leaves: a record that promises more than there is.
    record = json.loads((out / "translated.json").read_text())
    (out / "translated.json").write_text(json.dumps({**record, "finished": False}))
    (out / "deep" / "b.png").unlink()
    (out / "side_by_side.png").unlink()
    marker = output.picture(np.full((4, 4, 3), 77, np.uint8))
    for file in ("a.png", "deep/er/a.png", "grey.png"):
        (out / file).write_bytes(marker)
    os.utime(out / "grey.png", (1, 1))  # so its picture is newer
    # One picture is gone, and one is new whose translation would have had the other's name.
    (inputs / "a.png").unlink()
    PIL.Image.new("RGB", (20, 20), (200, 30, 90)).save(inputs / "a.jpg")
    again = gan_runs.calls(
        "translate",
        [*words, "--direction=ab", "--cycle"],
        [*words, "--direction=ab"],
        [*words, "--direction=ba"],
        [*words, "--direction=ab", "--size_px=20", "--format=jpg"],
    )
    assert "3 pictures translated, 1 were there already, 2 left out" in again[0]["printed"]
    assert "0 pictures translated, 4 were there already, 2 left out" in again[1]["printed"]
    assert "holds translations with another network: give another --out, or add --overwrite" in again[2]["error"]
    assert "another size, another format" in again[3]["error"]
    assert [(out / file).read_bytes() == marker for file in ("a.png", "deep/er/a.png", "grey.png")] == [1, 1, 0]
    assert {path.name for path in out.iterdir() if path.is_file()} == {
        *("a.png", "a.jpg.png", "grey.png"),
        *("translated.json", "side_by_side.png"),
    }
    assert (out / "back" / "a.jpg.png").exists() and (out / "back" / "deep" / "b.png").exists()
    record = json.loads((out / "translated.json").read_text())
    assert record["finished"] and {row["picture"] for row in record["pictures"]} == {*GOOD, "a.jpg"}

    (anew,) = gan_runs.calls("translate", [*words, "--direction=ba", "--overwrite"])
    assert not anew["error"] and "4 pictures translated, 2 left out" in anew["printed"]
    assert not list((out / "back").rglob("*.png")) and not (out / "a.jpg.png").exists()
    back = translator.load(folder / "colour", "ba")
    assert close(
        picture(out / "deep" / "er" / "a.png"), sheet.as_bytes(back.translate(upright(folder, "deep/er/a.webp")))
    )


def test_what_does_not_do_is_said_and_touches_nothing(setting, tmp_path):
    folder, _ = setting
    (tmp_path / "empty").mkdir()
    (tmp_path / "rotten").mkdir()
    (tmp_path / "rotten" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "a.png").write_text("precious")
    (tmp_path / "gan").mkdir()
    (tmp_path / "gan" / "config.json").write_text('{"method": {"type": "methods.gan.GAN"}, "preprocess": {}}')
    new, weights = tmp_path / "new", f"--weights={folder / 'ab.npz'}"
    plain = [f"--input={folder / 'input'}", f"--out={new}"]
    run = [*plain, f"--run={folder / 'colour'}"]
    cases = {
        "needs --run (or --weights), --input, --out and --direction": plain,
        "which way? Give --direction=ab": run,
        "--run and --weights each name a generator": [*run, weights],
        "--cycle needs the other generator too: give --weights_back=FILE": [*plain, weights, "--cycle"],
        "add --weights and --cycle": [*run, "--direction=ab", "--weights_back=b.pth"],
        "--tile_px and --whole exclude each other": [*run, "--direction=ab", "--tile_px=12", "--whole"],
        "a tile of 4 rows is smaller than the 12": [*run, "--direction=ab", "--tile_px=4"],
        "no multiple of 4": [*run, "--direction=ab", "--tile_px=18"],
        "UNetGenerator, whose layers see": [*plain, f"--run={folder / 'grey'}", "--direction=ab", "--tile_px=12"],
        "is no CycleGAN's run (methods.gan.GAN)": [*plain, f"--run={tmp_path / 'gan'}", "--direction=ab"],
        "knows no best checkpoint": [*run, "--direction=ab", "--checkpoint=best"],
        "empty holds no images": [*run, "--direction=ab", f"--input={tmp_path / 'empty'}"],
        "lies in --input": [*run, "--direction=ab", f"--out={folder / 'input' / 'out'}"],
        "would translate translations": [*run, "--direction=ab", f"--out={folder / 'input'}"],
        "thesis is not empty and holds no translated.json": [*run, "--direction=ab", f"--out={tmp_path / 'thesis'}"],
        "none of the 1 pictures in": [*run, "--direction=ab", f"--input={tmp_path / 'rotten'}", f"--out={tmp_path}/r"],
        "no checkpoint file at": [*plain, "--weights=nothing.pth"],
    }
    made = gan_runs.calls("translate", *cases.values())
    for says, each in zip(cases, made, strict=True):
        kind = "RunError" if says.startswith("none") else "UsageError"
        assert says in each["error"] and each["error"].startswith(kind) and "\n" not in each["error"], (says, each)
    assert not new.exists() and not (folder / "input" / "out").exists()
    assert (tmp_path / "thesis" / "a.png").read_text() == "precious"


def test_names_that_meet_in_jpeg():
    assert output.image_names(["a.png", "a.webp"], ["b.jpg"], ".jpg") == ["a.jpg", "a.webp.jpg"]
    assert output.picture(np.zeros((4, 4, 3), np.uint8), ".jpg").startswith(b"\xff\xd8\xff")
