"""The page, the table and the figures of a comparison, read back."""

import csv
import dataclasses
import html.parser
import io
import re

import numpy as np
import pytest

from ssl_jax import comparison, report_comparison
from tests import browser, run_folders

pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install matplotlib to run these tests")


@pytest.fixture
def compared(tmp_path):
    return comparison.read(run_folders.two(tmp_path))


class Page(html.parser.HTMLParser):
    """The tables of a page as lists of (text, class) by line, and every tag with its attributes."""

    def __init__(self, text):
        super().__init__()
        self.lines, self.tags, self._cell = [], [], None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.lines.append([])
        if tag in ("td", "th"):
            self._cell = ["", dict(attrs).get("class", "")]

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.lines[-1].append(tuple(self._cell))
            self._cell = None

    def handle_data(self, data):
        if self._cell:
            self._cell[0] += data


def test_the_page_has_every_number_and_marks_the_best_run(compared):
    drawn = list(report_comparison.drawings(compared))
    text = report_comparison.write(compared, drawn)
    page = Page(text)
    lines = {line[0][0]: line[1:] for line in page.lines}
    assert lines["eval/knn/accuracy, best \u2191"] == [("0.9 (step 20)", "best"), ("0.7 (step 10)", "")]
    assert lines["eval/knn/error, last \u2193"] == [("0.1", "best"), ("0.4", "")]
    assert lines["train/loss, last"] == [("-0.2", ""), ("-0.2", "")]
    assert lines["state"][1][0] == "in progress or stopped at step 20 of 40"
    assert "Not finished: second: in progress or stopped at step 20 of 40." in text
    # What a user wrote is text.
    assert lines["config.method.note"] == [("absent", ""), ('"50% of <b>_x_</b>"', "")]
    assert "<b>" not in text
    configs = {name for name in lines if name.startswith("config.")}
    assert configs == set(compared.differences) and len(configs) == 4


def test_the_page_asks_nobody_and_runs_nothing(compared):
    text = report_comparison.write(compared, list(report_comparison.drawings(compared)))
    tags = Page(text).tags
    assert not {"script", "link", "iframe", "img"} & {tag for tag, _ in tags}
    loading = [value for _, attrs in tags for name, value in attrs.items() if name in ("src", "href", "xlink:href")]
    assert all(value.startswith("#") for value in loading)
    assert not re.search(r"url\((?!#)|@import", text)
    identifiers = [attrs["id"] for _, attrs in tags if "id" in attrs]
    assert len(set(identifiers)) == len(identifiers)


def test_a_control_shows_one_axis_at_a_time(compared):
    text = report_comparison.write(compared, list(report_comparison.drawings(compared)))
    tags = Page(text).tags
    radios = [attrs for tag, attrs in tags if tag == "input"]
    assert [attrs["id"] for attrs in radios] == ["axis-steps", "axis-epochs", "axis-time"]
    assert [attrs["id"] for attrs in radios if "checked" in attrs] == ["axis-steps"]
    assert {attrs["name"] for attrs in radios} == {"axis"}
    assert [attrs["for"] for tag, attrs in tags if tag == "label"] == [attrs["id"] for attrs in radios]
    for axis in ("steps", "epochs", "time"):
        assert f"#axis-{axis}:checked ~ .over-{axis}" in text
        inner = text.partition(f'<div class="over over-{axis}">')[2].partition('<div class="over')[0]
        assert inner.count("<svg") == 3


@browser.needs_chromium
@pytest.mark.parametrize("frame_px", [None, 360])
def test_a_browser_shows_one_axis_and_loads_nothing(compared, tmp_path, frame_px):
    file = tmp_path / "index.html"
    file.write_text(report_comparison.write(compared, list(report_comparison.drawings(compared))), encoding="utf-8")
    seen = """
      const shown = () => [...document.querySelectorAll(".over")].filter((e) => e.offsetParent).map((e) => e.className);
      const before = shown();
      document.querySelector('label[for="axis-time"]').click();
      return [before, shown()];
    """
    answer = browser.ask(tmp_path, file, seen, frame_px=frame_px)
    assert answer["value"] == [["over over-steps"], ["over over-time"]]
    assert answer["errors"] == [] and answer["loaded"] == []
    assert answer["scroll_width"] <= answer["inner_width"]


def test_equal_configs_are_said_to_be_equal(tmp_path):
    folders = [run_folders.write(tmp_path / name, config=run_folders.config()) for name in "ab"]
    compared = comparison.read(folders)
    assert list(report_comparison.drawings(compared)) == []
    text = report_comparison.write(compared, [])
    assert "the configs are the same" in text and "<h2>Curves" not in text and "<h2>Numbers" not in text


