"""Pictures of any size as squares of one size, as the code of CycleGAN loads them; a source that is one of another."""

import dataclasses
from typing import Any

import numpy as np
import PIL.Image

from ssl_jax.types import UsageError


def square(image: np.ndarray, size_px: int) -> np.ndarray:
    """The whole image made a square, its proportions not kept: torchvision's `Resize([size_px, size_px], BICUBIC)`.

    Pillow's bicubic filter, which is wider where the image shrinks, so that nothing aliases; Pillow itself computes it.

    Args:
        image: uint8 [h, w, c], c = 1 or 3.
        size_px: side of the result.

    Returns:
        uint8 [size_px, size_px, c]; the same values where the image has that size already.
    """
    channels = image.shape[2]
    picture = PIL.Image.fromarray(image[..., 0] if channels == 1 else image)
    resized = np.asarray(picture.resize((size_px, size_px), PIL.Image.Resampling.BICUBIC))
    return resized.reshape(size_px, size_px, channels)


@dataclasses.dataclass(frozen=True)
class Squares:
    """A source whose images are resized by `square`; it pickles as long as its source does.

    Attributes:
        source: a `source.Source`, or what behaves like one.
        size_px: side of every image.

    Raises:
        UsageError: for a side below 1.
    """

    source: Any
    size_px: int

    def __post_init__(self):
        if self.size_px < 1:
            raise UsageError(f"images of {self.source.name!r} cannot be {self.size_px} px wide: give at least 1")

    def __len__(self) -> int:
        return self.examples

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self.source.read(index)
        return {**record, "image": square(record["image"], self.size_px)}

    @property
    def name(self) -> str:
        """As of the source."""
        return self.source.name

    @property
    def examples(self) -> int:
        """How many records there are."""
        return self.source.examples

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        return self.size_px, self.size_px, self.source.image_shape[-1]

    @property
    def bytes_when_resident(self) -> int:
        """How much memory all images take as uint8."""
        return self.examples * int(np.prod(self.image_shape))

    def read_all(self) -> dict[str, np.ndarray]:
        """See `source.Source.read_all`; any source will do."""
        return self.read_rows(np.arange(self.examples))

    def read_rows(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """The records at `rows`, int [m], in that order: `image` uint8 [m, size_px, size_px, c], `label` int32 [m]."""
        image = np.empty((len(rows), *self.image_shape), np.uint8)
        label = np.empty(len(rows), np.int32)
        for place, row in enumerate(rows):
            record = self[int(row)]
            image[place], label[place] = record["image"], record["label"]
        return {"image": image, "label": label}
