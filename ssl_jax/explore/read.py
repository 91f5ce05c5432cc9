"""Where features come from: a run's networks, the pixels themselves, or a file."""

import dataclasses
import functools
import pathlib
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import flax.errors
import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax import archive, augment, build, extractors, pretrained, rng
from ssl_jax.analysis import pixels
from ssl_jax.data import feed, transforms
from ssl_jax.explore.subject import Subject, evenly
from ssl_jax.types import UsageError

STAGES = ("encoder", "projector", "predictor")
"""The networks that follow one another in a run, as far as it has them."""

_SHOWN_PX = 96
_VIEWED_IMAGES = 1000
_AT_ONCE = 256


def size_of_run(folder: pathlib.Path) -> int | None:
    """The size that a run's first evaluator with one brings images of varying sizes to; None without.

    Raises:
        UsageError: for a folder that holds no run.
    """
    _, config = extractors.run_of(folder)
    sections = [config["evaluators"]] if "evaluators" in config else []
    for section in sections:
        if section.get("type") == "data.feed.Evaluation" and section.get("size_px"):
            return section["size_px"]
        sections += [value for value in section.values() if isinstance(value, Mapping)]
    return None


def of_run(
    origin: str,
    examples: feed.Evaluation,
    *,
    which: Literal["last", "best"] = "last",
    most: int = 10_000,
    views: int = 0,
    seed: int = 0,
) -> Subject:
    """What a run's networks make of a set's images, and of random views of some of them.

    Images are prepared as the run's own evaluation prepares them (see `extractors.Encoder`), views as its training does
    (`augment.TwoViews`). Where training crops on the host, views are cropped from the evaluation's images by the same
    scale and ratio.

    Args:
        origin: a run folder, or a file that experiments.export wrote, which has an encoder alone.
        examples: the images.
        which: checkpoint of the run.
        most: how many images to take, evenly spread.
        views: of each of up to 1,000 images; 0 draws none.
        seed: of the views.

    Raises:
        UsageError: for what is no run with an encoder, or images that do not fit it.
        RunError: for damaged files.
    """
    networks, plain, view = _networks(origin, which)
    described = networks["encoder"].describe()
    for name, network in networks.items():
        # Of parameters, for a ReLU makes 0 of what is no number on some machines.
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(network.params)):
            raise UsageError(
                f"{origin}: the {name} of step {network.step} holds numbers that are not finite, for its training "
                "diverged: give another run, or --checkpoint=best"
            )
    modules = {name: build.section(part.section, f"{origin}: {name}") for name, part in networks.items()}
    variables = jax.device_put(
        {name: {"params": part.params, "batch_stats": part.stats} for name, part in networks.items()}
    )
    prepare = build.section(plain, f"{origin}: preparation of images")
    answer = functools.partial(jax.jit(functools.partial(_stages, modules, prepare)), variables)
    rows = evenly(examples.examples, most)
    try:
        stages, images = _pass(answer, examples, rows)
    except flax.errors.ScopeParamShapeError as error:
        raise UsageError(f"the images do not fit the {described}: give ones of the same channels") from error
    return Subject(
        features=stages["encoder"],
        told=described,
        images=images,
        **_known(examples, rows),
        stages=stages,
        views=_views(modules, variables, view, examples, rows, views, seed) if view and views else {},
    )


def of_pixels(examples: feed.Evaluation, *, most: int = 10_000) -> Subject:
    """The images themselves as vectors of numbers in [0, 1], shrunk where they have more than 3,072 of them."""
    rows = evenly(examples.examples, most)
    found, images = _pass(lambda batch: {"pixels": pixels.vectors(batch)}, examples, rows)
    return Subject(
        features=found["pixels"],
        told="raw pixels",
        images=images,
        **_known(examples, rows),
        pixels=True,
    )


def of_file(path: pathlib.Path, examples: feed.Evaluation | None = None, *, most: int = 10_000) -> Subject:
    """Features from a file: `.npy` float [n, d], or `.npz` with `features` and, if there, `labels` and `class_names`.

    Args:
        path: the file.
        examples: the images that the rows belong to, as many and in that order; None for features alone.
        most: how many rows to take, evenly spread.

    Raises:
        UsageError: for a file that is not there, cannot be read or holds something else.
    """
    arrays = _arrays(path)
    features = arrays["features"]
    if features.ndim != 2 or not np.issubdtype(features.dtype, np.number) or np.iscomplexobj(features):
        raise UsageError(f"{path} holds {features.dtype} {features.shape}, and features are numbers [n, d]")
    rows = evenly(len(features), most)
    names = tuple(f"row {row}" for row in rows)
    labels, class_names = np.full(len(features), -1, np.int32), ()
    if "labels" in arrays:
        labels = arrays["labels"]
        if labels.shape != (len(features),) or not np.issubdtype(labels.dtype, np.integer):
            raise UsageError(f"{path}: labels are {labels.dtype} {labels.shape}, and integers [{len(features)}] needed")
        labels = labels.astype(np.int64)
        known = arrays["class_names"] if "class_names" in arrays else np.arange(labels.max(initial=-1) + 1)
        if known.ndim != 1:
            raise UsageError(f"{path}: class_names of shape {known.shape}; give one name a class")
        class_names = tuple(str(name) for name in known)
        if labels.max(initial=-1) >= len(class_names):
            raise UsageError(f"{path}: a label of {labels.max()} and {len(class_names)} class_names")
    images = None
    if examples is not None:
        if examples.examples != len(features):
            raise UsageError(
                f"{path} has {len(features):,} rows and the data {examples.examples:,} images: give features of those "
                "images, in their order"
            )
        images = _pass(lambda batch: {}, examples, rows)[1]
        names = tuple(np.array(examples.names(), dtype=object)[rows])
        labels, class_names = examples.labels(), examples.class_names
    return Subject(
        features=_as_float32(features[rows]),
        told=f"features in {path}",
        names=names,
        labels=np.maximum(labels[rows], -1).astype(np.int32),
        class_names=class_names,
        images=images,
        total=len(features),
    )


