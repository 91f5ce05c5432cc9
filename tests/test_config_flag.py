"""`experiments.config_flag`: JSON configs with typed overrides, and Python ones through ml_collections."""

import json
import subprocess
import sys

import pytest
from absl import flags

from experiments import config_flag
from ssl_jax.types import UsageError
from tests.runs import REPOSITORY

CONFIG = {
    "seed": 0,
    "duration": "20 epochs",
    "rate": 0.5,
    "flip": True,
    "channels": [16, 16],
    "data": {"batch_size": 64, "data_dir": "{folder}/data", "split": None},
    "optimizer": {"batch_size": 64},
}


@pytest.fixture
def read(tmp_path, monkeypatch):
    """The config and the words left, of a JSON file with these words behind it."""

    def run(*words, config=CONFIG):
        file = tmp_path / "config.json"
        file.write_text(json.dumps(config))
        with monkeypatch.context() as patch:
            patch.setattr(flags, "FLAGS", flags.FlagValues())
            flags.DEFINE_string("config", None, "", flag_values=flags.FLAGS)
            flag = config_flag.ConfigFlag()
            left = flags.FLAGS(flag.parse(["script", f"--config={file}", *words]))
            return flag.value, left[1:]

    return run


def test_a_file_as_it_is(read, tmp_path):
    config, left = read()
    assert left == []
    assert config == {
        **CONFIG,
        "channels": (16, 16),
        "data": {**CONFIG["data"], "data_dir": f"{tmp_path}/data"},
    }


def test_values_take_the_type_that_the_file_has(read):
    config, left = read(
        "--config.seed=3", "--config.duration=60", "--config.rate=1", "--noconfig.flip", "--config.channels=(8,)",
        "--config.data.split", "train[:10%]", "--config.data.batch_size=32", "--config.optimizer.batch_size=32", "more",
    )  # fmt: skip
    assert left == ["more"]
    assert (config["seed"], config["duration"], config["rate"], config["flip"]) == (3, "60", 1.0, False)
    assert isinstance(config["rate"], float) and config["channels"] == (8,) and config["data"]["split"] == "train[:10%]"
    assert read("--config.flip=false")[0]["flip"] is False and read("--config.flip")[0]["flip"] is True
    assert read("--", "--config.seed=3")[0]["seed"] == 0


@pytest.mark.parametrize(
    ("word", "says"),
    [
        (
            "--config.data.batchsize=3",
            "--config.data.batchsize: the config lists no such key; "
            "Did you mean batch_size instead of batchsize?",
        ),
        ("--config.x.y=3", "--config.x.y: the config lists no such key; only what its file lists can be set here"),
        ("--config.seed=abc", "flag --config.seed=abc: invalid literal for int() with base 10: 'abc'"),
        ("--config.seed=0.5", "flag --config.seed=0.5: invalid literal for int() with base 10: '0.5'"),
        ("--config.rate=fast", "flag --config.rate=fast: could not convert string to float: 'fast'"),
        ("--config.flip=maybe", "flag --config.flip=maybe: write true or false"),
        ("--config.channels=wide", "flag --config.channels=wide: write a tuple, such as (1,2) or ('a','b')"),
        ("--config.data=3", "--config.data=3: that is a section; set one of its keys: batch_size, data_dir, split"),
        ("--config.seed", "--config.seed needs a value: --config.seed=VALUE"),
        ("--noconfig.seed", "--noconfig.seed: only what is true or false is switched off by `no`"),
    ],
)  # fmt: skip
def test_mistakes(read, word, says):
    with pytest.raises(UsageError) as caught:
        read(word)
    assert str(caught.value) == says


def test_linked_places_change_together_and_others_are_named(read, capsys):
    linked = {**CONFIG, "linked": [["data.batch_size", "optimizer.batch_size"]]}
    config, _ = read("--config.optimizer.batch_size=32", config=linked)
    assert config["data"]["batch_size"] == config["optimizer"]["batch_size"] == 32 and "linked" not in config
    assert capsys.readouterr().err == ""
    config, _ = read("--config.data.batch_size=32")
    assert config["optimizer"]["batch_size"] == 64
    assert capsys.readouterr().err == "--config.data.batch_size=32 leaves config.optimizer.batch_size at 64\n"


def test_a_python_config_needs_its_package_and_says_so(child):
    done = child(
        """
        import sys
        from experiments import command, config_flag
        CONFIG = config_flag.define_config("the experiment")
        try:
            command.run(lambda arguments: None)
        except SystemExit as left:
            print(left.code)
        """,
        "--config=configs/simsiam_digits.py",
        blocked=("ml_collections",),
    )
    assert done.stdout == "2\n" and "experiments.pack --config=configs/simsiam_digits.py --out=DIR" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_python_config_and_its_links():
    source = (
        "from experiments import command, config_flag\nCONFIG = config_flag.define_config('the experiment')\n"
        "def main(arguments):\n"
        "    config = command.config_of(CONFIG)\n"
        "    print(config['data']['batch_size'], config['method']['optimizer']['batch_size'], CONFIG.file)\n"
        "    print(['data.batch_size', 'method.optimizer.batch_size'] in CONFIG.linked())\n"
        "command.run(main)\n"
    )
    words = ["--config=configs/simsiam_digits.py", "--config.data.batch_size=32"]
    done = subprocess.run([sys.executable, "-c", source, *words], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stdout == "32 32 configs/simsiam_digits.py\nTrue\n", done.stderr


def test_a_missing_or_damaged_file(read, tmp_path, monkeypatch):
    flag = config_flag.ConfigFlag()
    with pytest.raises(UsageError, match=r"--config=nothere.json: No such file"):
        flag.parse(["script", "--config", "nothere.json"])
    (tmp_path / "half.json").write_text("{")
    with pytest.raises(UsageError, match="is no JSON"):
        flag.parse(["script", f"--config={tmp_path}/half.json"])
    with pytest.raises(UsageError, match=r"--config.seed=1 needs --config=FILE as well"):
        flag.parse(["script", "--config.seed=1"])
