"""A few steps of a config's training on one device, on several, in several processes: are they the same, at what price?

    python -m experiments.benchmark_scale --config=configs/simsiam_digits.py --synthetic=1400x8x8x1 \\
        --devices=1,2,4,8 --shards=1,0 --steps=5 --processes=2 --out=scale.jsonl

A JSON line for every number of devices and shards (`mesh.data_parallel`), each measured in processes of its own, and a
table of them in the end. On a machine without accelerators the devices are virtual ones of the CPU: their speeds share
its cores and say nothing of scaling (`virtual`), but results, traffic and memory are those of as many real ones, as far
as XLA compiles alike for them.

`losses` has every metric whose name says so after each step, `difference` their largest distance from the run on one
device. `sent_bytes` is what a device gives to the collectives of a step by kind, and `ring_bytes` what it would send
in rings; see `experiments.collectives`. `memory_bytes` is what the step takes on a device, `state_bytes` the state's
share of it.
"""

import concurrent.futures
import json
import math
import os
import socket
import subprocess
import sys
import time

import jax
from absl import flags

from experiments import collectives, command, config_flag
from ssl_jax import build, log, loop, mesh
from ssl_jax.trainer import Trainer
from ssl_jax.types import RunError, UsageError

CONFIG = config_flag.define_config("The experiment, such as configs/simsiam_digits.py.")
SYNTHETIC = flags.DEFINE_string("synthetic", "", "Noise instead of the data set, such as 1400x8x8x1.")
DEVICES = flags.DEFINE_list("devices", ["1", "2", "4", "8"], "How many devices, a row or more each.")
SHARDS = flags.DEFINE_list("shards", ["1", "0"], "Over how many of them the state is divided; 0: over all.")
PROCESSES = flags.DEFINE_integer("processes", 1, "Also train in so many processes, with CPU devices.", lower_bound=1)
STEPS = flags.DEFINE_integer("steps", 5, "Steps of each training; all but the first are timed.", lower_bound=2)
OUT = flags.DEFINE_string("out", "", "A file that the JSON lines are appended to as well.")
ROW = flags.DEFINE_string("row", "", "Given to the script's own processes: DEVICES,SHARDS,PROCESSES,PROCESS,PORT.")

LIMIT_SECONDS = 3600


def main(arguments):
    """Measures every row in processes of its own; in one of these, its row."""
    command.refuse_stray_words(arguments)
    if not CONFIG.value:
        raise UsageError("experiments.benchmark_scale needs --config=configs/NAME.py")
    if ROW.value:
        print(json.dumps(measure(*(int(word) for word in ROW.value.split(",")))))
        return
    lines, first = [], None
    for devices, shards, processes in rows(_numbers("devices"), _numbers("shards"), PROCESSES.value):
        line = _in_processes(devices, shards, processes)
        if (devices, processes) == (1, 1):
            first = line["losses"]
        line = {**line, "difference": None if first is None else difference(line["losses"], first)}
        command.tell(json.dumps(line), OUT.value)
        lines.append(line)
    print("\n" + table(lines))


def rows(devices: list[int], shards: list[int], processes: int) -> list[tuple[int, int, int]]:
    """Devices, shards and processes of every row, the one device first; numbers that do not divide are left out."""
    found = {}
    for number in sorted(devices):
        for parts in shards:
            parts = parts or number
            if number % parts == 0:
                found[number, parts, 1] = None
                if processes > 1 and number % processes == 0:
                    found[number, parts, processes] = None
    return list(found)


