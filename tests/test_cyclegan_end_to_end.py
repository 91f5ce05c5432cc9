"""CycleGAN's whole road in small: a training and its page, pictures translated by it, and its networks as files."""

import json

import numpy as np
import PIL.Image
import pytest

from ssl_jax.data import unpaired
from tests import gan_runs, runs

STEPS = 30

CONFIG = """
from configs.classify_digit_domains import get_config as classifier
from configs.cyclegan_digits import get_config as digits

FOLDER = "{folder}"
FILES = {{"generator_ab": "G_A", "generator_ba": "G_B", "discriminator_a": "D_B", "discriminator_b": "D_A"}}


def get_config(form="plain"):
    if form == "reader":
        config = classifier("b")
        config.duration = "8 steps"
        config.method.encoder.channels = (8, 8)
        config.method.encoder.strides = (2, 2)
        del config.evaluators.validation
        config.checkpoint = {{"type": "checkpoint.Policy", "every": "100 %"}}
    else:
        config = digits("judged")
        config.duration = "{steps} steps"
        config.data.batch_size = 4
        # What the reference implementation has too, so that it can be written as its files.
        config.method.generator.update(width=4, halvings=2, outer_px=7, upsampling="transposed", deviation=0.05)
        config.method.discriminator.width = 4
        config.method.average = {{"type": "moving_average.MovingAverage", "half_life": "1 epochs", "ramp_up": 0.5}}
        for item in config.evaluators.values():
            item.steps = "50 %"
        config.evaluators.translation.run.images = 20
        counterpart = config.evaluators.counterpart.run
        counterpart.pairs.limit = 30
        counterpart.reader_b.origin = FOLDER + "/reader"
        del counterpart.reader_a
        test = {{"type": "data.unpaired.Test", "name": "digit_domains", "data_dir": FOLDER + "/data"}}
        config.evaluators.distance = {{
            "type": "loop.Every",
            "steps": "100 %",
            "run": {{
                "type": "evaluators.distance.Distance",
                "reference": {{
                    "type": "reference.Reference",
                    "examples": {{**test, "split": "testB"}},
                    "extractor": counterpart.reader_b,
                    "cache": FOLDER + "/statistics",
                }},
                "translated": {{
                    "type": "evaluators.distance.Translated",
                    "examples": {{**test, "split": "testA"}},
                    "direction": "ab",
                    "preprocess": {{"type": "augment.Plain"}},
                }},
                "samples": 40,
                "batch_size": 20,
                "subset_size": 20,
                "subsets": 5,
            }},
        }}
        if form == "grafted":
            files = {{name: FOLDER + f"/npz/latest_net_{{letters}}.npz" for name, letters in FILES.items()}}
            config.graft = {{"type": "reference_weights.Graft", **files}}
            config.duration = "0 steps"
            for name in ("generator", "discriminator"):
                # No schedule can follow a share of nothing.
                config.method[f"{{name}}_optimizer"].learning_rate.update(steps="2 steps", hold_steps="1 steps")
    config.data.data_dir = FOLDER + "/data"
    del config.writers.console
    return config
"""


def picture(file):
    with PIL.Image.open(file) as image:
        return np.asarray(image)


def cell(sheet, column):
    """The first row's image of 16 px, shown four times as large, in a column of a picture with 2 px between images."""
    return sheet[:64:4, 66 * column : 66 * column + 64 : 4].astype(int)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.png")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Holds `run`, the classifier `reader`, five pictures in `photos`, translated there (`ab`) and back (`ba`)."""
    folder = tmp_path_factory.mktemp("cyclegan")
    config = folder / "config.py"
    config.write_text(CONFIG.format(folder=folder, steps=STEPS))
    env = runs.environment(folder / "cache")
    runs.train(f"{config}:reader", folder / "reader", env=env)
    runs.train(config, folder / "run", env=env)
    scans = unpaired.Test("digit_domains", "testA", data_dir=str(folder / "data"), limit=1)
    scan = next(scans.batches())["image"][0]
    photos = folder / "photos"
    photos.mkdir()
    PIL.Image.fromarray(scan).save(photos / "scan.png")
    draw = np.random.default_rng(0)
    PIL.Image.fromarray(draw.integers(0, 256, (19, 23, 3), np.uint8)).save(photos / "odd.png")
    PIL.Image.fromarray(draw.integers(0, 256, (20, 20), np.uint8)).save(photos / "grey.png")
    PIL.Image.fromarray(draw.integers(0, 256, (24, 40, 3), np.uint8)).save(photos / "wide.jpg")
    (photos / "broken.png").write_bytes((photos / "odd.png").read_bytes()[:90])
    words = [f"--run={folder / 'run'}", f"--input={photos}", "--cycle"]
    made = gan_runs.calls(
        "translate", *([*words, f"--direction={way}", f"--out={folder / way}"] for way in ("ab", "ba"))
    )
    assert [each["error"] for each in made] == ["", ""]
    return folder


