"""Damage in a checkpoint is refused in one line or changes nothing; the best is kept although it is compared later."""

import random
import shutil
import time

import jax
import numpy as np
import pytest

from ssl_jax import digests
from ssl_jax.checkpoint import Policy, restore_networks
from ssl_jax.types import RunError
from tests.test_checkpoint import assert_equal, described, reopened, save, state, there

BEST = Policy(every=1, keep_latest=2, best="accuracy")
HARMS = ("flip", "truncate", "delete")


def harmed(content, harm, draw):
    if harm == "truncate":
        return content[: draw.randrange(len(content))]
    content = bytearray(content)
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    return bytes(content)


def test_any_harm_to_any_file_is_refused_or_makes_no_difference(tmp_path, capfd):
    good, run = tmp_path / "good", tmp_path / "run"
    save(good, 2, 3, policy=BEST, scalars={2: {"accuracy": 0.2}, 3: {"accuracy": 0.5}})
    draw = random.Random(0)
    files = sorted(path.relative_to(good) for path in (good / "checkpoints" / "3").rglob("*") if path.is_file())
    assert len(files) > 15
    refused, same = [], []
    for number, name in enumerate(files):
        harm = HARMS[number % 3]
        shutil.copytree(good, run)
        if harm == "delete":
            (run / name).unlink()
        else:
            (run / name).write_bytes(harmed((run / name).read_bytes(), harm, draw))
        try:
            keeper = BEST.open(run)
            try:
                assert keeper.latest() == keeper.best() == 3
                assert_equal(keeper.restore(3, described(state(0))), state(3))
            finally:
                keeper.close()
            params, _, step = restore_networks(run, None, which="best")
            assert step == 3
            assert_equal(params, jax.tree.map(np.asarray, state(3).params))
            same.append(name.name)
        except RunError as error:
            message = str(error)
            assert "\n" not in message and f"checkpoint {run}/checkpoints/3 is damaged or foreign" in message
            assert "delete that folder to go on from the one before it" in message
            refused.append(name.name)
        shutil.rmtree(run)
    assert set(same) <= {"_CHECKPOINT_METADATA", "commit_success.txt"} and len(refused) >= 15
    assert "Traceback" not in capfd.readouterr().err


def test_a_flipped_weight_is_never_restored(tmp_path):
    """The arrays' own format carries no checksum: without digests most such flips would pass."""
    save(tmp_path, 3, make=lambda step: state(step, size=5000))
    weights = max((tmp_path / "checkpoints" / "3").rglob("d/*"), key=lambda path: path.stat().st_size)
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    with pytest.raises(RunError, match=f"its file .*{weights.name} is not as it was written"):
        restore_networks(tmp_path, ("encoder",))
    keeper = reopened(tmp_path)
    with pytest.raises(RunError, match=f"its file .*{weights.name} is not as it was written"):
        keeper.restore(3, described(state(0, size=5000)))
    keeper.close()


def test_a_checkpoint_from_before_the_digests_is_restored_and_said(tmp_path, capsys):
    save(tmp_path, 3)
    (tmp_path / "checkpoints" / "3" / "digests.json").unlink()
    keeper = reopened(tmp_path)
    assert_equal(keeper.restore(3, described(state(0))), state(3))
    keeper.close()
    assert "checkpoints/3 has no digests.json, so damage in it would go unnoticed" in capsys.readouterr().err


@pytest.mark.parametrize("part", ["feed", "config", "state"])
def test_a_checkpoint_that_lacks_a_part_is_refused_by_name(tmp_path, part):
    save(tmp_path, 3)
    shutil.rmtree(tmp_path / "checkpoints" / "3" / part)
    keeper = reopened(tmp_path)
    with pytest.raises(RunError, match=rf"checkpoints/3 is damaged or foreign \(it has no {part}, as .*delete that"):
        keeper.restore(3, described(state(0)))
    keeper.close()


def test_digests_are_there_as_soon_as_the_checkpoint_counts(tmp_path):
    keeper = reopened(tmp_path)
    for step in range(1, 4):
        keeper.save(step, state(step), config={})
        while not (tmp_path / "checkpoints" / str(step)).is_dir():
            pass
        assert (tmp_path / "checkpoints" / str(step) / "digests.json").stat().st_size > 500
    keeper.close()


