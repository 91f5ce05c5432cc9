"""What a run belongs to is checked as every section, and decides nothing."""

import importlib
import json
import pathlib

import pytest

from configs import simsiam_fashion_mnist
from ssl_jax import build, loop, run_folder
from ssl_jax.types import UsageError

CONFIGS = sorted((pathlib.Path(__file__).resolve().parents[1] / "configs").glob("[!_]*.py"))


def config(**experiment):
    plain = simsiam_fashion_mnist.get_config().to_dict()
    plain["experiment"] |= experiment
    return plain


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_every_config_says_what_its_runs_belong_to(file):
    module = importlib.import_module(f"configs.{file.stem}")
    experiment = build.section(module.get_config().experiment.to_dict(), "config.experiment")
    assert experiment.group == file.stem and file.stem.startswith(experiment.tags[0])
    assert (
        all(isinstance(tag, str) for tag in experiment.tags) and len(set(experiment.tags)) == len(experiment.tags) > 1
    )
    # A classifier that only judges follows no paper.
    assert bool(experiment.paper) != file.stem.startswith("classify")


def test_a_misspelt_key_is_refused_by_its_path():
    with pytest.raises(UsageError, match=r"^config\.experiment\.grup: .*did you mean 'group'\?"):
        build.check(loop.fit, config(grup="x"), given=("folder", "config"))
    with pytest.raises(UsageError, match=r"^config\.experiment\.tags='digits' should be"):
        build.check(loop.fit, config(tags="digits"), given=("folder", "config"))


@pytest.mark.parametrize("tag", ["", "x" * 65])
def test_a_tag_that_weights_and_biases_would_refuse(tag):
    with pytest.raises(UsageError, match=r"config\.experiment: tags holds .*1 to 64"):
        build.section(config(tags=("fine", tag))["experiment"], "config.experiment")


def test_a_run_goes_on_under_another_name_or_without_one(tmp_path):
    told = config()
    untold = {key: value for key, value in told.items() if key != "experiment"}
    run_folder.claim(tmp_path, untold)
    run_folder.claim(tmp_path, told)
    run_folder.claim(tmp_path, config(group="another", tags=()))
    assert json.loads((tmp_path / "config.json").read_text())["experiment"]["group"] == "another"
    run_folder.claim(tmp_path, untold)
    with pytest.raises(UsageError, match=r"config\.seed is 0 there, 1 here"):
        run_folder.claim(tmp_path, {**told, "seed": 1})


def test_an_empty_list_says_what_an_absent_key_says():
    before, empty, filled = ({"data": {"name": "digits", **more}} for more in ({}, {"without": []}, {"without": ["8"]}))
    assert run_folder._deciding(before) == run_folder._deciding(empty) != run_folder._deciding(filled)


def test_a_data_file_may_move_if_its_name_says_what_is_inside(tmp_path):
    def told(file):
        return {**config(), "data": {"type": "data.resident.npz", "file": file, "batch_size": 8}}

    one, other = "digits-0123456789abcdef.npz", "digits-fedcba9876543210.npz"
    run_folder.claim(tmp_path / "packed", told(f"/here/{one}"))
    run_folder.claim(tmp_path / "packed", told(f"elsewhere/{one}"))
    assert json.loads((tmp_path / "packed" / "config.json").read_text())["data"]["file"] == f"elsewhere/{one}"
    with pytest.raises(UsageError, match=rf"config\.data\.file is '{one}' there, '{other}' here"):
        run_folder.claim(tmp_path / "packed", told(f"elsewhere/{other}"))
    run_folder.claim(tmp_path / "own", told("/a/images.npz"))
    with pytest.raises(UsageError, match=r"config\.data\.file is '/a/images\.npz' there, '/b/images\.npz' here"):
        run_folder.claim(tmp_path / "own", told("/b/images.npz"))
