"""A folder of image files as people keep them: which files are images, of what class and split, and are they whole?"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import hashlib
import io
import os
import pathlib
import threading
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import PIL.Image
import PIL.ImageOps
import tqdm

from ssl_jax import types
from ssl_jax.data import headers, paths, transforms
from ssl_jax.data.paths import image_like as image_like  # `pictures` finds these three here
from ssl_jax.data.paths import shown
from ssl_jax.data.paths import text as text
from ssl_jax.data.paths import walk as walk

Broken = Literal["fatal", "skip"]
SPLIT_NAMES = ("train", "test", "val", "valid", "validation")
# As TFDS's cycle_gan spells them.
DOMAIN_SPLITS = ("trainA", "trainB", "testA", "testB", "valA", "valB")
_DOMAIN_OF = {split.lower(): split for split in DOMAIN_SPLITS}
_GREY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B")
_ORIENTATION = 0x0112
# Pictures of more pixels are decoded one at a time, so that a folder of them takes the memory of one.
_LARGE_PX = 2**25
_one_large = threading.Lock()
# `headers.check_size` stands before every decoding here, with a bound that the user can move.
PIL.Image.MAX_IMAGE_PIXELS = None


@dataclasses.dataclass(frozen=True)
class File:
    """One image file.

    Attributes:
        path: where it lies.
        key: its path below the folder, with "/" between the parts; unique, and the record's `id`.
        split: "train" where the folder has no splits.
        class_name: None where the split is unlabelled.
    """

    path: pathlib.Path
    key: str
    split: str
    class_name: str | None


@dataclasses.dataclass(frozen=True)
class Image:
    """What a look into a file found: its size once upright, whether it is grey, and whether it must be turned."""

    file: File
    height: int
    width: int
    grey: bool
    turned: bool
    digest: bytes


@dataclasses.dataclass(frozen=True)
class Listing:
    """The files of a folder.

    Attributes:
        root: the folder.
        files: what is, or by its extension should be, an image, sorted by key.
        others: what is neither, sorted.
    """

    root: pathlib.Path
    files: tuple[File, ...]
    others: tuple[pathlib.Path, ...]

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes of all splits, sorted; () where nothing is labelled."""
        return tuple(sorted({file.class_name for file in self.files if file.class_name is not None}))

    def stamp(self) -> str:
        """A hash of all paths, sizes and modification times: equal only if nobody touched anything."""
        parts = [(file.key, *_size_and_time(file.path)) for file in self.files]
        return hashlib.sha256(repr(parts).encode()).hexdigest()


def scan(root: pathlib.Path) -> Listing:
    """Lists the image files below `root` and gives each its split and class.

    Three forms are understood: class sub-folders; images loose in the folder (unlabelled); either of them below
    folders named like splits (`SPLIT_NAMES` or `DOMAIN_SPLITS`, in any case), when nothing else is at the top. A class
    folder is searched through all its depths. Hidden files and folders are passed over. A file is an image if it begins
    like a PNG, JPEG or WebP file, whatever its name; one that is merely named like an image is listed too, so that
    `inspect` can call it broken.

    Raises:
        types.UsageError: no folder, one that cannot be read, no images, a class folder without images, loose images
            beside class folders, other folders beside split folders, or one of two domains to train on.
    """
    try:
        return _scan(root)
    except OSError as error:
        raise types.UsageError(
            f"cannot read {shown(error.filename or root)} ({error.strerror}): change its permissions, or move it away"
        ) from error


