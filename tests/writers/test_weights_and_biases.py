"""Weights & Biases gets everything once, offline and resumed, read back here from its own files."""

import dataclasses
import json
import struct
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from ssl_jax import types
from ssl_jax.writers import weights_and_biases


def wandb_records(path):
    """The records of a W&B run file: a LevelDB log of protocol buffers."""
    from wandb.proto import wandb_internal_pb2

    content, position, parts = path.read_bytes(), 7, []
    assert content[:4] == b":W&B"
    while position + 7 <= len(content):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", content[position : position + 7])
        if position + 7 + length > len(content):
            return  # W&B is still writing
        parts.append(content[position + 7 : position + 7 + length])
        position += 7 + length
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(b"".join(parts))
            parts = []
            yield record


def finished_records(path):
    """All records of a run that has ended: W&B's own process writes them a little after `finish` has returned."""
    deadline = time.monotonic() + 30
    while True:
        records = list(wandb_records(path))
        if any(record.HasField("exit") for record in records):
            return records
        assert time.monotonic() < deadline, f"{path} has no end"
        time.sleep(0.05)


def labelled(run):
    experiment = {"type": "loop.Experiment", "paper": "P, arXiv 1", "group": "ours", "tags": ["x", "y"]}
    return dataclasses.replace(run, config={**run.config, "experiment": experiment})


@pytest.mark.filterwarnings("default")  # warnings inside wandb are not ours
def test_wandb_offline_twice_is_one_run_and_loses_nothing(tmp_path, monkeypatch, capsys, make_run, counts):
    pytest.importorskip("wandb", reason="wandb is not installed: pip install wandb to run this test")
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no_netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "settings"))
    monkeypatch.setattr(weights_and_biases, "_LATE_STEPS", 5)
    for first_step, mode in ((0, "offline"), (20, "online")):
        if first_step:
            time.sleep(1.1)  # W&B names its folders by the second
        writer = weights_and_biases.WandB(mode=mode, tags=("a",)).start(labelled(make_run(first_step)))
        for step in range(first_step + 1, first_step + 21):
            writer.progress(step)
            writer.scalars(step, {**counts(step), "eval/knn/accuracy": step / 64})
            if step > first_step + 3:
                writer.scalars(step - 3, {**counts(step - 3), "train/loss": step / 32})  # fetched late
        writer.images(first_step + 20, {"eval/knn/neighbours": np.full((4, 6, 3), 7, np.uint8)})
        writer.summary({"knn": {"simsiam": 0.5}})
        writer.alarm(first_step + 20, "it collapsed")
        writer.close()
    err = capsys.readouterr().err
    assert "no API key" in err
    assert "wandb sync" in err
    run_id = (tmp_path / "wandb_id.txt").read_text().strip()
    files = sorted((tmp_path / "wandb").glob(f"offline-run-*-{run_id}/*.wandb"))
    assert len(files) == 2
    found, alerts, config = {}, 0, {}
    for file in files:
        for record in finished_records(file):
            row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            if row:
                found.setdefault(row["_step"], {}).update(row)
            alerts += record.HasField("alert")
            config |= {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.run.config.update}
    accuracies = {step: row["eval/knn/accuracy"] for step, row in found.items() if "eval/knn/accuracy" in row}
    assert accuracies == {step: step / 64 for step in range(1, 41)}
    losses = {step: row["train/loss"] for step, row in found.items() if "train/loss" in row}
    assert losses == {step: (step + 3) / 32 for step in (*range(1, 18), *range(21, 38))}
    assert found[40]["eval/knn/neighbours/_type"] == "image-file"
    assert alerts == 2
    assert config["seed"] == 3 and config["experiment"]["paper"] == "P, arXiv 1"
    for file in files:
        (run,) = [record.run for record in finished_records(file) if record.HasField("run")]
        assert (run.run_id, run.project, run.run_group, run.notes) == (run_id, "ssl_jax", "ours", "P, arXiv 1")
        # The writer's own tags come before the config's.
        assert list(run.tags) == ["a"]


