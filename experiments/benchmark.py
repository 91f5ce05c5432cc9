"""Steady-state speed of a config's training, as one JSON line for the config and one for each variant of it.

    python -m experiments.benchmark --config=configs/simsiam_cifar10.py --synthetic=50000x32x32x3 \\
        --config.data.batch_size=128 --config.method.encoder.width_multiplier=0.25 \\
        --variants="bfloat16: config.method.encoder.dtype=bfloat16; big: config.data.batch_size=1024"

Times in turn, round after round, so that a drifting machine slows all alike, and reports medians: the compiled update
alone (`step`), the augmentation alone, and the whole loop: the data feed's next batch, then the one compiled function
of augmentation and update that `experiments.train` calls. `loop_over_parts` is the whole loop's time over the sum of
the other two: 1.05 means 5 % on top. The step is split into `forward` (its losses alone), `backward` (losses and
gradients, less the losses alone) and `update` (the step, less both); of a GAN, those of both networks together, with
the images that the generator makes for the discriminator and a penalty's own gradients in `forward`. Where a penalty
comes every n-th update, give a number of steps that n divides. `--nosplit` saves compiling the two parts; `split` says
why a step is not taken apart.

In the same rounds the device multiplies large matrices and copies memory: `peak`, in operations and bytes a second.
`share_of_peak` is the FLOP/s of the loop's matrix products and convolutions on each device over the peak's, in the type
that the config computes in. `compile_seconds` is that of the first state and of the loop's function, without the folder
of compiled programs. `peak_bytes` is what XLA says that function takes, `process_peak_bytes` what the device saw of all
variants until then, where it counts.

Places that the config fills from one value follow a variant as they follow a flag. `--without=method.regularizer` times
the update without that section of the config as well, in the same rounds, and reports its share of the update's time:
0.4 means that the update would take 0.6 of its time.
"""

import copy
import itertools
import json
import re
import statistics
import time
from collections.abc import Mapping

import jax
import numpy as np
from absl import flags

from experiments import command, config_flag, operations, peak, step_parts
from ssl_jax import build, log, loop, process, rng
from ssl_jax.mesh import check_batch
from ssl_jax.trainer import Trainer
from ssl_jax.types import UsageError

CONFIG = config_flag.define_config("The experiment, such as configs/simsiam_cifar10.py.")
SYNTHETIC = flags.DEFINE_string("synthetic", "", "Noise instead of the data set, such as 50000x32x32x3.")
VARIANTS = flags.DEFINE_string("variants", "", "NAME: config.key=value config.key=value; NAME: ..., timed beside it.")
ROUNDS = flags.DEFINE_integer("rounds", 5, "Rounds; the medians over them are reported.", lower_bound=1)
STEPS = flags.DEFINE_integer("steps", 10, "Steps timed in each round.", lower_bound=1)
SPLIT = flags.DEFINE_boolean("split", True, "Take the step apart into forward, backward and update.")
WITHOUT = flags.DEFINE_string(
    "without", "", "A section of the config, such as method.regularizer, whose share is timed."
)
OUT = flags.DEFINE_string("out", "", "A file that the JSON lines are appended to as well.")


def main(arguments):
    """Builds the config and its variants without their evaluators and writers, and times them."""
    command.refuse_stray_words(arguments)
    if not CONFIG.value:
        raise UsageError("experiments.benchmark needs --config=configs/NAME.py")
    config = build.normalised(command.config_of(CONFIG))
    cases = {"base": config}
    for name, words in variants(VARIANTS.value).items():
        cases[name] = copy.deepcopy(config)
        config_flag.override(cases[name], CONFIG.linked(), words)
    built = {name: _built(case) for name, case in cases.items()}
    other = None
    if WITHOUT.value:
        other = build.arguments(loop.fit, _without(_bare(config), WITHOUT.value), given=("folder", "config"))["method"]
    found = measure(built, other)
    for name, numbers in found.items():
        told = {"config": config["method"]["type"], "variant": name, **numbers, **log.environment()}
        line = json.dumps(log.plain(told))
        command.tell(line, OUT.value)


