"""The device mesh: which devices there are, where arrays lie on them, and what each of them holds of the state.

Data parallelism is `jit` over a mesh whose axes split the batch: batch statistics are then global and gradients are
averaged by the compiler, so no method ever names an axis. The two axes differ only in what the state does: along `data`
it is repeated, along `shard` its large arrays are divided.
"""

import contextlib
import itertools
import os
import re
import signal
import traceback
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from ssl_jax import lost_processes
from ssl_jax.types import RunError, TrainState, UsageError

DIVIDED_FROM = 2**12
"""The fewest numbers of an array that is divided: a smaller one costs a message and saves nothing."""

JOIN_SECONDS = 300
"""How long processes wait for each other at the start: a cluster may start its tasks minutes apart."""

HEARTBEAT_SECONDS = 60
"""How long a process may be silent until the others give it up."""

MEET_SECONDS = 10
"""How long a process that fails waits for the others to fail alike."""

LOST = (
    "another process has ended or cannot be reached any more: what was saved stands, and all processes, started again "
    "with the same commands, go on from there"
)

_BROKEN = re.compile(
    r"gloo|nccl|coordination|unhealthy|heartbeat|unavailable|connection (closed|reset|refused)", re.IGNORECASE
)
_meetings = itertools.count()


def data_parallel(devices: int | None = None, shards: int = 1) -> jax.sharding.Mesh:
    """A mesh with the axes `data` and `shard`; the batch is split over both.

    Args:
        devices: the first so many of all devices; None takes all.
        shards: over how many devices each parameter and each array of an optimiser is divided. 1 keeps the whole state
            on every device (data parallelism); 0 divides it over all of them (fully sharded, ZeRO's third stage, arXiv
            1910.02054); a number between divides it in groups of so many (hybrid sharding). It decides memory and
            traffic, never the result.

    Raises:
        UsageError: when there are fewer devices than asked for, fewer than one is asked for, or `shards` does not
            divide them.
    """
    # A process's devices together, as its share of a batch is: those of a TPU pod are numbered by place.
    there = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    if devices is not None and jax.process_count() > 1:
        raise UsageError(f"devices={devices} cannot be set with several processes: each brings all of its devices")
    count = len(there) if devices is None else devices
    if not 1 <= count <= len(there):
        raise UsageError(f"devices={count}, but this machine has {len(there)} {there[0].platform} device(s)")
    parts = count if shards == 0 else shards
    if parts < 1 or count % parts:
        divisors = [str(number) for number in range(1, count + 1) if count % number == 0]
        raise UsageError(f"shards={shards} does not divide {count} device(s): take {', '.join(divisors)}, or 0 for all")
    # Neighbours, mostly of one process, share the divided arrays: their traffic is the larger.
    grid = np.array(there[:count]).reshape(count // parts, parts)
    # Auto axes are spelt out: `jax.make_mesh` makes explicit ones by default, under which indexing by an array fails.
    return jax.sharding.Mesh(grid, ("data", "shard"), axis_types=(AxisType.Auto, AxisType.Auto))


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: jax.sharding.Mesh) -> NamedSharding:
    """The leading axis is divided over all devices."""
    return NamedSharding(mesh, PartitionSpec(mesh.axis_names))


def divided(mesh: jax.sharding.Mesh, shape: tuple[int, ...]) -> NamedSharding:
    """Where an array of the state lies: its longest axis that the shards divide is divided, of equals the first.

    Arrays of fewer than `DIVIDED_FROM` numbers, and those without such an axis, are held whole by every device.
    """
    shards = mesh.shape["shard"]
    able = [axis for axis, length in enumerate(shape) if length % shards == 0]
    if shards == 1 or not able or np.prod(shape) < DIVIDED_FROM:
        return replicated(mesh)
    longest = max(able, key=lambda axis: (shape[axis], -axis))
    return NamedSharding(mesh, PartitionSpec(*[None] * longest, "shard"))


def state_shardings(mesh: jax.sharding.Mesh, state: TrainState) -> TrainState:
    """A tree of shardings like `state`: parameters and optimisers divided, all else on every device."""
    everywhere = jax.tree.map(lambda _: replicated(mesh), state)
    lies = {
        name: jax.tree.map(lambda leaf: divided(mesh, leaf.shape), getattr(state, name)) for name in ("params", "opt")
    }
    return everywhere.replace(**lies)


def put(batch: Any, mesh: jax.sharding.Mesh) -> Any:
    """Places a tree of host arrays that every process holds whole, their leading axis divided over the devices."""
    sharding = split(mesh)
    return jax.tree.map(lambda array: jax.make_array_from_callback(array.shape, sharding, array.__getitem__), batch)


def check_batch(batch_size: int, mesh: jax.sharding.Mesh) -> None:
    """Raises UsageError when the devices do not divide the batch, naming the nearest sizes that would do."""
    devices = mesh.devices.size
    if batch_size % devices:
        lower = batch_size - batch_size % devices
        raise UsageError(
            f"config.data.batch_size={batch_size} is not divided by {devices} devices; "
            f"take {' or '.join(str(size) for size in (lower, lower + devices) if size)}, or set config.mesh.devices"
        )


