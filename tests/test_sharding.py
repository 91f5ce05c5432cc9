"""A state divided over devices: what lies where, and that it trains, saves, exports and begins as a whole one does."""

import pytest

EACH = """
    import pathlib
    import sys

    import jax
    import numpy as np

    from ssl_jax import build, loop, mesh
    from ssl_jax.trainer import Trainer
    from tests import scale_runs

    mesh.DIVIDED_FROM = 64  # for networks of a few thousand numbers


    def parts_of(name, folder):
        config = scale_runs.config_of(name, pathlib.Path(folder), pathlib.Path(folder), 100)
        return build.arguments(loop.fit, build.normalised(config | {"evaluators": {}}), given=("folder", "config"))


    def trainer_of(parts, grid, graft=None):
        return Trainer(parts["method"], parts["preprocess"], parts["data"].spec, seed=1, mesh=grid, graft=graft)


    def trained(trainer, parts, grid, steps, state=None):
        batches = parts["data"].batches(grid, 1, 0 if state is None else int(state.step))
        state = trainer.untrained() if state is None else state
        for _ in range(steps):
            state, metrics = trainer.step(state, next(batches))
        batches.close()
        return state, np.asarray(metrics)


    def difference(state, other):
        apart = jax.tree.map(lambda a, b: np.max(np.abs(a - b), initial=0.0), host(state), host(other))
        return max(jax.tree.leaves(apart))


    def host(state):
        return jax.tree.map(lambda leaf: np.asarray(leaf).astype(np.float64), state)


    def is_divided(leaf):
        return leaf.sharding.shard_shape(leaf.shape) != leaf.shape


    def shardings(state):
        return jax.tree.map(lambda leaf: leaf.sharding, state)
"""

SIMSIAM = """
    parts = parts_of("simsiam", sys.argv[1])
    grids = {1: mesh.data_parallel(1), 0: mesh.data_parallel(shards=0), 2: mesh.data_parallel(shards=2)}
    trainers = {shards: trainer_of(parts, grid) for shards, grid in grids.items()}
    alone, trainer = grids[1], trainers[1]
    begun = host(trainer.untrained())
    one, told = trained(trainer, parts, alone, 5)
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), np.uint8)
    prepare = lambda given: given / 255.0
    features = trainer.exports["features"](one, images, prepare)
    kept = {}
    for shards in (0, 2):
        grid, trainer = grids[shards], trainers[shards]
        assert difference(trainer.untrained(), begun) < 1e-6
        state, metrics = trained(trainer, parts, grid, 5)
        np.testing.assert_allclose(metrics, told, atol=1e-5)
        assert difference(state, one) < 1e-5, (shards, difference(state, one))
        # Parameters and momentum are divided alike, step after step, and everything else is whole.
        for kind in ("params", "opt"):
            leaves = jax.tree.leaves(getattr(state, kind))
            assert any(map(is_divided, leaves))
            for leaf in leaves:
                able = leaf.size >= 64 and any(length % grid.shape["shard"] == 0 for length in leaf.shape)
                assert is_divided(leaf) == able, (kind, leaf.shape, leaf.sharding)
                held = np.prod(leaf.sharding.shard_shape(leaf.shape))
                assert held * (grid.shape["shard"] if able else 1) == leaf.size
        assert not any(map(is_divided, jax.tree.leaves((state.stats, state.memory, state.step))))
        assert shardings(state) == shardings(trainer.state_spec) == shardings(trainer.untrained())
        np.testing.assert_allclose(trainer.exports["features"](state, images, prepare), features, atol=1e-5)
        assert bool(trainer.is_finite(state))
        spoilt = state.replace(params=jax.tree.map(lambda leaf: leaf / 0.0, state.params))
        assert not bool(trainer.is_finite(spoilt))
        # A divided state takes networks over from elsewhere, whole ones of another run.
        taken = jax.tree.map(np.asarray, one.params["encoder"])
        grafted = trainer_of(parts, grid, lambda spec: {"params": {"encoder": taken}}).untrained()
        assert difference(grafted.params["encoder"], taken) == 0
        assert any(map(is_divided, jax.tree.leaves(grafted.params["encoder"])))
        kept[shards] = state
    # Saved by any division, it goes on in any other as a run that never stopped.
    longer, _ = trained(trainers[1], parts, alone, 3, one)
    folder = pathlib.Path(sys.argv[1])
    for shards, others in ((0, 1), (2, 0), (0, 2)):
        keeper = parts["checkpoint"].open(folder / f"{shards}_{others}")
        keeper.save(5, kept[shards], config={})
        keeper.wait()
        trainer, grid = trainers[others], grids[others]
        restored = keeper.restore(5, trainer.state_spec)
        keeper.close()
        assert difference(restored, kept[shards]) == 0
        state, _ = trained(trainer, parts, grid, 3, restored)
        assert difference(state, longer) < 2e-5, difference(state, longer)
"""

