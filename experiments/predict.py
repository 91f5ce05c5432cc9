"""Classifies every image below a folder with a classifier that linear_probe, finetune or pseudo_label trained.

    python -m experiments.predict --run=runs/tiny11_tuned --input=photos --out=predictions.csv

The CSV has a line a file: file, class, probability, second_class, second_probability. A broken image is named and the
rest go on. Images of any size are brought to the size that the classifier was evaluated at.
"""

import csv
import io
import pathlib
import sys

import numpy as np
from absl import flags

from experiments import command
from ssl_jax import classifier, log
from ssl_jax.data import pictures
from ssl_jax.types import RunError, UsageError

RUN = flags.DEFINE_string("run", "", "The run folder of a classifier.")
CHECKPOINT = flags.DEFINE_enum("checkpoint", "last", ["last", "best"], "Which checkpoint of the run.")
INPUT = flags.DEFINE_string("input", "", "A folder of images, searched through all its depths.")
OUT = flags.DEFINE_string("out", "predictions.csv", "The CSV file.")

HEADER = ("file", "class", "probability", "second_class", "second_probability")
_AT_ONCE = 64


def main(arguments):
    """Reads, classifies, writes."""
    command.refuse_stray_words(arguments)
    if not RUN.value or not INPUT.value:
        raise UsageError("needs --run and --input: python -m experiments.predict --run=runs/NAME --input=DIR")
    out = pathlib.Path(OUT.value)
    if not out.parent.is_dir() or out.is_dir():
        raise UsageError(f"--out={out}: give a file in a folder that exists")
    root = pathlib.Path(INPUT.value)
    files = pictures.find(root)
    trained = classifier.load(pathlib.Path(RUN.value), which=CHECKPOINT.value)
    print(f"classifier of {RUN.value}, its {CHECKPOINT.value} checkpoint, step {trained.step}")
    rows, broken, names, images = [], 0, [], []
    for name, picture in pictures.read(files, root, trained.image_shape[-1]):
        if isinstance(picture, str):
            broken += 1
            print(f"not classified: {picture}", file=sys.stderr)
            continue
        names.append(name)
        images.append(trained.frame(picture))
        if len(images) == _AT_ONCE:
            rows += _classified(trained, names, images)
            names, images = [], []
    rows += _classified(trained, names, images)
    if not rows:
        raise RunError(f"none of the {broken} images in {root} could be read")
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([HEADER, *rows])
    log.replace(out, text.getvalue())
    print(f"{out}: {len(rows)} images classified" + (f", {broken} broken left out" if broken else ""))


def _classified(trained, names, images):
    if not images:
        return []
    # Filled up to one length, so that one compiled program serves all.
    batch = np.stack(images + images[:1] * (_AT_ONCE - len(images)))
    probabilities = trained.probabilities(batch)[: len(images)]
    first, second = np.argsort(-probabilities, axis=1, kind="stable")[:, :2].T
    rows = np.arange(len(images))
    return [
        (name, trained.class_names[a], f"{p:.4f}", trained.class_names[b], f"{q:.4f}")
        for name, a, p, b, q in zip(
            names, first, probabilities[rows, first], second, probabilities[rows, second], strict=True
        )
    ]


if __name__ == "__main__":
    command.run(main)
