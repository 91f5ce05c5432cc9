"""PyTorch's files, and weights in its layout that become ours: the SimSiam authors' and torchvision's ResNets."""

import io
import pathlib
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import flax.traverse_util
import numpy as np

from ssl_jax import archive, types

Tree = Mapping[str, Any]
StateDict = Mapping[str, np.ndarray]
Path = tuple[str, ...]

LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
IGNORED_LEAF = "num_batches_tracked"
WRAPPER = "module."


def read_checkpoint(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """The weights in a PyTorch file (`.pth`, `.pth.tar`) or in an `.npz` of the same names.

    A file that holds more than weights is expected to keep them under "state_dict". The prefix "module.", which
    PyTorch's parallel wrapper leaves, is removed. Only tensors are unpickled, so an untrusted file runs no code.

    Args:
        path: the file; reading anything but an `.npz` needs PyTorch.

    Returns:
        Arrays by PyTorch's names.

    Raises:
        UsageError: if the file is missing or unreadable, holds no weights, or PyTorch is needed and not installed.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise types.UsageError(f"no checkpoint file at {path}")
    entries = _read_npz(path) if path.suffix == ".npz" else _read_torch(path)
    if not entries:
        raise types.UsageError(f"{path} holds no weights")
    if all(name.startswith(WRAPPER) for name in entries):
        return {name.removeprefix(WRAPPER): value for name, value in entries.items()}
    return entries


def as_checkpoint(state_dict: StateDict) -> bytes:
    """The content of a PyTorch file (`.pth`) with a plain dict of float32 tensors, which `load_state_dict` takes.

    Raises:
        UsageError: where PyTorch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise types.UsageError("writing a PyTorch file needs PyTorch: pip install torch, or write .npz") from error
    file = io.BytesIO()
    torch.save({name: torch.from_numpy(np.array(value, np.float32)) for name, value in state_dict.items()}, file)
    return file.getvalue()


def from_simsiam_checkpoint(
    state_dict: StateDict, params_template: Tree, stats_template: Tree
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Weights of the reference implementation (facebookresearch/simsiam, `simsiam/builder.py`).

    Its projector's last dense layer has a bias that was never trained and that the batch norm after it cancels. Ours
    has none there: the running mean takes it in, so that evaluation gives the same numbers.

    Args:
        state_dict: arrays by PyTorch's names, without "module."; see `read_checkpoint`.
        params_template: parameters, or their shapes and dtypes, under "encoder" (a `ResNet`), "projector" and
            "predictor".
        stats_template: batch statistics likewise.

    Returns:
        Parameters and batch statistics as numpy arrays, in the structure and dtypes of the templates.

    Raises:
        UsageError: naming every entry that is missing, unexpected or of another shape; nothing is loaded in part.
    """
    networks = set(params_template)
    if networks != set(_NETWORKS):
        raise types.UsageError(
            f"a SimSiam checkpoint holds {', '.join(_NETWORKS)}; asked for {', '.join(sorted(networks))}"
        )
    projector = params_template["projector"]
    last = max(int(layer.removeprefix("dense")) for layer in projector if layer.startswith("dense"))
    folded_bias = f"{_projector_name(f'dense{last}')}.bias" if "bias" not in projector[f"dense{last}"] else None
    folded_into = f"{_projector_name(f'norm{last}')}.running_mean"

    def name_of(path: Path) -> str:
        network, *rest = path
        return _NETWORKS[network](tuple(rest))

    extra_shapes = {}
    if folded_bias is not None:
        extra_shapes[folded_bias] = projector[f"dense{last}"]["kernel"].shape[-1:]
    _check(state_dict, [params_template, stats_template], name_of, extra_shapes)
    if folded_bias is not None:
        mean = state_dict[folded_into] - state_dict[folded_bias]
        state_dict = {**state_dict, folded_into: mean}
    return _fill(state_dict, params_template, name_of), _fill(state_dict, stats_template, name_of)


def from_torchvision_resnet(
    state_dict: StateDict, params_template: Tree, stats_template: Tree
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Weights of a torchvision ResNet-18, -34 or -50; its classifier (`fc`), if there, is left out.

    Args:
        state_dict: arrays by PyTorch's names, without "module."; see `read_checkpoint`.
        params_template: parameters of a `ResNet`, or their shapes and dtypes.
        stats_template: its batch statistics likewise.

    Returns:
        Parameters and batch statistics as numpy arrays, in the structure and dtypes of the templates.

    Raises:
        UsageError: naming every entry that is missing, unexpected or of another shape; nothing is loaded in part.
    """
    backbone = {name: value for name, value in state_dict.items() if name not in ("fc.weight", "fc.bias")}
    _check(backbone, [params_template, stats_template], _resnet_name, {})
    return _fill(backbone, params_template, _resnet_name), _fill(backbone, stats_template, _resnet_name)


def _resnet_name(path: Path) -> str:
    *modules, leaf = path
    names = {"stem_conv": "conv1", "stem_norm": "bn1", "shortcut_conv": "downsample.0", "shortcut_norm": "downsample.1"}
    parts = []
    for module in modules:
        if block := re.fullmatch(r"stage(\d+)_block(\d+)", module):
            parts.append(f"layer{block[1]}.{int(block[2]) - 1}")
        elif module in names:
            parts.append(names[module])
        else:
            parts.append(module.replace("norm", "bn"))
    return ".".join([*parts, LEAVES[leaf]])


def _projector_name(module: str) -> str:
    return f"encoder.fc.{_sequential_index(module)}"


def _sequential_index(module: str) -> int:
    """Where a dense layer or batch norm stands in a sequence of (dense, norm, ReLU), (dense, norm, ReLU), ..."""
    kind, layer = re.fullmatch(r"(dense|norm)(\d+)", module).groups()
    return 3 * (int(layer) - 1) + (kind == "norm")


_NETWORKS: dict[str, Callable[[Path], str]] = {
    "encoder": lambda path: f"encoder.{_resnet_name(path)}",
    "projector": lambda path: f"{_projector_name(path[0])}.{LEAVES[path[1]]}",
    "predictor": lambda path: f"predictor.{_sequential_index(path[0])}.{LEAVES[path[1]]}",
}


def _torch_shape(path: Path, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Ours is [h, w, in, out] and [in, out]; PyTorch's [out, in, h, w] and [out, in]."""
    if path[-1] != "kernel":
        return shape
    *spatial_px, in_features, out_features = shape
    return (out_features, in_features, *spatial_px)


def _check(
    state_dict: StateDict,
    templates: list[Tree],
    name_of: Callable[[Path], str],
    extra_shapes: Mapping[str, tuple[int, ...]],
) -> None:
    expected = dict(extra_shapes)
    for template in templates:
        for path, leaf in flax.traverse_util.flatten_dict(template).items():
            expected[name_of(path)] = _torch_shape(path, tuple(leaf.shape))
    found = {name: tuple(value.shape) for name, value in state_dict.items() if not name.endswith(IGNORED_LEAF)}
    problems = [f"missing {name} {shape}" for name, shape in expected.items() if name not in found]
    problems += [f"unexpected {name} {shape}" for name, shape in found.items() if name not in expected]
    problems += [
        f"{name} has shape {found[name]}, not {shape}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    if problems:
        raise types.UsageError(
            f"the checkpoint does not fit the network ({len(problems)} of {len(expected)} entries), nothing was "
            f"loaded; set depth, stem, widths and layers as in the checkpoint: {'; '.join(problems)}"
        )


def _fill(state_dict: StateDict, template: Tree, name_of: Callable[[Path], str]) -> dict[str, Any]:
    filled = {}
    for path, leaf in flax.traverse_util.flatten_dict(template).items():
        value = np.asarray(state_dict[name_of(path)])
        if path[-1] == "kernel":
            value = np.moveaxis(value, (1, 0), (-2, -1))
        filled[path] = np.array(value, dtype=leaf.dtype)
    return flax.traverse_util.unflatten_dict(filled)


def _read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        return archive.read(path)
    except (OSError, ValueError) as error:
        raise types.UsageError(f"{path} is not a readable .npz file: {error}") from error


def _read_torch(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError as error:
        raise types.UsageError(
            f"reading {path} needs PyTorch: pip install torch, or save the weights as .npz where it is installed"
        ) from error
    try:
        if zipfile.is_zipfile(path):
            with path.open("rb") as file:
                archive.check_zip(file)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes PyTorch raise what it likes
        # PyTorch's own advice is to load whatever it is, which would run what is in it.
        objects = isinstance(error, pickle.UnpicklingError)
        reason = "it holds other objects, which are not loaded" if objects else str(error).strip().split("\n")[0][:300]
        raise types.UsageError(f"{path} is not a PyTorch file of plain tensors: {reason}") from error
    if isinstance(content, Mapping) and "state_dict" in content:
        content = content["state_dict"]
    if not isinstance(content, Mapping):
        raise types.UsageError(f"{path} holds a {type(content).__name__}, not weights by name")
    named = {name: value for name, value in content.items() if isinstance(name, str)}
    others = [
        str(name) if str(name).isprintable() else repr(name)
        for name in content
        if not isinstance(named.get(name), torch.Tensor)
    ]
    if others:
        some = ", ".join(name[:60] for name in others[:5]) + (f" and {len(others) - 5} more" if len(others) > 5 else "")
        raise types.UsageError(f"{path} holds more than weights and no state_dict: {some}")
    try:
        # numpy has no bfloat16.
        return {
            name: (value.float() if value.dtype == torch.bfloat16 else value).detach().numpy()
            for name, value in named.items()
        }
    except (TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise types.UsageError(f"{path} holds tensors that are no plain arrays ({reason})") from error