def measure(devices: int, shards: int, processes: int, process: int, port: int) -> dict:
    """Trains in this process, which may be one of several, and says what came of it."""
    if processes > 1:
        mesh.join_processes(f"127.0.0.1:{port}", processes, process)
        if jax.default_backend() != "cpu":
            raise UsageError(f"--processes={processes}: on one {jax.default_backend()} machine one process has it all")
    config = build.normalised(command.config_of(CONFIG)) | {"evaluators": {}, "writers": {}}
    config["checkpoint"] = {"type": "checkpoint.Policy", "every": 1}
    config["mesh"] = {
        "type": "mesh.data_parallel",
        "devices": devices if processes == 1 else None,
        "shards": shards,
    }
    if SYNTHETIC.value:
        config["data"] = command.noise_section("synthetic", SYNTHETIC.value, config["data"])
    parts = build.arguments(loop.fit, config, given=("folder", "config"))
    method, preprocess, feed, grid, seed = (parts[k] for k in ("method", "preprocess", "data", "mesh", "seed"))
    mesh.check_batch(feed.batch_size, grid)
    trainer = Trainer(method, preprocess, feed.spec, seed=seed, mesh=grid)
    batches = feed.batches(grid, seed, 0)
    state, batch = trainer.untrained(), next(batches)
    step = trainer.step.lower(state, batch).compile()
    told, began = [], 0.0
    for number in range(STEPS.value):
        state, metrics = step(state, batch)
        told.append(metrics)
        batch = next(batches)
        if number == 0:
            jax.block_until_ready(metrics)
            began = time.perf_counter()
    jax.block_until_ready(metrics)
    seconds = (time.perf_counter() - began) / (STEPS.value - 1)
    batches.close()
    losses = {
        name: [float(metrics[place]) for metrics in told]
        for place, name in enumerate(trainer.metric_names)
        if "loss" in name
    }
    program, memory = step.as_text(), step.memory_analysis()
    return {
        **log.environment(),
        "config": config["method"]["type"],
        "batch_size": feed.batch_size,
        "devices": devices,
        "shards": shards,
        "processes": processes,
        "losses": losses,
        "sent_bytes": collectives.operand_bytes(program),
        "ring_bytes": collectives.ring_bytes(program, devices),
        "memory_bytes": memory.argument_size_in_bytes + memory.temp_size_in_bytes,
        "state_bytes": sum(
            math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
            for leaf in jax.tree.leaves(trainer.state_spec)
        ),
        "images_per_second": round(feed.batch_size / seconds, 1),
        "virtual": jax.default_backend() == "cpu",
    }


def difference(losses: dict[str, list[float]], first: dict[str, list[float]]) -> float:
    """The largest distance between the losses of two trainings, at any step."""
    return max(abs(a - b) for name in first for a, b in zip(losses[name], first[name], strict=True))


def table(lines: list[dict]) -> str:
    """The rows as plain text, bytes in millions."""
    kinds = [kind for kind in collectives.KINDS if any(kind in line["sent_bytes"] for line in lines)]
    speed = "images/s, virtual" if any(line["virtual"] for line in lines) else "images/s"
    names = ["processes", "devices", "shards", "difference", *(f"{kind} MB" for kind in kinds), "ring MB"]
    body = [[*names, "memory MB", "state MB", speed]]
    for line in lines:
        body.append(
            [
                *(str(line[name]) for name in ("processes", "devices", "shards")),
                "-" if line["difference"] is None else f"{line['difference']:.1e}",
                *(f"{line['sent_bytes'].get(kind, 0) / 1e6:.2f}" for kind in kinds),
                *(f"{line[name] / 1e6:.2f}" for name in ("ring_bytes", "memory_bytes", "state_bytes")),
                f"{line['images_per_second']:.0f}",
            ]
        )
    return log.aligned(body)


def _in_processes(devices, shards, processes):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": str(devices // processes)}
    words = [sys.executable, "-m", "experiments.benchmark_scale", *sys.argv[1:]]
    children = [
        subprocess.Popen(
            [*words, f"--row={devices},{shards},{processes},{process},{port}"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(processes)
    ]
    where = f"{processes} process(es), {devices} devices, {shards} shards"
    with concurrent.futures.ThreadPoolExecutor(processes) as readers:
        # All at once: each process waits for the others, and none may wait for its output to be read.
        said = [readers.submit(_output, child, where) for child in children]
        try:
            for each in concurrent.futures.as_completed(said):
                each.result()  # of several that fail the first says why
        finally:
            for child in children:
                child.kill()
    return json.loads(said[0].result().splitlines()[-1])


def _output(child, where):
    """What a process printed, once it has ended well."""
    try:
        printed, errors = child.communicate(timeout=LIMIT_SECONDS)
    except subprocess.TimeoutExpired as error:
        child.kill()
        child.communicate()  # reads to the end and closes
        raise RunError(f"{where}: not over after {LIMIT_SECONDS} seconds") from error
    if child.returncode:
        last = (errors.strip().splitlines() or ["it said nothing"])[-1].removeprefix("error: ")
        kind = UsageError if child.returncode == command.USAGE else RunError
        raise kind(f"{where}: {last}")
    return printed


def _numbers(flag):
    words = flags.FLAGS[flag].value
    least = 0 if flag == "shards" else 1
    if not words or not all(word.isdecimal() and int(word) >= least for word in words):
        raise UsageError(f"--{flag}={','.join(words)}: give numbers from {least}, such as 1,2,4,8")
    return [int(word) for word in words]


if __name__ == "__main__":
    command.run(main)
