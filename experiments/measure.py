"""How far generated images are from real ones, by Inception (FID, KID and their kin) or by a classifier of one's own.

    python -m experiments.measure --run=runs/gan --data=fashion_mnist:test --encoder=runs/classify_fashion_mnist
    python -m experiments.measure --run=runs/gan --data=cifar10:train --inception=FILE.pth

Instead of --run, for the same numbers of something else:
    --images=DIR                    a folder of pictures of the data's size
    --real=fashion_mnist:train      other real images: what a perfect generator would get
    --gaussian=fashion_mnist:train  samples of a Gaussian fitted to those pixels: what a mean and a covariance get

A set is NAME:SPLIT, and --data is the one that all are compared with. Numbers depend on the network, on its resize and
on how many images either side has (the Fréchet distance falls with more), so all of these stand beside them; compare
none with numbers of other counts. Only distances by Inception are FID and KID. --out writes all of it as JSON.
"""

import itertools
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import flags

from experiments import command
from ssl_jax import extractors, generator, log, reference, rng
from ssl_jax.analysis.generative import Moments
from ssl_jax.data import feed, pictures
from ssl_jax.evaluators import distance
from ssl_jax.types import Examples, Extractor, UsageError

RUN = flags.DEFINE_string("run", "", "The run folder of a GAN.")
CHECKPOINT = flags.DEFINE_enum("checkpoint", "last", ["last", "best"], "Which checkpoint of the run.")
IMAGES = flags.DEFINE_string("images", "", "Instead of --run: a folder of pictures of the data's size.")
REAL = flags.DEFINE_string("real", "", "Instead of --run: other real images, such as fashion_mnist:train.")
GAUSSIAN = flags.DEFINE_string("gaussian", "", "Instead of --run: a Gaussian fitted to these images' pixels.")
DATA = flags.DEFINE_string("data", "", "The real images to compare with, such as fashion_mnist:test.")
ENCODER = flags.DEFINE_string("encoder", "", "The run folder of a classifier or encoder, or an exported file.")
ENCODER_CHECKPOINT = flags.DEFINE_enum("encoder_checkpoint", "last", ["last", "best"], "Which checkpoint of --encoder.")
INCEPTION = flags.DEFINE_string("inception", "", "The published Inception weights.")
SAMPLES = flags.DEFINE_integer("samples", 2000, "How many images to compare.", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "Of the samples.", lower_bound=0, upper_bound=2**31 - 1)
SUBSET_SIZE = flags.DEFINE_integer("subset_size", 1000, "Images in a subset of the kernel distance.", lower_bound=2)
DATA_DIR = flags.DEFINE_string("data_dir", "", "Where prepared data sets lie.")
SIZE_PX = flags.DEFINE_integer("size_px", None, "Size of the real images, where their set's vary.", lower_bound=1)
OUT = flags.DEFINE_string("out", "", "A JSON file for the numbers.")

EXAMPLE = "python -m experiments.measure --run=runs/gan --data=fashion_mnist:test --encoder=runs/classify_fashion_mnist"
_SUBSETS = 100
_AT_ONCE = 250
_LARGEST_GAUSSIAN = 4096