GAN = """
    for name in ("gan", "cyclegan"):
        parts = parts_of(name, sys.argv[1])
        states = {}
        for devices, shards in ((1, 1), (4, 0)):
            grid = mesh.data_parallel(devices, shards)
            states[shards], _ = trained(trainer_of(parts, grid), parts, grid, 5)
        assert any(map(is_divided, jax.tree.leaves(states[0].opt)))
        named = jax.tree_util.tree_flatten_with_path(jax.tree.map(np.subtract, *map(host, states.values())))[0]
        for path, apart in named:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            if not scale_runs.is_free(name):
                assert np.max(np.abs(apart), initial=0) < 1e-5, (name, np.max(np.abs(apart)))
"""

DIVIDED = """
    import jax
    import numpy as np
    from jax.sharding import PartitionSpec as P

    from ssl_jax import mesh

    for shards, rows in ((1, 8), (0, 1), (8, 1), (2, 4)):
        made = mesh.data_parallel(shards=shards)
        assert made.axis_names == ("data", "shard") and made.devices.shape == (rows, 8 // rows)
        assert [device.id for device in made.devices.ravel()] == list(range(8))
        assert all(kind == jax.sharding.AxisType.Auto for kind in made.axis_types)
        batch = mesh.put(np.arange(16.0), made)
        assert [part.data.tolist() for part in batch.addressable_shards] == [[2.0 * i, 2.0 * i + 1] for i in range(8)]
    for shards in (3, 5, -1, 16):
        try:
            mesh.data_parallel(shards=shards)
        except mesh.UsageError as error:
            assert str(error) == f"shards={shards} does not divide 8 device(s): take 1, 2, 4, 8, or 0 for all", error
        else:
            raise AssertionError(shards)

    four = mesh.data_parallel(shards=4)
    cases = {
        (3, 3, 64, 128): P(None, None, None, "shard"),
        (3, 3, 128, 64): P(None, None, "shard"),
        (3, 3, 64, 64): P(None, None, "shard"),  # of equals the first
        (4096,): P("shard"),
        (4095, 8): P(None, "shard"),  # 4 divides the shorter axis alone
        (4097, 3): P(),
        (4095,): P(),
        (2, 2, 512): P(),  # too small
        (): P(),
    }
    for shape, spec in cases.items():
        assert mesh.divided(four, shape).spec == spec, (shape, mesh.divided(four, shape))
        assert mesh.divided(mesh.data_parallel(), shape).spec == P()
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder for the data sets, which the first run makes."""
    return tmp_path_factory.mktemp("sharding")


def test_simsiam_with_its_state_divided(child, data):
    child(EACH + SIMSIAM, data, devices=4)


def test_gans_with_their_states_divided(child, data):
    child(EACH + GAN, data, devices=4)


def test_which_axis_lies_where(child):
    child(DIVIDED, devices=8)