def _known(examples: feed.Evaluation, rows: np.ndarray) -> dict[str, Any]:
    """What a set says of its images at `rows`, as a subject's arguments."""
    return {
        "names": tuple(np.array(examples.names(), dtype=object)[rows]),
        "labels": examples.labels()[rows],
        "class_names": examples.class_names,
        "total": examples.examples,
    }


def _networks(
    origin: str, which: Literal["last", "best"]
) -> tuple[dict[str, pretrained.Network], Mapping[str, Any], augment.View | None]:
    """The networks that follow one another, the section that prepares images, and what draws the run's views."""
    path = pathlib.Path(origin)
    if path.is_file() or path.suffix in pretrained.FILE_SUFFIXES:
        encoder = pretrained.read(origin)
        return {"encoder": encoder}, _as_trained(encoder), None
    folder, config = extractors.run_of(path)
    encoder = pretrained.read(str(folder), which=which)
    # By its step, for a run that still trains may have gone on.
    there = [name for name in STAGES[1:] if name in config["method"]]
    others = {name: pretrained.read(str(folder), name, which=encoder.step) for name in there}
    view = None
    if config["preprocess"]["type"] == "augment.TwoViews":
        view = build.section(config["preprocess"], f"{origin}: preprocess", build.clock_of(folder)).first
        crop = config["data"].get("crop")
        if crop:
            view = dataclasses.replace(view, crop=augment.Crop(crop["size_px"], crop["scale"], crop["ratio"]))
    return {"encoder": encoder, **others}, extractors.preparation(config, origin), view


def _as_trained(encoder: pretrained.Network) -> dict[str, Any]:
    return {"type": extractors.PLAIN, "mean": encoder.mean, "deviation": encoder.deviation}


def _stages(modules, prepare, variables, images):
    return _through(modules, variables, prepare(images))


def _through(modules, variables, inputs):
    found = {}
    # A GPU's default would move the features from machine to machine.
    with jax.default_matmul_precision("highest"):
        for name, module in modules.items():
            inputs = module.apply(variables[name], inputs, train=False)
            found[name] = inputs.reshape(len(inputs), -1).astype(jnp.float32)
    return found


def _pass(
    answer: Callable[[np.ndarray], Mapping[str, jax.Array]], examples: feed.Evaluation, rows: np.ndarray
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """What `answer` makes of the images at `rows`, ascending, by name, and the images as they are shown."""
    parts, shown = [], []
    for images in _picked(examples, rows):
        filled = np.pad(images, [(0, _AT_ONCE - len(images))] + [(0, 0)] * 3)
        parts.append({name: np.asarray(array)[: len(images)] for name, array in answer(filled).items()})
        shown.append(_shrunk(images))
    return _joined(parts), np.concatenate(shown)


def _picked(examples: feed.Evaluation, rows: np.ndarray) -> Iterator[np.ndarray]:
    """The images at `rows`, ascending, at most so many at once as one compiled program takes."""
    waiting: list[np.ndarray] = []
    first = 0
    for batch in examples.batches():
        images = batch["image"][batch["mask"]]
        here = rows[(rows >= first) & (rows < first + len(images))] - first
        first += len(images)
        waiting += list(images[here])
        while len(waiting) >= _AT_ONCE:
            yield np.stack(waiting[:_AT_ONCE])
            waiting = waiting[_AT_ONCE:]
    if waiting:
        yield np.stack(waiting)


def _shrunk(images: np.ndarray) -> np.ndarray:
    height, width = images.shape[1:3]
    if max(height, width) <= _SHOWN_PX:
        return images
    scale = _SHOWN_PX / max(height, width)
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    return np.stack([transforms.cover(image, *size) for image in images])


def _views(modules, variables, view, examples, rows, count, seed) -> dict[str, np.ndarray]:
    """float32 [m, count, d] by network, of views of up to 1,000 of the images at `rows`."""

    @jax.jit
    def drawn(variables, images, key):
        return _through(modules, variables, view(images, key))

    chosen = rows[evenly(len(rows), _VIEWED_IMAGES)]
    parts = []
    for number, images in enumerate(_picked(examples, chosen)):
        filled = np.pad(images, [(0, _AT_ONCE - len(images))] + [(0, 0)] * 3)
        draws = [drawn(variables, filled, rng.stream(seed, f"view {draw}", number)) for draw in range(count)]
        parts.append({name: np.stack([each[name] for each in draws], axis=1)[: len(images)] for name in draws[0]})
    return _joined(parts)


def _joined(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    # A compiled function sorts its dict, and networks have an order of their own.
    names = sorted(parts[0], key=STAGES.index) if "encoder" in parts[0] else parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def _as_float32(features: np.ndarray) -> np.ndarray:
    # What float64 holds beyond float32 becomes infinite, which a subject refuses by name.
    with np.errstate(over="ignore"):
        return features.astype(np.float32)


def _arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    if path.suffix not in (".npy", ".npz"):
        raise UsageError(f"{path}: features come as .npy or .npz")
    try:
        arrays = archive.read(path) if zipfile.is_zipfile(path) else {"features": archive.read_array(path)}
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise UsageError(f"{path} is no file of numbers ({' '.join(str(error).split())})") from error
    if "features" not in arrays:
        raise UsageError(f"{path} has no array `features`: it holds {', '.join(sorted(arrays)) or 'nothing'}")
    return arrays