def _scan(root: pathlib.Path) -> Listing:
    if not root.is_dir():
        raise types.UsageError(
            f"{shown(root)} is not a folder: --images takes a folder of images or of class sub-folders"
        )
    loose, folders = paths.loose(root), paths.folders(root)
    named = [folder for folder in folders if folder.name.lower() in SPLIT_NAMES]
    rest = [folder for folder in folders if folder not in named]
    domains = _domains(root, loose, folders)
    if not domains and rest and any(map(paths.folders, named)):
        raise types.UsageError(
            f"{shown(root)} holds split folders ({_some(named)}) beside others ({_some(rest)}): "
            "move the others away, or rename the split folders if they are classes"
        )
    if domains:
        parts = domains
    elif folders and not any(map(image_like, loose)) and not rest:
        parts = [(folder.name.lower(), folder) for folder in folders]
    else:
        parts = [("train", root)]
    repeated = [name for name, count in collections.Counter(name for name, _ in parts).items() if count > 1]
    if repeated:
        raise types.UsageError(
            f"{shown(root)} has several folders for split {repeated[0]!r}, which differ only in case"
        )
    files, others = [], [] if parts[0][1] == root else list(loose)
    for split, folder in parts:
        for class_name, path in _walk_split(folder):
            if image_like(path):
                files.append(File(path, text(path.relative_to(root).as_posix()), split, class_name))
            else:
                others.append(path)
        if not any(file.split == split for file in files):
            need = "both domains need some; " if split in DOMAIN_SPLITS[:2] else ""
            raise types.UsageError(
                f"{shown(folder)} holds no images: {need}PNG, JPEG and WebP are read; {_holds(others)}"
            )
    paths.keyed(root, [file.path for file in files])
    return Listing(root, tuple(sorted(files, key=lambda file: file.key)), tuple(sorted(others)))


def _domains(root: pathlib.Path, loose: Sequence[pathlib.Path], folders: Sequence[pathlib.Path]) -> list:
    """The folders of two domains with the splits that they are; [] where there are none."""
    parts = [(_DOMAIN_OF[folder.name.lower()], folder) for folder in folders if folder.name.lower() in _DOMAIN_OF]
    others = [path for path in folders if path.name.lower() not in _DOMAIN_OF] + list(filter(image_like, loose))
    if parts and others:
        some = _some([path for _, path in parts])
        raise types.UsageError(
            f"{shown(root)} holds folders of domains ({some}) beside {_some(others)}: move the others away"
        )
    train = {split for split, _ in parts} & {"trainA", "trainB"}
    if len(train) == 1:
        missing = "trainB" if "trainA" in train else "trainA"
        raise types.UsageError(
            f"{shown(root)} holds {train.pop()} and no {missing}: both domains need images to train on"
        )
    return parts


def inspect(listing: Listing, broken: Broken) -> tuple[list[Image], list[str]]:
    """Decodes every file to the end, and says what it is.

    Args:
        listing: what to look at.
        broken: whether a file that does not decode is "fatal", or left out ("skip").

    Returns:
        The sound images in the listing's order, and one sentence for each broken file.

    Raises:
        types.UsageError: a file is broken and that is fatal, or no sound image is left in a split.
    """
    images, complaints = [], []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        bar = tqdm.tqdm(listing.files, desc="checking images", unit=" files", disable=None)
        try:
            for found in _in_order(pool, bar):
                if isinstance(found, Image):
                    images.append(found)
                elif broken == "fatal":
                    raise types.UsageError(
                        f"broken image {found}; nothing was written: mend or remove the file, "
                        "or leave broken files out with --broken=skip"
                    )
                else:
                    complaints.append(found)
        finally:
            pool.shutdown(cancel_futures=True)
            bar.close()
    left = {image.file.split for image in images}
    for split in dict.fromkeys(file.split for file in listing.files):
        if split not in left:
            raise types.UsageError(
                f"every image of split {split!r} in {shown(listing.root)} is broken, such as {complaints[0]}"
            )
    return images, complaints


