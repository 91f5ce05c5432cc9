"""CycleGAN's networks to and from the state dicts of the reference implementation, to the bit.

The reference (junyanz/pytorch-CycleGAN-and-pix2pix) saves each network in a file of its own, `latest_net_G_A.pth` and
so on. Its names are those of a `torch.nn.Sequential`: "model.1.weight", with a number for every layer, those without
weights included. Kernels are [out, in, h, w] there, those of transposed convolutions [in, out, h, w]; here
[h, w, in, out] and [h, w, out, in], without a flip.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

import flax.traverse_util
import numpy as np

from ssl_jax import types
from ssl_jax.models import cyclegan, pytorch

FILES = {
    "generator_ab": "G_A",
    "generator_ba": "G_B",
    "discriminator_a": "D_B",
    "discriminator_b": "D_A",
}
"""What the reference calls our networks: its file is `latest_net_<this>.pth`.

G_A and D_A there are one contest: G_A makes B out of A, and D_A judges B, its own translations against real ones. Here
a discriminator has the name of the domain that it judges, so theirs are the other way round. (The paper's names are G,
F, D_X and D_Y for G_A, G_B, D_B and D_A.)
"""

_STATISTICS = ("running_mean", "running_var", pytorch.IGNORED_LEAF)
_NAMED_FAULTS = 4
_GENERATOR, _DISCRIMINATOR = "a ResNet generator", "a PatchGAN"


@dataclasses.dataclass(frozen=True)
class _Convolution:
    """Where the reference keeps one convolution: its name, its kernel's shape, its norm's name where there is one."""

    name: str
    shape: tuple[int, ...]
    features: int
    norm: str | None


_Layout = Mapping[tuple[str, ...], _Convolution]


def from_reference(
    state_dict: pytorch.StateDict, *, where: str
) -> tuple[cyclegan.ResNetGenerator, dict[str, dict[str, Any]]]:
    """A generator of the reference: `resnet_9blocks`, `resnet_6blocks` or one with another number of blocks.

    Blocks, width and channels are read off names and shapes. Files of old versions also hold running statistics of the
    instance norms. The reference takes them away when it loads such a file, and so does this: every image is normalised
    by its own statistics. Generators trained with dropout, which shifts a name in each block, are read alike.

    Args:
        state_dict: arrays by the reference's names, without "module."; see `pytorch.read_checkpoint`.
        where: the file's name, for the error's text.

    Returns:
        The module, which computes in float32, and its parameters, float32 numpy arrays. The channels that it takes are
        those of `params["stem"]["kernel"]`, [7, 7, channels, width].

    Raises:
        UsageError: for another network, and for entries that are missing, unexpected or of another shape; every entry
            is used, and nothing is loaded in part.
    """
    _refuse_others(state_dict, where, _GENERATOR)
    stem, blocks = state_dict["model.1.weight"], _numbers(state_dict, r"model\.(\d+)\.conv_block\.")
    made = _shape(state_dict, f"model.{17 + blocks}.weight")[:1] or (stem.shape[1],)
    network = cyclegan.ResNetGenerator(made[0], stem.shape[0], blocks)
    dropout = any(name.endswith(".conv_block.6.weight") for name in state_dict)
    layout = _generator_layout(network, stem.shape[1], dropout)
    return network, _filled(state_dict, layout, where, f"ResNet generator with {blocks} block(s)")


def discriminator_from_reference(
    state_dict: pytorch.StateDict, *, where: str
) -> tuple[cyclegan.PatchGAN, dict[str, dict[str, Any]]]:
    """A discriminator of the reference: `basic`, or `n_layers` with any number of them.

    Statistics, arguments and whatever else is not said here are as of `from_reference`.

    Returns:
        The module, which computes in float32, and its parameters, float32 numpy arrays. The channels that it takes are
        those of `params["conv1"]["kernel"]`, [4, 4, channels, width].

    Raises:
        UsageError: as `from_reference` does; also for one trained without norm, which has fewer biases.
    """
    _refuse_others(state_dict, where, _DISCRIMINATOR)
    convolutions = _numbers(state_dict, r"model\.(\d+)\.(weight|bias)$")
    width, channels = state_dict["model.0.weight"].shape[:2]
    network = cyclegan.PatchGAN(width, max(convolutions - 2, 1))
    layout = _discriminator_layout(network, channels)
    return network, _filled(state_dict, layout, where, f"PatchGAN with {network.strides} stride(s)")


def to_reference(params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The exact inverse of `from_reference` and `discriminator_from_reference`.

    What the parameters do not show must be as in the reference: `border="reflect"` and `norm="instance"`.

    Args:
        params: of a `ResNetGenerator` or a `PatchGAN`, arrays on host or device.

    Returns:
        Arrays by the reference's names, in the order of its layers and of the type given.

    Raises:
        UsageError: for a generator with other `halvings`, `outer_px` or `upsampling` than the reference's, a
            `UNetGenerator` and other networks.
    """
    flat = {path: np.asarray(leaf) for path, leaf in flax.traverse_util.flatten_dict(params).items()}
    layout = _layout_of(flat)
    wanted = {(*path, leaf) for path in layout for leaf in ("kernel", "bias")}
    faults = ["/".join(path) for path in sorted(wanted ^ flat.keys())]
    if not faults:
        state_dict = {}
        for path, there in layout.items():
            kernel, bias = flat[*path, "kernel"], flat[*path, "bias"]
            if kernel.ndim != 4 or _theirs(kernel).shape != there.shape or bias.shape != (there.features,):
                faults.append(f"{'/'.join(path)} has a kernel {kernel.shape} and a bias {bias.shape}")
                continue
            state_dict |= {f"{there.name}.weight": _theirs(kernel), f"{there.name}.bias": bias}
    if faults or not layout:
        raise types.UsageError(
            f"the reference implementation has no such network ({_first(faults) or 'no parameters'}): give the "
            "parameters of a ResNetGenerator with halvings=2, outer_px=7 and transposed convolutions, or of a PatchGAN"
        )
    return state_dict


