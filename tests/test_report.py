"""The page shows what the run folder holds, escaped, and asks nobody for anything."""

import dataclasses
import html.parser
import json
import re

import numpy as np
import pytest

from ssl_jax import report, types
from ssl_jax.writers import files

pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install matplotlib to run these tests")

EVIL = '<script>alert("1")</script>'


@dataclasses.dataclass
class Found(html.parser.HTMLParser):
    """The tags, attributes and text of a page; fails on tags that are not closed in order."""

    def __post_init__(self):
        super().__init__()
        self.open, self.tags, self.text, self.by_tag = [], [], [], {}

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        self.by_tag.setdefault(self.open[-1] if self.open else "", []).append(data)


def parse(path):
    found = Found()
    found.feed(path.read_text(encoding="utf-8"))
    found.close()
    assert found.open == []
    return found


@pytest.fixture
def run(tmp_path):
    config = {
        "seed": 7,
        "method": {"type": "methods.simsiam.SimSiam", "note": EVIL},
        "data": {"type": "data.resident.Resident", "source": {"name": f"digits{EVIL}", "split": "train[:1400]"}},
    }
    return types.Run(tmp_path / "run", config, first_step=0, total_steps=200, steps_per_epoch=10, batch_size=32)


@pytest.fixture
def written(run):
    writer = files.Files().start(run)
    (run.folder / "config.json").write_text(json.dumps(run.config, indent=2))
    random = np.random.default_rng(0)
    for step in range(1, 201):
        values = {"epoch": step / 10, "images": step * 32, "seconds": step / 8}
        writer.progress(step)
        writer.scalars(step, {**values, "train/loss": -step / 200})
        if step % 50 == 0:
            writer.scalars(step, {**values, "eval/collapse/deviation": 0.05, "eval/collapse/healthy": 0.088})
            writer.images(
                step,
                {
                    "eval/knn/neighbours": np.full((8, 8, 3), step, np.uint8),
                    "batch/view_1": np.zeros((4, 4, 3), np.uint8),
                },
            )
    writer.arrays(
        200,
        {
            "eval/linear/map/simsiam": random.normal(size=(60, 2)),
            "eval/linear/map/raw_pixels": random.normal(size=(60, 2)),
            "eval/linear/map_labels": np.arange(60) % 3 - 1,
            "eval/linear/map_classes": np.array(["zero", EVIL]),
            "eval/linear/map_explained/simsiam": np.array([0.3, 0.12]),
            "eval/test/confusion": np.array([[900, 37], [12, 288]]),
            "eval/test/confusion_classes": np.array(["zero", EVIL]),
        },
    )
    writer.summary(
        {
            "labels_1": {"simsiam": 0.8014, "raw_pixels": 0.5716, EVIL: 0.1},
            "labels_1_std": {"simsiam": 0.0207},
            "labels_all": {"simsiam": 0.977, "raw_pixels": np.nan},
            "knn": {"simsiam": 0.98},
            "test": {
                "examples": 1237,
                "accuracy": 0.9604,
                "accuracy_interval": [0.9491, 0.9712],
                "macro_f1": 0.9475,
                "macro_f1_interval": [0.9333, 0.9611],
                "calibration_error": 0.0214,
                "level": 0.95,
                "classes": {
                    "zero": {"precision": 0.9868, "recall": 0.9605, "f1": 0.9735, "support": 937},
                    EVIL: {"precision": 0.8862, "recall": 0.96, "f1": 0.9216, "support": 300},
                },
            },
            f"val{EVIL}": {"accuracy": 0.5, "accuracy_interval": [0, 1], "macro_f1": 0.4, "classes": {}},
            "bad": {"examples": 7, "not_finite": 3},
        }
    )
    writer.alarm(150, f"the output has collapsed {EVIL}")
    writer.close()
    return report.write(run.folder)


