"""A trained network by itself: read from a run or a file, written to a file, taken over by another run."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any, Literal

import flax.traverse_util
import numpy as np

from ssl_jax import archive, checkpoint, fingerprint, log
from ssl_jax.types import RunError, TrainState, UsageError

FILE_SUFFIXES = (".npz", ".safetensors")
_FORMAT = "ssl_jax network 1"
_METADATA = "metadata"


@dataclasses.dataclass(frozen=True)
class Network:
    """A network's numbers with what is needed to use them.

    Attributes:
        name: what its run called it, such as "encoder".
        section: the config section that builds its module.
        params: parameters, a tree of host arrays.
        stats: batch statistics, likewise; {} where there are none.
        mean, deviation: how its run normalised images in [0, 1].
        origin: the run folder or file, as it was named.
        which: "last" or "best" checkpoint of a run, or "file".
        step: of the checkpoint.
    """

    name: str
    section: Mapping[str, Any]
    params: Any
    stats: Any
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    origin: str
    which: str
    step: int

    @property
    def sha256(self) -> str:
        """See `fingerprint.sha256`, of parameters and statistics together."""
        return fingerprint.sha256({"params": self.params, "stats": self.stats})

    def describe(self) -> str:
        """Words that say what was taken, for the user's eyes."""
        where = "an exported file" if self.which == "file" else f"its {self.which} checkpoint"
        return f"{self.name} of {self.origin}, {where}, step {self.step}"


def read(origin: str, name: str = "encoder", *, which: Literal["last", "best"] | int = "last") -> Network:
    """A network out of a run folder, or out of a file that `write` made.

    Raises:
        UsageError: for what is neither, a run that has no such network, or "best" where nothing was compared.
        RunError: for damaged files.
    """
    path = pathlib.Path(origin)
    if path.is_file() or path.suffix in FILE_SUFFIXES:
        return _read_file(path, name)
    config = run_config(path)
    params, stats, step = _networks(path, name, which)
    if name not in config["method"]:
        raise UsageError(f"{origin}: its config describes no {name!r}, so there is nothing to build it from")
    mean, deviation = _colours(config["preprocess"], origin)
    which = which if isinstance(which, str) else "chosen"
    return Network(name, config["method"][name], params, stats, mean, deviation, str(origin), which, step)


def run_config(folder: pathlib.Path) -> dict[str, Any]:
    """The resolved config of a run folder.

    Raises:
        UsageError: for a folder that holds no run.
    """
    if not folder.exists():
        raise UsageError(f"there is no run folder or file {folder}: give the --workdir of an experiments.train run")
    file = folder / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        if not all(isinstance(config[name], dict) for name in ("method", "preprocess")):
            raise ValueError("`method` and `preprocess` are no sections")
        if not isinstance(config["method"]["type"], str):
            raise ValueError("`method` has no type")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(
            f"{folder} is no run folder (it has no sound config.json): give the --workdir of an experiments.train run"
        ) from error
    return config


def run_config_of(folder: pathlib.Path, method: str, name: str) -> dict[str, Any]:
    """`run_config` of a run of one method.

    Args:
        folder: the run folder.
        method: its type, such as "methods.gan.GAN".
        name: the method's for the user's eyes; in small letters it is the configs'.

    Raises:
        UsageError: as `run_config`, and for a run of another method.
    """
    config = run_config(folder)
    kind = config["method"]["type"]
    if kind != method:
        raise UsageError(
            f"{folder} is no {name}'s run ({kind}): give the --workdir of an experiments.train run of a {name.lower()} "
            "config"
        )
    return config


def _networks(folder, name, which):
    params, stats, step = checkpoint.restore_networks(folder, None, which=which)
    if name not in params:
        raise UsageError(f"{folder} has no {name}: its networks are {', '.join(sorted(params))}; give another run")
    return params[name], stats[name], step


def _colours(preprocess, origin):
    """Mean and deviation from the first section below `preprocess` that has both."""
    sections = [preprocess]
    for section in sections:
        if "mean" in section and "deviation" in section:
            return tuple(section["mean"]), tuple(section["deviation"])
        sections += [value for value in section.values() if isinstance(value, Mapping)]
    raise UsageError(f"{origin}: the preprocess section of its config names no mean and deviation")


