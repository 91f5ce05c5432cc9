"""Proof that networks which should rest did rest."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from ssl_jax import fingerprint, types


@dataclasses.dataclass(frozen=True)
class Frozen:
    """Hashes networks, parameters and batch statistics, as the run began with them and as they are now.

    Summary: `frozen`, by network `before` and `after`, the SHA-256 of each (see `fingerprint.sha256`).

    Attributes:
        networks: their names in the state.

    Raises:
        UsageError: when called, for a network that the method does not have.
        RunError: when called, for a network that has changed by as little as a bit.
    """

    networks: tuple[str, ...] = ("encoder",)

    def __call__(
        self,
        exports: Mapping[str, Callable[..., np.ndarray]],
        state: types.TrainState,
        untrained: Callable[[], types.TrainState],
    ) -> types.Report:
        """The hashes, once they are equal."""
        del exports
        hashes = {}
        for name in self.networks:
            if name not in state.params:
                raise types.UsageError(
                    f"evaluators.frozen.Frozen: no network {name!r} in this method, which has {', '.join(state.params)}"
                )
            before, after = (
                fingerprint.sha256({"params": each.params[name], "stats": each.stats[name]})
                for each in (untrained(), state)
            )
            if before != after:
                raise types.RunError(
                    f"{name} should have rested, but is another at step {int(state.step)} than the run began with "
                    f"(SHA-256 {after[:12]}, not {before[:12]}): its accuracy is no linear evaluation"
                )
            hashes[name] = {"before": before, "after": after}
        return types.Report(summary={"frozen": hashes})
