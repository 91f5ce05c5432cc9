"""A trained CycleGAN's generator for pictures of any size, made from its run folder or a file and nothing else.

Departure from the reference implementation, which resizes pictures to sides that are multiples of 4, as its generator
takes them: here the picture is mirrored at its right and lower border until they are, and the result is cut back.
"""

import dataclasses
import functools
import pathlib
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax import build, checkpoint, fingerprint, pretrained, tiles
from ssl_jax.models import cyclegan, cyclegan_weights, pytorch
from ssl_jax.types import RunError, UsageError

METHOD = "methods.cyclegan.CycleGAN"
Direction = Literal["ab", "ba"]
WHOLE_PX = 2**20
"""Pictures of so many pixels are computed at once: at width 64 a map of all of them is 268 MB."""
_AT_ONCE_PX = 2**19


@dataclasses.dataclass(frozen=True)
class Translator:
    """One direction of a CycleGAN.

    Attributes:
        origin: the run folder or file, as it was named.
        which: "last" or "best" checkpoint of a run, or "file".
        step: of the checkpoint; 0 for a file, which knows none.
        name: what its run calls the network, such as "generator_ab_average".
        channels, made_channels: of the pictures that it takes and of those that it makes (1 or 3).
        network: the module.
        params: its parameters, on the device.
    """

    origin: str
    which: str
    step: int
    name: str
    channels: int
    made_channels: int
    network: nn.Module
    params: Any

    @property
    def sha256(self) -> str:
        """See `fingerprint.sha256`, of the parameters."""
        return fingerprint.sha256(self.params)

    def describe(self) -> str:
        """Words that say which network it is, for the user's eyes."""
        if self.which == "file":
            return f"generator of {self.origin}"
        return f"{self.name} of {self.origin}, its {self.which} checkpoint, step {self.step}"

    @property
    def multiple_px(self) -> int:
        """What the sides of its network's images are multiples of."""
        known = isinstance(self.network, cyclegan.ResNetGenerator | cyclegan.UNetGenerator)
        return 2**self.network.halvings if known else 1

    def check_tile(self, tile_px: int) -> None:
        """Raises UsageError for tiles that its network cannot be computed in; 0 stands for none in particular."""
        if tile_px and not isinstance(self.network, cyclegan.ResNetGenerator):
            raise UsageError(f"--tile_px={tile_px}: {self._no_tiles}; leave it out")
        if tile_px:
            tiles.check_tile(self.network, tile_px)

    def tile_px(self, height: int, width: int, asked_px: int = 0, *, whole: bool = False) -> int:
        """Rows of a tile for pictures of a size; 0 where all is computed at once, from `WHOLE_PX` on only if `whole`.

        Raises:
            UsageError: for large pictures and a network that cannot be computed in tiles.
        """
        height, width = (side + -side % self.multiple_px for side in (height, width))
        if whole or (not asked_px and height * width <= WHOLE_PX):
            return 0
        if not isinstance(self.network, cyclegan.ResNetGenerator):
            raise UsageError(
                f"{height}x{width} px are more than is computed at once ({WHOLE_PX:,} px), and {self._no_tiles}: make "
                "the picture smaller with --size_px, or try --whole"
            )
        least = tiles.least_px(self.network)
        return asked_px or max(least, _AT_ONCE_PX // width // self.multiple_px * self.multiple_px)

    def translate(
        self,
        picture: np.ndarray,
        asked_px: int = 0,
        *,
        whole: bool = False,
        progress: tiles.Progress | None = None,
    ) -> np.ndarray:
        """A picture of any size in the other domain.

        Args:
            picture: [h, w, channels], uint8 or float32 in [-1, 1].
            asked_px, whole: as of `tile_px`. Tiles change the result by rounding alone.
            progress: as of `tiles.translate`; not called where all is computed at once.

        Returns:
            float32 [h, w, made_channels] in [-1, 1].

        Raises:
            UsageError: for a picture that is too small or too large, or has other channels.
            RunError: for values that are not finite, and where the device's memory does not do.
        """
        height, width, channels = picture.shape
        if channels != self.channels:
            raise UsageError(f"{self.describe()} takes pictures of {self.channels} channel(s), not {channels}")
        tile_px = self.tile_px(height, width, asked_px, whole=whole)
        if picture.dtype == np.uint8:
            picture = picture.astype(np.float32) / np.float32(127.5) - 1
        margins = [(0, -side % self.multiple_px) for side in (height, width)]
        image = np.pad(picture, [*margins, (0, 0)], mode="reflect")
        try:
            jax.eval_shape(self.network.apply, {"params": self.params}, image[None])
        except UsageError as error:
            raise UsageError(f"{height}x{width} px is too small ({error})") from error
        try:
            if tile_px:
                made = tiles.translate(self.network, self.params, image, tile_px, progress)
            else:
                made = np.asarray(_whole(self.network, self.params, image))
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise RunError(
                f"a picture of {height}x{width} px does not fit the device's memory: {self._smaller(tile_px)}"
            ) from error
        if not np.isfinite(made).all():
            raise RunError(
                f"{self.describe()} makes values that are not finite: its training has diverged; take an earlier "
                "checkpoint"
            )
        return made[:height, :width]

    def _smaller(self, tile_px: int) -> str:
        """What to try where memory does not do with tiles of so many rows, 0 for none."""
        if not isinstance(self.network, cyclegan.ResNetGenerator):
            return "make it smaller with --size_px"
        least, tile_px = tiles.least_px(self.network), (tile_px or 256) // 2
        smaller = max(least, tile_px // self.multiple_px * self.multiple_px)
        return f"give --tile_px={smaller}" if smaller > least else "make it smaller with --size_px"

    @property
    def _no_tiles(self) -> str:
        return f"{type(self.network).__name__}, whose layers see the whole picture, cannot be computed in tiles"


def load(folder: pathlib.Path, direction: Direction, *, which: Literal["last", "best"] = "last") -> Translator:
    """One direction of a run of `methods.cyclegan`, the averaged generator where there is one.

    Raises:
        UsageError: for a folder that is no run or a run of another method, another direction, channels that no picture
            has, images that were not in [-1, 1], and "best" where nothing was compared.
        RunError: for damaged checkpoints.
    """
    if direction not in get_args(Direction):
        raise UsageError(f"direction={direction!r} is neither 'ab' (from A to B) nor 'ba'")
    config = build.normalised(pretrained.run_config_of(folder, METHOD, "CycleGAN"))
    _check_colours(config["preprocess"], folder)
    method = build.section(config["method"], "config.method", build.clock_of(folder))
    name = f"generator_{direction}" + ("" if method.average is None else "_average")
    params, _, step = checkpoint.restore_networks(folder, (name,), which=which)
    channels = {"a": method.channels_a, "b": method.channels_b}
    return _for_pictures(
        Translator(
            origin=str(folder),
            which=which,
            step=step,
            name=name,
            channels=channels[direction[0]],
            made_channels=channels[direction[1]],
            network=method.network(direction),
            params=jax.tree.map(jnp.asarray, params[name]),
        )
    )


def from_file(path: pathlib.Path) -> Translator:
    """A generator that the reference implementation trained, from its `latest_net_G_A.pth` or an `.npz` of that.

    A file holds one direction, and which it is only its name tells.

    Raises:
        UsageError: for a file that is missing, unreadable or holds another network, or channels that no picture has.
    """
    network, params = cyclegan_weights.from_reference(pytorch.read_checkpoint(path), where=str(path))
    return _for_pictures(
        Translator(
            origin=str(path),
            which="file",
            step=0,
            name="generator",
            channels=params["stem"]["kernel"].shape[2],
            made_channels=network.image_channels,
            network=network,
            params=jax.tree.map(jnp.asarray, params),
        )
    )


def _for_pictures(translator: Translator) -> Translator:
    for channels in (translator.channels, translator.made_channels):
        if channels not in (1, 3):
            raise UsageError(
                f"{translator.describe()} translates between {translator.channels} and {translator.made_channels} "
                "channels, and picture files hold 1 or 3: use its export translate_ab or translate_ba in Python"
            )
    return translator


def _check_colours(preprocess: dict[str, Any], folder: pathlib.Path) -> None:
    """Refuses a run whose images were not in [-1, 1], as pictures are here."""
    for view in (preprocess.get("a"), preprocess.get("b")):
        for name in ("mean", "deviation"):
            if view and any(value != 0.5 for value in view.get(name, (0.5,))):
                raise UsageError(
                    f"{folder} was trained on images with {name} {view[name]}, and pictures are translated as values "
                    "in [-1, 1]: train with mean and deviation 0.5, which tanh asks for anyway"
                )


@functools.partial(jax.jit, static_argnums=0)
def _whole(network, params, image):
    return network.apply({"params": params}, image[None])[0]