def join_processes(coordinator: str, processes: int, process: int) -> None:
    """Makes this process one of several that train together.

    From then on a process that loses the others ends in one line, see `together`.

    Args:
        coordinator: `host:port` of process 0; empty where JAX finds it by itself (Slurm, Open MPI, TPU pods).
        processes: how many there are, 0 where JAX finds out by itself.
        process: which one this is, from 0; -1 where JAX finds out by itself.

    Raises:
        UsageError: when JAX cannot bring the processes together, or they disagree on their number. Where they do not
            come within `JOIN_SECONDS`, the process ends with the line and the exit code of one.
    """
    if coordinator and not re.fullmatch(r".+:\d+", coordinator):
        raise UsageError(f"--coordinator={coordinator} is no HOST:PORT, such as node1:1234")
    joined = []
    lost_processes.watch(lambda reason: (LOST, 1) if joined else (_not_joined(coordinator, reason), 2))
    try:
        jax.distributed.initialize(
            coordinator or None,
            processes if processes > 0 else None,
            process if process >= 0 else None,
            initialization_timeout=JOIN_SECONDS,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except (RuntimeError, ValueError) as error:
        raise UsageError(_not_joined(coordinator, str(error))) from error
    # XLA takes SIGTERM for a question that nobody here asks; until training takes it over, it ends the process.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    joined.append(True)
    counts = multihost_utils.process_allgather(np.int32(processes or jax.process_count())).ravel().tolist()
    if set(counts) != {jax.process_count()}:
        raise UsageError(
            f"{jax.process_count()} processes came together, but were given --processes={', '.join(map(str, counts))}: "
            "give all of them the same number"
        )


def _not_joined(coordinator, reason):
    place = f" at {coordinator}" if coordinator else ""
    if "DEADLINE" in reason:
        why = (
            f"not all came within {JOIN_SECONDS} seconds; start every one of them, with the same --coordinator and "
            "--processes and its own --process"
        )
    elif "Unexpected task" in reason:
        why = "process 0 expects fewer processes; give all of them the same --processes"
    elif "ALREADY_EXISTS" in reason or "newer incarnation" in reason:
        why = "there are two of the same number; give each its own --process"
    elif "should be defined" in reason or "must be defined" in reason:
        why = "JAX finds no cluster here; give --coordinator=HOST:PORT --processes=N --process=I"
    else:
        why = reason.splitlines()[0] if reason else "no reason is given"
    return f"the processes did not come together{place}: {why}"


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Makes the end of one of several processes the end of all, each in one line, in bounded time.

    What all processes raise alike within `MEET_SECONDS` passes through. What one raises alone ends it there and then,
    without the clearing up that would wait for the others; these lose it, and end with exit code 1. The network says
    so at once where the lost one was process 0 or was being computed with, else the heartbeat does. Nothing is saved on
    the way, as that takes all processes; the last checkpoint stands.
    """
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if not jax.distributed.is_initialized() or jax.process_count() == 1:
            raise
        if broken := _broken(error):
            lost_processes.leave(f"{LOST} ({broken})", 1)
        if _all_meet():
            raise
        if not isinstance(error, (UsageError, RunError)):
            traceback.print_exception(error)
        lost_processes.leave(str(error) or "interrupted", 2 if isinstance(error, UsageError) else 1)


def _broken(error):
    """What the network said, in an error or in one that it came from; "" where it said nothing."""
    while error is not None:
        text = str(error).strip()
        # JAX raises what the network says as an error of its own, which is a RuntimeError, or as a ValueError.
        if isinstance(error, (RuntimeError, ValueError)) and _BROKEN.search(text):
            return text.splitlines()[0][:200]
        error = error.__cause__ or error.__context__
    return ""


def _all_meet():
    """Whether every process comes here within `MEET_SECONDS`."""
    # JAX has barriers with a time limit, as Orbax uses them, but no public name for them.
    from jax._src import distributed

    client = distributed.global_state.client
    try:
        client.wait_at_barrier(f"ssl_jax/end/{next(_meetings)}", MEET_SECONDS * 1000)
    except jax.errors.JaxRuntimeError:
        return False
    return True


def hint_of_cluster() -> str:
    """What to do where a cluster started several tasks that do not train together, such as
    "SLURM_NTASKS=8: give --processes=0 to train together"; "" where none did."""
    if jax.process_count() > 1:
        return ""
    for count, of_a_task in (("SLURM_NTASKS", "SLURM_STEP_NODELIST"), ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK")):
        there = os.environ.get(count, "")
        if of_a_task in os.environ and there.isdecimal() and int(there) > 1:
            return f"{count}={there}: give --processes=0 to train together"
    return ""


def any_process(flag: bool) -> bool:
    """Whether the flag is up in any process; every process must ask at the same step."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))


def is_first_process() -> bool:
    """Whether this process is the one that writes and prints."""
    return jax.process_index() == 0
