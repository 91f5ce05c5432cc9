"""`experiments.benchmark` and `experiments.benchmark_start`: what their lines say, and what they refuse."""

import json
import subprocess
import sys

import pytest

from experiments import benchmark
from ssl_jax import build
from ssl_jax.types import UsageError
from tests import runs


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A small SimSiam of few layers on noise, as a JSON file."""
    config = runs.small_simsiam(16)
    config.data = {"type": "data.resident.noise", "shape": (64, 8, 8, 1), "batch_size": 16}
    config.evaluators, config.writers = {}, {"files": {"type": "writers.files.Files"}}
    config.duration = "20 steps"
    config.checkpoint.best = ""
    file = tmp_path_factory.mktemp("config") / "config.json"
    plain = build.normalised(config.to_dict())
    dtypes = [f"method.{network}.dtype" for network in ("encoder", "projector", "predictor")]
    file.write_text(json.dumps({**plain, "linked": [dtypes]}))
    return file


def timed(*words):
    line = [sys.executable, "-m", "experiments.benchmark", *words]
    return subprocess.run(line, cwd=runs.REPOSITORY, capture_output=True, text=True, timeout=300)


def test_lines_of_a_config_and_a_variant(config, tmp_path):
    out = tmp_path / "lines.json"
    variants = "large: config.method.encoder.dtype=bfloat16 config.data.batch_size=32"
    done = timed(f"--config={config}", "--rounds=1", "--steps=1", f"--variants={variants}", f"--out={out}")
    assert done.returncode == 0, done.stderr
    lines = {line["variant"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert list(lines) == ["base", "large"] and out.read_text() == done.stdout
    base, large = lines.values()
    assert (base["batch_size"], large["batch_size"]) == (16, 32)
    assert (base["computes_in"], large["computes_in"]) == ("float32", "bfloat16")
    assert base["config"] == "methods.simsiam.SimSiam" and base["process_peak_bytes"] is None
    # All but the update grows with the images.
    assert 1.5 < large["flops"] / base["flops"] < 2.2
    for line in lines.values():
        parts = line["forward_seconds"] + line["backward_seconds"] + line["update_seconds"]
        assert parts == pytest.approx(line["step_seconds"], abs=3e-6)
        assert line["loop_images_per_second"] == pytest.approx(line["batch_size"] / line["loop_seconds"], rel=0.05)
        share = line["flops_per_second"] / line["peak"][line["computes_in"]]
        assert line["share_of_peak"] == pytest.approx(share, abs=1e-4)
        assert line["compile_seconds"] > 0 and line["peak_bytes"] > 0
        assert set(line["peak"]) == {"float32", "bfloat16", "bytes"} and min(line["peak"].values()) > 1e8


def test_a_method_of_two_networks_has_parts_too():
    words = [
        "--config=configs/gan_gaussians.py",
        "--config.data.batch_size=64",
        "--rounds=1",
        "--steps=1",
        "--without=method.average",
    ]
    done = timed(*words)
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout)
    assert line["forward_seconds"] > 0 and line["without"] == "method.average" and "split" not in line
    parts = sum(line[f"{part}_seconds"] for part in ("forward", "backward", "update"))
    assert parts == pytest.approx(line["step_seconds"], abs=3e-6)


def test_a_step_is_left_whole_where_that_is_asked_for():
    done = timed(
        "--config=configs/gan_gaussians.py", "--config.data.batch_size=64", "--rounds=1", "--steps=1", "--nosplit"
    )
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout)
    assert line["split"] == "--nosplit" and "forward_seconds" not in line and line["step_seconds"] > 0


def test_variants_are_flags_by_name():
    text = "half: config.method.encoder.dtype=bfloat16;big : config.data.split=train[:10%] config.duration=20 epochs"
    assert benchmark.variants(text) == {
        "half": ["--config.method.encoder.dtype=bfloat16"],
        "big": ["--config.data.split=train[:10%]", "--config.duration=20 epochs"],
    }
    assert benchmark.variants("") == {}
    for wrong in ("config.seed=1", "a: seed=1", "base: config.seed=1", "a: config.seed=1; a: config.seed=2", "a:"):
        with pytest.raises(UsageError, match=r"write NAME: config\.key=value"):
            benchmark.variants(wrong)


def started(*words):
    line = [sys.executable, "-m", "experiments.benchmark_start", *words]
    return subprocess.run(line, cwd=runs.REPOSITORY, capture_output=True, text=True, timeout=300)


def test_a_start_and_its_parts(config):
    done = started(f"--config={config}", "--times=1", "--", "--config.data.batch_size=8")
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout)
    for temperature in ("cold", "warm"):
        found = line[temperature]
        assert found["whole"] == pytest.approx(found["built"] + found["state"] + found["first_step"], abs=0.003)
        assert min(found.values()) > 0 and line["whole_range"][temperature] == [found["whole"]] * 2
    assert line["warm"]["state"] < line["cold"]["state"]


def test_a_start_that_fails_is_one_line(config):
    done = started(f"--config={config}", "--times=1", "--", "--config.data.batch_size=5000")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "before its first step was finished: error: config.data: batch_size=5000" in done.stderr
    done = started(f"--config={config}", "more")
    assert done.returncode == 2 and "overrides behind two dashes" in done.stderr