def test_the_page_shows_what_the_folder_holds(written):
    found = parse(written)
    text = " ".join(" ".join(found.text).split())
    for expected in (
        f"SimSiam on digits{EVIL} (train[:1400])",
        "With 1 label a class, 80.1% of the test images",
        "57.2% from raw pixels",
        "200 of 200 steps (20 epochs)",
        "seed 7",
        f"Step 150: the output has collapsed {EVIL}",
        "0.801 ± 0.021",
        "train/loss",
        "Last -1.",
        "Dashed",
        "The two axes hold 42% of the variance.",
        "zero",
        "test 0.960 0.949 to 0.971 \N{EN DASH} 0.948 0.933 to 0.961 0.021 1,237",
        f"val{EVIL} 0.500 0.000 to 1.000 \N{EN DASH} 0.400 \N{EN DASH} \N{EN DASH}",
        "the interval that holds 95% of the scores",
        "class precision recall F1 images zero 0.987 0.961 0.974 937",
        f"{EVIL} 0.886 0.960 0.922 300",
        f"37 of 937 images of zero were taken for {EVIL}, and 12 of 300 the other way round.",
        f'note: "{EVIL}"'.replace('("1")', '(\\"1\\")'),
        "What the network sees",
        "step 200",
        "Earlier pictures of eval_knn_neighbours (3 of 3)",
        "jax",
    ):
        assert expected in text
    labels = [attributes["aria-label"] for tag, attributes in found.tags if tag == "svg"]
    assert len(labels) == 6  # accuracy against labels, two curves (healthy is a line in one), two maps, a confusion
    assert "not_finite" not in text
    assert sum(tag == "img" for tag, _ in found.tags) == 2 * 4
    assert all(attributes["alt"] for tag, attributes in found.tags if tag == "img")
    assert all("scope" in attributes for tag, attributes in found.tags if tag == "th")
    assert ("section", {"class": "alarms", "role": "alert"}) in found.tags


def test_the_page_asks_nobody_and_runs_nothing(written):
    page = written.read_text(encoding="utf-8")
    assert "http" not in page
    found = parse(written)
    assert not {tag for tag, _ in found.tags} & {"script", "link", "iframe", "object", "embed"}
    for _, attributes in found.tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href"):
                assert value.startswith(("data:image/png;base64,", "#"))
    assert "@import" not in page
    assert EVIL not in page
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", page))


def test_ids_are_unique_and_every_reference_has_its_target(written):
    found = parse(written)
    ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    page = written.read_text(encoding="utf-8")
    targets = re.findall(r'xlink:href="#([^"]+)"', page) + re.findall(r"url\(#([^)]+)\)", page)
    assert targets
    assert set(targets) <= set(ids)


def test_missing_parts_are_left_out(run, written):
    for name in ("arrays.npz", "summary.json", "config.json"):
        (run.folder / name).unlink()
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5')
    found = parse(report.write(run.folder))
    assert "".join(found.by_tag["h1"]) == "run"
    assert "What the features are worth" not in found.text
    assert "Maps of the features" not in found.text
    assert "How well it classifies" not in found.text
    assert "What is taken for what" not in found.text
    assert "Curves" in found.text


def test_a_folder_without_a_run_is_a_usage_error(tmp_path):
    with pytest.raises(types.UsageError, match="no run folder"):
        report.write(tmp_path)


def test_a_damaged_file_is_named(run, written):
    (run.folder / "summary.json").write_text("{")
    with pytest.raises(types.RunError, match=r"summary\.json is damaged"):
        report.write(run.folder)


@pytest.mark.parametrize("kept", [0, 3, 200, -40])
def test_a_damaged_array_file_is_named(run, written, kept):
    path = run.folder / "arrays.npz"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(types.RunError, match=r"arrays\.npz is damaged"):
        report.write(run.folder)


@pytest.mark.parametrize("kept", [0, 20, -5])
def test_a_cut_off_picture_is_named(run, written, kept):
    path = run.folder / "images" / "batch_view_1-00000100.png"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(types.RunError, match=r"batch_view_1-00000100\.png is damaged"):
        report.write(run.folder)


def test_a_line_of_metrics_without_an_epoch_is_named(run, written):
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 201, "train/loss": 1.0}\n')
    with pytest.raises(types.RunError, match=r"metrics\.jsonl is damaged \(no epoch on the line of step 201\)"):
        report.write(run.folder)


def test_nothing_on_the_page_but_its_name_depends_on_the_method(run, written):
    """Charts are left out here: matplotlib lays them out by the width of the names."""

    def tell(path):
        return re.sub(r"<svg.*?</svg>", "", path.read_text(), flags=re.DOTALL)

    before = tell(written)
    for name in ("config.json", "summary.json"):
        path = run.folder / name
        path.write_text(path.read_text().replace("SimSiam", "Another").replace("simsiam", "another"))
    with np.load(run.folder / "arrays.npz") as stored:
        arrays = {name.replace("simsiam", "another"): stored[name] for name in stored.files}
    np.savez(run.folder / "arrays.npz", **arrays)
    after = tell(report.write(run.folder))
    assert "SimSiam" in before
    assert after == before.replace("SimSiam", "Another").replace("simsiam", "another")


