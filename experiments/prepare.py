"""Makes a data set that training can read, without TensorFlow. One of three sources:

  python -m experiments.prepare --images=DIR --name=mine [--broken=skip] [--overwrite]
      a folder of class sub-folders, of loose unlabelled images, or of train/ test/ val/ folders of either;
      or of two domains to translate between, in trainA/ trainB/ testA/ testB/
  python -m experiments.prepare --tfds=fashion_mnist [--archives=DIR]
      an official TFDS data set, from the network or from a folder with its archives
  python -m experiments.prepare --tfrecord=DIR
      a TFDS data set that somebody has as TFRecord files; they are only read

The set goes to TFDS's own folder (~/tensorflow_datasets or $TFDS_DATA_DIR) unless --data_dir names another.
"""

from collections.abc import Sequence

from absl import flags

from experiments import command
from ssl_jax import types
from ssl_jax.data import prepare

IMAGES = flags.DEFINE_string("images", "", "folder of image files; needs --name")
NAME = flags.DEFINE_string("name", "", "what the data set made from --images is called")
BROKEN = flags.DEFINE_enum("broken", "fatal", ["fatal", "skip"], "what a broken image file does to --images")
OVERWRITE = flags.DEFINE_bool("overwrite", False, "replace what is there under this name")
TFDS = flags.DEFINE_string("tfds", "", "official TFDS data set: name, name:version or name/config")
ARCHIVES = flags.DEFINE_string("archives", "", "folder with the archives of --tfds; nothing is fetched then")
TFRECORD = flags.DEFINE_string("tfrecord", "", "folder of a TFDS data set in TFRecord form")
DATA_DIR = flags.DEFINE_string("data_dir", "", "where prepared data sets lie")

_BELONGS_TO = {"name": "images", "broken": "images", "overwrite": "images", "archives": "tfds"}


def main(arguments: Sequence[str]) -> None:
    """Prepares what the flags ask for and says what came of it."""
    command.refuse_stray_words(arguments)
    given = [flag for flag in ("images", "tfds", "tfrecord") if flags.FLAGS[flag].value]
    if len(given) != 1:
        what = " and ".join(f"--{flag}" for flag in given) if given else "none"
        raise types.UsageError(f"give exactly one of --images=DIR, --tfds=NAME and --tfrecord=DIR; given: {what}")
    for flag, source in _BELONGS_TO.items():
        if flags.FLAGS[flag].present and source != given[0]:
            raise types.UsageError(f"--{flag} goes with --{source}, not with --{given[0]}")
    if IMAGES.value:
        if not NAME.value:
            raise types.UsageError("--images needs --name=NAME, which is what configs will call the data set")
        made = prepare.images(IMAGES.value, NAME.value, DATA_DIR.value, BROKEN.value, OVERWRITE.value)
    elif TFDS.value:
        made = prepare.official(TFDS.value, DATA_DIR.value, ARCHIVES.value)
    else:
        made = prepare.tfrecord_copy(TFRECORD.value, DATA_DIR.value)
    print("\n".join(made.lines(DATA_DIR.value)))


if __name__ == "__main__":
    command.run(main)
