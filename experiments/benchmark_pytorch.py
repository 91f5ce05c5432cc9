"""The training steps of a config in images a second, beside the same steps in PyTorch on the same machine.

    python -m experiments.benchmark_pytorch --config=configs/simsiam_cifar10.py --synthetic=50000x32x32x3 \\
        --config.data.batch_size=128 --config.method.encoder.width_multiplier=0.25 --out=pytorch.jsonl

Each side lives in a process of its own; the two are timed in turn, round after round, so that a drifting machine slows
both alike, and while one is timed the other waits. Reported are medians over the rounds of the compiled update alone on
batches that lie ready (`step`), and of the whole loop with data, augmentation and update (`loop`); `ratio` is our
images a second over PyTorch's, above 1 where ours is faster, the median of the rounds' ratios with their range beside
it. The peak is the process's (on a GPU the device memory that its arrays took). On CPU both compute in float32 as the
config says, PyTorch with channels last; on a GPU PyTorch runs under autocast in bfloat16 and compiled, so give ours
`dtype=bfloat16` there. PyTorch is of the extra `parity`.

SimSiam with ResNet-18 or -34, GANs with the networks of DCGAN, SNGAN and R3GAN, and CycleGAN have a peer in
`experiments.pytorch_steps`; both sides must train as many parameters, or the benchmark refuses to compare them.
"""

import contextlib
import dataclasses
import importlib.util
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np
from absl import flags

from experiments import command, config_flag
from ssl_jax import build, log, loop, rng
from ssl_jax.mesh import check_batch
from ssl_jax.trainer import Trainer
from ssl_jax.types import RunError, UsageError

CONFIG = config_flag.define_config("The experiment, such as configs/simsiam_cifar10.py.")
SYNTHETIC = flags.DEFINE_string("synthetic", "", "Noise instead of the data set, such as 50000x32x32x3.")
ROUNDS = flags.DEFINE_integer("rounds", 5, "Rounds; the medians over them are reported.", lower_bound=1)
STEPS = flags.DEFINE_integer("steps", 5, "Steps timed in each round.", lower_bound=1)
OUT = flags.DEFINE_string("out", "", "A file that the JSON line is appended to as well.")
SIDE = flags.DEFINE_string("side", "", "What a process that this script starts is told; not for the command line.")

SIDES = ("ours", "pytorch")
WORKS = ("step", "loop")
PAUSE_SECONDS = 0.5  # until the threads of the side before no longer wait for work by spinning
UNUSED = {"evaluators": {}, "writers": {}, "checkpoint": {"type": "checkpoint.Policy", "every": 1}}


def main(arguments):
    """Times both sides, or is one of them."""
    command.refuse_stray_words(arguments)
    if SIDE.value:
        name, _, folder = SIDE.value.partition(":")
        return _serve({"ours": _ours, "pytorch": _pytorch}[name](pathlib.Path(folder)))
    if importlib.util.find_spec("torch") is None:
        raise UsageError("experiments.benchmark_pytorch needs PyTorch: pip install -c constraints.txt -e '.[parity]'")
    if not CONFIG.value:
        raise UsageError("experiments.benchmark_pytorch needs --config=configs/NAME.py")
    config = build.normalised(command.config_of(CONFIG)) | UNUSED
    with tempfile.TemporaryDirectory() as folder:
        batch_size = _write(config, pathlib.Path(folder))
        sides = {name: _Side(name, folder) for name in SIDES}
        try:
            facts = {name: side.ask("facts") for name, side in sides.items()}
            refuse_unlike(facts)
            rounds = []
            for number in range(ROUNDS.value + 1):
                # Whoever comes second finds the caches as the other left them, so they take turns at that.
                order = SIDES if number % 2 else SIDES[::-1]
                rounds.append({(work, name): _timed(sides[name], work) for work in WORKS for name in order})
            peaks = {name: side.ask("peak") for name, side in sides.items()}
        finally:
            for side in sides.values():
                side.close()
    # The first round compiles and warms up.
    result = {"config": config["method"]["type"], "batch_size": batch_size, **_summary(rounds[1:], batch_size)}
    result |= {f"{name}_peak_bytes": peak for name, peak in peaks.items()}
    result |= {"pytorch": facts["pytorch"]["version"], "pytorch_device": facts["pytorch"]["device"]}
    result |= {"rounds": ROUNDS.value, "steps_per_round": STEPS.value, **log.environment()}
    line = json.dumps(result)
    command.tell(line, OUT.value)


def _timed(side, work):
    time.sleep(PAUSE_SECONDS)
    return side.ask(f"{work} {STEPS.value}")


def _summary(rounds, batch_size):
    result = {}
    for work in WORKS:
        for name in SIDES:
            seconds = statistics.median(each[work, name] for each in rounds) / STEPS.value
            result[f"{name}_{work}_images_per_second"] = round(batch_size / seconds, 2)
        ratios = [each[work, "pytorch"] / each[work, "ours"] for each in rounds]
        result[f"{work}_ratio"] = round(statistics.median(ratios), 3)
        result[f"{work}_ratio_range"] = [round(min(ratios), 3), round(max(ratios), 3)]
    return result


def refuse_unlike(facts):
    """Raises UsageError unless PyTorch trains as many parameters as ours in each of its networks."""
    ours, theirs = (facts[name]["parameters"] for name in SIDES)
    unlike = [f"{name} {ours.get(name)} and {theirs.get(name)}" for name in theirs if ours.get(name) != theirs[name]]
    if unlike:
        raise UsageError(f"the two sides train other networks (numbers of parameters): {'; '.join(unlike)}")