def _numbers(names: Iterable[str], pattern: str) -> int:
    return len({match[1] for name in names if (match := re.match(pattern, name))})


def _shape(state_dict: pytorch.StateDict, name: str) -> tuple[int, ...]:
    return tuple(state_dict[name].shape) if name in state_dict else ()


def _generator_layout(network: cyclegan.ResNetGenerator, channels: int, dropout: bool) -> _Layout:
    position, layout = 0, {}
    for step in network.plan():
        if isinstance(step, cyclegan.Block):
            for layer, place in zip(step.layers, (1, 6 if dropout else 5), strict=True):
                name = f"model.{position}.conv_block"
                shape = (layer.features, channels, layer.kernel_px, layer.kernel_px)
                norm = f"{name}.{place + 1}"
                layout[step.name, layer.name] = _Convolution(f"{name}.{place}", shape, layer.features, norm)
            position += 1
            continue
        position += step.border == "reflect"  # the reference pads in a layer of its own
        pair = (channels, step.features) if step.transposed else (step.features, channels)
        norm = f"model.{position + 1}" if step.norm else None
        shape = (*pair, step.kernel_px, step.kernel_px)
        layout[(step.name,)] = _Convolution(f"model.{position}", shape, step.features, norm)
        channels, position = step.features, position + 3
    return layout


def _discriminator_layout(network: cyclegan.PatchGAN, channels: int) -> _Layout:
    last, layout = network.strides + 2, {}
    for number in range(1, last + 1):
        features = 1 if number == last else network.width * min(2 ** (number - 1), 8)
        position = 0 if number == 1 else 3 * number - 4
        norm = f"model.{position + 1}" if 1 < number < last else None
        layout[(f"conv{number}",)] = _Convolution(f"model.{position}", (features, channels, 4, 4), features, norm)
        channels = features
    return layout