def write(network: Network, path: pathlib.Path) -> None:
    """Writes one `.npz` or `.safetensors` file, which takes nothing of this project to read.

    Arrays are named `params/<path>` and `stats/<path>`; convolution kernels are [h, w, in, out], dense ones [in, out].
    What else belongs to the network is JSON under `metadata` (in safetensors: in the header).

    Raises:
        UsageError: for another suffix.
        RunError: when the disk does not take it.
    """
    if path.suffix not in FILE_SUFFIXES:
        raise UsageError(f"{path}: end the file's name in {' or '.join(FILE_SUFFIXES)}")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}")
    arrays = flax.traverse_util.flatten_dict({"params": network.params, "stats": network.stats}, sep="/")
    facts = {"format": _FORMAT, "sha256": network.sha256, **dataclasses.asdict(network)}
    text = json.dumps({key: value for key, value in facts.items() if key not in ("params", "stats")})
    if path.suffix == ".npz":
        log.replace(path, {**arrays, _METADATA: np.array(text)})
        return
    from safetensors import numpy as safetensors

    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    log.replace(path, safetensors.save(arrays, {_METADATA: text}))


def _read_file(path, name):
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    if path.suffix not in FILE_SUFFIXES:
        raise UsageError(f"{path} is a file, but neither {' nor '.join(FILE_SUFFIXES)}: give a run folder or an export")
    try:
        arrays, text = _npz(path) if path.suffix == ".npz" else _safetensors(path)
        facts = json.loads(text)
        if facts["format"] != _FORMAT:
            raise ValueError(f"its format is {facts['format']!r}, not {_FORMAT!r}")
        tree = flax.traverse_util.unflatten_dict(arrays, sep="/")
        network = Network(
            name=facts["name"],
            section=facts["section"],
            params=tree["params"],
            stats=tree.get("stats", {}),
            mean=tuple(facts["mean"]),
            deviation=tuple(facts["deviation"]),
            origin=str(path),
            which="file",
            step=facts["step"],
        )
        recorded = facts["sha256"]
    except Exception as error:  # a damaged archive makes zipfile, zlib and numpy raise what they like
        reason = str(error.args[0]) if isinstance(error, KeyError) else " ".join(str(error).split())
        raise UsageError(f"{path} is no whole network written by experiments.export ({reason})") from error
    if network.name != name:
        raise UsageError(f"{path} holds a network {network.name!r}, and {name!r} is needed")
    if network.sha256 != recorded:
        raise RunError(f"{path} is damaged: its arrays are not those that were written; export it again")
    return network


def _npz(path):
    arrays = archive.read(path)
    return arrays, str(arrays.pop(_METADATA))


def _safetensors(path):
    import safetensors

    with safetensors.safe_open(path, framework="numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()[_METADATA]  # noqa: SIM118


@dataclasses.dataclass(frozen=True)
class Graft:
    """Takes a network over into a run's first state.

    Attributes:
        origin: the run folder or exported file.
        network: what it is called there and here.
        step: of the run's checkpoint.
        sha256: what the network must be, so that a resumed run cannot go on with another; "" takes any.

    Raises:
        UsageError: when called, for a network that is not there, does not fit or is another.
    """

    origin: str
    step: int
    network: str = "encoder"
    sha256: str = ""

    def __call__(self, spec: TrainState) -> dict[str, dict[str, Any]]:
        """What replaces fresh numbers: {"params": {network: tree}, "stats": {network: tree}}, host arrays.

        Args:
            spec: the state to fit, as ShapeDtypeStructs.
        """
        if self.network not in spec.params:
            raise UsageError(f"graft.network={self.network!r}: this method's networks are {', '.join(spec.params)}")
        there = read(self.origin, self.network, which=self.step)
        if self.sha256 and there.sha256 != self.sha256:
            raise UsageError(
                f"the {self.network} of {self.origin} is another than this run began with "
                f"(SHA-256 {there.sha256[:12]}, not {self.sha256[:12]}): use a new --workdir"
            )
        given = {"params": {self.network: there.params}, "stats": {self.network: there.stats}}
        wanted = {kind: {self.network: getattr(spec, kind)[self.network]} for kind in given}
        checkpoint.refuse_differences(wanted, given, f"of {there.describe()}")
        return given
