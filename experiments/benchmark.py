"""Steady-state speed of a config's training, as one JSON line.

    python -m experiments.benchmark --config=configs/simsiam_cifar10.py --synthetic=50000x32x32x3 \\
        --config.data.batch_size=128 --config.method.encoder.width_multiplier=0.25

Times three things in turn, round after round, so that a drifting machine slows all alike, and reports medians: the
compiled update alone (`step`), the augmentation alone, and the whole loop: the data feed's next batch, then the one
compiled function of augmentation and update that `experiments.train` calls. `loop_over_parts` is the whole loop's time
over the sum of the other two: 1.05 means 5 % on top.

`--without=method.regularizer` times the update without that section of the config as well, in the same rounds, and
reports its share of the update's time: 0.4 means that the update would take 0.6 of its time.
"""

import json
import pathlib
import re
import statistics
import time

import jax
from absl import flags
from ml_collections import config_flags

from experiments import command
from ssl_jax import build, log, loop, rng
from ssl_jax.mesh import check_batch
from ssl_jax.trainer import Trainer
from ssl_jax.types import UsageError

CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment, such as configs/simsiam_cifar10.py.")
SYNTHETIC = flags.DEFINE_string("synthetic", "", "Noise instead of the data set, such as 50000x32x32x3.")
ROUNDS = flags.DEFINE_integer("rounds", 5, "Rounds; the medians over them are reported.", lower_bound=1)
STEPS = flags.DEFINE_integer("steps", 10, "Steps timed in each round.", lower_bound=1)
WITHOUT = flags.DEFINE_string(
    "without", "", "A section of the config, such as method.regularizer, whose share is timed."
)
OUT = flags.DEFINE_string("out", "", "A file that the JSON line is appended to as well.")


def main(arguments):
    """Builds the config without its evaluators and writers, and times it."""
    command.refuse_stray_words(arguments)
    if not CONFIG.value:
        raise UsageError("experiments.benchmark needs --config=configs/NAME.py")
    config = build.normalised(command.config_of(CONFIG)) | {"evaluators": {}, "writers": {}}
    config["checkpoint"] = {"type": "checkpoint.Policy", "every": 1}
    build.check(loop.fit, config, given=("folder", "config"))
    if SYNTHETIC.value:
        shape = re.fullmatch(r"(\d+)x(\d+)x(\d+)x([13])", SYNTHETIC.value)
        if not shape:
            raise UsageError(f"--synthetic={SYNTHETIC.value!r} is not a shape such as 50000x32x32x3")
        sizes = {"type": "data.resident.noise", "shape": tuple(int(n) for n in shape.groups())}
        config["data"] = {**sizes, "batch_size": config["data"]["batch_size"]}
    parts = build.arguments(loop.fit, config, given=("folder", "config"))
    check_batch(parts["data"].batch_size, parts["mesh"])
    other = None
    if WITHOUT.value:
        other = build.arguments(loop.fit, _without(config, WITHOUT.value), given=("folder", "config"))["method"]
    line = json.dumps({"config": config["method"]["type"], **measure(parts, other), **log.environment()})
    print(line)
    if OUT.value:
        path = pathlib.Path(OUT.value)
        with log.writing(path), path.open("a") as file:
            file.write(line + "\n")


def measure(parts, other=None):
    """Times the step, the augmentation and the whole loop of what `build.arguments` made; seconds are medians.

    `other` is a second method whose step is timed beside the first's.
    """
    method, preprocess, feed, mesh, seed = (parts[k] for k in ("method", "preprocess", "data", "mesh", "seed"))
    trainer = Trainer(method, preprocess, feed.spec, seed=seed, mesh=mesh)
    batches = feed.batches(mesh, seed, 0)
    batch = next(batches)

    began = time.perf_counter()
    state = trainer.untrained()
    compiled = trainer.step.lower(state, batch).compile()
    compile_seconds = time.perf_counter() - began

    views = trainer.preprocess(batch, 0)
    key = rng.stream(seed, "method")
    update = jax.jit(method.step, donate_argnums=0)
    states = {"step": trainer.untrained(), "loop": state}

    def step():
        states["step"], metrics = update(states["step"], views, key)
        return metrics

    def augmentation():
        return trainer.preprocess(batch, 0)

    def whole_loop():
        states["loop"], metrics = trainer.step(states["loop"], next(batches))
        return metrics

    works = {"step": step, "augmentation": augmentation, "loop": whole_loop}
    if other is not None:
        other_update = jax.jit(other.step, donate_argnums=0)
        spec = jax.eval_shape(lambda: views)
        states["other"] = jax.jit(lambda: other.init(rng.stream(seed, "init"), spec))()

        def without():
            states["other"], metrics = other_update(states["other"], views, key)
            return metrics

        works["without"] = without
    seconds = {name: [] for name in works}
    for timed in range(ROUNDS.value + 1):
        for name, work in works.items():
            took = _seconds_each(work)
            if timed:  # the first round compiles and warms up
                seconds[name].append(took)
    batches.close()
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    over = [w / (s + a) for s, a, w in zip(*(seconds[k] for k in ("step", "augmentation", "loop")), strict=True)]
    share = {}
    if other is not None:
        shares = [1 - w / s for s, w in zip(seconds["step"], seconds["without"], strict=True)]
        share = {"without": WITHOUT.value, "share_of_step": round(statistics.median(shares), 4)}
        share["share_of_step_range"] = [round(min(shares), 4), round(max(shares), 4)]
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    return {
        "batch_size": feed.batch_size,
        **{f"{name}_seconds": round(value, 5) for name, value in medians.items()},
        **{f"{name}_images_per_second": round(feed.batch_size / value, 1) for name, value in medians.items()},
        "loop_over_parts": round(statistics.median(over), 4),
        "loop_over_parts_range": [round(min(over), 4), round(max(over), 4)],
        **share,
        "compile_seconds": round(compile_seconds, 2),
        "peak_bytes": memory.temp_size_in_bytes + memory.argument_size_in_bytes if memory else None,
        "flops_per_second": cost["flops"] / medians["loop"] if cost and "flops" in cost else None,
        "rounds": ROUNDS.value,
        "steps_per_round": STEPS.value,
    }


def _without(config, path):
    """The config without one section of it."""
    head, _, rest = path.partition(".")
    if head not in config:
        raise UsageError(f"--without={WITHOUT.value}: the config has no {head!r}; it has {', '.join(sorted(config))}")
    if rest:
        return {**config, head: _without(config[head], rest)}
    return {key: value for key, value in config.items() if key != head}


def _seconds_each(work):
    began = time.perf_counter()
    for _ in range(STEPS.value):
        done = work()
    jax.block_until_ready(done)
    return (time.perf_counter() - began) / STEPS.value


if __name__ == "__main__":
    command.run(main)
