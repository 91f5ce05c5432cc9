"""Random views of images: batched, keyed and pure, so they run inside the compiled step.

An operation is a frozen dataclass, called as `op(images, key)` on float32 [b, h, w, c] in [0, 1]. Every image has its
own draws, which depend on the key and its place in the batch alone, however the batch is sharded. `View` strings
operations together in the published order, `TwoViews` makes the two a contrast needs, `Plain` is what evaluation sees.
The arithmetic is float32 whatever the networks compute in.
"""

import dataclasses
import math
import zlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from ssl_jax import image_ops
from ssl_jax.types import UsageError


def _require(holds: bool, owner: object, field: str, rule: str) -> None:
    if not holds:
        value = getattr(owner, field)
        raise UsageError(f"augment.{type(owner).__name__}: {field} = {value!r} cannot be; it must be {rule}")


def _require_range(owner: object, field: str, low: float = -math.inf, high: float = math.inf) -> None:
    pair = getattr(owner, field)
    rule = f"a pair (low, high) with {low} <= low <= high <= {high}"
    _require(len(pair) == 2 and low <= pair[0] <= pair[-1] <= high, owner, field, rule)


def _require_probability(owner: object) -> None:
    _require(0.0 <= owner.probability <= 1.0, owner, "probability", "within [0, 1]")


def _named(key: jax.Array, name: str) -> jax.Array:
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def _uniform(key: jax.Array, images: jax.Array, *ranges: tuple[float, float]) -> list[jax.Array]:
    """For each range (low, high) one float32 array [b]; low included, high not."""
    unit = jax.random.uniform(key, (images.shape[0], len(ranges)), jnp.float32)
    return [low + (high - low) * unit[:, column] for column, (low, high) in enumerate(ranges)]


def _sometimes(draw: jax.Array, probability: float, changed: jax.Array, images: jax.Array) -> jax.Array:
    return jnp.where(image_ops.per_image(draw < probability), changed, images)