def variants(text: str) -> dict[str, list[str]]:
    """Flags by the name of a variant, from "NAME: config.key=value config.key=value; NAME: ...".

    Raises:
        UsageError: for another text, or a name that comes twice or is "base".
    """
    found: dict[str, list[str]] = {}
    for part in filter(None, map(str.strip, text.split(";"))):
        name, _, words = (text.strip() for text in part.partition(":"))
        if not re.fullmatch(r"config\.[^\s=]+=.*", words) or not name or name in {"base", *found}:
            raise UsageError(f"--variants={part!r}: write NAME: config.key=value config.key=value; NAME: ...")
        found[name] = [f"--{word}" for word in re.split(r"\s+(?=config\.)", words)]
    return found


def _bare(config):
    config = config | {"evaluators": {}, "writers": {}, "checkpoint": {"type": "checkpoint.Policy", "every": 1}}
    build.check(loop.fit, config, given=("folder", "config"))
    if SYNTHETIC.value:
        config["data"] = command.noise_section("synthetic", SYNTHETIC.value, config["data"])
    return config


def _built(config):
    config = _bare(config)
    parts = build.arguments(loop.fit, config, given=("folder", "config"))
    check_batch(parts["data"].batch_size, parts["mesh"])
    return {**parts, "computes_in": "bfloat16" if "bfloat16" in _texts(config["method"]) else "float32"}


class Case:
    """One variant on the device.

    Attributes:
        works: by name, what starts one step of it and gives its result.
        told: what is known of it without timing it further.
    """

    def __init__(self, parts, other=None):
        method, preprocess, feed, mesh, seed = (parts[k] for k in ("method", "preprocess", "data", "mesh", "seed"))
        trainer = Trainer(method, preprocess, feed.spec, seed=seed, mesh=mesh)
        self._batches = feed.batches(mesh, seed, 0)
        batch = next(self._batches)
        self.batch_size, self._computes_in, self._devices = feed.batch_size, parts["computes_in"], mesh.devices.size
        with process.compiling_afresh():
            began = time.perf_counter()
            states = {"loop": trainer.untrained()}
            traced = trainer.step.trace(states["loop"], batch)
            compiled = traced.lower().compile()
            self.compile_seconds = time.perf_counter() - began
        memory = compiled.memory_analysis()
        self._peak_bytes = memory.temp_size_in_bytes + memory.argument_size_in_bytes if memory else None
        self._flops = operations.count(traced.jaxpr)
        views = trainer.preprocess(batch, 0)
        key = rng.stream(seed, "method")
        update = jax.jit(method.step, donate_argnums=0)
        states["step"] = trainer.untrained()

        def step():
            states["step"], metrics = update(states["step"], views, key)
            return metrics

        def whole_loop():
            states["loop"], metrics = trainer.step(states["loop"], next(self._batches))
            return metrics

        self.works = {"step": step, "augmentation": lambda: trainer.preprocess(batch, 0), "loop": whole_loop}
        self.split = _why_whole(method, states["step"], views, key)
        if not self.split:
            # The step donates its state, and neither part reads that of the optimisers.
            held = states["step"].replace(opt=dict.fromkeys(states["step"].opt, ()))
            held = jax.tree.map(lambda x: x.copy(), held)
            for name, part in (("forward", step_parts.forward), ("gradient", step_parts.gradient)):
                self.works[name] = _stepping(jax.jit(part(method)), held, views, key)
        if other is not None:
            without_update = jax.jit(other.step, donate_argnums=0)
            spec = jax.eval_shape(lambda: views)
            states["without"] = jax.jit(lambda: other.init(rng.stream(seed, "init"), spec))()

            def without():
                states["without"], metrics = without_update(states["without"], views, key)
                return metrics

            self.works["without"] = without
        jax.block_until_ready([work() for work in self.works.values()])
        counted = jax.local_devices()[0].memory_stats() or {}
        self._process_peak_bytes = counted["peak_bytes_in_use"] if "peak_bytes_in_use" in counted else None

    def close(self):
        """Ends the feed."""
        self._batches.close()

    def numbers(self, seconds: Mapping[str, list[float]], peaks: Mapping[str, float]) -> dict:
        """The line's entries.

        Args:
            seconds: of each of `works`, a number a round.
            peaks: of the device, operations or bytes a second.
        """
        medians = {name: statistics.median(values) for name, values in seconds.items() if name != "gradient"}
        if "gradient" in seconds:
            for name, whole, part in (("backward", "gradient", "forward"), ("update", "step", "gradient")):
                medians[name] = statistics.median(_each(seconds, lambda w, p: w - p, whole, part))
        over = _each(seconds, lambda step, augmentation, loop: loop / (step + augmentation), *_PARTS)
        found = {"split": self.split} if self.split else {}
        if "without" in seconds:
            shares = _each(seconds, lambda step, without: 1 - without / step, "step", "without")
            found |= {"without": WITHOUT.value, "share_of_step": round(statistics.median(shares), 4)}
            found["share_of_step_range"] = [round(min(shares), 4), round(max(shares), 4)]
        rate = self._flops / medians["loop"]
        return {
            "batch_size": self.batch_size,
            **{f"{name}_seconds": round(value, 6) for name, value in medians.items()},
            **{f"{name}_images_per_second": round(self.batch_size / medians[name], 1) for name in _PARTS},
            "loop_over_parts": round(statistics.median(over), 4),
            "loop_over_parts_range": [round(min(over), 4), round(max(over), 4)],
            **found,
            "compile_seconds": round(self.compile_seconds, 2),
            "peak_bytes": self._peak_bytes,
            "process_peak_bytes": self._process_peak_bytes,
            "flops": self._flops,
            "flops_per_second": rate,
            "computes_in": self._computes_in,
            "share_of_peak": round(rate / peaks[self._computes_in] / self._devices, 4),
            "peak": peaks,
            "rounds": ROUNDS.value,
            "steps_per_round": STEPS.value,
        }


