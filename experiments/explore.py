"""What a model has learned, without labels: one page of maps, groups, odd ones, neighbours and a verdict.

    python -m experiments.explore --run=runs/digits --data=digits:test --train=digits:train --out=explored

Instead of --run:
    --pixels                        the images themselves
    --features=FILE.npy             features from anywhere, with --data for their images or without

The folder holds `index.html`, which opens anywhere and asks no network for anything, and everything on it as files:
features.npz, clusters.csv, cluster_names.csv, embedding.csv, anomalies.csv, copies.csv, metrics.json, and a PNG of each
figure. --train names the training images: copies are looked for in them too, and what is normal is learned from them.
--normal=CLASS,CLASS makes all other classes odd. Write names into cluster_names.csv and give it back with --names. A
part that fails is named on the page, and the others stand. --overwrite replaces the files of an earlier call.
"""

import io
import pathlib

import numpy as np
from absl import flags
from tqdm import tqdm

from experiments import command, output
from ssl_jax import log
from ssl_jax.data import feed, source
from ssl_jax.explore import naming, read, whole
from ssl_jax.explore.subject import Subject
from ssl_jax.types import RunError, UsageError

RUN = flags.DEFINE_string("run", "", "A run folder, or a file that experiments.export wrote.")
CHECKPOINT = flags.DEFINE_enum("checkpoint", "last", ["last", "best"], "Which checkpoint of the run.")
FEATURES = flags.DEFINE_string("features", "", "Instead of --run: features [n, d] in .npy or .npz.")
PIXELS = flags.DEFINE_boolean("pixels", False, "Instead of --run: the pixels of --data.")
DATA = flags.DEFINE_string("data", "", "The images, NAME:SPLIT, or NAME alone for its split test, else train.")
TRAIN = flags.DEFINE_string("train", "", "The training images, NAME:SPLIT.")
DATA_DIR = flags.DEFINE_string("data_dir", "", "Where prepared data sets lie.")
SIZE_PX = flags.DEFINE_integer("size_px", None, "Size of images whose set's vary; else the run's.", lower_bound=1)
OUT = flags.DEFINE_string("out", "", "The folder for the page and the files.")
OVERWRITE = flags.DEFINE_boolean("overwrite", False, "Replace the files of an earlier call in --out.")
TRAIN_IMAGES = flags.DEFINE_integer("train_images", 60_000, "How many of --train to take.", lower_bound=3)
IMAGES = flags.DEFINE_integer("images", 10_000, "How many images to take, evenly spread.", lower_bound=3)
MAPPED = flags.DEFINE_integer("mapped", 2000, "How many of them are on maps.", lower_bound=3, upper_bound=20_000)
CLUSTERS = flags.DEFINE_integer("clusters", 0, "How many clusters; 0: by silhouette.", lower_bound=0)
MOST_CLUSTERS = flags.DEFINE_integer("most_clusters", 15, "The most that --clusters=0 tries.", lower_bound=2)
NAMES = flags.DEFINE_string("names", "", "A cluster_names.csv with names filled in.")
NORMAL = flags.DEFINE_list("normal", [], "Classes that are normal; all others are odd.")
VIEWS = flags.DEFINE_integer("views", 10, "Random views of an image, for LiDAR; 0: none.", lower_bound=0)
PARTS = flags.DEFINE_list("parts", list(whole.HEADINGS), "Which parts to make.")
SEED = flags.DEFINE_integer("seed", 0, "Of all that is drawn.", lower_bound=0, upper_bound=2**31 - 1)

EXAMPLE = "python -m experiments.explore --run=runs/digits --data=digits:test --out=explored"
_RECORD = "metrics.json"


