"""The fast probe's whole grid against one fit of scikit-learn's LogisticRegression, on the same features.

    python -m experiments.benchmark_probe --rounds=3

Prints one JSON line. The two are timed in turn, round after round, so that a drifting machine slows both alike.
Features are --features=FILE.npz (`features` float [n, d], `labels` int [n]), or made up: 50,000 rows of 512 rectified,
correlated numbers in ten overlapping classes, fixed by seed. Both sides get them standardised. `grid_seconds` includes
the compilation. scikit-learn fits with its own default C = 1 unless --penalty says otherwise.
"""

import json
import pathlib
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from sklearn.linear_model import LogisticRegression

from experiments import command
from ssl_jax import log, rng
from ssl_jax.analysis import grid, regression
from ssl_jax.evaluators.probe_grid import ProbeGrid
from ssl_jax.types import UsageError

FEATURES = flags.DEFINE_string("features", "", "An .npz file with features and labels; made up without it.")
ROUNDS = flags.DEFINE_integer("rounds", 3, "Rounds; medians over them are reported.", lower_bound=1)
PENALTY = flags.DEFINE_float("penalty", 1.0, "scikit-learn's C.", lower_bound=1e-12)


def main(arguments):
    """Times both sides and prints the line."""
    command.refuse_stray_words(arguments)
    features, labels = _data()
    (features,) = regression.standardise(features)
    rates, decays = (ProbeGrid.__dataclass_fields__[name].default for name in ("learning_rates", "weight_decays"))
    seconds = {"grid": [], "sklearn": []}
    for _ in range(ROUNDS.value):
        jax.clear_caches()
        began = time.perf_counter()
        fitted = grid.fit(
            features,
            labels,
            [np.arange(len(labels))],
            classes=int(labels.max()) + 1,
            learning_rates=rates,
            weight_decays=decays,
            steps=ProbeGrid.__dataclass_fields__["steps"].default,
            batch_size=ProbeGrid.__dataclass_fields__["batch_size"].default,
            seed=0,
        )
        jax.block_until_ready(fitted)
        seconds["grid"].append(time.perf_counter() - began)
        began = time.perf_counter()
        model = LogisticRegression(C=PENALTY.value, max_iter=1000).fit(features, labels)
        seconds["sklearn"].append(time.perf_counter() - began)
    ratios = [ours / theirs for ours, theirs in zip(seconds["grid"], seconds["sklearn"], strict=True)]
    line = {
        "rows": len(labels),
        "width": features.shape[1],
        "settings": len(rates) * len(decays),
        "grid_seconds": round(statistics.median(seconds["grid"]), 2),
        "sklearn_seconds": round(statistics.median(seconds["sklearn"]), 2),
        "grid_over_sklearn": round(statistics.median(ratios), 3),
        "grid_over_sklearn_range": [round(min(ratios), 3), round(max(ratios), 3)],
        "sklearn_iterations": int(model.n_iter_[0]),
        "grid_best_training_accuracy": float(np.nanmax(grid.score(fitted, features, labels).accuracy)),
        "sklearn_training_accuracy": float(model.score(features, labels)),
        "rounds": ROUNDS.value,
        **log.environment(),
    }
    print(json.dumps(line))


def _data():
    if not FEATURES.value:
        return _made_up()
    path = pathlib.Path(FEATURES.value)
    if not path.is_file():
        raise UsageError(f"no file {path}")
    try:
        with np.load(path, allow_pickle=False) as archive:
            return archive["features"].astype(np.float32), archive["labels"].astype(np.int32)
    except Exception as error:  # a damaged archive makes zipfile, zlib and numpy raise what they like
        raise UsageError(f"{path} is no .npz file with features and labels ({error})") from error


def _made_up(rows=50_000, width=512, classes=10):
    """Correlated features whose scales fall off, as an encoder's do."""
    keys = jax.random.split(rng.stream(0, "features"), 4)
    labels = jax.random.randint(keys[0], (rows,), 0, classes)
    centres = 0.1 * jax.random.normal(keys[1], (classes, width))
    falling = 1 / jnp.sqrt(1 + jnp.arange(width))
    mixed = (jax.random.normal(keys[2], (rows, width)) + centres[labels]) * falling[None]
    features = jax.nn.relu(mixed @ jax.random.normal(keys[3], (width, width)))
    return np.asarray(features), np.asarray(labels)


if __name__ == "__main__":
    command.run(main)
