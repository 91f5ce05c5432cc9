"""The sweep file, run as an agent of Weights & Biases runs it, but without a network."""

import importlib
import json
import os
import pathlib
import subprocess
import sys

import pytest

from tests import runs
from tests.writers.test_weights_and_biases import finished_records

yaml = pytest.importorskip("yaml", reason="wandb, which brings PyYAML, is not installed: pip install wandb")
sweeps = pytest.importorskip("wandb.sdk.launch.sweeps.utils", reason="wandb is not installed: pip install wandb")

FILES = sorted((runs.REPOSITORY / "sweeps").glob("*.yaml"))
VALUES = {
    "config.seed": 2,
    "config.method.optimizer.base_learning_rate": 0.7305,
    "config.method.predictor.hidden": 16,
    "config.duration": "1 steps",
}


def command_line(sweep, values):
    """What `wandb.wandb_agent` makes of a sweep's command and the values that the server sends."""
    filled = sweeps.create_sweep_command_args({"args": {name: {"value": value} for name, value in values.items()}})
    known = {"args": filled["args"], "env": ["/usr/bin/env"], "interpreter": ["python"], "program": [sweep["program"]]}
    words = []
    for word in sweeps.create_sweep_command(list(sweep["command"])):
        words += known[word[2:-1]] if word.startswith("${") and word.endswith("}") else [word]
    return words


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_parameter_is_a_flag_of_the_config(file):
    sweep = yaml.safe_load(file.read_text())
    assert file.stem in file.read_text().partition("wandb sweep")[2].partition("\n")[0]
    assert f"--config=configs/{file.stem}.py " in " ".join(sweep["command"]) and sweep["command"][-1] == "${args}"
    config = importlib.import_module(f"configs.{file.stem}").get_config()
    for name, parameter in sweep["parameters"].items():
        *sections, key = name.removeprefix("config.").split(".")
        place = config
        for section in sections:
            place = place[section]
        given = parameter.get("values", [parameter.get("value", parameter.get("min"))])
        assert all(type(value) is type(place[key]) for value in given), name
    assert sweep["metric"] == {"name": config.checkpoint.best, "goal": "maximize"}
    assert set(VALUES) == set(sweep["parameters"])


def test_a_run_of_the_agent_has_its_id_its_flags_and_a_folder_of_its_own(tmp_path):
    (file,) = FILES
    sweep = yaml.safe_load(file.read_text())
    config = tmp_path / "config.py"
    config.write_text(runs.CONFIG.format(data_dir=tmp_path / "data"))
    replaced = {"configs/simsiam_digits.py": str(config), "runs/sweep_digits": str(tmp_path / "runs")}
    words = command_line(sweep, VALUES)
    for old, new in replaced.items():
        assert sum(word.count(old) for word in words) == 1
        words = [word.replace(old, new) for word in words]
    parameters = tmp_path / "parameters.yaml"
    parameters.write_text(yaml.safe_dump({"wandb_version": 1, **{name: {"value": VALUES[name]} for name in VALUES}}))
    environment = {name: value for name, value in runs.environment(tmp_path / "cache").items() if "WANDB" not in name}
    environment |= {
        "PATH": f"{pathlib.Path(sys.executable).parent}{os.pathsep}{environment['PATH']}",
        "NETRC": str(tmp_path / "no_netrc"),
        "WANDB_CONFIG_DIR": str(tmp_path / "settings"),
        "WANDB_SWEEP_ID": "sweep123",
        "WANDB_RUN_ID": "agent456",
        "WANDB_SWEEP_PARAM_PATH": str(parameters),
    }
    done = subprocess.run(words, env=environment, cwd=runs.REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Ignor" not in done.stderr  # nothing was given that wandb takes from its agent
    folder = tmp_path / "runs" / "agent456"
    stored = json.loads((folder / "config.json").read_text())
    assert stored["seed"] == 2 and stored["duration"] == "1 steps"
    assert (
        stored["method"]["optimizer"]["base_learning_rate"] == 0.7305 and stored["method"]["predictor"]["hidden"] == 16
    )
    assert json.loads((folder / "summary.json").read_text())["finished"]
    (log,) = (folder / "wandb").glob("offline-run-*/*.wandb")
    (run,) = [record.run for record in finished_records(log) if record.HasField("run")]
    assert (run.run_id, run.sweep_id, run.run_group) == ("agent456", "sweep123", "simsiam_digits")
    assert "simsiam" in run.tags and "SimSiam" in run.notes