@pytest.mark.parametrize(
    ("policy", "kept", "best"),
    [
        (BEST, [2, 5, 6], 2),
        (Policy(every=1, keep_latest=1, best="accuracy"), [2, 6], 2),
        (Policy(every=1, keep_latest=1, best="accuracy", best_is="lowest"), [1, 6], 1),
        (Policy(every=1, keep_latest=1), [6], None),
    ],
)
def test_the_best_is_kept_when_it_is_compared_after_the_save(tmp_path, policy, kept, best):
    values = {1: 0.1, 2: 0.9, 3: 0.3, 5: float("nan"), 6: 0.2}
    keeper = policy.open(tmp_path)
    for step in range(1, 7):
        keeper.save(step, state(step), config={})
        keeper.compare(step, {"accuracy": values[step]} if step in values else {"loss": 0.0})
    keeper.wait()
    assert there(tmp_path) == kept and (not best or keeper.best() == best)
    keeper.close()
    keeper = policy.open(tmp_path)
    assert keeper.latest() == 6 and (not best or keeper.best() == best)
    assert_equal(keeper.restore(kept[0], described(state(0))), state(kept[0]))
    keeper.close()


def test_a_value_once_compared_stays(tmp_path):
    save(tmp_path, 1, 2, policy=BEST, scalars={1: {"accuracy": 0.5}, 2: {"accuracy": 0.4}})
    keeper = BEST.open(tmp_path)
    keeper.compare(2, {"accuracy": 0.9})
    keeper.wait()
    assert keeper.best() == 1
    keeper.compare(7, {"accuracy": 0.9})  # never saved
    keeper.compare(2, {"accuracy": None})  # as `metrics.jsonl` says what is not finite
    assert keeper.best() == 1 and there(tmp_path) == [1, 2]
    keeper.close()


def test_a_kill_while_an_older_one_is_removed_leaves_nothing_in_the_way(tmp_path, child):
    """The older one leaves its name whole; the kill comes in the middle of its files."""
    done = child(
        """
        import os, pathlib, shutil, sys
        sys.path.insert(0, sys.argv[2])
        from tests import test_checkpoint as t
        from tests.test_checkpoint_integrity import BEST

        folder = pathlib.Path(sys.argv[1])
        keeper = BEST.open(folder)
        removed, left = os.unlink, [7]

        def unlink(path, *arguments, **words):
            left[0] -= 1
            if not left[0]:
                print("killed", flush=True)
                os._exit(0)
            removed(path, *arguments, **words)

        for step, value in {1: 0.9, 2: 0.1, 3: 0.2, 4: 0.95}.items():
            keeper.save(step, t.state(step), config={})
            keeper.compare(step, {"accuracy": value})
        keeper.best()
        os.unlink = unlink
        keeper.save(5, t.state(5), config={})
        keeper.wait()
        """,
        tmp_path,
        __file__.rpartition("/")[0],
    )
    assert done.stdout == "killed\n"
    keeper = BEST.open(tmp_path)
    latest = keeper.latest()
    assert latest in (4, 5) and keeper.best() == 4
    assert_equal(keeper.restore(latest, described(state(0))), state(latest))
    keeper.close()
    assert all(digests.verify(place) for place in (tmp_path / "checkpoints").glob("[0-9]*"))
    assert not list((tmp_path / "checkpoints").glob(".removed"))


def test_a_clock_that_jumps_ends_no_save(tmp_path, monkeypatch):
    """Orbax measures its time limits of minutes; here every other look at the clock finds it days off."""
    draw, now = random.Random(0), time.time
    monkeypatch.setattr(time, "time", lambda: now() + draw.choice((0.0, -1e6, 1e6)))
    keeper = reopened(tmp_path)
    for step in range(1, 9):
        keeper.save(step, state(step), config={})
    keeper.wait()
    assert_equal(keeper.restore(8, described(state(0))), state(8))
    keeper.close()
