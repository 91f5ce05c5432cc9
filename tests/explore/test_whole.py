"""The whole: every part on one page, a part that fails named on it while the others stand."""

import dataclasses

import numpy as np
import pytest

from ssl_jax.explore import components, whole
from ssl_jax.types import UsageError
from tests import explore_subjects


def test_every_part_is_made_and_shown():
    blobs = explore_subjects.blobs(count=90)
    begun = []
    found = whole.explore(
        blobs, explore_subjects.blobs(count=60, seed=1), whole.Settings(most_clusters=4), begun.append
    )
    assert list(found.parts) == list(whole.HEADINGS) and not found.left_out and not found.failed
    assert begun == ["clusters", *whole.HEADINGS]
    page = whole.as_page(blobs, None, found)
    for heading in whole.HEADINGS.values():
        assert f"<h2>{heading}</h2>" in page
    assert "<title>A look at blobs</title>" in page and "http://" not in page.replace("http://www.w3.org", "")


def test_only_the_parts_asked_for_are_made():
    blobs = explore_subjects.blobs(count=60)
    found = whole.explore(blobs, None, whole.Settings(parts=("odd_ones",)))
    assert list(found.parts) == ["odd_ones"] and not found.left_out
    page = whole.as_page(blobs, None, found)
    assert "The odd ones" in page and "Clusters" not in page and "#clusters" not in page


def test_a_part_that_breaks_is_named_and_the_others_stand(monkeypatch):
    def broken(subject):
        raise ZeroDivisionError("no <way>")

    monkeypatch.setattr(components, "part", broken)
    blobs = explore_subjects.blobs(count=60)
    found = whole.explore(blobs, None, whole.Settings(clusters=3))
    assert found.failed == {"components": "ZeroDivisionError: no <way>"}
    assert list(found.parts) == [name for name in whole.HEADINGS if name != "components"]
    assert "This part failed: ZeroDivisionError: no &lt;way&gt;" in whole.as_page(blobs, None, found)


def test_constant_features_leave_the_verdict():
    blobs = explore_subjects.blobs(count=60)
    constant = dataclasses.replace(blobs, features=np.ones_like(blobs.features))
    found = whole.explore(constant, None, whole.Settings())
    assert list(found.parts) == ["health"] and found.parts["health"].metrics["verdict"] == "full collapse"
    assert set(found.left_out) == set(whole.HEADINGS) - {"health"} and not found.failed
    assert "the same for all 60 images" in whole.as_page(constant, None, found)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (whole.Settings(clusters=60), "60 clusters of 60 images"),
        (whole.Settings(normal=("z",)), "no class 'z'"),
        (whole.Settings(parts=("odd",)), "no part 'odd': there are health, maps"),
        (whole.Settings(normal=("a", "b", "c")), "leave at least one out"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_made(settings, told):
    with pytest.raises(UsageError, match=told):
        whole.explore(explore_subjects.blobs(count=60), None, settings, lambda name: pytest.fail(name))
