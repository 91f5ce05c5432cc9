"""Images out of a trained GAN: sheets, single files, a film through its latent space, and the nearest real images.

    python -m experiments.sample --run=runs/gan --out=samples
    python -m experiments.sample --run=runs/gan --out=samples --images=1000 --interpolate=6 --truncation=0.5,0.7,1
    python -m experiments.sample --run=runs/gan --out=samples --neighbours=5 --data=digits:train

Always `grid.png`; with classes also `classes.png`, a row a class. A seed and a number give the same image in all of
them, whatever else is asked for. `samples.json` says what was made of which checkpoint. An earlier call's files are
replaced, and anybody else's are not.
"""

import io
import math
import pathlib
import re

import jax
import numpy as np
import PIL.Image
import tqdm
from absl import flags

from experiments import command, output
from ssl_jax import build, generator, metrics, pretrained, rng, sheet
from ssl_jax.analysis import memorisation
from ssl_jax.types import UsageError
from ssl_jax.writers import files as writer

RUN = flags.DEFINE_string("run", "", "The run folder of a GAN.")
CHECKPOINT = flags.DEFINE_enum("checkpoint", "last", ["last", "best"], "Which checkpoint of the run.")
OUT = flags.DEFINE_string("out", "", "The folder for the pictures: a new one, or an earlier call's.")
SEED = flags.DEFINE_integer("seed", 0, "Every image is one of a seed and a number.", 0, 2**31 - 1)
COUNT = flags.DEFINE_integer("count", 64, "Images in grid.png: numbers 0, 1, ...", 1)
IMAGES = flags.DEFINE_integer("images", 0, "Single files, images/000000.png and so on, with classes 000000_cat.png.", 0)
INTERPOLATE = flags.DEFINE_integer("interpolate", 0, "interpolation.gif: an endless way through so many latents.", 0)
TRUNCATION = flags.DEFINE_list(
    "truncation", [], "truncation.png: a row for each value, latents cut to [-value, value]."
)
NEIGHBOURS = flags.DEFINE_integer("neighbours", 0, "neighbours.png: so many real images nearest to each sample.", 0)
DATA = flags.DEFINE_string("data", "", "Where to look for neighbours, NAME:SPLIT; the run's training set by default.")
DATA_DIR = flags.DEFINE_string(
    "data_dir", "", "Where prepared data sets lie; by default where the run's lie, for another set TFDS's own place."
)
SIZE_PX = flags.DEFINE_integer("size_px", 0, "Where the set's images are larger: cut to this as evaluations do.", 0)

_COLUMNS = 8
_PATHS = 8
_FRAMES = 16
_FRAME_MS = 60
_COMPARED = 256


def main(arguments):
    """Loads, draws, writes."""
    command.refuse_stray_words(arguments)
    if not RUN.value or not OUT.value:
        raise UsageError("needs --run and --out: python -m experiments.sample --run=runs/NAME --out=DIR")
    if INTERPOLATE.value == 1:
        raise UsageError("--interpolate=1: a way needs at least 2 latents")
    if (DATA.value or SIZE_PX.value) and not NEIGHBOURS.value:
        raise UsageError("--data and --size_px say where neighbours are looked for: add --neighbours=5")
    values = [_truncation(text) for text in TRUNCATION.value]
    out = output.claim(pathlib.Path(OUT.value), "samples.json", "experiments.sample")
    trained = generator.load(pathlib.Path(RUN.value), which=CHECKPOINT.value)
    for value in values:
        generator.truncated(np.zeros((1, trained.latent)), value, trained.latent_law)
    real = _real_images(trained) if NEIGHBOURS.value else None

    sheets = {"grid.png": _grid}
    sheets |= {"classes.png": _classes} if trained.classes else {}
    sheets |= {"truncation.png": lambda trained: _truncations(trained, values)} if values else {}
    names = [*sheets, *(["interpolation.gif"] if INTERPOLATE.value else []), *(["neighbours.png"] if real else [])]
    names += [_file_name(trained, number) for number in range(IMAGES.value)]
    facts = {"run": RUN.value, "step": trained.step, "checkpoint": CHECKPOINT.value, "seed": SEED.value}
    out.begin(names, facts)
    print(f"generator of {RUN.value}, its {CHECKPOINT.value} checkpoint, step {trained.step}")
    for name, draw in sheets.items():
        out.write(name, writer.png(draw(trained)))
    if INTERPOLATE.value:
        out.write("interpolation.gif", _interpolation(trained))
    if real:
        picture, distances = _neighbours(trained, real)
        out.write("neighbours.png", writer.png(picture))
        facts["distances"] = distances
    _single_images(trained, out)
    out.finish(names, facts)
    print(f"{out.folder}: {', '.join(name for name in names if '/' not in name)}", end="")
    print(f", {IMAGES.value} files in images" if IMAGES.value else "")


def _tickets(numbers):
    return np.stack([np.full(len(numbers), SEED.value), np.asarray(numbers)], axis=1).astype(np.int32)


def _latents(trained, numbers):
    return trained.latents_of(_tickets(numbers))


def _grid(trained):
    return sheet.grid(trained.sample(_tickets(range(COUNT.value))), columns=math.isqrt(COUNT.value - 1) + 1)