def main(arguments):
    """Reads the features, makes the parts one by one, and writes the page and the files."""
    command.refuse_stray_words(arguments)
    given = [
        flag for flag, value in (("run", RUN.value), ("features", FEATURES.value), ("pixels", PIXELS.value)) if value
    ]
    if len(given) != 1 or not OUT.value or not (DATA.value or FEATURES.value):
        raise UsageError(f"needs --out, one of --run, --features and --pixels, and --data for its images: {EXAMPLE}")
    if VIEWS.value == 1:
        raise UsageError("--views=1: views are compared with one another, so draw 2 or more, or 0 for none")
    if TRAIN.value and given == ["features"]:
        raise UsageError("--train goes with --run or --pixels, which say how features of other images are made")
    folder = output.claim(pathlib.Path(OUT.value), _RECORD, "experiments.explore")
    if folder.found and not OVERWRITE.value:
        raise UsageError(f"--out={OUT.value} holds an earlier exploration: give a new folder, or --overwrite")
    _refuse_to_lose_names(folder.folder / naming.NAMES_FILE)
    whole.refuse_unknown(PARTS.value)
    settings = whole.Settings(
        clusters=CLUSTERS.value,
        most_clusters=MOST_CLUSTERS.value,
        names=pathlib.Path(NAMES.value) if NAMES.value else None,
        normal=tuple(NORMAL.value),
        mapped=MAPPED.value,
        seed=SEED.value,
        parts=tuple(PARTS.value),
    )
    with tqdm(total=2 + len(PARTS.value), unit=" parts", leave=False, disable=None) as bar:

        def begin(name):
            bar.update()
            bar.set_description_str(name.replace("_", " "))

        bar.set_description_str("features")
        explored = subject_of(DATA.value, IMAGES.value, views=VIEWS.value)
        training = subject_of(TRAIN.value, TRAIN_IMAGES.value) if TRAIN.value else None
        found = whole.explore(explored, training, settings, begin)
    for line in [line for part in found.parts.values() for line in part.lines]:
        print(line)
    files = {name: content for part in found.parts.values() for name, content in part.files.items()}
    files |= {"features.npz": _npz(explored), "index.html": whole.as_page(explored, training, found)}
    chosen = (
        DATA,
        TRAIN,
        CHECKPOINT,
        IMAGES,
        TRAIN_IMAGES,
        MAPPED,
        CLUSTERS,
        MOST_CLUSTERS,
        NAMES,
        NORMAL,
        VIEWS,
        SEED,
    )
    facts = {"explored": explored.told, **{flag.name: flag.value for flag in chosen}}
    folder.begin(list(files), facts)
    for name, content in files.items():
        folder.write(name, content.encode() if isinstance(content, str) else content)
    parts = {name: part.metrics for name, part in found.parts.items()}
    facts |= {
        "explored_images": len(explored.features),
        "parts": parts,
        "left_out": found.left_out,
        "failed": found.failed,
    }
    folder.finish(list(files), {**facts, **log.environment()})
    for name, reason in found.left_out.items():
        log.say(f"{name} left out: {reason}")
    print(f"\n{folder.folder / 'index.html'} shows it, {folder.folder / _RECORD} has every number")
    if found.failed:
        told = "; ".join(f"{name} ({reason})" for name, reason in found.failed.items())
        raise RunError(f"the other parts stand, but not {told}")


def subject_of(text: str, most: int, *, views: int = 0) -> Subject:
    """What the flags name, of at most so many of the images that `text` names as NAME:SPLIT or NAME.

    Raises:
        UsageError: for what is not there or does not fit.
        RunError: for damaged files.
    """
    examples = _opened(text) if text else None
    if FEATURES.value:
        return read.of_file(pathlib.Path(FEATURES.value), examples, most=most)
    if PIXELS.value:
        return read.of_pixels(examples, most=most)
    return read.of_run(RUN.value, examples, which=CHECKPOINT.value, most=most, views=views, seed=SEED.value)


def _refuse_to_lose_names(file: pathlib.Path) -> None:
    given = pathlib.Path(NAMES.value) if NAMES.value else None
    if given is not None and not given.is_file():
        raise UsageError(f"--names={given}: there is no such file")
    if naming.holds_names(file) and not (given is not None and given.samefile(file)):
        raise UsageError(f"{file} holds names that a person wrote: give it with --names={file}, or move it away")


def _opened(text: str) -> feed.Evaluation:
    if ":" in text:
        name, split = command.name_and_split("data", text)
    else:
        name = text
        there = source.open_source(name, "all", DATA_DIR.value).splits
        split = next((split for split in ("test", "train") if split in there), "")
        if not split:
            raise UsageError(
                f"--data={name}: which split? There are {', '.join(there)}: write --data={name}:{there[0]}"
            )
    size_px = SIZE_PX.value
    if size_px is None and RUN.value and pathlib.Path(RUN.value).is_dir():
        size_px = read.size_of_run(pathlib.Path(RUN.value))
    return feed.Evaluation(name, split, size_px=size_px, data_dir=DATA_DIR.value)


def _npz(explored: Subject) -> bytes:
    file = io.BytesIO()
    arrays = {
        "features": explored.features,
        "labels": explored.labels,
        "class_names": np.array(explored.class_names, dtype=np.str_),
        "names": np.array(explored.names, dtype=np.str_),
    }
    stages = {f"stage_{name}": values for name, values in explored.stages.items() if name != "encoder"}
    np.savez_compressed(file, **arrays, **stages)
    return file.getvalue()


if __name__ == "__main__":
    command.run(main)
