"""The whole road in small: pre-training pays, a broken recipe is noticed, and the first steps are pinned."""

import importlib
import json

import jax
import numpy as np
import pytest

from ssl_jax import build, loop
from ssl_jax.trainer import Trainer


def small(data_dir, **method):
    """The demo's config, shortened."""
    config = importlib.import_module("configs.simsiam_digits").get_config()
    config.data.data_dir = str(data_dir)
    config.duration = "60 epochs"
    config.evaluators.collapse.steps = "20 epochs"
    del config.evaluators.knn, config.evaluators.validation
    config.checkpoint.best = ""
    config.evaluators.probe.run.draws = 3
    del config.writers.console, config.writers.page
    plain = build.normalised(config.to_dict())
    plain["method"] |= method
    return plain


def fit(folder, config):
    return loop.fit(folder=folder, config=config, **build.arguments(loop.fit, config, given=("folder", "config")))


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


def test_pretraining_beats_raw_pixels_and_an_untrained_encoder(tmp_path, data_dir):
    summary = fit(tmp_path / "run", small(data_dir))
    for count in ("labels_1", "labels_3", "labels_10", "labels_all", "knn"):
        assert set(summary[count]) == {"raw_pixels", "untrained", "simsiam"}
        assert all(0.0 < accuracy <= 1.0 for accuracy in summary[count].values())
    # An untrained encoder of this shape gets 0.48 and 0.70; the margins are many times the spread over draws.
    assert summary["labels_1"]["simsiam"] > summary["labels_1"]["untrained"] + 0.1
    assert summary["labels_3"]["simsiam"] > summary["labels_3"]["untrained"] + 0.08
    assert summary["labels_1"]["simsiam"] > summary["labels_1"]["raw_pixels"] + 0.05
    assert summary["finished"] and summary["alarms"] == []
    written = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert written == json.loads(json.dumps(summary))


def test_no_stop_gradient_collapses_and_the_alarm_says_so(tmp_path, data_dir):
    config = small(data_dir, stop_gradient=False)
    del config["evaluators"]["probe"]
    config["duration"] = "40 epochs"
    summary = fit(tmp_path / "run", config)
    assert summary["last"]["train/loss"] < -0.9
    assert summary["last"]["eval/collapse/ratio"] < 0.2
    assert any("stop-gradient" in alarm["sentence"] for alarm in summary["alarms"])


def test_first_steps_are_what_they_were(data_dir, devices):
    """If a change is meant to alter training, say so in its commit and put the new numbers here."""
    config = small(data_dir)
    config["evaluators"], config["checkpoint"]["best"] = {}, ""
    parts = build.arguments(loop.fit, config, given=("folder", "config"))
    trainer = Trainer(parts["method"], parts["preprocess"], parts["data"].spec, seed=0, mesh=devices)
    batches = parts["data"].batches(devices, 0, 0)
    state, seen = trainer.untrained(), []
    for _ in range(2):
        state, metrics = trainer.step(state, next(batches))
        seen.append(dict(zip(trainer.metric_names, np.asarray(metrics).tolist(), strict=True)))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    assert parameters == GOLDEN["parameters"]
    for step, golden in zip(seen, GOLDEN["steps"], strict=True):
        assert step == pytest.approx(golden, rel=1e-3, abs=1e-5)


GOLDEN = {
    "parameters": 261856,
    "steps": [
        {"gradient_norm": 0.355066, "learning_rate": 0.4, "loss": -0.00273134, "output_deviation": 0.0619505},
        {"gradient_norm": 0.334072, "learning_rate": 0.399997, "loss": -0.00315573, "output_deviation": 0.0618935},
    ],
}