def test_wandb_missing_is_a_usage_error(monkeypatch, make_run):
    monkeypatch.setattr(weights_and_biases.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(types.UsageError, match="wandb is not installed"):
        weights_and_biases.WandB().start(make_run())


def given_to_wandb(monkeypatch, settings, run):
    """What the writer asks of wandb, which is not started."""
    wandb = pytest.importorskip("wandb", reason="wandb is not installed: pip install wandb to run this test")
    asked = []
    monkeypatch.setattr(wandb, "init", lambda **arguments: asked.append(arguments))
    settings.start(run)
    return asked[0]


def test_group_tags_and_paper_come_from_the_config(monkeypatch, make_run):
    asked = given_to_wandb(monkeypatch, weights_and_biases.WandB(), labelled(make_run()))
    assert (asked["group"], asked["tags"], asked["notes"]) == ("ours", ("x", "y"), "P, arXiv 1")
    own = weights_and_biases.WandB(group="mine", tags=("z",))
    asked = given_to_wandb(monkeypatch, own, labelled(make_run()))
    assert (asked["group"], asked["tags"], asked["notes"]) == ("mine", ("z",), "P, arXiv 1")


@pytest.mark.parametrize("experiment", [{}, {"experiment": None}, {"experiment": {"type": "loop.Experiment"}}])
def test_a_config_need_not_say_what_it_belongs_to(monkeypatch, make_run, experiment):
    run = make_run()
    run = dataclasses.replace(run, config={**run.config, **experiment})
    asked = given_to_wandb(monkeypatch, weights_and_biases.WandB(), run)
    assert (asked["group"], asked["tags"], asked["notes"]) == (None, (), None)


def test_in_a_sweep_the_run_is_the_agents(tmp_path, monkeypatch, make_run):
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep123")
    monkeypatch.setenv("WANDB_RUN_ID", "agent456")
    asked = given_to_wandb(monkeypatch, weights_and_biases.WandB(), make_run())
    assert asked["id"] is None and asked["project"] is None
    assert (tmp_path / "wandb_id.txt").read_text() == "agent456\n"
    # The same run started again, and another one that was sent to its folder.
    given_to_wandb(monkeypatch, weights_and_biases.WandB(), make_run())
    monkeypatch.setenv("WANDB_RUN_ID", "agent789")
    with pytest.raises(types.UsageError, match=r"holds run agent456 .* asks for agent789: .*WANDB_RUN_ID"):
        given_to_wandb(monkeypatch, weights_and_biases.WandB(), make_run())
    # Continued by hand, it is still that run.
    monkeypatch.delenv("WANDB_SWEEP_ID")
    monkeypatch.delenv("WANDB_RUN_ID")
    asked = given_to_wandb(monkeypatch, weights_and_biases.WandB(), make_run())
    assert (asked["id"], asked["project"]) == ("agent456", "ssl_jax")


class Started:
    """A run of W&B whose calls wait until `answers` is set."""

    def __init__(self, answers=None, fails=None):
        self.answers, self.fails, self.calls = answers or threading.Event(), fails, []
        self.summary = SimpleNamespace(update=lambda values: self.call("summary", values))

    def call(self, *words):
        self.answers.wait(60)
        if self.fails:
            raise self.fails
        self.calls.append(words)

    def log(self, row, step):
        self.call("log", step, row)

    def alert(self, **words):
        self.call("alert", words["text"])

    def finish(self):
        self.call("finish")


def writer_of(started, torn=None):
    return weights_and_biases.WandBWriter(
        started, make_image=lambda picture: ("image", picture.shape), tear_down=(torn or []).clear, send="wandb sync X"
    )


def test_everything_arrives_in_order_behind_the_training(counts):
    answers = threading.Event()
    started = Started(answers)
    writer = writer_of(started)
    began = time.monotonic()
    for step in range(1, 21):
        writer.scalars(step, {**counts(step), "train/loss": 1.0})
        writer.progress(step)
    writer.images(20, {"grid": np.zeros((2, 3, 3), np.uint8)})
    writer.alarm(20, "it collapsed")
    writer.summary({"knn": 0.5})
    assert time.monotonic() - began < 5 and not started.calls, "the training does not wait"
    answers.set()
    writer.close()
    assert [words[1] for words in started.calls if words[0] == "log"] == list(range(1, 21))
    assert started.calls[-1] == ("finish",)
    assert ("alert", "it collapsed") in started.calls and ("summary", {"knn": 0.5}) in started.calls
    assert [
        row["grid"] for name, step, *rest in started.calls[:-1] if name == "log" and step == 20 for row in rest
    ] == [("image", (2, 3, 3))]


def test_one_that_hangs_is_given_up_and_said_once(monkeypatch, capsys, counts):
    monkeypatch.setattr(weights_and_biases, "_FINISH_SECONDS", -4.0)
    monkeypatch.setattr(weights_and_biases, "_MOST_WAITING", 10)
    killed = []
    monkeypatch.setattr(weights_and_biases, "_kill_service", lambda: killed.append(True))
    started, torn = Started(), ["there"]
    writer = writer_of(started, torn)
    began = time.monotonic()
    for step in range(1, 101):
        writer.scalars(step, counts(step))
        writer.progress(step)
    writer.close()
    assert time.monotonic() - began < 10 and not started.calls and not torn and killed
    (line,) = capsys.readouterr().err.splitlines()
    assert "10 calls wait" in line and line.endswith("goes with: wandb sync X")
    started.answers.set()


def test_a_call_that_fails_costs_a_sentence_and_no_training(capsys, counts):
    answers = threading.Event()
    answers.set()
    writer = writer_of(Started(answers, fails=OSError("no route\nto it")))
    for step in range(1, 11):
        writer.scalars(step, counts(step))
        writer.progress(step)
    writer.close()
    (line,) = capsys.readouterr().err.splitlines()
    assert "(OSError: no route to it)" in line and "wandb sync X" in line


def test_nobody_who_answers_means_offline(monkeypatch, capsys, tmp_path, make_run):
    wandb = pytest.importorskip("wandb", reason="wandb is not installed: pip install wandb to run this test")
    asked, torn = [], []

    def init(*, mode, **arguments):
        asked.append(mode)
        assert arguments["settings"].init_timeout <= 30 and 0 < arguments["settings"].finish_timeout <= 60
        if mode == "online":
            raise wandb.errors.CommError("context deadline exceeded\nwhile retrying")
        return Started()

    monkeypatch.setattr(wandb, "login", lambda **words: True)
    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setattr(wandb, "teardown", lambda: torn.append(len(asked)))
    weights_and_biases.WandB(mode="online").start(make_run())
    assert asked == ["online", "offline"] and torn == [1]
    (line,) = capsys.readouterr().err.splitlines()
    assert "does not answer (context deadline exceeded while retrying), so this run is kept offline" in line
    assert f"wandb sync {tmp_path}/wandb/offline-run-*-{(tmp_path / 'wandb_id.txt').read_text().strip()}" in line
