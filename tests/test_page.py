"""A page is whole, escapes its title, and keeps what runs inside it from asking others."""

import pytest

from ssl_jax import charts, page
from tests import browser


def test_a_page_holds_its_title_body_styles_and_scripts_in_this_order():
    text = page.whole("<b> & co", "<h1>body</h1>", styles=[".own {}", ".more {}"], scripts=["one()", "two()"])
    order = ["<!doctype html>", "<title>&lt;b&gt; &amp; co</title>", charts.STYLE, page.STYLE, ".own {}", ".more {}"]
    order += ["<main>", "<h1>body</h1>", "</main>", "<script>one()</script>", "<script>two()</script>", "</html>"]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert 'name="viewport" content="width=device-width' in text


def test_a_page_that_runs_nothing_has_no_script_and_no_policy():
    text = page.whole("a", "b")
    assert "<script" not in text and "http" not in text


@pytest.mark.parametrize("part", ["styles", "scripts"])
def test_what_would_end_its_own_element_is_refused(part):
    with pytest.raises(ValueError, match="may not hold '</', as in '</script>'"):
        page.whole("a", "b", **{part: ["x </script>"]})


@browser.needs_chromium
def test_a_page_with_scripts_can_show_what_it_holds_and_load_nothing_else(tmp_path):
    pixel = (
        "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5"
        "ErkJggg=="
    )
    (tmp_path / "other.js").write_text("window.loaded = true;")
    (tmp_path / "other.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')
    body = f'<img id="in" src="{pixel}"><img id="out" src="other.svg"><script src="other.js"></script>'
    file = tmp_path / "index.html"
    file.write_text(page.whole("a", body, scripts=["window.ran = true"]))
    answer = browser.ask(
        tmp_path,
        file,
        """await sleep(200);
        return [window.ran, window.loaded === undefined, document.getElementById("in").naturalWidth,
          document.getElementById("out").naturalWidth];""",
    )
    assert answer["value"] == [True, True, 1, 0]
    assert answer["errors"] == ["blocked file"] * 2