def main(arguments):
    """Looks at the real images, then at the others, and prints the table."""
    command.refuse_stray_words(arguments)
    sources = {"run": RUN.value, "images": IMAGES.value, "real": REAL.value, "gaussian": GAUSSIAN.value}
    given = [name for name, value in sources.items() if value]
    if len(given) != 1 or not DATA.value:
        raise UsageError(f"needs --data and one of --run, --images, --real and --gaussian: {EXAMPLE}")
    out = pathlib.Path(OUT.value)
    if OUT.value and (not out.parent.is_dir() or out.is_dir()):
        raise UsageError(f"--out={out}: give a file in a folder that exists")
    if DATA.value == REAL.value:
        raise UsageError(f"--data and --real are both {DATA.value}: give two splits without an image in common")
    networks = networks_asked_for()
    real = opened(DATA.value, "data")
    distance.refuse_too_few(SAMPLES.value, real.examples, SUBSET_SIZE.value, _SUBSETS, f"--data={DATA.value}")
    shape = next(reference.images_of(real)).shape[1:]
    told, images = measured(given[0], sources[given[0]], shape)
    # Before the real images are looked at, which may take long.
    theirs = next(images()).shape[1:]
    if theirs != shape:
        sizes = ["x".join(map(str, each)) for each in (theirs, shape)]
        raise UsageError(f"{told} are {sizes[0]}, and the images of {DATA.value} {sizes[1]}: give ones of one size")
    print(f"{told}, compared with {DATA.value}")
    found = []
    for network in networks:
        statistics = reference.Reference(real, network).statistics()
        kept = ", statistics of the real images kept from before" if statistics.from_cache else ""
        print(f"{network.name}: {network.describe()}, SHA-256 {network.digest[:12]}{kept}", flush=True)
        numbers = distance.compare(
            network, statistics, images(), samples=SAMPLES.value, subset_size=SUBSET_SIZE.value, subsets=_SUBSETS
        )
        images_of = {name: distance.sides(name, SAMPLES.value, statistics) for name in numbers}
        facts = distance.facts(network, statistics, SAMPLES.value)
        found.append({"name": network.name, **facts, "numbers": numbers, "images": images_of})
    print(f"\n{table(found)}")
    for one in found:
        if "note" in one:
            print(f"\n{one['name']}: {one['note']}")
    if OUT.value:
        facts = {"measured": told, "data": DATA.value, "seed": SEED.value, "subset_size": SUBSET_SIZE.value}
        log.replace(out, json.dumps(log.plain({**facts, "networks": found, **log.environment()}), indent=2))
        print(f"\n{out} has every number")


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """A line a number, each with the network, its resize and how many images it is of.

    Args:
        found: by network its `name`, `resize`, and by number's name its `numbers` and `images` (samples, real images).
    """
    lines = [("number", "value", "samples", "real images", "network", "resize")]
    for one in found:
        for name, value in one["numbers"].items():
            fake, real = one["images"][name]
            lines.append((name, f"{value:.4f}", f"{fake:,}", f"{real:,}" if real else "-", one["name"], one["resize"]))
    return log.aligned(lines)


def networks_asked_for() -> list[Extractor]:
    """The networks that the flags name, Inception first.

    Raises:
        UsageError: where they name none, or what cannot be loaded.
    """
    if not ENCODER.value and not INCEPTION.value:
        # Only here, as an encoder needs nothing of it.
        from ssl_jax.models import inception_weights

        raise UsageError(
            "no network to compare by: give --encoder=RUN (a classifier trained here, such as with "
            f"configs/classify_digits.py), or for FID and KID --inception=FILE ({inception_weights.PUBLISHED})"
        )
    found: list[Extractor] = [extractors.Inception(INCEPTION.value)] if INCEPTION.value else []
    return found + ([extractors.Encoder(ENCODER.value, ENCODER_CHECKPOINT.value)] if ENCODER.value else [])


def opened(text: str, flag: str) -> feed.Evaluation:
    """The set that a flag names as NAME:SPLIT, where NAME may end in a version.

    Raises:
        UsageError: for other text, or a set or split that is not there.
    """
    name, split = command.name_and_split(flag, text)
    return feed.Evaluation(name, split, size_px=SIZE_PX.value, data_dir=DATA_DIR.value)


