"""Speed of a CycleGAN config's whole step, and what share of it each kind of layer takes, as one JSON line.

    python -m experiments.benchmark_cyclegan --config=configs/cyclegan_photos.py --config.data.batch_size=1

Needs no data set: the batches are noise of the size that `preprocess` crops to, or of `--size_px`. Runs on one device,
JAX's default.

A share is the time of all layers of a kind, forward and backward, at the shapes and as often as a step has them, over
the step's own time in the same round, so that a drifting machine slows both alike. Each layer is timed alone, as a
program of its own; in the step the compiler fuses layers with their neighbours and may run several at once. So the
shares do not add up to one: they say where time goes, not what a step would take without these layers. On accelerators
a layer of some ten microseconds is timed with the launch of its program. Losses, optimisers, activations and a gradient
penalty are in the step and in no share.
"""

import collections
import dataclasses
import json
import statistics
import time

import jax
import jax.numpy as jnp
from absl import flags

from experiments import command, config_flag, operations
from ssl_jax import build, log, loop, losses, rng
from ssl_jax.methods.cyclegan import DIRECTIONS, CycleGAN
from ssl_jax.models import cyclegan, layers
from ssl_jax.types import UsageError

CONFIG = config_flag.define_config("The experiment, such as configs/cyclegan_photos.py.")
SIZE_PX = flags.DEFINE_integer("size_px", None, "Side of the images; by default the crop's of the config.", 1)
ROUNDS = flags.DEFINE_integer("rounds", 5, "Rounds; the medians over them are reported.", lower_bound=1)
STEPS = flags.DEFINE_integer("steps", 3, "Steps, and runs of every layer, timed in each round.", lower_bound=1)
OUT = flags.DEFINE_string("out", "", "A file that the JSON line is appended to as well.")

BLOCKS = "residual_convolutions"


@dataclasses.dataclass(frozen=True)
class Part:
    """One convolution of a network, or one of the operations around it, at one shape.

    Attributes:
        kind: "enlargement", "reflection", "instance_norm", or what its convolution counts as.
        shape: of the maps that it is given, [b, h, w, c].
        layer: the convolution with its bias, and that alone; None for the other kinds.
        margin_px: of the reflection.
        of_maps, of_parameters: what its backward pass differentiates by.
        dtype: what it computes in.
    """

    kind: str
    shape: tuple[int, ...]
    layer: cyclegan.Layer | None = None
    margin_px: int = 0
    of_maps: bool = True
    of_parameters: bool = False
    dtype: str = "float32"

    def forward(self, x, *parameters):
        """Maps of `shape` to maps; a convolution takes its kernel and bias as well."""
        if self.layer is not None:
            return cyclegan.convolved(self.layer, x, *parameters)
        if self.kind == "reflection":
            return cyclegan.reflected(x, self.margin_px)
        if self.kind == "enlargement":
            return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
        return cyclegan.instance_norm(x)

    def arrays(self):
        """Noise for `forward`."""
        shapes = [self.shape]
        if self.layer is not None:
            ends = (self.shape[-1], self.layer.features)
            window = (self.layer.kernel_px, self.layer.kernel_px)
            shapes += [(*window, *(ends[::-1] if self.layer.transposed else ends)), (self.layer.features,)]
        dtype = layers.compute_dtype(self.dtype)
        return [jax.random.normal(rng.stream(0, "noise", i), shape, dtype) for i, shape in enumerate(shapes)]

    def result(self):
        """The shape of what `forward` gives."""
        return jax.eval_shape(lambda: self.forward(*self.arrays())).shape

    def work(self):
        """A call that starts the compiled forward and backward pass."""
        arrays = self.arrays()
        ends = (0 if self.of_maps else 1, len(arrays) if self.of_parameters else 1)

        def both(given, arrays):
            def of_some(*some):
                return self.forward(*arrays[: ends[0]], *some, *arrays[ends[1] :])

            result, gradients = jax.vjp(of_some, *arrays[ends[0] : ends[1]])
            return result, gradients(given)

        given = jax.random.normal(rng.stream(0, "given"), self.result(), arrays[0].dtype)
        compiled = jax.jit(both).lower(given, arrays).compile()
        return lambda: compiled(given, arrays)


