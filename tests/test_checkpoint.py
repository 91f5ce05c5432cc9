import asyncio
import gc
import json
import logging
import shutil
import subprocess

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssl_jax import checkpoint, optim
from ssl_jax.checkpoint import Policy, restore_networks
from ssl_jax.methods.simsiam import SimSiam
from ssl_jax.types import RunError, TrainState, UsageError


def state(step, *, size=4):
    """A state with every kind of leaf: bfloat16, integers, an optax chain, networks without statistics, no memory."""
    draw = np.random.default_rng(step)
    params = {
        "encoder": {"kernel": jnp.asarray(draw.normal(size=(size, 3)), jnp.bfloat16), "bias": jnp.ones(3)},
        "head": {"kernel": jnp.asarray(draw.normal(size=(3, 2)), jnp.float32)},
    }
    optimizer = optim.sgd(0.1, 256, decay_steps=10, weight_decay=0.1)
    return TrainState(
        step=jnp.int32(step),
        params=params,
        stats={"encoder": {"mean": jnp.asarray(draw.normal(size=3), jnp.float32)}, "head": {}},
        opt={"all": optimizer.init(params), "adam": optax.adam(0.1).init(params["head"])},
        memory={},
    )


def described(tree):
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), tree)


def assert_equal(ours, theirs):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def save(folder, *steps, policy=None, make=state, scalars=None):
    """Saves the given steps, the way a run does, and closes."""
    keeper = (policy or Policy(every=1)).open(folder)
    for step in steps:
        keeper.save(step, make(step), config={"seed": 0}, scalars=(scalars or {}).get(step))
    keeper.close()


def there(folder):
    return sorted(int(item.name) for item in (folder / "checkpoints").iterdir() if item.name.isdigit())


def reopened(folder, policy=None):
    return (policy or Policy(every=1)).open(folder)


@pytest.fixture
def saved(tmp_path):
    """A folder with checkpoints of steps 1 and 2."""
    save(tmp_path / "run", 1, 2)
    return tmp_path / "run"


# There and back.


def test_a_state_comes_back_exactly(saved):
    keeper = reopened(saved)
    assert keeper.latest() == 2
    for step in (1, 2):
        assert_equal(keeper.restore(step, described(state(0))), state(step))
    keeper.close()


def test_a_new_folder_has_nothing(tmp_path):
    keeper = reopened(tmp_path)
    assert keeper.latest() is None and keeper.best() is None
    keeper.close()


def test_the_config_lies_inside(saved):
    assert json.loads((saved / "checkpoints" / "2" / "config" / "metadata").read_text()) == {"seed": 0}


def test_the_state_may_be_donated_at_once(tmp_path):
    expected = np.random.default_rng(0).normal(size=3_000_000).astype(np.float32)
    large = jnp.array(expected)
    step = jax.jit(lambda s: s.replace(params={"a": s.params["a"] * 0 - 1.0}), donate_argnums=0)
    other = TrainState(step=jnp.int32(1), params={"a": jnp.array(expected)}, stats={}, opt={}, memory={})
    step(other)
    assert other.params["a"].is_deleted(), "the step must donate, or this test shows nothing"
    now = TrainState(step=jnp.int32(1), params={"a": large}, stats={}, opt={}, memory={})
    keeper = reopened(tmp_path)
    keeper.save(1, now, config={})
    for _ in range(5):
        now = step(now)
    keeper.wait()
    np.testing.assert_array_equal(keeper.restore(1, described(now)).params["a"], expected)
    keeper.close()


