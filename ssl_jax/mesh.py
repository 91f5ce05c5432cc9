"""The device mesh: which devices there are, where arrays lie on them, and how several processes become one run.

Data parallelism is `jit` over a mesh whose one axis, `data`, splits the batch: batch statistics are then global and
gradients are averaged by the compiler, so no method ever names an axis.
"""

from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from ssl_jax.types import UsageError


def data_parallel(devices: int | None = None) -> jax.sharding.Mesh:
    """A mesh with the one axis `data` over the first `devices` devices, all of them by default.

    Raises:
        UsageError: when there are fewer devices than asked for, or fewer than one is asked for.
    """
    there = jax.devices()
    if devices is not None and jax.process_count() > 1:
        raise UsageError(f"devices={devices} cannot be set with several processes: each brings all of its devices")
    count = len(there) if devices is None else devices
    if not 1 <= count <= len(there):
        raise UsageError(f"devices={count}, but this machine has {len(there)} {there[0].platform} device(s)")
    # Auto axes are spelt out: `jax.make_mesh` makes explicit ones by default, under which indexing by an array fails.
    return jax.sharding.Mesh(np.array(there[:count]), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: jax.sharding.Mesh) -> NamedSharding:
    """The leading axis is divided over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


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

    Args:
        coordinator: `host:port` of process 0; empty where JAX finds it by itself (Slurm, TPU pods).
        processes: how many there are, 0 where JAX finds out by itself.
        process: which one this is, from 0; -1 where JAX finds out by itself.

    Raises:
        UsageError: when JAX cannot bring the processes together.
    """
    try:
        jax.distributed.initialize(
            coordinator or None, processes if processes > 0 else None, process if process >= 0 else None
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"could not join {coordinator or 'the other processes'}: {reason}") from error


def any_process(flag: bool) -> bool:
    """Whether the flag is up in any process; every process must ask at the same step."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))


def is_first_process() -> bool:
    """Whether this process is the one that writes and prints."""
    return jax.process_index() == 0