def main(arguments):
    """Builds the config without its data, evaluators and writers, and times its step."""
    command.refuse_stray_words(arguments)
    if not CONFIG.value:
        raise UsageError("experiments.benchmark_cyclegan needs --config=configs/NAME.py")
    config = build.normalised(command.config_of(CONFIG)) | {"evaluators": {}, "writers": {}}
    config["checkpoint"] = {"type": "checkpoint.Policy", "every": 1}
    size_px, batch_size = SIZE_PX.value or _crop_px(config), config["data"]["batch_size"]
    shape = (batch_size, size_px, size_px, 3)
    config["data"] = {"type": "data.resident.noise", "shape": shape, "batch_size": batch_size}
    method = build.arguments(loop.fit, config, given=("folder", "config"))["method"]
    found = measure(method, size_px, batch_size, rounds=ROUNDS.value, steps=STEPS.value)
    line = json.dumps({"config": CONFIG.file, **found, **log.environment()})
    command.tell(line, OUT.value)


def measure(method, size_px, batch_size, *, rounds, steps):
    """Times a `CycleGAN`'s step and, in the same rounds, its layers; seconds and shares are medians over the rounds.

    Raises:
        UsageError: for another method, and a generator whose layers are not listed by a `plan`.
    """
    counts = parts(method, size_px, batch_size)
    batch = {
        f"image_{domain}": jax.random.uniform(
            rng.stream(0, "image", i),
            (batch_size, size_px, size_px, getattr(method, f"channels_{domain}")),
            minval=-1.0,
            maxval=1.0,
        )
        for i, domain in enumerate("ab")
    }
    key, spec = rng.stream(0, "method"), jax.eval_shape(lambda: batch)
    states = {"newest": jax.jit(lambda: method.init(rng.stream(0, "init"), spec))()}
    traced = jax.jit(method.step, donate_argnums=0).trace(states["newest"], batch, key)
    lowered = traced.lower()
    began = time.perf_counter()
    compiled = lowered.compile()
    compile_seconds = time.perf_counter() - began

    def step():
        states["newest"], metrics = compiled(states["newest"], batch, key)
        return metrics

    works = {part: part.work() for part in counts}
    seconds, of_kinds = [], collections.defaultdict(list)
    for timed in range(rounds + 1):
        of_step = _seconds_each(step, steps)
        took = collections.Counter()
        for part, work in works.items():
            took[part.kind] += counts[part] * _seconds_each(work, steps)
        if timed:  # the first round warms up
            seconds.append(of_step)
            for kind, value in took.items():
                of_kinds[kind].append(value)
    median = statistics.median(seconds)
    memory, flops = compiled.memory_analysis(), operations.count(traced.jaxpr)
    return {
        "size_px": size_px,
        "batch_size": batch_size,
        "step_seconds": round(median, 5),
        "step_seconds_range": [round(min(seconds), 5), round(max(seconds), 5)],
        "pairs_per_second": round(batch_size / median, 2),
        "compile_seconds": round(compile_seconds, 2),
        "peak_bytes": memory.temp_size_in_bytes + memory.argument_size_in_bytes if memory else None,
        "flops": flops,
        "flops_per_second": flops / median,
        "seconds_by_kind": {kind: round(statistics.median(values), 5) for kind, values in of_kinds.items()},
        "share_by_kind": {
            kind: round(statistics.median(v / s for v, s in zip(values, seconds, strict=True)), 4)
            for kind, values in of_kinds.items()
        },
        "rounds": rounds,
        "steps_per_round": steps,
    }