def test_eight_devices_go_on_with_one_and_the_other_way_round(tmp_path, child):
    save(tmp_path / "one", 3, make=lambda step: state(step, size=16))
    child(
        """
        import pathlib, sys
        import jax, numpy as np
        sys.path.insert(0, sys.argv[2])
        import test_checkpoint as t
        from ssl_jax import mesh

        folder, eight = pathlib.Path(sys.argv[1]), mesh.data_parallel(8)
        def sharding(leaf):
            return mesh.split(eight) if leaf.shape[:1] == (16,) else mesh.replicated(eight)
        expected = t.state(3, size=16)
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding(x)), expected)

        keeper = t.reopened(folder / "one")
        restored = keeper.restore(3, like)
        keeper.close()
        t.assert_equal(restored, expected)
        kernel = restored.params["encoder"]["kernel"]
        assert len(kernel.addressable_shards) == 8 and kernel.addressable_shards[0].data.shape == (2, 3)
        t.save(folder / "eight", 4, make=lambda step: restored)
        """,
        tmp_path,
        __file__.rpartition("/")[0],
        devices=8,
    )
    keeper = reopened(tmp_path / "eight")
    assert_equal(keeper.restore(4, described(state(3, size=16))), state(3, size=16))
    keeper.close()
    params, _, _ = restore_networks(tmp_path / "eight", ("encoder",))
    assert_equal(params, {"encoder": jax.tree.map(np.asarray, state(3, size=16).params["encoder"])})


# What is kept.

BEST = {1: 0.1, 2: 0.9, 3: 0.3, 5: 0.4, 6: 0.2}  # step 4 was not evaluated


@pytest.mark.parametrize(
    ("policy", "kept", "best"),
    [
        (Policy(every=1, keep_latest=2), [5, 6], None),
        (Policy(every=1, keep_latest=1), [6], None),
        (Policy(every=1, keep_latest=2, best="eval/knn/accuracy"), [2, 5, 6], 2),
        (Policy(every=1, keep_latest=1, best="eval/knn/accuracy", best_is="lowest"), [1, 6], 1),
        (Policy(every=1, keep_latest=3, best="another"), [4, 5, 6], None),
    ],
)
def test_the_newest_and_the_best_are_kept(tmp_path, policy, kept, best):
    scalars = {step: {"eval/knn/accuracy": value, "eval/knn/other": 5.0} for step, value in BEST.items()}
    scalars[4] = {"train/loss": 100.0}
    save(tmp_path, *range(1, 7), policy=policy, scalars=scalars)
    assert there(tmp_path) == kept
    keeper = reopened(tmp_path, policy)
    assert keeper.latest() == 6
    if policy.best:
        assert keeper.best() == best
    keeper.close()


def test_the_best_outlives_a_restart(tmp_path):
    policy = Policy(every=1, keep_latest=1, best="accuracy")
    for step, value in {1: 0.2, 2: 0.8, 3: 0.3, 4: 0.1}.items():
        save(tmp_path, step, policy=policy, scalars={step: {"accuracy": value}})
    assert there(tmp_path) == [2, 4]
    save(tmp_path, 5, policy=policy, scalars={5: {"accuracy": 0.9}})
    assert there(tmp_path) == [5]


def test_what_is_no_number_is_never_the_best(tmp_path):
    policy = Policy(every=1, keep_latest=1, best="accuracy")
    scalars = {1: {"accuracy": 0.2}, 2: {"accuracy": float("nan")}, 3: {"accuracy": float("inf")}, 4: {"accuracy": 0.1}}
    save(tmp_path, 1, 2, 3, 4, policy=policy, scalars=scalars)
    assert there(tmp_path) == [1, 4]


@pytest.mark.parametrize("arguments", [{"every": 0}, {"every": 1, "keep_latest": 0}])
def test_a_policy_that_keeps_nothing_is_refused(arguments):
    with pytest.raises(UsageError, match="must be at least 1"):
        Policy(**arguments)


# What does not fit.


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda s: s.params["head"].update(kernel=jnp.zeros((3, 5))),
            "params/head/kernel is float32[3, 2], not float32[3, 5]",
        ),
        (
            lambda s: s.params["encoder"].update(kernel=jnp.zeros((4, 3))),
            "params/encoder/kernel is bfloat16[4, 3], not float32[4, 3]",
        ),
        (lambda s: s.params["encoder"].update(scale=jnp.zeros(3)), "missing params/encoder/scale"),
        (lambda s: s.params["encoder"].pop("bias"), "unexpected params/encoder/bias"),
        (lambda s: s.stats.update(head={"mean": jnp.zeros(2)}), "missing stats/head/mean"),
        (lambda s: s.opt.pop("adam"), "unexpected opt/adam/0/count"),
    ],
)
def test_differences_are_named(saved, change, words):
    other = state(0)
    change(other)
    keeper = reopened(saved)
    with pytest.raises(UsageError) as caught:
        keeper.restore(2, described(other))
    keeper.close()
    message = str(caught.value)
    assert words in message and f"{saved}/checkpoints/2 does not fit this config" in message and "\n" not in message