@pytest.fixture(scope="module")
def exported(folder):
    """The networks of the run as the reference's files, in the folder `npz`."""
    (made,) = gan_runs.calls(
        "reference_weights", [f"--run={folder / 'run'}", f"--out={folder / 'npz'}", "--format=npz"]
    )
    assert made["error"] == "" and "latest_net_G_A.npz: generator_ab_average" in made["printed"]
    return folder / "npz"


def test_the_page_and_the_summary_of_a_training(folder):
    page = (folder / "run" / "report.html").read_text(encoding="utf-8")
    for way in ("a_to_b", "b_to_a"):
        for step in (STEPS // 2, STEPS):
            assert page.count(f'alt="eval_translation_{way} at step {step}"') == 1
            assert page.count(f'alt="eval_counterpart_{way} at step {step}"') == 1
    assert "How true the translations are" in page and "CycleGAN on digit_domains" in page
    summary = json.loads((folder / "run" / "summary.json").read_text())
    entry, last = summary["counterpart"], summary["last"]
    assert summary["finished"] and entry["examples"] == 30 and str(folder / "reader") in entry["reader_b"]
    measured = {f"{name}_{way}" for name in ("psnr", "error") for way in ("ab", "ba")} | {"read_ab", "read_real_b"}
    assert entry.keys() == {"examples", "reader_b", *measured}
    assert {name: last[f"eval/counterpart/{name}"] for name in measured} == {name: entry[name] for name in measured}
    assert all(4 < entry[f"psnr_{way}"] < 30 and 0 < entry[f"error_{way}"] < 0.6 for way in ("ab", "ba"))
    distances = summary["distances"]
    assert distances["direction"] == "ab" and distances["frechet_distance"] > 0 and "fid" not in distances
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["train/cycle_a"] for line in lines if "train/cycle_a" in line]
    assert losses[-1] < losses[0]


def test_a_folder_is_translated_as_the_page_shows_it(folder):
    for way in ("ab", "ba"):
        record = json.loads((folder / way / "translated.json").read_text())
        assert record["finished"] and record["left_out"] == ["broken.png"] and record["step"] == STEPS
        assert record["generator"] == f"generator_{way}_average"
        made = {"grey.png": (20, 20, 3), "odd.png": (19, 23, 3), "scan.png": (16, 16, 3), "wide.png": (24, 40, 3)}
        files = {*made, *(f"back/{name}" for name in made), "side_by_side.png"}
        assert set(contents(folder / way)) == files
        for name, shape in made.items():
            for part in (name, f"back/{name}"):
                found = picture(folder / way / part)
                assert found.shape == shape and found.std() > 5
    assert not contents(folder / "ab").items() & contents(folder / "ba").items()
    # The first test scan: the same translation and the same way back as training showed, but for rounding.
    shown = picture(folder / "run" / "images" / f"eval_translation_a_to_b-{STEPS:08d}.png")
    found = [picture(folder / file) for file in ("photos/scan.png", "ab/scan.png", "ab/back/scan.png")]
    for column, image in enumerate(found):
        assert np.abs(cell(shown, column) - image).max() <= 1
    truth = picture(folder / "run" / "images" / f"eval_counterpart_a_to_b-{STEPS:08d}.png")
    np.testing.assert_array_equal(cell(truth, 0), cell(shown, 0))
    assert np.abs(cell(truth, 1) - cell(shown, 1)).max() <= 1
    assert cell(truth, 2).mean() > 100 > cell(truth, 0).mean()  # dark on light, and light on dark


@pytest.mark.parametrize("suffix", ["npz", "pth"])
def test_exported_networks_translate_to_the_same_bytes(folder, exported, suffix):
    weights = exported
    if suffix == "pth":
        pytest.importorskip("torch", reason="needs the parity extra: make test PARITY=1")
        weights = folder / "pth"
        (made,) = gan_runs.calls("reference_weights", [f"--run={folder / 'run'}", f"--out={weights}"])
        assert made["error"] == ""
    files = {way: weights / f"latest_net_G_{letter}.{suffix}" for way, letter in (("ab", "A"), ("ba", "B"))}
    words = [f"--input={folder / 'photos'}", "--cycle"]
    made = gan_runs.calls(
        "translate",
        *(
            [*words, f"--weights={files[way]}", f"--weights_back={files[way[::-1]]}", f"--out={weights / way}"]
            for way in ("ab", "ba")
        ),
    )
    assert [each["error"] for each in made] == ["", ""]
    for way in ("ab", "ba"):
        assert contents(weights / way) == contents(folder / way)


def test_a_run_that_begins_with_exported_networks_is_judged_alike(folder, exported):
    env = runs.environment(folder / "cache")
    runs.train(f"{folder / 'config.py'}:grafted", folder / "grafted", env=env)
    first, grafted = (json.loads((folder / run / "summary.json").read_text()) for run in ("run", "grafted"))
    assert grafted["step"] == 0 and len(list(exported.glob("latest_net_*.npz"))) == 4
    evaluated = {name: value for name, value in first["last"].items() if name.startswith("eval/")}
    assert len(evaluated) > 30 and {name: grafted["last"][name] for name in evaluated} == evaluated
