"""A tenth of what `experiments.fuzz` looks at, and that it would find what it looks for."""

import numpy as np
import pytest

from experiments import fuzz, fuzz_input, fuzz_subjects
from ssl_jax import types


@pytest.mark.parametrize(("kind", "count"), [("configs", 900), ("pictures", 900), ("runs", 150), ("names", 150)])
def test_every_case_ends_in_a_result_or_in_one_line(kind, count, tmp_path):
    place = tmp_path / "a" / "b" / "c" / "d"
    place.mkdir(parents=True)
    tally = fuzz.cases({kind: count}, 1, place)
    assert tally.findings == [], "\n".join(tally.lines())
    assert tally.refused[kind] + tally.accepted[kind] == count
    assert min(tally.refused[kind], tally.accepted[kind]) > count // 50, tally.lines()


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (KeyError("step"), "KeyError"),
        (types.UsageError("two\nlines"), "a message of 2 lines"),
        (types.RunError(""), "a message of 0 lines"),
        (types.UsageError("x" * 3000), "a message of 3000 characters"),
        (None, "took more than"),
    ],
)
def test_what_nobody_foresaw_is_found(error, fault, tmp_path, monkeypatch):
    def case(rng):
        if error is None:
            while True:
                pass
        raise error

    monkeypatch.setattr(fuzz_subjects, "of_kind", lambda kind, place: case)
    monkeypatch.setattr(fuzz, "_SECONDS", 0.2)
    tally = fuzz.cases({"configs": 2}, 0, tmp_path)
    assert [finding.number for finding in tally.findings] == [0, 1]
    assert all(fault in finding.fault for finding in tally.findings)
    assert "0 refused, 0 accepted, 2 findings" in tally.lines()[0]


def test_a_case_is_a_function_of_its_number():
    value = {"a": {"type": "augment.Crop", "b": (1, 2.0)}, "c": "x"}
    drawn = [
        [repr(fuzz_input.mutated(value, np.random.default_rng([0, number]), ["loop.fit"])) for number in range(50)]
        for _ in range(2)
    ]
    assert drawn[0] == drawn[1] and len(set(drawn[0])) > 40
    assert value == {"a": {"type": "augment.Crop", "b": (1, 2.0)}, "c": "x"}


def test_shares_are_of_the_whole():
    assert sum(fuzz.shares(1999).values()) == 1999 and set(fuzz.shares(1999)) == set(fuzz_subjects.SHARES)
    assert fuzz.shares(7, "runs") == {"runs": 7}