def test_all_differences_are_named_at_once(saved):
    other = state(0)
    other.params["encoder"] = {"kernel": jnp.zeros((2, 3), jnp.bfloat16), "gain": jnp.zeros(1)}
    keeper = reopened(saved)
    with pytest.raises(UsageError) as caught:
        keeper.restore(2, described(other))
    keeper.close()
    for words in ("missing params/encoder/gain", "unexpected params/encoder/bias", "kernel is bfloat16[4, 3]"):
        assert words in str(caught.value)


# What is damaged.


def refused_and_gone_without(folder, step, capfd):
    """Restoring `step` is refused in one line that names its folder; without that folder the one before it is whole."""
    with pytest.raises(RunError) as caught:
        keeper = reopened(folder, Policy(every=1, best="accuracy"))
        try:
            assert keeper.latest() == step
            keeper.restore(step, described(state(0)))
        finally:
            keeper.close()
    message = str(caught.value)
    assert f"checkpoint {folder}/checkpoints/{step} is damaged or foreign" in message and "\n" not in message
    assert "delete that folder" in message and len(message) < 500
    caught.value.__traceback__ = None
    assert "Traceback" not in capfd.readouterr().err
    shutil.rmtree(folder / "checkpoints" / str(step))
    keeper = reopened(folder)
    assert keeper.latest() == 2
    assert_equal(keeper.restore(2, described(state(0))), state(2))
    keeper.close()


def large(step):
    return state(step, size=60_000)


@pytest.mark.parametrize("what", ["largest file", "tree", "position", "value"])
def test_a_truncated_file_is_refused(tmp_path, what, capfd):
    save(tmp_path, 2)
    save(tmp_path, 3, policy=Policy(every=1, best="accuracy"), scalars={3: {"accuracy": 0.5}})
    place = tmp_path / "checkpoints" / "3"
    files = [item for item in place.rglob("*") if item.is_file()]
    named = {"tree": "state/_METADATA", "position": "feed/metadata", "value": "metrics/metrics"}
    file = place / named[what] if what in named else max(files, key=lambda item: item.stat().st_size)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    refused_and_gone_without(tmp_path, 3, capfd)


@pytest.mark.parametrize(
    "read",
    [
        "t.restore_networks(folder, ('encoder', 'head'))",
        "t.reopened(folder).restore(3, t.described(t.large(0)))",
    ],
)
def test_truncated_weights_are_refused_in_one_line(tmp_path, child, read):
    save(tmp_path, 3, make=large)
    weights = max((tmp_path / "checkpoints" / "3").rglob("d/*"), key=lambda item: item.stat().st_size)
    assert weights.stat().st_size > 100_000
    weights.write_bytes(weights.read_bytes()[:50_000])
    # In a process of its own, because what is unsaid here must not be due to an earlier test.
    done = child(
        f"""
        import gc, pathlib, sys
        sys.path.insert(0, sys.argv[2])
        import test_checkpoint as t

        folder = pathlib.Path(sys.argv[1])
        try:
            {read}
        except t.RunError as error:
            print(error)
        gc.collect()
        """,
        tmp_path,
        __file__.rpartition("/")[0],
    )
    (line,) = done.stdout.splitlines()
    assert line.startswith(f"checkpoint {tmp_path}/checkpoints/3 is damaged or foreign")
    assert done.stderr == ""


def test_a_foreign_folder_is_refused(saved, capfd):
    (saved / "checkpoints" / "7").mkdir()
    (saved / "checkpoints" / "7" / "weights.pt").write_text("something else")
    refused_and_gone_without(saved, 7, capfd)


