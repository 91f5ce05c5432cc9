"""What a user gets wrong costs one line: the thing, the place, the way out; and never a file of an earlier run."""

import os
import re
import shutil
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest

from tests import gan_runs, runs, translator_runs


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad_input")
    config = folder / "config.py"
    config.write_text(runs.CONFIG.format(data_dir=folder / "data"))
    env = runs.environment(folder / "cache")
    runs.train(config, folder / "good", "--config.duration=10", env=env)
    return folder, config, env


def fails(setting, *overrides, code, workdir=None):
    """Trains, expects one line and that code, and checks that the finished run beside it is as it was."""
    folder, config, env = setting
    good = contents(folder / "good")
    workdir = workdir or folder / "fresh"
    done = runs.train(config, workdir, *overrides, env=env, check=False)
    assert done.returncode == code, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
    assert contents(folder / "good") == good
    return lines[0]


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(
    "override, says",
    [
        ("--config.data.batchsize=3", "--config.data.batchsize: the config lists no such key; Did you mean batch_size"),
        ("--config.method.encoder.type=models.convnet.ConfNet", "models.convnet.ConvNet"),
        ("--config.data.batch_size=large", "batch_size"),
        ("--config.duration=soon", "config.duration='soon' is not a duration"),
        ("--config.data.name=digitz", "digits"),
        ("--config.data.split=validation", "train (1400 images), test (397 images)"),
        ("--config.data.batch_size=5000", "batch_size=5000, but the data set has 1400 images"),
        ("--config.data.feeding=streamed", "'auto', 'resident', 'stream'"),
        ("--config.preprocess.first.crop.size_px=0", "config.preprocess.first.crop"),
        ("config.seed=1", "Everything is a flag"),
        ("--process=1", "need --processes=N"),
        ("--config.mesh.devices=3", "devices=3, but this machine has 1"),
    ],
)
def test_usage_errors(setting, override, says):
    assert says in fails(setting, override, code=2)
    assert not (setting[0] / "fresh").exists()