class _Side:
    """A process that times what it is asked to."""

    def __init__(self, name, folder):
        self._name = name
        command_line = [sys.executable, "-m", "experiments.benchmark_pytorch", f"--side={name}:{folder}"]
        # The two share a GPU; and only ours sets how memory is kept (`ssl_jax.process`), as PyTorch's users do not.
        environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        environment |= {"SSL_JAX_KEEP_HEAP": "0"} if name == "pytorch" else {}
        self._process = subprocess.Popen(
            command_line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def ask(self, question):
        """The answer to one question, from JSON."""
        try:
            self._process.stdin.write(question + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # what it said before it ended is on the error stream
        answer = self._process.stdout.readline()
        if not answer:
            code = self._process.wait()
            kind = UsageError if code == command.USAGE else RunError
            raise kind(f"the side {self._name} ended with exit code {code}; it says why above")
        return json.loads(answer)

    def close(self):
        """Ends the process."""
        with contextlib.suppress(BrokenPipeError):  # the process may have ended by itself
            self._process.stdin.close()
        self._process.wait()


def _serve(works):
    """Answers questions by lines until there are no more: the name of a work, with a number of calls to time."""
    for question in sys.stdin:
        name, *calls = question.split()
        if not calls:
            print(json.dumps(works[name]()), flush=True)
            continue
        began = time.perf_counter()
        for _ in range(int(calls[0])):
            wait = works[name]()
        wait()
        print(time.perf_counter() - began, flush=True)


def _write(config, folder):
    """Puts what both sides read into a folder: the config for ours, the data set and a description for PyTorch's."""
    if SYNTHETIC.value:
        config["data"] = command.noise_section("synthetic", SYNTHETIC.value, config["data"])
    parts = build.arguments(loop.fit, config, given=("folder", "config"))
    feed = parts["data"]
    check_batch(feed.batch_size, parts["mesh"])
    arrays = getattr(feed, "arrays", None)
    if arrays is None:
        raise UsageError("config.data is streamed: only resident feeds are compared, so set its feeding to resident")
    np.savez(folder / "data.npz", **arrays)
    (folder / "description.json").write_text(json.dumps(description(config, parts)))
    (folder / "config.json").write_text(json.dumps(config))
    return feed.batch_size


def description(config, parts):
    """What PyTorch's side is made from: see `pytorch_steps.peer`.

    Args:
        config: the config, as nested dicts.
        parts: what `build.arguments` made of it.
    """
    optimizers = {
        name.removesuffix("optimizer").strip("_") or "all": section
        for name, section in config["method"].items()
        if name.endswith("optimizer")
    }
    return {
        "method": described(parts["method"]),
        "preprocess": described(parts["preprocess"]),
        "optimizers": optimizers,
        "batch_size": parts["data"].batch_size,
    }


def described(thing):
    """A dataclass as nested fields with a `type` each, as far as they are data."""
    if dataclasses.is_dataclass(thing):
        names = [field.name for field in dataclasses.fields(thing) if field.name not in ("parent", "name")]
        kind = f"{type(thing).__module__.removeprefix('ssl_jax.')}.{type(thing).__name__}"
        return {"type": kind, **{name: described(getattr(thing, name)) for name in names}}
    if isinstance(thing, list | tuple) and not hasattr(thing, "_fields"):
        return [described(item) for item in thing]
    return thing if isinstance(thing, str | int | float | type(None)) else None


def _ours(folder):
    """What our side answers."""
    config = build.normalised(json.loads((folder / "config.json").read_text()))
    parts = build.arguments(loop.fit, config, given=("folder", "config"))
    method, feed, mesh, seed = (parts[name] for name in ("method", "data", "mesh", "seed"))
    trainer = Trainer(method, parts["preprocess"], feed.spec, seed=seed, mesh=mesh)
    batches = feed.batches(mesh, seed, 0)
    views = trainer.preprocess(next(batches), 0)
    key = rng.stream(seed, "method")
    lies = jax.tree.map(lambda leaf: leaf.sharding, trainer.state_spec)
    update = jax.jit(method.step, donate_argnums=0, out_shardings=(lies, None))
    state = trainer.untrained()  # both works train it on, as PyTorch's train their one network
    parameters = {name: sum(leaf.size for leaf in jax.tree.leaves(tree)) for name, tree in state.params.items()}

    def step():
        nonlocal state
        state, metrics = update(state, views, key)
        return lambda: jax.block_until_ready(metrics)

    def whole_loop():
        nonlocal state
        state, metrics = trainer.step(state, next(batches))
        return lambda: jax.block_until_ready(metrics)

    def peak():
        statistics_of_device = jax.devices()[0].memory_stats()
        return statistics_of_device["peak_bytes_in_use"] if statistics_of_device else _peak_of_process()

    return {"facts": lambda: {"parameters": parameters}, "step": step, "loop": whole_loop, "peak": peak}


def _pytorch(folder):
    """What PyTorch's side answers."""
    import torch

    from experiments import pytorch_steps

    with np.load(folder / "data.npz", allow_pickle=False) as arrays:
        peer = pytorch_steps.peer(json.loads((folder / "description.json").read_text()), dict(arrays))
    on_gpu = torch.cuda.is_available()
    ready = peer.prepare(next(peer.batches))
    facts = {"parameters": peer.parameters, "version": torch.__version__, "device": "cuda" if on_gpu else "cpu"}

    def finished():
        return torch.cuda.synchronize() if on_gpu else None

    def step():
        peer.step(ready)
        return finished

    def whole_loop():
        peer.step(peer.prepare(next(peer.batches)))
        return finished

    def peak():
        return torch.cuda.max_memory_allocated() if on_gpu else _peak_of_process()

    return {"facts": lambda: facts, "step": step, "loop": whole_loop, "peak": peak}


def _peak_of_process():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    command.run(main)