def test_other_names_are_no_checkpoints(saved):
    (saved / "checkpoints" / "notes").mkdir()
    (saved / "checkpoints" / "notes.txt").write_text("mine")
    keeper = reopened(saved)
    assert keeper.latest() == 2
    keeper.close()
    assert (saved / "checkpoints" / "notes.txt").read_text() == "mine"


def test_a_save_that_was_cut_short_does_not_count(saved):
    half = saved / "checkpoints" / "3.orbax-checkpoint-tmp"
    shutil.copytree(saved / "checkpoints" / "2", half)
    keeper = reopened(saved)
    assert keeper.latest() == 2
    keeper.save(3, state(3), config={})
    keeper.wait()
    assert_equal(keeper.restore(3, described(state(0))), state(3))
    assert not half.exists()
    keeper.close()


def test_a_position_of_another_step_is_refused(saved):
    (saved / "checkpoints" / "2" / "feed" / "metadata").write_text('{"next_batch": 5}')
    (saved / "checkpoints" / "2" / "digests.json").unlink()
    keeper = reopened(saved)
    with pytest.raises(RunError, match="belongs to step 2 but its data position is 5"):
        keeper.restore(2, described(state(0)))
    keeper.close()


# A disk that takes no more.

FULL_DISK = """
    import os, pathlib, resource, sys
    sys.path.insert(0, sys.argv[2])
    import test_checkpoint as t
    from ssl_jax.types import RunError

    folder, limit = pathlib.Path(sys.argv[1]), int(sys.argv[3])
    t.save(folder, 1)
    keeper = t.reopened(folder)
    if limit:  # bytes a file may have: a disk that fails without being full
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        keeper.save(2, t.large(2), config={})
        keeper.wait()
    except RunError as error:
        print(error)
    else:
        raise AssertionError("nothing was said")
    try:
        keeper.close()
    except RunError as error:
        print("again:", error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    keeper = t.reopened(folder)
    assert keeper.latest() == 1, keeper.latest()
    t.assert_equal(keeper.restore(1, t.described(t.state(0))), t.state(1))
    keeper.save(2, t.state(2), config={})
    keeper.wait()
    t.assert_equal(keeper.restore(2, t.described(t.state(0))), t.state(2))
    assert sorted(item.name for item in keeper.folder.iterdir()) == ["1", "2"]
    keeper.close()
"""


def test_a_full_disk_is_said_and_harms_nothing(tmp_path, child):
    small = tmp_path / "small"
    small.mkdir()
    mount = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        'mount -t tmpfs -o size=400k tmpfs "$0" && exec "$@"',
    ]
    if not shutil.which("unshare") or subprocess.run([*mount, small, "true"], capture_output=True).returncode:
        pytest.skip("this system lets no user mount a small disk of his own")
    done = child(FULL_DISK, small, __file__.rpartition("/")[0], 0, prefix=(*mount, small))
    (line,) = done.stdout.splitlines()
    assert line.startswith("could not write checkpoint") and str(small) in line
    assert "the disk is full; free some space and run the same command again" in line
    assert done.stderr == ""


def test_a_disk_that_fails_is_said_and_harms_nothing(tmp_path, child):
    done = child(FULL_DISK, tmp_path, __file__.rpartition("/")[0], 100_000)
    (line,) = done.stdout.splitlines()
    assert line.startswith("could not write checkpoint") and "the earlier checkpoints stand" in line
    assert done.stderr == ""


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(RunError, match=r"could not open checkpoint .*run/checkpoints"):
        reopened(tmp_path / "run")


def test_the_words_of_others_stay_audible(tmp_path, caplog):
    reopened(tmp_path).close()
    with caplog.at_level(logging.WARNING, logger="absl"):
        logging.getLogger("absl").warning("not ours")
    assert "not ours" in caplog.text