def _layout_of(flat: Mapping[tuple[str, ...], np.ndarray]) -> _Layout:
    """The layout of a parameter tree; empty for one that is neither of the two networks."""
    stem, head, conv1 = (flat.get((name, "kernel")) for name in ("stem", "head", "conv1"))
    if stem is not None and head is not None and stem.ndim == head.ndim == 4:
        blocks = len({path[0] for path in flat if len(path) == 3})
        return _generator_layout(
            cyclegan.ResNetGenerator(head.shape[3], stem.shape[3], blocks), stem.shape[2], dropout=False
        )
    if conv1 is not None and conv1.ndim == 4 and len(flat) >= 6:
        return _discriminator_layout(cyclegan.PatchGAN(conv1.shape[3], len(flat) // 2 - 2), conv1.shape[2])
    return {}


def _ours(kernel: np.ndarray) -> np.ndarray:
    return np.moveaxis(kernel, (1, 0), (-2, -1))


def _theirs(kernel: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(kernel, (-2, -1), (1, 0)))


def _filled(state_dict: pytorch.StateDict, layout: _Layout, where: str, what: str) -> dict[str, dict[str, Any]]:
    """The parameters, once every entry has been found to be the one that is expected."""
    norms = {there.norm for there in layout.values()}
    found = {
        name: tuple(value.shape)
        for name, value in state_dict.items()
        if not (name.rpartition(".")[2] in _STATISTICS and name.rpartition(".")[0] in norms)
    }
    expected = {}
    for there in layout.values():
        expected |= {f"{there.name}.weight": there.shape, f"{there.name}.bias": (there.features,)}
    faults = [f"missing {name} {shape}" for name, shape in expected.items() if name not in found]
    faults += [f"unexpected {name} {shape}" for name, shape in found.items() if name not in expected]
    faults += [
        f"{name} has shape {found[name]}, not {shape}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    if faults:
        raise types.UsageError(
            f"{where} does not fit the reference implementation's {what} ({len(faults)} of {len(expected)} entries), "
            f"nothing was loaded: {_first(faults)}"
        )
    filled = {}
    for path, there in layout.items():
        filled[*path, "kernel"] = np.array(_ours(state_dict[f"{there.name}.weight"]), np.float32, order="C")
        filled[*path, "bias"] = np.array(state_dict[f"{there.name}.bias"], np.float32)
    return flax.traverse_util.unflatten_dict(filled)


def _first(faults: list[str]) -> str:
    more = len(faults) - _NAMED_FAULTS
    return "; ".join(faults[:_NAMED_FAULTS]) + (f"; and {more} more" if more > 0 else "")


def _refuse_others(state_dict: Mapping[str, Any], where: str, wanted: str) -> None:
    """Says in words what a file holds instead of the network that is wanted."""
    others = [str(name) for name, value in state_dict.items() if not hasattr(value, "shape")]
    if others:
        raise types.UsageError(
            f"{where} holds more than weights ({_first(others)}): give the state dict of one network alone, as the "
            "reference implementation saves it"
        )
    kind = _kind(state_dict)
    if kind != wanted:
        raise types.UsageError(f"{where} holds {kind}, and {wanted} of the reference implementation is needed")
    norms = [name for name, value in state_dict.items() if name.endswith(".weight") and np.ndim(value) == 1]
    if norms:
        raise types.UsageError(
            f"{where}: its norms have weights of their own ({_first(norms)}), as batch norm has; only networks with "
            "the reference's instance norm (its --norm instance), which has none, can be taken over"
        )


def _kind(state_dict: pytorch.StateDict) -> str:
    first, stem = _shape(state_dict, "model.0.weight"), _shape(state_dict, "model.1.weight")
    if any(name.startswith("model.model.") for name in state_dict):
        return "a U-Net"
    if any(name.startswith("net.") for name in state_dict):
        return "a discriminator of single pixels"
    if len(stem) == 4 and stem[2:] == (7, 7):
        return _GENERATOR
    if len(first) == 4 and first[2:] == (4, 4):
        return _DISCRIMINATOR
    return f"another network ({_first(list(state_dict))})" if state_dict else "no weights"