def test_figures_by_name_in_one_order_of_runs(tmp_path, monkeypatch):
    one, other = run_folders.two(tmp_path)
    extra = run_folders.lines([0.1, 0.2, 0.4])
    for line in extra:
        if "eval/knn/accuracy" in line:
            line["eval/c/deviation"], line["eval/c/healthy"], line["eval/once"] = 0.5, 0.125, 1.0
    del extra[-1]["eval/once"], extra[1]["eval/once"]
    third = run_folders.write(tmp_path / "third", config=run_folders.config(), lines=extra)
    asked = {}
    real = report_comparison.figures.lines

    def remember(series, **settings):
        asked[settings["label"]] = (series, settings)
        return real(series, **settings)

    monkeypatch.setattr(report_comparison.figures, "lines", remember)
    compared = comparison.read([one, third, other])
    drawn = list(report_comparison.drawings(compared))
    names = ["train_loss", "eval_knn_accuracy", "eval_knn_error", "eval_c_deviation"]
    assert [each.file for each in drawn] == [
        f"{name}-{axis}.png" for axis in ("steps", "epochs", "time") for name in names
    ]
    assert all(each.figure.png.startswith(b"\x89PNG") for each in drawn) and len(asked) == len(drawn) == 12
    series, settings = asked["eval/c/deviation of 3 runs over epochs"]
    assert settings["level"] == {"healthy": 0.125} and settings["x_label"] == "epoch"
    # A run without this scalar keeps its place, and so the others their colours.
    assert list(series) == ["first", "third", "second"] and len(series["first"][0]) == 0
    np.testing.assert_array_equal(series["third"], ([1, 2, 3], [0.5, 0.5, 0.5]))
    series, settings = asked["eval/knn/accuracy of 3 runs over wall time"]
    assert settings["x_label"] == "wall time (seconds)" and settings["level"] is None
    np.testing.assert_array_equal(series["second"], ([40, 80], [0.7, 0.6]))


def test_units_of_long_runs(compared):
    long = dataclasses.replace(compared.runs[0], seconds=7201.0)
    assert report_comparison._scale("time", dataclasses.replace(compared, runs=(long,))) == (
        3600.0,
        "wall time (hours)",
    )
    long = dataclasses.replace(compared.runs[0], seconds=130.0)
    assert report_comparison._scale("time", dataclasses.replace(compared, runs=(long,))) == (
        60.0,
        "wall time (minutes)",
    )


def test_names_that_become_one_file_name_stay_apart(tmp_path):
    lines = [{"step": step, "eval/a b": 0.1, "eval/a_b": 0.2} for step in (1, 2)]
    folders = [run_folders.write(tmp_path / name, config=run_folders.config(), lines=lines) for name in "ab"]
    drawn = list(report_comparison.drawings(comparison.read(folders)))
    # Without epochs and seconds there is nothing to draw over them.
    assert [each.file for each in drawn] == ["eval_a_b-steps.png", "eval_a_b-steps_.png"]


def test_csv_has_a_line_a_run_with_every_digit(compared):
    first, second = csv.DictReader(io.StringIO(report_comparison.as_csv(compared)))
    assert (first["run"], second["run"]) == ("first", "second")
    assert float(first["eval/knn/error (last)"]) == 1 - 0.9
    assert first["eval/knn/accuracy (best)"] == "0.9" and first["eval/knn/accuracy (best step)"] == "20"
    assert first["config.method.note"] == "absent" and second["config.method.note"] == '"50% of <b>_x_</b>"'
    assert (first["seconds"], second["seconds"]) == ("44.5", "80.0")
    assert {name for name in first if name.startswith("config.")} == set(compared.differences)


def test_latex_escapes_and_marks(compared):
    text = report_comparison.as_latex(compared)
    assert text.startswith("\\begin{tabular}{lrr}\n") and text.endswith("\\end{tabular}\n")
    assert "eval/knn/accuracy, best $\\uparrow$ & \\textbf{0.9 (step 20)} & 0.7 (step 10) \\\\" in text
    assert "train/loss, last & $-$0.2 & $-$0.2 \\\\" in text
    assert '"50\\% of \\textless{}b\\textgreater{}\\_x\\_\\textless{}/b\\textgreater{}"' in text
    assert "2 $\\times$ TPU v4" in text and text.isascii()
    rows = [line for line in text.splitlines() if line.endswith("\\\\")]
    assert len(rows) == 1 + 10 + 5 + 4
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {2}


def test_every_special_character_of_latex():
    assert report_comparison._tex(r"_%&#${}~^\ ") == (
        r"\_\%\&\#\$\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}"
    )


def test_the_printed_table_lines_up(compared):
    lines = report_comparison.as_text(compared).splitlines()
    found = {re.split(r"\s{2,}", line)[0]: re.split(r"\s{2,}", line)[1:] for line in lines[2:]}
    assert found["eval/knn/accuracy, best \u2191"] == ["0.9 (step 20)*", "0.7 (step 10)"]
    assert found["config.seed"] == ["7", "0"]
    assert max(map(len, lines)) < 120