def test_the_second_array_that_fails_repeats_nothing(tmp_path, caplog):
    reopened(tmp_path).close()
    with caplog.at_level(logging.ERROR, logger="asyncio"):
        for text in ("local file /run/2.orbax-checkpoint-tmp/state: No space left", "not ours"):
            loop = asyncio.new_event_loop()
            loop.create_future().set_exception(ValueError(text))
            gc.collect()
            loop.close()
    assert "not ours" in caplog.text and "No space left" not in caplog.text


# Single networks out of a run.


def test_a_network_is_read_without_its_method(saved):
    params, stats, step = restore_networks(saved, ("encoder",))
    expected = state(2)
    assert step == 2 and set(params) == set(stats) == {"encoder"}
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves((params, stats)))
    assert_equal(params["encoder"], jax.tree.map(np.asarray, expected.params["encoder"]))
    assert_equal(stats["encoder"], jax.tree.map(np.asarray, expected.stats["encoder"]))


def test_networks_without_statistics_are_read_too(saved):
    params, stats, _ = restore_networks(saved, ("head", "encoder"))
    assert stats["head"] == {} and set(params) == {"head", "encoder"}


def test_the_best_or_the_last_network(tmp_path):
    policy = Policy(every=1, keep_latest=1, best="accuracy")
    save(tmp_path, 1, 2, 3, policy=policy, scalars={1: {"accuracy": 0.3}, 2: {"accuracy": 0.7}, 3: {"accuracy": 0.1}})
    for which, step in {"best": 2, "last": 3}.items():
        params, _, found = restore_networks(tmp_path, ("head",), which=which)
        assert found == step
        np.testing.assert_array_equal(params["head"]["kernel"], state(step).params["head"]["kernel"])


def test_what_cannot_be_read_is_named(saved, tmp_path):
    cases = [
        ((saved, ("encodr", "head", "tail")), {}, "checkpoints/2 has no network encodr, tail; it has encoder, head"),
        ((tmp_path / "nowhere", ("head",)), {}, "nowhere holds no checkpoints: give the --workdir"),
        ((saved, ("head",)), {"which": "best"}, "knows no best checkpoint"),
        ((saved, ("head",)), {"which": "first"}, "which='first' is neither"),
    ]
    for positional, keywords, words in cases:
        with pytest.raises(UsageError) as caught:
            restore_networks(*positional, **keywords)
        assert words in str(caught.value)
    reopened(tmp_path / "empty").close()
    with pytest.raises(UsageError, match="holds no complete checkpoint yet"):
        restore_networks(tmp_path / "empty", ("head",))


def test_reading_changes_nothing(saved):
    half = saved / "checkpoints" / "3.orbax-checkpoint-tmp"
    half.mkdir()
    before = {item: item.stat().st_mtime_ns for item in saved.rglob("*")}
    restore_networks(saved, ("encoder",))
    assert {item: item.stat().st_mtime_ns for item in saved.rglob("*")} == before


class Tiny(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Dense(4)(x.reshape(x.shape[0], -1))
        return nn.BatchNorm(use_running_average=not train)(x)


def test_a_methods_encoder_answers_as_in_its_run(tmp_path):
    method = SimSiam(Tiny(), Tiny(), Tiny(), optim.sgd(0.1, 256, decay_steps=10))
    spec = {"view_1": jax.ShapeDtypeStruct((8, 2, 2, 1), jnp.float32)}
    views = {f"view_{k}": jax.random.normal(jax.random.key(k), (8, 2, 2, 1)) for k in (1, 2)}
    trained = method.init(jax.random.key(0), spec)
    for _ in range(3):
        trained, _ = jax.jit(method.step)(trained, views, jax.random.key(0))
    save(tmp_path, 3, make=lambda step: trained)
    params, stats, _ = restore_networks(tmp_path, ("encoder",))
    answer = Tiny().apply({"params": params["encoder"], "batch_stats": stats["encoder"]}, views["view_1"], train=False)
    np.testing.assert_array_equal(answer, method.exports["features"](trained, views["view_1"]))
    keeper = checkpoint.Policy(every=1).open(tmp_path)
    assert_equal(keeper.restore(3, described(trained)), trained)
    keeper.close()
