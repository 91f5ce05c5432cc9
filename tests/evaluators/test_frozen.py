"""The proof that a network rested: equal hashes pass, one changed bit does not."""

import numpy as np
import pytest

from ssl_jax.evaluators.frozen import Frozen
from ssl_jax.types import RunError, TrainState, UsageError


def state(bump=0.0, stats_bump=0.0):
    kernel = np.array([0.0, 1.0 + bump], np.float32)
    return TrainState(
        step=np.int32(7),
        params={"encoder": {"kernel": kernel}, "head": {"bias": np.zeros(1, np.float32)}},
        stats={"encoder": {"mean": np.float32(stats_bump)}, "head": {}},
        opt={},
        memory={},
    )


def test_what_rested_is_summarised_by_its_hash():
    found = Frozen()({}, state(), state).summary["frozen"]["encoder"]
    assert found["before"] == found["after"] and len(found["after"]) == 64


@pytest.mark.parametrize("moved", [{"bump": 1e-7}, {"stats_bump": 1e-30}])
def test_a_single_bit_is_noticed(moved):
    with pytest.raises(RunError, match="encoder should have rested, but is another at step 7"):
        Frozen()({}, state(**moved), state)


def test_a_network_that_is_not_there_is_named():
    with pytest.raises(UsageError, match="no network 'generator' in this method, which has encoder, head"):
        Frozen(networks=("generator",))({}, state(), state)