def content(image: Image) -> bytes:
    """The bytes to store: the file's own, or, where its orientation tag asks for a turn, an upright lossless PNG.

    People expect photographs upright, and nothing downstream reads the tag.
    """
    data = image.file.path.read_bytes()
    if not image.turned:
        return data
    with PIL.Image.open(io.BytesIO(data)) as picture:
        upright = PIL.ImageOps.exif_transpose(picture).convert("L" if image.grey else "RGB")
    out = io.BytesIO()
    # A new picture has none of the old one's metadata, which could ask for a second turn.
    PIL.Image.fromarray(np.asarray(upright)).save(out, "PNG")
    return out.getvalue()


def content_hash(images: Sequence[Image]) -> str:
    """A hash of the paths and contents of all images."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(repr((image.file.key, image.digest)).encode())
    return digest.hexdigest()


def inspect_one(file: File) -> Image | str:
    """What a file is, or a sentence of one line that says what is wrong with it."""
    try:
        headers.check_bytes(file.path.stat().st_size)
        data = file.path.read_bytes()
        if paths.image_format(data[:16]) is None:
            raise ValueError("neither PNG, JPEG nor WebP inside")
        height, width = headers.check(data)
        with _one_large if height * width > _LARGE_PX else contextlib.nullcontext():
            return _decoded(file, data)
    except Exception as error:  # Pillow's readers raise what they like on damaged files, from OSError to struct.error
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return f"{shown(file.path)}: {' '.join(reason.split()) or type(error).__name__}"


def _decoded(file: File, data: bytes) -> Image:
    # Two decoders look at every file, since what each lets pass differs, and with their versions too.
    with PIL.Image.open(io.BytesIO(data)) as picture:
        # It may read another size than `headers` does.
        headers.check_size(*picture.size[::-1])
        picture.load()
        turned = picture.getexif().get(_ORIENTATION, 1) in range(2, 9)
        grey = picture.mode in _GREY_MODES
        width, height = PIL.ImageOps.exif_transpose(picture).size if turned else picture.size
    shape = transforms.decode(data, 1 if grey else 3).shape
    if sorted(shape[:2]) != sorted((height, width)):
        raise ValueError(f"its size reads as {shape[1]}x{shape[0]} by one decoder and {width}x{height} by another")
    return Image(file, height, width, grey, turned, hashlib.sha256(data).digest())


def _in_order(pool: concurrent.futures.Executor, files: Iterator[File]) -> Iterator[Image | str]:
    # A window, because `map` would queue every file of a million at once and a fatal one would wait for them.
    waiting: collections.deque[concurrent.futures.Future[Image | str]] = collections.deque()
    for file in files:
        waiting.append(pool.submit(inspect_one, file))
        if len(waiting) >= 64:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _walk_split(folder: pathlib.Path) -> Iterator[tuple[str | None, pathlib.Path]]:
    loose, classes = paths.loose(folder), paths.folders(folder)
    if not classes:
        yield from ((None, path) for path in loose)
        return
    names = paths.class_names(folder, classes)
    pictures = [path for path in loose if image_like(path)]
    if pictures:
        raise types.UsageError(
            f"{shown(folder)} holds loose images ({_some(pictures)}) beside class folders "
            f"({_some(classes)}): move the images into class folders, or the folders away"
        )
    yield from ((None, path) for path in loose)
    for class_folder in classes:
        found = list(walk(class_folder))
        if not any(map(image_like, found)):
            raise types.UsageError(
                f"class folder {shown(class_folder)} holds no images (PNG, JPEG, WebP; {_holds(found)}): "
                "fill it or remove it"
            )
        yield from ((names[class_folder], path) for path in found)


def _some(found: Sequence[pathlib.Path]) -> str:
    return ", ".join(text(path.name) for path in found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")


def _holds(found: Sequence[pathlib.Path]) -> str:
    return f"it holds {_some(found)}" if found else "it is empty"


def _size_and_time(path: pathlib.Path) -> tuple[int, int]:
    # A dangling link has no size; `inspect` calls it broken.
    if not path.exists():
        return -1, -1
    found = path.stat()
    return found.st_size, found.st_mtime_ns