@dataclasses.dataclass(frozen=True)
class Crop:
    """A box of random area and shape, resized to a square (torchvision's RandomResizedCrop, antialiased).

    Attributes:
        size_px: side of the result, [b, size_px, size_px, c]; at most the shorter side of the images.
        scale: range of the box's area over the image's, uniform.
        ratio: range of its width over its height, uniform in the logarithm.
    """

    size_px: int
    scale: tuple[float, float] = (0.2, 1.0)
    ratio: tuple[float, float] = (0.75, 4 / 3)

    def __post_init__(self):
        _require(self.size_px >= 1, self, "size_px", "at least 1")
        _require_range(self, "scale", 0.0, 1.0)
        _require(self.scale[0] > 0.0, self, "scale", "above 0")
        _require_range(self, "ratio", 0.0)
        _require(self.ratio[0] > 0.0, self, "ratio", "above 0")

    def boxes(self, key: jax.Array, batch: int, height: int, width: int) -> jax.Array:
        """The boxes drawn for `batch` images of one size: int32 [b, 4], top, left, height and width in pixels.

        The first of ten tries that fits is taken; if none does, the largest central box of an allowed shape.
        """
        tries = 10
        unit = jax.random.uniform(key, (batch, 2 * tries + 2), jnp.float32)
        log_low, log_high = math.log(self.ratio[0]), math.log(self.ratio[1])
        area = height * width * (self.scale[0] + (self.scale[1] - self.scale[0]) * unit[:, :tries])
        shape = jnp.exp(log_low + (log_high - log_low) * unit[:, tries : 2 * tries])
        tall = jnp.round(jnp.sqrt(area / shape)).astype(jnp.int32)
        wide = jnp.round(jnp.sqrt(area * shape)).astype(jnp.int32)
        fits = (tall > 0) & (tall <= height) & (wide > 0) & (wide <= width)
        first = fits & (jnp.cumsum(fits, axis=1) == 1)
        found = fits.any(axis=1)

        central_tall, central_wide = height, width
        if width / height < self.ratio[0]:
            central_tall = round(width / self.ratio[0])
        elif width / height > self.ratio[1]:
            central_wide = round(height * self.ratio[1])
        box_height = jnp.where(found, jnp.where(first, tall, 0).sum(axis=1), central_tall)
        box_width = jnp.where(found, jnp.where(first, wide, 0).sum(axis=1), central_wide)
        free_down, free_right = height - box_height, width - box_width
        top = jnp.where(found, jnp.floor(unit[:, -2] * (free_down + 1)), free_down // 2)
        left = jnp.where(found, jnp.floor(unit[:, -1] * (free_right + 1)), free_right // 2)
        return jnp.stack([top, left, box_height, box_width], axis=1).astype(jnp.int32)

    def __call__(self, images: jax.Array, key: jax.Array) -> jax.Array:
        batch, height, width, _ = images.shape
        if min(height, width) < self.size_px:
            raise UsageError(
                f"augment.Crop: images of {height}x{width} px are smaller than size_px={self.size_px}; lower size_px"
            )
        boxes = self.boxes(key, batch, height, width)
        return image_ops.crop_resize(images, boxes[:, 0], boxes[:, 1], boxes[:, 2], boxes[:, 3], self.size_px)


@dataclasses.dataclass(frozen=True)
class PadCrop:
    """A window of the image's own size, moved by up to `padding_px` each way over a black border (He et al. 2016)."""

    padding_px: int = 4

    def __post_init__(self):
        _require(self.padding_px >= 0, self, "padding_px", "at least 0")

    def __call__(self, images: jax.Array, key: jax.Array) -> jax.Array:
        offsets = (-self.padding_px, self.padding_px + 1)
        down, right = _uniform(key, images, offsets, offsets)
        return image_ops.shift_crop(images, jnp.floor(down).astype(jnp.int32), jnp.floor(right).astype(jnp.int32))


@dataclasses.dataclass(frozen=True)
class Window:
    """A square window of the image as it is, anywhere within it, all places alike (torchvision's RandomCrop).

    Attributes:
        size_px: side of the result, [b, size_px, size_px, c].
    """

    size_px: int

    def __post_init__(self):
        _require(self.size_px >= 1, self, "size_px", "at least 1")

    def __call__(self, images: jax.Array, key: jax.Array) -> jax.Array:
        height, width = images.shape[1:3]
        if min(height, width) < self.size_px:
            raise UsageError(
                f"augment.Window: images of {height}x{width} px are smaller than size_px={self.size_px}; load them "
                "larger, or lower size_px"
            )
        free = ((0, height - self.size_px + 1), (0, width - self.size_px + 1))
        top, left = (jnp.floor(draw).astype(jnp.int32) for draw in _uniform(key, images, *free))

        def cut(image, top, left):
            return jax.lax.dynamic_slice(image, (top, left, 0), (self.size_px, self.size_px, image.shape[-1]))

        return jax.vmap(cut)(images, top, left)


@dataclasses.dataclass(frozen=True)
class Deform:
    """A stretched, shifted and sheared window, black outside the image: handwriting's own variation.

    Attributes:
        size_px: side of the result, [b, size_px, size_px, c].
        log_scale: range of the logarithm of the window's side over the image's, each side by itself; negative enlarges.
        shift_px: the window's centre moves by up to this, each way, in pixels of the image given.
        shear: columns that the window slides for each row, up to this, either way.
    """

    size_px: int
    log_scale: tuple[float, float] = (-0.35, 0.2)
    shift_px: float = 1.2
    shear: float = 0.5

    def __post_init__(self):
        _require(self.size_px >= 1, self, "size_px", "at least 1")
        _require_range(self, "log_scale")
        _require(self.shift_px >= 0.0, self, "shift_px", "at least 0")
        _require(self.shear >= 0.0, self, "shear", "at least 0")

    def __call__(self, images: jax.Array, key: jax.Array) -> jax.Array:
        moved = (-self.shift_px, self.shift_px)
        ranges = (self.log_scale, self.log_scale, moved, moved, (-self.shear, self.shear))
        log_height, log_width, down, right, shear = _uniform(key, images, *ranges)
        scale = jnp.exp(jnp.stack([log_height, log_width], axis=1))
        return image_ops.sheared_window(images, scale, jnp.stack([down, right], axis=1), shear, self.size_px)


@dataclasses.dataclass(frozen=True)
class Jitter:
    """Brightness, contrast, saturation and hue changed in an order of each image's own (torchvision's ColorJitter).

    Attributes:
        brightness, contrast, saturation: factors are uniform in [max(0, 1 - this), 1 + this].
        hue: the turn is uniform in [-this, this], in whole circles.
        probability: of an image being changed at all.
    """

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    probability: float = 0.8

    def __post_init__(self):
        for field in ("brightness", "contrast", "saturation"):
            _require(getattr(self, field) >= 0.0, self, field, "at least 0")
        _require(0.0 <= self.hue <= 0.5, self, "hue", "within [0, 0.5]")
        _require_probability(self)

    def __call__(self, images: jax.Array, key: jax.Array) -> jax.Array:
        strengths = (self.brightness, self.contrast, self.saturation)
        factors = [(max(0.0, 1.0 - strength), 1.0 + strength) for strength in strengths]
        draws = _uniform(key, images, *factors, (-self.hue, self.hue), (0.0, 1.0))
        applied = draws.pop() < self.probability
        brightness, contrast, saturation = (jnp.where(applied, factor, 1.0) for factor in draws[:3])
        hue = jnp.where(applied, draws[3], 0.0)
        rank = random_ranks(_named(key, "order"), images.shape[0], 4)
        return image_ops.jitter(images, brightness, contrast, saturation, hue, rank)


def random_ranks(key: jax.Array, batch: int, count: int) -> jax.Array:
    """A uniform permutation of 0 .. count - 1 for each image, int32 [b, count]."""
    # Counting who comes before is a sort without XLA:CPU's slow one; the column breaks ties, which do occur.
    unit = jax.random.bits(key, (batch, count), jnp.uint32)
    earlier = jnp.arange(count).reshape(1, 1, -1) < jnp.arange(count).reshape(1, -1, 1)
    before = (unit[:, None, :] < unit[:, :, None]) | ((unit[:, None, :] == unit[:, :, None]) & earlier)
    return before.sum(axis=2, dtype=jnp.int32)


@dataclasses.dataclass(frozen=True)
class Grayscale:
    """Colour taken away (torchvision's RandomGrayscale); the number of channels stays."""

    probability: float = 0.2

    def __post_init__(self):
        _require_probability(self)

    def __call__(self, images: jax.Array, key: jax.Array) -> jax.Array:
        (applied,) = _uniform(key, images, (0.0, 1.0))
        return image_ops.adjust_saturation(images, jnp.where(applied < self.probability, 0.0, 1.0))


@dataclasses.dataclass(frozen=True)
class Blur:
    """A Gaussian blur.

    The SimSiam authors blur with Pillow's `GaussianBlur(radius=sigma)`, three box filters that come close to an uncut
    Gaussian; here it is a Gaussian itself, over reflected borders where Pillow repeats the border's pixels.

    Attributes:
        sigma: range of the standard deviation in pixels, uniform.
        probability: of an image being blurred.
        kernel_px: odd side of the window; None reaches three times the largest sigma. SimCLR takes a tenth of the
            image's side.
    """

    sigma: tuple[float, float] = (0.1, 2.0)
    probability: float = 0.5
    kernel_px: int | None = None

    def __post_init__(self):
        _require_range(self, "sigma", 0.0)
        _require(self.sigma[0] > 0.0 and self.sigma[1] < math.inf, self, "sigma", "above 0 and finite")
        _require_probability(self)
        odd = self.kernel_px is None or (self.kernel_px >= 1 and self.kernel_px % 2 == 1)
        _require(odd, self, "kernel_px", "odd and at least 1, or None")

    def __call__(self, images: jax.Array, key: jax.Array) -> jax.Array:
        kernel_px = 2 * math.ceil(3 * self.sigma[1]) + 1 if self.kernel_px is None else self.kernel_px
        if min(images.shape[1:3]) <= kernel_px // 2:
            side = f"{images.shape[1]}x{images.shape[2]}"
            raise UsageError(f"augment.Blur: a window of {kernel_px} px is too wide for {side} images; lower kernel_px")
        sigma, applied = _uniform(key, images, self.sigma, (0.0, 1.0))
        return image_ops.gaussian_blur(images, jnp.where(applied < self.probability, sigma, 0.0), kernel_px)


@dataclasses.dataclass(frozen=True)
class Solarize:
    """Values at or above `threshold`, in [0, 1], inverted (BYOL's second view)."""

    threshold: float = 0.5
    probability: float = 0.2

    def __post_init__(self):
        _require(0.0 <= self.threshold <= 1.0, self, "threshold", "within [0, 1]")
        _require_probability(self)

    def __call__(self, images: jax.Array, key: jax.Array) -> jax.Array:
        (applied,) = _uniform(key, images, (0.0, 1.0))
        return _sometimes(applied, self.probability, image_ops.solarize(images, self.threshold), images)


@dataclasses.dataclass(frozen=True)
class Flip:
    """Left and right exchanged."""

    probability: float = 0.5

    def __post_init__(self):
        _require_probability(self)

    def __call__(self, images: jax.Array, key: jax.Array) -> jax.Array:
        (applied,) = _uniform(key, images, (0.0, 1.0))
        return _sometimes(applied, self.probability, image_ops.flip(images), images)


@dataclasses.dataclass(frozen=True)
class Tone:
    """Ink and scanner: gain * image ** gamma + noise, not clipped, so values may leave [0, 1].

    Attributes:
        log_gamma: gamma is exp U(-this, this).
        log_gain: gain is exp U(-this, this).
        noise: standard deviation of the Gaussian noise of each value.
    """

    log_gamma: float = 0.6
    log_gain: float = 0.4
    noise: float = 0.08

    def __post_init__(self):
        for field in ("log_gamma", "log_gain", "noise"):
            _require(getattr(self, field) >= 0.0, self, field, "at least 0")

    def __call__(self, images: jax.Array, key: jax.Array) -> jax.Array:
        ranges = ((-self.log_gamma, self.log_gamma), (-self.log_gain, self.log_gain))
        gamma, gain = (image_ops.per_image(jnp.exp(draw)) for draw in _uniform(key, images, *ranges))
        grain = jax.random.normal(_named(key, "noise"), images.shape, jnp.float32)
        return gain * images**gamma + self.noise * grain


def _require_colours(owner: "View | Plain") -> None:
    _require(len(owner.mean) in (1, 3), owner, "mean", "one number, or one for each of 3 channels")
    _require(len(owner.deviation) in (1, 3), owner, "deviation", "one number, or one for each of 3 channels")
    _require(all(value > 0.0 for value in owner.deviation), owner, "deviation", "above 0")


def _unit(owner: "View | Plain", images: jax.Array) -> jax.Array:
    """uint8 [b, h, w, c] as float32 in [0, 1]."""
    name = f"augment.{type(owner).__name__}"
    if images.dtype != jnp.uint8 or images.ndim != 4:
        raise UsageError(f"{name}: images must be uint8 [b, h, w, c], not {images.dtype} {images.shape}")
    for field in ("mean", "deviation"):
        if len(getattr(owner, field)) not in (1, images.shape[-1]):
            values = getattr(owner, field)
            raise UsageError(
                f"{name}: {field} = {values!r} does not fit images of {images.shape[-1]} channel; give one"
            )
    return images.astype(jnp.float32) / 255.0


def _normalised(owner: "View | Plain", images: jax.Array) -> jax.Array:
    mean, deviation = (jnp.asarray(v, jnp.float32).reshape(1, 1, 1, -1) for v in (owner.mean, owner.deviation))
    return (images - mean) / deviation


@dataclasses.dataclass(frozen=True)
class View:
    """One random view: the operations given, in this order, then (image - mean) / deviation.

    Each draws from a key of its own, derived from its field's name, so adding one leaves the others' draws alone.
    The order is the SimSiam, SimCLR and BYOL papers' but for `flip`, which commutes with all before it, and `tone`.

    Attributes:
        crop, jitter, grayscale, blur, solarize, flip, tone: the operations; None leaves one out.
        mean, deviation: per channel, or one number for all, of images in [0, 1].
    """

    crop: Crop | Deform | PadCrop | Window | None = None
    jitter: Jitter | None = None
    grayscale: Grayscale | None = None
    blur: Blur | None = None
    solarize: Solarize | None = None
    flip: Flip | None = None
    tone: Tone | None = None
    mean: tuple[float, ...] = (0.5,)
    deviation: tuple[float, ...] = (0.5,)

    def __post_init__(self):
        _require_colours(self)

    def __call__(self, images: jax.Array, key: jax.Array) -> jax.Array:
        """uint8 [b, h, w, c] to float32 [b, s, s, c], s the crop's size; raises UsageError for other images."""
        images = _unit(self, images)
        if images.shape[-1] not in (1, 3) and (self.jitter is not None or self.grayscale is not None):
            raise UsageError(f"augment.View: jitter and grayscale take 1 or 3 channels, not {images.shape[-1]}")
        for name in ("crop", "jitter", "grayscale", "blur", "solarize", "flip", "tone"):
            operation = getattr(self, name)
            if operation is not None:
                images = operation(images, _named(key, name))
        return _normalised(self, images)


@dataclasses.dataclass(frozen=True)
class TwoViews:
    """Two independent views of every image; the second is drawn like the first unless `second` says otherwise."""

    first: View
    second: View | None = None

    def __call__(self, batch: Mapping[str, jax.Array], key: jax.Array) -> dict[str, jax.Array]:
        """From `image`, or from `image_1` and `image_2` (two crops of each image made on the host), to the views.

        Args:
            batch: uint8 [b, h, w, c] under those names.
            key: of all draws.

        Returns:
            `view_1` and `view_2`, float32 [b, s, s, c].
        """
        second = self.first if self.second is None else self.second
        if not ("image" in batch or {"image_1", "image_2"} <= batch.keys()):
            raise UsageError(
                f"augment.TwoViews: takes `image`, or `image_1` and `image_2`, not {', '.join(sorted(batch))}"
            )
        image_1, image_2 = (batch["image"],) * 2 if "image" in batch else (batch["image_1"], batch["image_2"])
        return {
            "view_1": self.first(image_1, _named(key, "view_1")),
            "view_2": second(image_2, _named(key, "view_2")),
        }


@dataclasses.dataclass(frozen=True)
class Plain:
    """What evaluation sees: no chance, the same arithmetic.

    Attributes:
        size_px: side of the result; None keeps what is there.
        resize_px: what the shorter side is resized to before the central crop of `size_px`; None resizes straight to
            `size_px`, changing the shape of images that are not square.
        mean, deviation: as in `View`.
    """

    size_px: int | None = None
    resize_px: int | None = None
    mean: tuple[float, ...] = (0.5,)
    deviation: tuple[float, ...] = (0.5,)

    def __post_init__(self):
        _require(self.size_px is None or self.size_px >= 1, self, "size_px", "at least 1, or None")
        least = self.size_px or 1
        _require(self.resize_px is None or self.resize_px >= least, self, "resize_px", f"at least {least}, or None")
        _require_colours(self)

    def __call__(self, images: jax.Array) -> jax.Array:
        """uint8 [b, h, w, c] to float32 [b, s, s, c]; raises UsageError for other images."""
        images = _unit(self, images)
        if self.resize_px is not None:
            height, width = images.shape[1:3]
            shorter = min(height, width)
            images = image_ops.resize(images, self.resize_px * height // shorter, self.resize_px * width // shorter)
            if self.size_px is not None:
                top, left = (round((side - self.size_px) / 2) for side in images.shape[1:3])
                images = images[:, top : top + self.size_px, left : left + self.size_px]
        elif self.size_px is not None:
            images = image_ops.resize(images, self.size_px, self.size_px)
        return _normalised(self, images)


@dataclasses.dataclass(frozen=True)
class Labelled:
    """One random view of every image beside its label, for supervised training."""

    view: View

    def __call__(self, batch: Mapping[str, jax.Array], key: jax.Array) -> dict[str, jax.Array]:
        """From `image` (or `image_1`, a crop made on the host), uint8 [b, h, w, c], and `label`, int32 [b].

        Returns:
            `image`, float32 [b, s, s, c], and `label` as it was.
        """
        name = "image" if "image" in batch else "image_1"
        if not {name, "label"} <= batch.keys():
            raise UsageError(f"augment.Labelled: takes `image` and `label`, not {', '.join(sorted(batch))}")
        return {"image": self.view(batch[name], _named(key, "view")), "label": batch["label"]}


@dataclasses.dataclass(frozen=True)
class Unpaired:
    """A random view of every image of two domains, for translation between them; B's is drawn like A's by default."""

    a: View
    b: View | None = None

    def __call__(self, batch: Mapping[str, jax.Array], key: jax.Array) -> dict[str, jax.Array]:
        """From `image_a` and `image_b`, uint8 [b, h, w, c], to the same names, float32 [b, s, s, c]."""
        if not {"image_a", "image_b"} <= batch.keys():
            raise UsageError(f"augment.Unpaired: takes `image_a` and `image_b`, not {', '.join(sorted(batch))}")
        views = {"image_a": self.a, "image_b": self.a if self.b is None else self.b}
        return {name: view(batch[name], _named(key, name)) for name, view in views.items()}


@dataclasses.dataclass(frozen=True)
class Unchanged:
    """The batch as the feed gives it, for data that are numbers already."""

    def __call__(self, batch: Mapping[str, jax.Array], key: jax.Array) -> dict[str, jax.Array]:
        del key
        return dict(batch)
