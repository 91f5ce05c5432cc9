"""From a pre-trained run to a classifier and its predictions, through the scripts; and what a user gets wrong there."""

import csv
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import cv2
import jax
import numpy as np
import pytest
from sklearn import datasets

from ssl_jax import classifier, pretrained, run_lock
from ssl_jax.data import prepare, source
from ssl_jax.types import UsageError
from tests import runs

SHORT = ("--config.duration=100 steps", "--config.data.batch_size=64", "--config.method.optimizer.base_learning_rate=1")


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    """A small encoder, pre-trained for a minute fraction of the demo, and what children need."""
    folder = tmp_path_factory.mktemp("downstream")
    config = folder / "config.py"
    text = runs.CONFIG.replace("(16, 16)", "(16, 16, 16, 16)").replace("(2, 2)", "(2, 1, 2, 1)")
    config.write_text(text.format(data_dir=folder / "data"))
    env = runs.environment(folder / "cache")
    runs.train(config, folder / "encoder", "--config.duration=30", env=env)
    return folder, env


def command(setting, script, config, workdir, *more, run=None):
    folder, _ = setting
    return [
        *(sys.executable, "-m", f"experiments.{script}", f"--run={run or folder / 'encoder'}"),
        *(f"--config=configs/{config}", f"--workdir={workdir}", f"--config.data.data_dir={folder / 'data'}", *more),
    ]