def test_no_arguments_at_all(setting):
    done = subprocess.run(
        [*runs.command(setting[1], "x")[:3]], env=setting[2], cwd=runs.REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 2 and "--config=configs/NAME.py" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("config", ["configs/nothere.py", "configs/simsiam_photos.py:labeled"])
def test_config_that_is_not_there(setting, config, tmp_path):
    done = runs.train(config, tmp_path / "fresh", env=setting[2], check=False)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_folder_that_is_no_run(setting, tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    assert "is not empty and holds no run" in fails(setting, code=2, workdir=tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "precious"
    assert "is a file" in fails(setting, code=2, workdir=tmp_path / "thesis.txt")


def test_truncated_checkpoint(setting, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(setting[0] / "good", broken)
    (broken / "summary.json").unlink()
    largest = max((broken / "checkpoints" / "10").rglob("*"), key=lambda path: path.stat().st_size * path.is_file())
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    kept = contents(broken / "checkpoints" / "5")
    line = fails(setting, "--config.duration=10", code=1, workdir=broken)
    assert "checkpoints/10" in line and "delete that folder" in line
    assert contents(broken / "checkpoints" / "5") == kept
    shutil.rmtree(broken / "checkpoints" / "10")
    runs.train(setting[1], broken, "--config.duration=10", env=setting[2])
    assert runs.largest_difference(runs.networks(broken), runs.networks(setting[0] / "good")) == 0.0


def test_foreign_checkpoint(setting, tmp_path):
    foreign = tmp_path / "foreign"
    shutil.copytree(setting[0] / "good", foreign)
    text = (foreign / "config.json").read_text()
    (foreign / "config.json").write_text(re.sub(r'"hidden": 16', '"hidden": 24', text))
    overrides = ("--config.duration=10", "--config.method.predictor.hidden=24")
    (foreign / "summary.json").unlink()
    line = fails(setting, *overrides, code=2, workdir=foreign)
    assert "params/predictor" in line and "[16, 32], not float32[24, 32]" in line


def test_non_finite_loss_names_step_and_quantity_and_keeps_the_last_good_checkpoint(setting, tmp_path):
    workdir = tmp_path / "diverges"
    # A momentum above 1 is sound for some steps and then grows without bound.
    overrides = ("--config.duration=400", "--config.method.optimizer.momentum=1.5")
    line = fails(setting, *overrides, code=1, workdir=workdir)
    assert re.search(r"(loss|gradient_norm|output_deviation|a parameter) is (nan|inf|not finite) at step \d+", line)
    step = int(re.search(r"at step (\d+)", line)[1])
    saved = sorted(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())
    assert saved and saved[-1] < step
    assert f"the last good checkpoint is step {saved[-1]}" in line
    assert all(np.isfinite(array).all() for array in runs.networks(workdir).values())


@pytest.mark.skipif(os.geteuid() != 0, reason="making a full disk of one's own needs root")
def test_full_disk(setting, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", small], capture_output=True).returncode:
        pytest.skip("mounting a small disk is not permitted here")
    try:
        line = fails(setting, "--config.duration=200", code=1, workdir=small / "run")
        assert "disk is full" in line and str(small) in line
    finally:
        subprocess.run(["umount", "-l", small], check=True)


def refused(setting, script, *words, new):
    """Calls a script, expects exit code 2 and one line, and that `new` is not there; the line."""
    done = subprocess.run(
        [sys.executable, "-m", f"experiments.{script}", *words],
        env=setting[2],
        cwd=runs.REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stdout + done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("error: ") and not new.exists(), done.stderr
    return lines[0]


@pytest.mark.parametrize(
    ("config", "overrides", "says"),
    [
        (
            "cyclegan_digits.py",
            ("--config.method.channels_b=1",),
            "the images of B have 3 channel(s) and channels_b=1: set it as the data are",
        ),
        (
            "cyclegan_digits.py:identity",
            ("--config.method.channels_b=1",),
            "config.method: identity=0.5, but A has 3 channel(s) and B 1",
        ),
        (
            "cyclegan_horse2zebra_64.py",
            ("--config.data.load_px=16", "--config.preprocess.a.crop.size_px=32"),
            "augment.Window: images of 16x16 px are smaller than size_px=32; load them larger, or lower size_px",
        ),
        ("cyclegan_digits.py", ("--config.data.split_b=trainB[:0]",), "trainB[:0]"),
        ("cyclegan_digits.py", ("--config.data.split_b=train",), "trainA (700 images), trainB (700 images)"),
        ("cyclegan_digits.py:judged", (), "runs/classify_digits_a"),
    ],
)
def test_domains_that_do_not_fit(setting, tmp_path, config, overrides, says):
    names = [f"--config.data.name_{domain}=digit_domains" for domain in "ab"]
    data = [*names, f"--config.data.data_dir={setting[0] / 'data'}", *overrides]
    words = [f"--config={runs.REPOSITORY / 'configs' / config}", f"--workdir={tmp_path / 'new'}", *data]
    assert says in refused(setting, "train", *words, new=tmp_path / "new")


def test_a_domain_without_pictures(setting, tmp_path):
    for name in ("trainA", "trainB", "testA", "testB"):
        (tmp_path / "in" / name).mkdir(parents=True)
        if name != "trainB":
            PIL.Image.new("RGB", (8, 8)).save(tmp_path / "in" / name / "1.png")
    words = [f"--images={tmp_path / 'in'}", "--name=mine", f"--data_dir={tmp_path / 'new'}"]
    line = refused(setting, "prepare", *words, new=tmp_path / "new")
    assert "trainB holds no images: both domains need some" in line


@pytest.fixture(scope="module")
def translators(tmp_path_factory):
    """Runs "colour" and "grey" of CycleGAN, and three pictures in "input"."""
    folder = tmp_path_factory.mktemp("translators")
    translator_runs.write_both(folder)
    (folder / "input").mkdir()
    draw = np.random.default_rng(0)
    for number in range(3):
        PIL.Image.fromarray(draw.integers(0, 256, (16, 20, 3), np.uint8)).save(folder / "input" / f"{number}.png")
    return folder


@pytest.mark.parametrize(
    ("run", "words", "says"),
    [
        ("colour", ("--direction=xy",), "--direction"),
        ("colour", ("--direction=ab", "--tile_px=4"), "a tile of 4 rows is smaller than the 12"),
        ("good", ("--direction=ab",), "is no CycleGAN's run (methods.simsiam.SimSiam)"),
    ],
)
def test_what_cannot_translate(setting, translators, tmp_path, run, words, says):
    folder = setting[0] if run == "good" else translators
    words = [f"--run={folder / run}", f"--input={translators / 'input'}", f"--out={tmp_path / 'new'}", *words]
    assert says in refused(setting, "translate", *words, new=tmp_path / "new")


def test_a_translated_file_is_never_lost(translators, tmp_path):
    inputs, out = tmp_path / "input", tmp_path / "out"
    shutil.copytree(translators / "input", inputs)
    words = [f"--run={translators / 'colour'}", "--direction=ab", f"--input={inputs}", f"--out={out}"]

    def there():
        return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.rglob("*") if path.is_file()}

    (first,) = gan_runs.calls("translate", words)
    before = there()
    assert "3 pictures translated" in first["printed"] and len(before) == 5
    for name in ("new.png", "newer.png"):
        PIL.Image.new("RGB", (20, 16), (200, 30, 90)).save(inputs / name)
    (inputs / "0.png").unlink()
    (more,) = gan_runs.calls("translate", words)
    after = there()
    assert "2 pictures translated, 2 were there already" in more["printed"]
    assert after.keys() - before.keys() == {out / "new.png", out / "newer.png"}
    for number in range(3):
        assert after[out / f"{number}.png"] == before[out / f"{number}.png"]
    others = ([f"--run={translators / 'grey'}", *words[1:]], [words[0], "--direction=ba", *words[2:]])
    for other in gan_runs.calls("translate", *others):
        assert "holds translations with another network: give another --out" in other["error"]
    assert there() == after