def _classes(trained):
    """A row a class, a column a latent."""
    latents, _ = _latents(trained, range(_COLUMNS))
    labels = np.repeat(np.arange(trained.classes), _COLUMNS)
    return sheet.grid(trained.generate(np.tile(latents, (trained.classes, 1)), labels), columns=_COLUMNS)


def _truncations(trained, values):
    """A row a value, a column a latent."""
    latents, labels = _latents(trained, range(_COLUMNS))
    rows = np.concatenate([generator.truncated(latents, value, trained.latent_law) for value in values])
    return sheet.grid(trained.generate(rows, labels if labels is None else np.tile(labels, len(values))), _COLUMNS)


def _interpolation(trained):
    """Several ways side by side as a GIF file; each keeps its class, and the first frame holds the grid's first images.

    Stop s of way p is number s * ways + p, so more stops do not change the earlier ones.
    """
    latents, labels = _latents(trained, range(INTERPOLATE.value * _PATHS))
    stops = latents.reshape(INTERPOLATE.value, _PATHS, trained.latent)
    way = generator.round_trip(stops, _FRAMES, trained.latent_law)

    def frames():
        for latents in tqdm.tqdm(way, desc="interpolation.gif", unit=" frames", disable=None):
            images = trained.generate(latents, labels if labels is None else labels[:_PATHS])
            frame = PIL.Image.fromarray(sheet.grid(images, columns=_PATHS // 2))
            yield frame.convert("L") if trained.image_shape[-1] == 1 else frame

    first, *others = frames()
    file = io.BytesIO()
    first.save(file, "GIF", save_all=True, append_images=others, duration=_FRAME_MS, loop=0)
    return file.getvalue()


def _file_name(trained, number):
    if trained.classes is None:
        return f"images/{number:06d}.png"
    return f"images/{number:06d}_{re.sub(r'[^A-Za-z0-9_.-]+', '_', trained.class_name(number % trained.classes))}.png"


def _single_images(trained, out):
    at_once = 512
    bar = tqdm.tqdm(total=IMAGES.value, desc="images", unit=" images", disable=None if IMAGES.value else True)
    with bar:
        for first in range(0, IMAGES.value, at_once):
            numbers = range(first, min(first + at_once, IMAGES.value))
            for number, image in zip(numbers, trained.sample(_tickets(numbers)), strict=True):
                out.write(_file_name(trained, number), output.picture(image))
            bar.update(len(numbers))


def _truncation(text):
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"--truncation={text}: give numbers above 0, such as --truncation=0.5,0.7,1") from None


def _real_images(trained):
    """The set in which neighbours are looked for, as evaluators read it."""
    data = pretrained.run_config(pathlib.Path(RUN.value))["data"]
    if DATA.value:
        name, split = command.name_and_split("data", DATA.value)
        data = {"name": name, "split": split}
    elif not {"name", "split"} <= data.keys():
        raise UsageError(f"{RUN.value} names no data set: give --data=NAME:SPLIT")
    section = {"type": "data.feed.Evaluation", "name": data["name"], "split": data["split"]}
    section["data_dir"] = DATA_DIR.value or (data["data_dir"] if "data_dir" in data else "")
    # A set whose images vary in size was cropped while it trained; here it is brought to the same size.
    size_px = SIZE_PX.value or (trained.image_shape[0] if "crop" in data else 0)
    section |= {"size_px": size_px} if size_px else {}
    real = build.section({**section, "image_shape": trained.image_shape}, "--data")
    shape = next(iter(real.batches()))["image"].shape[1:]
    if shape != trained.image_shape:
        theirs, ours = ("x".join(map(str, each)) for each in (shape, trained.image_shape))
        raise UsageError(
            f"{data['name']} has images of {theirs}, the run makes {ours}: give --size_px={ours.split('x')[0]}"
        )
    if NEIGHBOURS.value >= real.examples:
        raise UsageError(
            f"--neighbours={NEIGHBOURS.value}, but {data['name']} has {real.examples} images: ask for fewer"
        )
    return real


def _neighbours(trained, real):
    """A row a sample: it, then the real images nearest to it; and the median distances that tell copies apart."""
    samples = trained.sample(_tickets(range(max(COUNT.value, _COLUMNS))))
    key = rng.stream(SEED.value, "neighbours")
    rows = np.sort(np.asarray(jax.random.permutation(key, real.examples))[:_COMPARED])
    found = memorisation.nearest(samples, real, NEIGHBOURS.value)
    others = memorisation.nearest(metrics.pick(real.batches(), rows), real, 1, own_rows=rows)
    shown = np.concatenate([samples[:_COLUMNS, None], found.images[:_COLUMNS]], axis=1)
    medians = {"samples": float(np.median(found.distances[:, 0])), "real": float(np.median(others.distances[:, 0]))}
    print(
        f"median distance (L2, pixels in [0, 1]) of {len(samples)} samples to the nearest real image: "
        f"{medians['samples']:.3f}; of {len(rows)} real images to the nearest other one: {medians['real']:.3f}"
    )
    return sheet.grid(shown.reshape(-1, *trained.image_shape), columns=NEIGHBOURS.value + 1), medians


if __name__ == "__main__":
    command.run(main)
