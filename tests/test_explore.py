"""`experiments.explore` on handwritten digits: its page in a real browser, its files, and one line for what cannot be.

One process runs all the cases, as flags are a process's own.
"""

import csv
import io
import json
import os
import pathlib
import subprocess
import sys

import cv2
import numpy as np
import pytest

from ssl_jax.data import write
from tests import browser, explore_subjects

NAMED = "cluster,name,images,central_image,most_common_class\n0,sevens,30,test 4,7\n"
ROOT = pathlib.Path(__file__).resolve().parents[1]
SCRIPT = """
import contextlib, io, json, pathlib, sys, traceback
from absl import flags
from absl.testing import flagsaver
from experiments import explore
from ssl_jax.types import RunError, UsageError

home, cases = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])
flags.FLAGS(["explore"])
answers = {}
for name, given in cases.items():
    out, err = io.StringIO(), io.StringIO()
    error = None
    with flagsaver.flagsaver(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        for flag, value in {"data_dir": str(home / "data"), **given}.items():
            flags.FLAGS[flag].value = value
        try:
            explore.main(["explore"])
        except (UsageError, RunError) as caught:
            error = [type(caught).__name__, str(caught)]
        except Exception:
            error = ["defect", traceback.format_exc()]
    answers[name] = {"out": out.getvalue(), "err": err.getvalue(), "error": error}
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("explore")
    explore_subjects.run_folder(home / "run")
    draw = np.random.default_rng(0)
    np.save(home / "features.npy", draw.normal(size=(60, 5)))
    np.save(home / "constant.npy", np.ones((60, 5)))
    np.save(home / "broken.npy", np.where(np.arange(60) == 4, np.nan, 1.0)[:, None] * draw.normal(size=(60, 5)))
    _write_unreadable(home / "data")
    (home / "foreign").mkdir()
    (home / "foreign" / "thesis.txt").write_text("mine")
    # An earlier exploration, in which a person has named a cluster.
    (home / "named").mkdir()
    (home / "named" / "cluster_names.csv").write_text(NAMED)
    (home / "mine.csv").write_text(NAMED)
    record = {"script": "experiments.explore", "files": ["cluster_names.csv"]}
    (home / "named" / "metrics.json").write_text(json.dumps(record))
    return home


def _write_unreadable(data_dir):
    """The data set `unreadable`, whose second image is no image."""
    whole = cv2.imencode(".png", np.zeros((8, 8, 1), np.uint8))[1].tobytes()

    def records():
        for row in range(6):
            yield row, {"image": b"rubbish" if row == 1 else whole, "id": f"photo-{row}"}

    with write.workspace(data_dir) as scratch:
        built = write.records("unreadable", {"train": records}, (8, 8, 1), (), scratch, ordered=True)
        write.publish(built, data_dir / "unreadable" / write.VERSION)


@pytest.fixture(scope="module")
def answers(home):
    small = {"images": 80, "mapped": 60, "most_clusters": 4}
    run = {"run": str(home / "run"), "data": "digits:test", **small}
    cases = {
        "run": {
            **run,
            "out": str(home / "by_run"),
            "train": "digits:train[:200]",
            "views": 2,
            "normal": list("01234567"),
        },
        "again": {**run, "out": str(home / "by_run")},
        "overwritten": {**run, "out": str(home / "by_run"), "overwrite": True, "views": 0, "clusters": 3},
        "named": {**run, "out": str(home / "named"), "overwrite": True, "parts": ["clusters"], "clusters": 3},
        "other names": {**run, "out": str(home / "named"), "overwrite": True, "names": str(home / "mine.csv")},
        "no names file": {**run, "names": str(home / "nowhere.csv"), "out": str(home / "n2")},
        "unknown part": {**run, "parts": ["pca"], "out": str(home / "n2")},
        "pixels": {"pixels": True, "data": "digits", "out": str(home / "by_pixels"), **small},
        "features": {"features": str(home / "features.npy"), "out": str(home / "by_features"), **small},
        "constant": {"features": str(home / "constant.npy"), "out": str(home / "by_constant"), **small},
        "not finite": {"features": str(home / "broken.npy"), "out": str(home / "n1")},
        "unreadable": {**run, "data": "unreadable:train", "out": str(home / "n3")},
        "foreign folder": {**run, "out": str(home / "foreign")},
        "nothing to explore": {"out": str(home / "n2"), "data": "digits:test"},
        "two to explore": {**run, "pixels": True, "out": str(home / "n2")},
        "no data": {"run": str(home / "run"), "out": str(home / "n2")},
        "no folder": {**run, "out": ""},
        "no such split": {**run, "data": "digits:tset", "out": str(home / "n2")},
        "no such set": {**run, "data": "digitss:test", "out": str(home / "n2")},
        "no run": {**run, "run": str(home / "foreign"), "out": str(home / "n2")},
        "too many clusters": {**run, "clusters": 80, "out": str(home / "n2")},
        "unknown class": {**run, "normal": ["cat"], "out": str(home / "n2")},
        "one view": {**run, "views": 1, "out": str(home / "n2")},
        "training features": {"features": str(home / "features.npy"), "train": "digits:train", "out": str(home / "n2")},
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(home), json.dumps(cases)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


def rows_of(file):
    return list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8"))))


def test_a_run_gives_a_page_and_every_file_that_it_names(answers, home):
    answer = answers["run"]
    assert answer["error"] is None, answer["error"]
    # The folder holds what the second call, with --overwrite, left.
    assert answers["overwritten"]["error"] is None
    found = metrics(home / "by_run")
    assert sorted(path.name for path in (home / "by_run").iterdir()) == sorted([*found["files"], "metrics.json"])
    assert {"index.html", "features.npz", "clusters.csv", "embedding.csv", "anomalies.csv"} <= set(found["files"])
    assert found["finished"] is True and found["failed"] == {} and found["left_out"] == {}
    assert found["images"] == found["explored_images"] == 80 and found["parts"]["clusters"]["kmeans"]["clusters"] == 3
    assert {"nmi", "ari", "silhouette"} <= found["parts"]["clusters"]["kmeans"].keys()
    with np.load(home / "by_run" / "features.npz") as arrays:
        assert arrays["features"].shape == (80, 6) and arrays["stage_projector"].shape == (80, 8)
    assert len(rows_of(home / "by_run" / "clusters.csv")) == len(rows_of(home / "by_run" / "anomalies.csv")) == 80
    assert len(rows_of(home / "by_run" / "embedding.csv")) == 60


def test_what_is_printed_says_the_verdict_and_the_numbers(answers):
    printed = answers["run"]["out"]
    for words in ("verdict: ", "principal components: ", "clusters: ", "odd ones: AUROC knn 0.", "copies: "):
        assert words in printed
    assert "for 8, 9" in printed and "of the training set" in printed


def test_a_folder_is_overwritten_only_when_told(answers, home):
    kind, told = answers["again"]["error"]
    assert kind == "UsageError" and "holds an earlier exploration" in told and "--overwrite" in told
    kind, told = answers["foreign folder"]["error"]
    assert kind == "UsageError" and "is not empty" in told
    assert (home / "foreign" / "thesis.txt").read_text() == "mine"


def test_an_image_that_cannot_be_read_is_named(answers, home):
    kind, told = answers["unreadable"]["error"]
    assert kind == "RunError" and "photo-1" in told and "not decode" in told and "\n" not in told
    assert not (home / "n3").exists()


def test_names_that_a_person_wrote_are_not_overwritten(answers, home):
    kind, told = answers["named"]["error"]
    assert kind == "UsageError" and "holds names that a person wrote: give it with --names=" in told
    kind, told = answers["other names"]["error"]
    assert kind == "UsageError" and "holds names that a person wrote" in told
    assert (home / "named" / "cluster_names.csv").read_text() == NAMED


def test_pixels_take_the_test_split_by_themselves_and_have_pictures(answers, home):
    assert answers["pixels"]["error"] is None, answers["pixels"]["error"]
    found = metrics(home / "by_pixels")
    assert found["explored"] == "raw pixels" and {"components.png", "reconstructions.png"} <= set(found["files"])
    names = {row["image"] for row in rows_of(home / "by_pixels" / "clusters.csv")}
    assert len(names) == 80


def test_features_alone_make_a_page_too(answers, home):
    assert answers["features"]["error"] is None, answers["features"]["error"]
    found = metrics(home / "by_features")
    assert list(found["parts"]) == ["health", "maps", "components", "clusters", "odd_ones", "neighbours"]
    assert "neighbours.png" not in found["files"]


def test_constant_features_get_their_verdict_and_nothing_else(answers, home):
    answer = answers["constant"]
    assert answer["error"] is None and "full collapse" in answer["out"]
    assert "clusters left out: the features are the same for all 60 images" in answer["err"]
    assert list(metrics(home / "by_constant")["parts"]) == ["health"]


@pytest.mark.parametrize(
    ("case", "told"),
    [
        ("not finite", "of 1 of 60 images are not finite, the first of them 'row 4'"),
        ("nothing to explore", "one of --run, --features and --pixels"),
        ("two to explore", "one of --run, --features and --pixels"),
        ("no data", "--data for its images"),
        ("no folder", "needs --out"),
        ("no such split", "no split 'tset'"),
        ("no such set", "digitss"),
        ("no run", "is no run folder"),
        ("too many clusters", "80 clusters of 80 images: ask for 2 to 79"),
        ("unknown class", "no class 'cat'"),
        ("one view", "--views=1"),
        ("no names file", "nowhere.csv: there is no such file"),
        ("unknown part", "no part 'pca': there are health"),
        ("training features", "--train goes with --run or --pixels"),
    ],
)
def test_what_cannot_be_is_one_line_and_leaves_nothing_behind(answers, home, case, told):
    kind, line = answers[case]["error"]
    assert kind == "UsageError" and told in line and "\n" not in line, line
    assert not (home / "n1").exists() and not (home / "n2").exists()


@browser.needs_chromium
@pytest.mark.parametrize("frame_px", [None, 360])
def test_the_page_in_a_browser_hovers_fits_and_asks_no_network(answers, home, tmp_path, frame_px):
    page = home / "by_run" / "index.html"
    answer = browser.ask(
        tmp_path,
        page,
        """
        const canvas = document.querySelector("canvas");
        canvas.scrollIntoView();
        canvas.focus();
        canvas.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true }));
        await sleep(300);
        const wide = [...document.querySelectorAll("main *")].filter((one) =>
          one.getBoundingClientRect().right > innerWidth + 1 && !one.closest(".wide") && !one.closest("svg"));
        return { text: document.body.innerText, wide: wide.map((one) => one.outerHTML.slice(0, 80)) };
        """,
        frame_px=frame_px,
    )
    assert answer["errors"] == [] and answer["loaded"] == []
    assert answer["scroll_width"] <= answer["inner_width"] and answer["value"]["wide"] == []
    names = {row["image"] for row in rows_of(home / "by_run" / "embedding.csv")}
    assert any(name in answer["value"]["text"] for name in names), "no hover text names an image"


@browser.needs_chromium
def test_a_screenshot_shows_more_than_paper(answers, home, tmp_path):
    import PIL.Image

    file = tmp_path / "page.png"
    browser.screenshot(tmp_path, home / "by_pixels" / "index.html", file, height_px=2400)
    pixels = np.asarray(PIL.Image.open(file).convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 200
