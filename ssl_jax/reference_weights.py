"""CycleGAN's networks from the files of the reference implementation into a run, and from a run into such files."""

import dataclasses
import io
import pathlib
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from ssl_jax import build, checkpoint, pretrained
from ssl_jax.models import cyclegan, cyclegan_weights, pytorch
from ssl_jax.types import TrainState, UsageError

METHOD = "methods.cyclegan.CycleGAN"
_GENERATOR = {"halvings": 2, "outer_px": 7, "upsampling": "transposed", "border": "reflect"}
"""What every ResNet generator of the reference has, and ours by default."""


@dataclasses.dataclass(frozen=True)
class Graft:
    """Takes networks that the reference implementation trained over into a CycleGAN run's first state.

    Every file is a `.pth` as the reference saves it, which needs PyTorch, or an `.npz` of the same names; None begins
    with a fresh network. An average of a generator begins with the same numbers. What parameters do not show is the
    config's own affair: the reference has `border="reflect"` and `norm="instance"`.

    Attributes:
        generator_ab, generator_ba: from A to B and back: the reference's latest_net_G_A.pth and latest_net_G_B.pth.
        discriminator_a: judges images of A: the reference's latest_net_D_B.pth, with the letter of the generator that
            makes them.
        discriminator_b: judges images of B: the reference's latest_net_D_A.pth.

    Raises:
        UsageError: without any file; and, when called, for one that is not there, holds another network or does not
            fit.
    """

    generator_ab: str | None = None
    generator_ba: str | None = None
    discriminator_a: str | None = None
    discriminator_b: str | None = None

    def __post_init__(self):
        if not self._files():
            raise UsageError(f"graft names no file: give one or more of {', '.join(cyclegan_weights.FILES)}")

    def __call__(self, spec: TrainState) -> dict[str, dict[str, Any]]:
        """What replaces fresh numbers: {"params": {network: tree}}, host arrays.

        Args:
            spec: the state to fit, as ShapeDtypeStructs.
        """
        given = {}
        for name, file in self._files().items():
            if name not in spec.params:
                raise UsageError(f"graft.{name}={file}: this method's networks are {', '.join(spec.params)}")
            read = cyclegan_weights.from_reference
            if name.startswith("discriminator"):
                read = cyclegan_weights.discriminator_from_reference
            _, params = read(pytorch.read_checkpoint(file), where=file)
            checkpoint.refuse_differences({name: spec.params[name]}, {name: params}, f"of {file}")
            given[name] = params
            if f"{name}_average" in spec.params:
                given[f"{name}_average"] = params
        return {"params": given}

    def _files(self) -> dict[str, str]:
        files = {name: getattr(self, name) for name in cyclegan_weights.FILES}
        return {name: file for name, file in files.items() if file is not None}


@dataclasses.dataclass(frozen=True)
class Networks:
    """A run's networks as the reference would have saved them.

    Attributes:
        step: of the checkpoint.
        state_dicts: arrays by the reference's names, of each network by the reference's name: "G_A", "G_B" and, where
            the reference has such discriminators, "D_A", "D_B".
        taken: what the run calls each of them, such as "generator_ab_average".
        left_out: why there are no discriminators; "" where there are.
        options: those by which the reference's scripts build these networks, in words where it has no such option.
    """

    step: int
    state_dicts: Mapping[str, Mapping[str, np.ndarray]]
    taken: Mapping[str, str]
    left_out: str
    options: str


def of_run(folder: pathlib.Path, *, which: Literal["last", "best"] = "last") -> Networks:
    """The networks of a CycleGAN run, the averaged generators where there are any.

    Raises:
        UsageError: for a folder that is no run, a run of another method or with generators that the reference does not
            have, and "best" where nothing was compared.
        RunError: for damaged checkpoints.
    """
    config = build.normalised(pretrained.run_config_of(folder, METHOD, "CycleGAN"))
    _refuse_generator(build.section(config["method"]["generator"], "config.method.generator"), folder)
    judge = build.section(config["method"]["discriminator"], "config.method.discriminator")
    left_out = _unlike_the_references(judge)
    params, _, step = checkpoint.restore_networks(folder, None, which=which)
    state_dicts, taken = {}, {}
    for name, theirs in cyclegan_weights.FILES.items():
        if left_out and name.startswith("discriminator"):
            continue
        taken[theirs] = f"{name}_average" if f"{name}_average" in params else name
        state_dicts[theirs] = cyclegan_weights.to_reference(params[taken[theirs]])
    return Networks(step, state_dicts, taken, left_out, _options(params, None if left_out else judge))


def as_file(state_dict: Mapping[str, np.ndarray], suffix: str) -> bytes:
    """The content of one network's file: ".pth", which the reference loads, or ".npz" with the same names.

    Raises:
        UsageError: for another suffix, and for ".pth" where PyTorch is not installed.
    """
    if suffix == ".pth":
        return pytorch.as_checkpoint(state_dict)
    if suffix != ".npz":
        raise UsageError(f"networks of the reference are written as .pth or .npz, not {suffix!r}")
    file = io.BytesIO()
    np.savez(file, **state_dict)
    return file.getvalue()


def _refuse_generator(generator: Any, folder: pathlib.Path) -> None:
    if not isinstance(generator, cyclegan.ResNetGenerator):
        raise UsageError(
            f"{folder} has a {type(generator).__name__}, and only a ResNetGenerator can be written as the reference's"
        )
    others = [
        f"{name}={getattr(generator, name)!r}" for name in _GENERATOR if getattr(generator, name) != _GENERATOR[name]
    ]
    if others:
        expected = ", ".join(f"{name}={value!r}" for name, value in _GENERATOR.items())
        raise UsageError(
            f"{folder} has a generator with {', '.join(others)}, and the reference implementation has none but with "
            f"{expected}: its files can only be written for a run with these"
        )


def _unlike_the_references(judge: Any) -> str:
    if not isinstance(judge, cyclegan.PatchGAN):
        return f"the reference has no {type(judge).__name__}"
    return "" if judge.norm == "instance" else "without norm, the reference's discriminators have fewer biases"


def _options(params: Mapping[str, Any], judge: cyclegan.PatchGAN | None) -> str:
    generator, back = params["generator_ab"], params["generator_ba"]
    blocks = sum(name.startswith("block") for name in generator)
    channels, width = generator["stem"]["kernel"].shape[2:]
    words = f"--netG resnet_{blocks}blocks --ngf {width} --norm instance --no_dropout"
    if blocks not in (6, 9):
        words = f"ResnetGenerator with n_blocks={blocks} (its --netG knows 6 and 9), --ngf {width} --no_dropout"
    made = back["stem"]["kernel"].shape[2]
    words += f" --input_nc {channels} --output_nc {made}" if (channels, made) != (3, 3) else ""
    if judge is not None:
        words += f" --netD n_layers --n_layers_D {judge.strides} --ndf {judge.width}"
    return words