def translated_run(folder, *, count, step=30, data=None, summary=None):
    """The page about a run that wrote `a_to_b` so often, each picture of a tone of its own, and `samples` as often."""
    data = data or {"type": "data.unpaired.training", "name": "no"}
    config = {"seed": 0, "method": {"type": "methods.cyclegan.CycleGAN"}, "data": {"preprocess": {}, **data}}
    run = types.Run(folder, config, first_step=0, total_steps=900, steps_per_epoch=60, batch_size=1)
    writer = files.Files().start(run)
    (run.folder / "config.json").write_text(json.dumps(config))
    for number in range(1, count + 1):
        tone = np.full((8, 6, 3), number, np.uint8)
        names = ("eval/translation/a_to_b", "eval/samples/samples")
        writer.images(number * step, dict.fromkeys(names, tone))
    writer.summary(summary or {})
    writer.close()
    return parse(report.write(run.folder))


def pictures_of(found, name):
    """(alternative text, PNG) of the pictures of that name, in order."""
    images = [attributes for tag, attributes in found.tags if tag == "img"]
    return [(image["alt"], image["src"]) for image in images if image["alt"].startswith(name)]


@pytest.mark.parametrize(
    ("count", "shown"), [(2, [1, 2]), (8, [1, 2, 3, 4, 5, 6, 7, 8]), (20, [1, 4, 6, 9, 12, 15, 17, 20])]
)
def test_translations_stand_side_by_side_in_the_order_of_epochs(tmp_path, count, shown):
    found = translated_run(tmp_path / "run", count=count)
    pictures = pictures_of(found, "eval_translation_a_to_b")
    assert [alt for alt, _ in pictures] == [f"eval_translation_a_to_b at step {number * 30}" for number in shown]
    assert len({source for _, source in pictures}) == len(shown)
    # Nothing to unfold around them, and nothing to follow.
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    strip = page[page.index('<div class="strip"') :]
    assert strip[: strip.index("</div>")].count("<img") == len(shown)
    assert found.by_tag["strong"] == [f"epoch {number / 2:.4g}" for number in shown]
    text = " ".join(found.text)
    assert "Each row: an image, its translation, the way back, and, where there is a fourth, what the gen" in text
    assert ("all of them" if count <= 8 else f"8 of {count}") in text
    assert "Earlier pictures of eval_samples_samples" in text
    assert "Earlier pictures of eval_translation" not in text


def test_a_single_translation_is_a_picture_like_others(tmp_path):
    found = translated_run(tmp_path / "run", count=1)
    assert len(pictures_of(found, "eval_translation_a_to_b")) == 1
    assert "strip" not in {attributes["class"] for _, attributes in found.tags if "class" in attributes}
    assert "the way back" in " ".join(found.text)


def test_without_a_summary_pictures_side_by_side_are_told_by_their_step(tmp_path):
    translated_run(tmp_path / "run", count=3)
    (tmp_path / "run" / "summary.json").unlink()
    found = parse(report.write(tmp_path / "run"))
    assert found.by_tag["strong"] == ["step 30", "step 60", "step 90"]


def test_the_title_names_both_domains(tmp_path):
    data = {"name_a": f"digits{EVIL}", "split_a": "trainA", "name_b": "photos", "split_b": "trainB", "name": "no"}
    found = translated_run(tmp_path / "run", count=1, data=data)
    assert "".join(found.by_tag["h1"]) == f"CycleGAN on digits{EVIL} (trainA) and photos (trainB)"


def test_how_true_translations_are(tmp_path):
    numbers = {"psnr_ab": 21.347, "psnr_ba": 9.0, "error_ab": 0.04123, "error_ba": 0.3}
    entry = {"examples": 1234, **numbers, "read_ab": 0.91, "read_real_b": 0.98}
    summary = {f"digits{EVIL}": entry, "broken": {"examples": 3, "not_finite": 1}}
    found = translated_run(tmp_path / "run", count=1, summary=summary)
    text = " ".join(" ".join(found.text).split())
    assert f"digits{EVIL}, A to B 21.35 0.0412 0.910 0.980 1,234" in text
    assert f"digits{EVIL}, B to A 9.00 0.3000 \N{EN DASH} \N{EN DASH} 1,234" in text
    assert "broken" not in text
    assert EVIL not in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "How true" not in " ".join(translated_run(tmp_path / "other", count=1).text)