_PARTS = ("step", "augmentation", "loop")


def measure(built, other=None):
    """Times what `build.arguments` made of each variant, by its name, and the device's peaks; seconds are medians.

    `other` is a second method whose step is timed beside that of the first variant.
    """
    cases = {name: Case(parts, None if place else other) for place, (name, parts) in enumerate(built.items())}
    device = peak.peaks()
    works = {(name, work): call for name, case in cases.items() for work, call in case.works.items()}
    works |= {("", name): each.work for name, each in device.items()}
    seconds = {name: [] for name in works}
    for timed in range(ROUNDS.value + 1):
        for name, work in works.items():
            took = _seconds_each(work)
            if timed:  # the first round warms up
                seconds[name].append(took)
    for case in cases.values():
        case.close()
    peaks = {name: each.amount / statistics.median(seconds["", name]) for name, each in device.items()}
    return {
        name: case.numbers({work: seconds[name, work] for work in case.works}, peaks) for name, case in cases.items()
    }


def _why_whole(method, state, views, key):
    """Why the step is not taken apart, or an empty text."""
    if not SPLIT.value:
        return "--nosplit"
    try:
        jax.eval_shape(step_parts.gradient(method), state, views, key)
    except UsageError as error:
        return str(error)
    return ""


def _stepping(part, state, views, key):
    """What calls a part with the number of the step going up, by which penalties come and go."""
    numbers = itertools.count()
    return lambda: part(state.replace(step=np.int32(next(numbers))), views, key)


def _each(seconds, function, *names):
    return [function(*values) for values in zip(*(seconds[name] for name in names), strict=True)]


def _texts(value):
    """Every text in a section and below it."""
    if isinstance(value, Mapping):
        return {text for item in value.values() for text in _texts(item)}
    return {value} if isinstance(value, str) else set()


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