def measured(kind: str, value: str, shape: tuple[int, int, int]) -> tuple[str, Callable[[], Iterator[np.ndarray]]]:
    """What is measured, in words, and a function that gives its images anew, in batches uint8 [b, h, w, c].

    Args:
        kind: the flag's name, "run", "images", "real" or "gaussian".
        value: the flag's value.
        shape: of the real images; files are read with their channels.

    Raises:
        UsageError: for what is not there, or has fewer images than --samples.
    """
    if kind == "run":
        loaded = generator.load(pathlib.Path(value), which=CHECKPOINT.value)
        return f"samples of {value}, its {CHECKPOINT.value} checkpoint, step {loaded.step}", lambda: _drawn(loaded)
    if kind == "images":
        root = pathlib.Path(value)
        files = pictures.find(root)
        chosen = [files[row] for row in _rows(len(files), f"--images={value}")]
        return f"pictures in {value}", lambda: _read(chosen, root, shape)
    examples = opened(value, kind)
    if kind == "gaussian":
        fit = fitted(examples, f"--gaussian={value}")
        return f"samples of a Gaussian fitted to {value}", lambda: gaussian(*fit, SEED.value)
    rows = _rows(examples.examples, f"--real={value}")
    return f"real images of {value}", lambda: _picked(examples, rows)


def fitted(examples: Examples, here: str) -> tuple[np.ndarray, np.ndarray, tuple[int, int, int]]:
    """The Gaussian of a set's pixels, in float64.

    Returns:
        Mean [d], a root of the covariance [d, d] (its product with its transpose), and the shape of an image.

    Raises:
        UsageError: for images of more pixels than a covariance can be of.
    """
    shape = next(reference.images_of(examples)).shape[1:]
    if np.prod(shape) > _LARGEST_GAUSSIAN:
        raise UsageError(
            f"{here}: images of {np.prod(shape):,} numbers, and a covariance of {_LARGEST_GAUSSIAN:,} fits"
        )
    moments = Moments.empty(int(np.prod(shape)))
    for images in reference.images_of(examples):
        moments = moments.updated(images.reshape(len(images), -1))
    values, axes = np.linalg.eigh(moments.covariance())
    return moments.mean, axes * np.sqrt(np.maximum(values, 0.0)), shape


def gaussian(mean: np.ndarray, root: np.ndarray, shape: tuple[int, ...], seed: int) -> Iterator[np.ndarray]:
    """Images without end of the Gaussian that `fitted` found, cut to 0..255 and rounded: uint8 [b, h, w, c]."""
    for batch in itertools.count():
        noise = np.asarray(jax.random.normal(rng.stream(seed, "gaussian", batch), (_AT_ONCE, len(mean))))
        images = mean + noise.astype(np.float64) @ root.T
        yield np.rint(np.clip(images, 0, 255)).astype(np.uint8).reshape(_AT_ONCE, *shape)


def _drawn(loaded: generator.Generator) -> Iterator[np.ndarray]:
    for first in range(0, SAMPLES.value, _AT_ONCE):
        numbers = np.arange(first, min(first + _AT_ONCE, SAMPLES.value), dtype=np.int32)
        yield loaded.sample(np.stack([np.full_like(numbers, SEED.value), numbers], axis=1))


def _rows(count: int, here: str) -> np.ndarray:
    """As many rows as samples are asked for, evenly spread over the set."""
    if count < SAMPLES.value:
        raise UsageError(f"{here} has {count} images, and --samples={SAMPLES.value}: set --samples={count} or less")
    return np.linspace(0, count - 1, SAMPLES.value).round().astype(np.int64)


def _picked(examples: Examples, rows: np.ndarray) -> Iterator[np.ndarray]:
    first = 0
    for images in reference.images_of(examples):
        here = rows[(rows >= first) & (rows < first + len(images))] - first
        if len(here):
            yield images[here]
        first += len(images)


def _read(files: Sequence[pathlib.Path], root: pathlib.Path, shape: tuple[int, int, int]) -> Iterator[np.ndarray]:
    for first in range(0, len(files), _AT_ONCE):
        images = []
        for name, picture in pictures.read(files[first : first + _AT_ONCE], root, shape[-1]):
            if isinstance(picture, str):
                raise UsageError(f"--images={root}: {picture}; take it out of the folder")
            if picture.shape != shape:
                sizes = ["x".join(map(str, each)) for each in (picture.shape, shape)]
                raise UsageError(
                    f"--images={root}: {name} is {sizes[0]}, and the images of {DATA.value} are {sizes[1]}"
                )
            images.append(picture)
        yield np.stack(images)


if __name__ == "__main__":
    command.run(main)
