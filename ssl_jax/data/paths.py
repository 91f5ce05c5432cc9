"""The names in a folder of anybody's: which files may be pictures, and how a name becomes text that can be kept."""

import os
import pathlib
import unicodedata
from collections.abc import Iterator, Sequence

from ssl_jax import types
from ssl_jax.data import headers

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_HIDDEN = (".", "__MACOSX", "@eaDir")
_CONTROLS = ("Cc", "Zl", "Zp")
# Marks that show what follows in another order than it is written in.
_TURNS = ("LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI")


def text(name: str) -> str:
    """A path as UTF-8 on one line, which a file name need not be and a record's id and a table must be.

    Bytes that are no UTF-8, control characters, line ends and marks that turn the direction of writing become
    backslash escapes.
    """
    whole = os.fsencode(name).decode("utf-8", "backslashreplace")
    return whole if whole.isprintable() else "".join(map(_letter, whole))


def _letter(letter: str) -> str:
    unseen = unicodedata.category(letter) in _CONTROLS or unicodedata.bidirectional(letter) in _TURNS
    return letter.encode("unicode_escape").decode() if unseen else letter


def shown(path: pathlib.Path | str) -> str:
    """A path in a message, on one line."""
    return text(str(path))


def keyed(root: pathlib.Path, paths: Sequence[pathlib.Path]) -> dict[str, pathlib.Path]:
    """Paths by their keys, which are what `text` makes of their place below `root`.

    Raises:
        types.UsageError: two have one key, since their names differ only in what is no text.
    """
    found: dict[str, pathlib.Path] = {}
    for path in paths:
        key = text(path.relative_to(root).as_posix())
        if key in found:
            raise types.UsageError(f"{shown(root)} has two files that both read as {key}: rename one of them")
        found[key] = path
    return found


def class_names(folder: pathlib.Path, classes: Sequence[pathlib.Path]) -> dict[pathlib.Path, str]:
    """The names of the classes that some folders stand for.

    A data set keeps its classes one a line, without the blanks around them.

    Raises:
        types.UsageError: for a name that would come back as another, or as that of two folders.
    """
    names = {path: text(path.name) for path in classes}
    for path, name in names.items():
        if name != name.strip():
            raise types.UsageError(f"class folder {name!r} in {shown(folder)} begins or ends in a blank: rename it")
        if list(names.values()).count(name) > 1:
            raise types.UsageError(
                f"two class folders in {shown(folder)} both read as {text(path.name)}: rename one of them"
            )
    return names


def walk(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Every file below a folder, sorted; what is hidden is passed over, and linked folders are not entered."""
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        yield from loose(here)
        waiting += reversed([below for below in folders(here) if not below.is_symlink()])


def loose(folder: pathlib.Path) -> list[pathlib.Path]:
    """The files that lie in a folder itself, sorted; no pipes, sockets or devices, and nothing hidden."""
    return sorted(path for path in folder.iterdir() if path.name[0] != "." and _file_like(path))


def folders(folder: pathlib.Path) -> list[pathlib.Path]:
    """The folders in a folder, sorted, without what is hidden."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith(_HIDDEN) and path.is_dir())


def image_like(path: pathlib.Path) -> bool:
    """Whether a file is an image by its extension or its first bytes."""
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return True
    try:
        with path.open("rb") as file:
            return image_format(file.read(16)) is not None
    except OSError:
        return False


def image_format(head: bytes) -> str | None:
    """ "png", "jpeg" or "webp" for a file that begins like one, None for any other."""
    found = headers.kind(head)
    return found if found in ("png", "jpeg", "webp") else None


def _file_like(path: pathlib.Path) -> bool:
    # A dangling link stands for a file that somebody expects to be there.
    return path.is_file() or (path.is_symlink() and not path.exists())