def call(words, env, code=0):
    done = subprocess.run(words, env=env, cwd=runs.REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stdout + done.stderr
    if code:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
        return lines[0]
    return done.stdout


def _arrays(file):
    with np.load(file) as archive:
        return dict(archive)


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


@pytest.fixture(scope="module")
def tuned(setting):
    workdir = setting[0] / "tuned"
    few = ("--config.data.labels.per_class=5", "--config.data.labels.seed=2")
    printed = call(command(setting, "finetune", "finetune_digits.py", workdir, *SHORT, *few), setting[1])
    return workdir, printed


def test_a_probe_says_what_it_took_scores_it_and_proves_it_frozen(setting):
    workdir = setting[0] / "probe"
    printed = call(command(setting, "linear_probe", "probe_digits.py", workdir, *SHORT), setting[1])
    assert f"encoder of {setting[0] / 'encoder'}, its last checkpoint, step 30" in printed
    assert "test: accuracy 0." in printed and "macro F1" in printed
    found = summary(workdir)
    # Chance is 0.1; the floor is one that labels which do not belong to their images cannot reach.
    assert found["test"]["accuracy"] > 0.45
    assert found["finished"] and len(found["test"]["confusion"]) == 10
    expected = pretrained.read(str(setting[0] / "encoder")).sha256
    assert found["frozen"]["encoder"] == {"before": expected, "after": expected}
    assert pretrained.read(str(workdir)).sha256 == expected
    assert list((workdir / "images").glob("*confusion*.png")) and (workdir / "report.html").is_file()


@pytest.mark.parametrize(
    "script, config",
    [("linear_probe", "probe_digits.py"), ("finetune", "finetune_digits.py:staged")],
    ids=["probe", "staged"],
)
def test_a_run_killed_and_resumed_is_one_never_stopped(setting, script, config):
    folder, env = setting
    more = ("--config.duration=200 steps", "--config.checkpoint.every=5 steps", "--config.log_every=1 steps")
    more += ("--config.data.labels.per_class=5",)
    whole, broken = folder / f"whole_{script}", folder / f"broken_{script}"
    call(command(setting, script, config, whole, *more), env)
    seed = time.time_ns() % 2**32
    print(f"kills drawn with seed {seed}")
    draw, ended = random.Random(seed), []
    for _ in range(3):
        child = subprocess.Popen(
            command(setting, script, config, broken, *more), env=env, cwd=runs.REPOSITORY, stdout=subprocess.DEVNULL
        )
        lines = broken / "metrics.jsonl"
        goal = (lines.read_text().count("\n") if lines.is_file() else 0) + draw.randint(5, 50)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and child.poll() is None:
            if lines.is_file() and lines.read_text().count("\n") >= goal:
                break
            time.sleep(0.002)
        child.send_signal(signal.SIGKILL)
        ended.append(child.wait())
    assert ended.count(-signal.SIGKILL) >= 2
    call(command(setting, script, config, broken, *more), env)
    expected, result = _networks(whole), _networks(broken)
    assert expected.keys() == result.keys() and any("head" in name for name in expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(result[name], array, err_msg=name)
    scores = [summary(run)["test"] for run in (whole, broken)]
    assert scores[0] == scores[1]


def _networks(folder):
    """Every parameter and batch statistic of encoder and head."""
    read = {name: pretrained.read(str(folder), name) for name in ("encoder", "head")}
    trees = {name: {"params": network.params, "stats": network.stats} for name, network in read.items()}
    leaves = jax.tree_util.tree_flatten_with_path(trees)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves}


def test_fine_tuning_moves_the_encoder_and_keeps_the_rows_it_drew(setting, tuned):
    workdir, _ = tuned
    assert pretrained.read(str(workdir)).sha256 != pretrained.read(str(setting[0] / "encoder")).sha256
    rows = _arrays(workdir / "arrays.npz")["data/labelled"]
    assert len(rows) == 50 and len(set(rows)) == 50
    assert json.loads((workdir / "config.json").read_text())["data"]["class_names"] == list("0123456789")


def test_a_classifier_is_the_one_that_was_evaluated(setting, tuned):
    trained = classifier.load(tuned[0])
    scans = source.open_source("digits", "test", str(setting[0] / "data")).read_all()
    predicted = trained.probabilities(scans["image"]).argmax(axis=1)
    scores = summary(tuned[0])["test"]
    assert float(np.mean(predicted == scans["label"])) == pytest.approx(scores["accuracy"], abs=1e-9)
    confusion = np.zeros((10, 10), int)
    np.add.at(confusion, (scans["label"], predicted), 1)
    assert confusion.tolist() == scores["confusion"]
    assert scores["accuracy"] > 0.4


def test_predictions_agree_with_the_evaluation_and_a_broken_image_stops_nothing(setting, tuned, tmp_path):
    scans = datasets.load_digits()
    for index in range(1400, 1460):
        label = scans.target[index]
        folder = tmp_path / "in" / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{index}.png"), np.round(scans.images[index] * 255 / 16).astype(np.uint8))
    (tmp_path / "in" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"x" * 50)
    cv2.imwrite(str(tmp_path / "in" / "wide.jpg"), np.full((30, 50, 3), 200, np.uint8))
    (tmp_path / "in" / "notes.txt").write_text("no image")
    words = [sys.executable, "-m", "experiments.predict", f"--run={tuned[0]}", f"--input={tmp_path / 'in'}"]
    done = subprocess.run(
        [*words, f"--out={tmp_path / 'out.csv'}"], env=setting[1], cwd=runs.REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "broken.png" in done.stderr and "61 images classified, 1 broken left out" in done.stdout
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert list(rows[0]) == ["file", "class", "probability", "second_class", "second_probability"]
    assert len(rows) == 61 and {"wide.jpg"} == {row["file"] for row in rows if "/" not in row["file"]}
    assert all(float(row["probability"]) >= float(row["second_probability"]) for row in rows)
    assert all(row["class"] != row["second_class"] for row in rows)
    # The first 60 test scans in the data set's own order, through the evaluator's path.
    trained = classifier.load(tuned[0])
    images = source.open_source("digits", "test", str(setting[0] / "data")).read_rows(np.arange(60))["image"]
    expected = trained.probabilities(images)
    by_index = {int(row["file"].split("/")[1][:-4]): row for row in rows if "/" in row["file"]}
    for index in range(60):
        row = by_index[1400 + index]
        assert row["class"] == trained.class_names[expected[index].argmax()]
        assert float(row["probability"]) == pytest.approx(expected[index].max(), abs=2e-4)


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_an_exported_encoder_serves_as_a_run(setting, suffix):
    folder, env = setting
    file, workdir = folder / f"encoder.{suffix}", folder / f"from_{suffix}"
    words = [sys.executable, "-m", "experiments.export", f"--run={folder / 'encoder'}", f"--out={file}"]
    assert "its last checkpoint, step 30" in call(words, env)
    printed = call(command(setting, "linear_probe", "probe_digits.py", workdir, *SHORT, run=file), env)
    assert "an exported file" in printed
    assert pretrained.read(str(workdir)).sha256 == pretrained.read(str(folder / "encoder")).sha256


def test_from_scratch_shares_the_architecture_alone(setting):
    folder, env = setting
    printed = call(command(setting, "finetune", "finetune_digits.py:scratch", folder / "scratch", *SHORT), env)
    assert "begins at random" in printed
    config = json.loads((folder / "scratch" / "config.json").read_text())
    assert config["graft"] is None and config["method"]["encoder"]["channels"] == [16, 16, 16, 16]


def test_self_training_keeps_its_rounds_and_their_precision(setting):
    folder, env = setting
    more = ("--config.duration=30 steps", "--config.self_training.rounds=2", "--config.data.labels.per_class=3")
    words = command(setting, "pseudo_label", "pseudo_label_digits.py", folder / "pseudo", *more)
    printed = call(words, env)
    found = summary(folder / "pseudo")
    assert found["finished"] and [row["round"] for row in found["rounds"]] == [0, 1, 2]
    assert all(0 < row["kept_precision"] <= 1 and row["of"] == 1370 for row in found["rounds"][:2])
    assert found["test"]["accuracy"] == found["rounds"][2]["test_accuracy"]
    assert "kept_precision" in printed
    kept = [_arrays(folder / "pseudo" / f"guesses_{number}.npz") for number in (1, 2)]
    labelled = _arrays(folder / "pseudo" / "round_0" / "arrays.npz")["data/labelled"]
    assert all(0 < len(each["rows"]) <= 0.2 * 1370 + 10 for each in kept)
    assert not set(labelled) & set(kept[1]["rows"])
    arrays = _arrays(folder / "pseudo" / "round_2" / "arrays.npz")
    np.testing.assert_array_equal(arrays["data/guessed"], kept[1]["rows"])
    # A second start finds everything done, and changes nothing but who held the lock.
    files = [path for path in sorted((folder / "pseudo").rglob("*")) if path.is_file()]
    lock = folder / "pseudo" / "run.lock"
    before = {path: path.read_bytes() for path in files if path != lock}
    call(words, env)
    assert files == [path for path in sorted((folder / "pseudo").rglob("*")) if path.is_file()]
    assert before == {path: path.read_bytes() for path in files if path != lock}
    # One that is at work is not disturbed.
    with run_lock.held(folder / "pseudo"):
        assert "pseudo is being trained by process" in call(words, env, code=2)
    # The classifier that predict takes is the last round's.
    last = classifier.load(folder / "pseudo")
    scans = source.open_source("digits", "test", str(folder / "data")).read_all()
    hits = np.mean(last.probabilities(scans["image"]).argmax(axis=1) == scans["label"])
    assert hits == pytest.approx(found["test"]["accuracy"], abs=1e-9)


def test_self_training_stopped_between_and_within_rounds_goes_on(setting):
    folder, env = setting
    more = ("--config.duration=60 steps", "--config.data.labels.per_class=3", "--config.checkpoint.every=5 steps")
    whole, broken = folder / "pseudo_whole", folder / "pseudo_broken"
    call(command(setting, "pseudo_label", "pseudo_label_digits.py", whole, *more), env)
    child = subprocess.Popen(
        command(setting, "pseudo_label", "pseudo_label_digits.py", broken, *more),
        env=env,
        cwd=runs.REPOSITORY,
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not (broken / "round_1" / "checkpoints").is_dir() and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.002)
    with pytest.raises(UsageError, match="pseudo_broken is being trained by process"), run_lock.held(broken):
        pass
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL and not summary(broken)["finished"]
    guesses = (broken / "guesses_1.npz").read_bytes()
    call(command(setting, "pseudo_label", "pseudo_label_digits.py", broken, *more), env)
    assert (broken / "guesses_1.npz").read_bytes() == guesses
    assert summary(broken)["rounds"] == summary(whole)["rounds"]
    expected, result = _networks(whole / "round_1"), _networks(broken / "round_1")
    for name, array in expected.items():
        np.testing.assert_array_equal(result[name], array, err_msg=name)
    # Another file under the same name is no longer what the round began on.
    stored = _arrays(broken / "guesses_1.npz")
    with (broken / "guesses_1.npz").open("wb") as file:
        np.savez(file, **{**stored, "labels": (stored["labels"] + 1) % 10})
    (broken / "summary.json").unlink()
    line = call(command(setting, "pseudo_label", "pseudo_label_digits.py", broken, *more), env, code=2)
    assert "holds a run of another config: config.data.guesses.sha256" in line


def test_the_table_of_few_labels_has_every_cell_and_goes_on(setting):
    folder, env = setting
    words = [
        *(sys.executable, "-m", "experiments.few_labels", f"--run={folder / 'encoder'}", "--set=digits"),
        *(f"--out={folder / 'few'}", "--labels=2,all", "--steps=10,10", "--draws=2", f"--data_dir={folder / 'data'}"),
    ]
    printed = call(words, env)
    file = folder / "few" / "few_labels_probe_finetune_staged_scratch_pseudo.json"
    found = json.loads(file.read_text())["accuracies"]
    assert {way: sorted(cells) for way, cells in found.items()} == {
        **{way: ["2", "all"] for way in ("probe", "finetune", "staged", "scratch")},
        "pseudo": ["2"],
    }
    assert all(len(values) == 2 for cells in found.values() for values in cells.values())
    assert re.search(r"^scratch +0\.\d{3} ± 0\.\d{3} +0\.\d{3} ± 0\.\d{3}$", printed, re.MULTILINE)
    rows = [
        _arrays(folder / "few" / way / "labels_2" / "draw_1" / "arrays.npz")["data/labelled"]
        for way in ("probe", "scratch")
    ]
    np.testing.assert_array_equal(*rows)
    again = call(words, env)
    assert again == printed and json.loads(file.read_text())["accuracies"] == found
    assert "takes no --workdir" in call([*words, "--workdir=x"], env, code=2)
    assert "there is no configs/probe_digitz.py" in call([*words, "--set=digitz"], env, code=2)


def test_the_fast_form_trains_no_step_and_gives_a_table(setting):
    folder, env = setting
    printed = call(command(setting, "linear_probe", "probe_digits.py:fast", folder / "fast"), env)
    assert "labels" in printed and "encoder" in printed
    found = summary(folder / "fast")
    assert found["finished"] and found["step"] == 0
    assert found["labels_10"]["encoder"] > found["labels_1"]["encoder"]


def images(folder, shape, classes=("0", "1"), count=4):
    """Class folders of noise below train and test."""
    draw = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in classes:
            place = folder / split / name
            place.mkdir(parents=True)
            for index in range(count):
                cv2.imwrite(str(place / f"{index}.png"), draw.integers(0, 256, shape, dtype=np.uint8))
    return folder


@pytest.fixture(scope="module")
def other_sets(setting, tmp_path_factory):
    """A set in colour, one without labels, and one whose test classes are other ones."""
    folder, data_dir = tmp_path_factory.mktemp("images"), str(setting[0] / "data")
    prepare.images(str(images(folder / "colour", (8, 8, 3))), "colour", data_dir, "fatal", False)
    flat = folder / "flat"
    flat.mkdir()
    for file in (folder / "colour" / "train" / "0").iterdir():
        shutil.copy(file, flat)
    prepare.images(str(flat), "flat", data_dir, "fatal", False)
    prepare.images(str(images(folder / "letters", (8, 8), ("a", "b"))), "letters", data_dir, "fatal", False)


@pytest.mark.parametrize(
    "overrides, says",
    [
        (("--config.data.name=colour",), "images of 3 channel(s), and the encoder of"),
        (("--config.data.name=flat",), "has no labels"),
        (("--config.data.labels.per_class=200",), "labelled images, fewer than the 200 asked for"),
        (("--config.data.labels.per_class=2", "--config.data.labels.share=0.5"), "give one of the two"),
        (("--config.method.train=all",), "takes a config whose method.train is 'head'; here it is 'all'"),
        (("--checkpoint=best",), "knows no best checkpoint"),
        (
            ("--config.data.split=train+test",),
            "397 images are in split 'train+test' of 'digits', which the run trains on",
        ),
        (
            ("--config.data.split=train[:8]", "--config.data.labels.share=0.5"),
            "has 0 labelled images, fewer than the 1",
        ),
        (("--config.method.encodr=3",), "no such key"),
    ],
)
def test_what_a_user_gets_wrong_is_one_line(setting, other_sets, tmp_path, overrides, says):
    line = call(command(setting, "linear_probe", "probe_digits.py", tmp_path / "new", *overrides), setting[1], code=2)
    assert says in line
    assert not (tmp_path / "new").exists()


def test_a_test_set_of_other_classes_is_refused(setting, other_sets, tmp_path):
    (tmp_path / "other.py").write_text(
        "from configs.probe_digits import get_config as digits\n\n\ndef get_config():\n    config = digits()\n"
        "    examples = config.evaluators.test.run.examples.to_dict() | {'name': 'letters'}\n"
        "    config.evaluators.test.run.examples = examples\n    return config\n"
    )
    words = command(setting, "linear_probe", "probe_digits.py", tmp_path / "new")
    words = [f"--config={tmp_path / 'other.py'}" if word.startswith("--config=") else word for word in words]
    words.append(f"--config.evaluators.test.run.examples.data_dir={setting[0] / 'data'}")
    line = call(words, setting[1], code=2)
    assert "'letters'" in line and "other classes than the run was trained for: it lacks 0, 1, 2, 3, 4" in line
    assert not (tmp_path / "new").exists()


def test_self_training_guesses_at_nothing_that_is_tested_on(setting, tmp_path):
    words = command(setting, "pseudo_label", "pseudo_label_digits.py", tmp_path / "new")
    line = call([*words, "--config.self_training.unlabelled.split=test"], setting[1], code=2)
    # One reference holds both splits, so the training split changes with it and is refused first.
    assert "which it is tested on: choose splits that do not meet" in line
    assert "all 1400 images are labelled" in call(words, setting[1], code=2)
    assert not (tmp_path / "new").exists()
    assert "runs in one process" in call([*words, "--processes=2"], setting[1], code=2)


def test_a_script_goes_on_from_the_checkpoint_it_began_from(setting, tmp_path):
    """Pre-training may go on meanwhile: its newer checkpoints are another encoder."""
    folder, env = setting
    encoder = shutil.copytree(folder / "encoder", tmp_path / "encoder")
    words = command(setting, "linear_probe", "probe_digits.py", tmp_path / "probe", *SHORT, run=encoder)
    call(words, env)
    shutil.copytree(encoder / "checkpoints" / "25", encoder / "checkpoints" / "35")
    assert "step 30" in call(words, env)


def test_what_is_no_run_is_one_line(setting, tmp_path):
    folder, env = setting
    for run, says in ((tmp_path / "nothing", "there is no run folder"), (folder, "is no run folder")):
        words = command(setting, "linear_probe", "probe_digits.py", tmp_path / "new", run=run)
        assert says in call(words, env, code=2)
    words = [sys.executable, "-m", "experiments.predict", f"--run={folder / 'encoder'}", f"--input={tmp_path}"]
    assert "holds no images" in call(words, env, code=2)  # no image lies there
    images(tmp_path / "in", (8, 8))
    words[-1] = f"--input={tmp_path / 'in'}"
    assert "is no classifier's run (methods.simsiam.SimSiam)" in call(words, env, code=2)
    assert "needs --run" in call([*words[:3], "--input=x"], env, code=2)


def test_a_run_of_another_encoder_is_refused_without_harm(setting, tuned):
    env = setting[1]
    before = {path: path.read_bytes() for path in sorted(tuned[0].rglob("*")) if path.is_file()}
    few = ("--config.data.labels.per_class=5", "--config.data.labels.seed=2")
    words = command(setting, "finetune", "finetune_digits.py", tuned[0], *SHORT, *few, run=tuned[0])
    assert "holds a run of another config: config.graft.sha256" in call(words, env, code=2)
    assert before == {path: path.read_bytes() for path in sorted(tuned[0].rglob("*")) if path.is_file()}
