"""The page is written last, after the files it reads, and its absence fails no run."""

import json

import pytest

from ssl_jax import log
from ssl_jax.writers import files, page


@pytest.fixture
def writer(make_run):
    return log.combine([settings.start(make_run()) for settings in (files.Files(), page.Page())])


def test_the_page_is_written_after_the_files_and_its_place_is_said(tmp_path, writer, capsys):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install matplotlib to run this test")
    writer.scalars(100, {"epoch": 10.0, "images": 3200, "seconds": 1.0, "train/loss": 0.5})
    writer.summary({"knn": {"simsiam": 0.987}})
    writer.close()
    assert capsys.readouterr().out == f"report: {tmp_path / 'report.html'}\n"
    assert "0.987" in (tmp_path / "report.html").read_text()


def test_a_damaged_file_fails_no_finished_run(tmp_path, writer, capsys):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install matplotlib to run this test")
    (tmp_path / "arrays.npz").write_bytes(b"PK")
    writer.close()
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(f"no report.html: {tmp_path / 'arrays.npz'} is damaged") and told.err.count("\n") == 1


def test_without_matplotlib_it_says_so_in_one_line(tmp_path, writer, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    writer.close()
    assert capsys.readouterr().err == "no report.html: a report needs matplotlib: pip install matplotlib\n"
    assert not (tmp_path / "report.html").exists()
    assert json.loads((tmp_path / "summary.json").read_text())["total_steps"] == 100