def parts(method, size_px, batch_size):
    """How often each `Part` occurs in one step of a `CycleGAN`: a `Counter`.

    Raises:
        UsageError: as of `measure`.
    """
    if not isinstance(method, CycleGAN) or not hasattr(method.generator, "plan"):
        raise UsageError(
            "experiments.benchmark_cyclegan takes the method methods.cyclegan.CycleGAN with the generator "
            "models.cyclegan.ResNetGenerator: time other configs with experiments.benchmark"
        )
    found = collections.Counter()
    channels, several = {"a": method.channels_a, "b": method.channels_b}, 2 if method.identity else 1
    judged = 2 if losses.needs_real(method.loss) else 1
    for source, target in DIRECTIONS:
        # The images to translate, with those that should stay as they are, and the way back; then what the generator
        # is told, and what the discriminator learns.
        there, back = (_generator_steps(method.network(d)) for d in (source + target, target + source))
        judge = _discriminator_steps(method.discriminator, size_px, channels[target])
        passes = [
            (method.generator, there, source, several, True, False),
            (method.generator, back, target, 1, True, True),
            (method.discriminator, judge, target, judged, False, True),
            (method.discriminator, judge, target, 2, True, False),
        ]
        for network, steps, domain, times, of_parameters, of_maps in passes:
            shape = (times * batch_size, size_px, size_px, channels[domain])
            for kind, layer in steps:
                for part in _around(kind, layer, shape, of_maps, of_parameters, network.dtype):
                    found[part] += 1
                    shape, of_maps = part.result(), of_maps or part.layer is not None
    return found


def _generator_steps(network):
    """(what its convolution counts as, layer) of each layer, in order."""
    steps = []
    for each in network.plan():
        if isinstance(each, cyclegan.Block):
            steps += [(BLOCKS, layer) for layer in each.layers]
        elif each.name in ("stem", "head"):
            steps.append(("stem_and_head", each))
        elif each.transposed:
            steps.append(("transposed_convolutions", each))
        else:
            steps.append(("enlarged_convolutions" if each.enlarged else "strided_convolutions", each))
    return steps


def _discriminator_steps(network, size_px, channels):
    """The same of a `PatchGAN`, whose layers are read from its parameters."""
    images = jax.ShapeDtypeStruct((1, size_px, size_px, channels), jnp.float32)
    params = jax.eval_shape(network.init, rng.stream(0, "init"), images)["params"]
    steps = []
    for number in range(1, len(params) + 1):
        kernel = params[f"conv{number}"]["kernel"].shape
        stride = 2 if number <= network.strides else 1
        norm = network.norm == "instance" and 1 < number < len(params)
        layer = cyclegan.Layer(f"conv{number}", kernel[-1], kernel[0], stride, norm=norm)
        steps.append(("discriminator_convolutions", layer))
    return steps


def _around(kind, layer, shape, of_maps, of_parameters, dtype):
    """A layer's parts, in order; each is handed what the one before it gives."""
    if layer.enlarged:
        yield Part("enlargement", shape, of_maps=of_maps, dtype=dtype)
        shape = (shape[0], 2 * shape[1], 2 * shape[2], shape[3])
    margin_px = layer.margin_px
    if layer.border == "reflect" and margin_px and not layer.transposed:
        yield Part("reflection", shape, margin_px=margin_px, of_maps=of_maps, dtype=dtype)
        shape, margin_px = (shape[0], shape[1] + 2 * margin_px, shape[2] + 2 * margin_px, shape[3]), 0
    alone = dataclasses.replace(
        layer, name="", enlarged=False, margin_px=margin_px, border="zeros", norm=False, activation="none"
    )
    convolution = Part(kind, shape, alone, of_maps=of_maps, of_parameters=of_parameters, dtype=dtype)
    yield convolution
    if layer.norm:
        yield Part("instance_norm", convolution.result(), dtype=dtype)


def _crop_px(config):
    """The side that `preprocess` crops A's images to."""
    crop = (config.get("preprocess", {}).get("a") or {}).get("crop") or {}
    if "size_px" not in crop:
        raise UsageError("the config's preprocess crops to no size_px: give the images' side as --size_px=256")
    return crop["size_px"]


def _seconds_each(work, steps):
    began = time.perf_counter()
    for _ in range(steps):
        done = work()
    jax.block_until_ready(done)
    return (time.perf_counter() - began) / steps


if __name__ == "__main__":
    command.run(main)
