"""What a user gets wrong costs one line: the thing, the place, the way out; and never a file of an earlier run."""

import os
import re
import shutil
import subprocess

import numpy as np
import pytest

from tests import runs


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
