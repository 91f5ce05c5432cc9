"""Digests of a folder's files, by which damage is noticed that the files' own format lets through."""

import hashlib
import json
import os
import pathlib
from collections.abc import Iterable

NAME = "digests.json"


def write(folder: pathlib.Path, without: tuple[str, ...] = ()) -> None:
    """Notes the SHA-256 of every file in `folder` in its `digests.json`, once the files are on the disk itself.

    Args:
        folder: holds the files.
        without: paths in it of files that others will change.

    Raises:
        OSError: where the disk does not take it.
    """
    noted = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in (NAME, *without):
            with path.open("rb") as file:
                os.fsync(file.fileno())
                noted[name] = hashlib.file_digest(file, "sha256").hexdigest()
    with (folder / NAME).open("w") as file:
        file.write(_text(noted))
        file.flush()
        os.fsync(file.fileno())


def add(folder: pathlib.Path, name: str) -> None:
    """Notes one file more, by its path in `folder`, where digests were noted before."""
    noted = _read(folder)
    if noted is not None:
        with (folder / "digests.tmp").open("w") as file:
            file.write(_text({**noted, name: _digest(folder / name)}))
            file.flush()
            os.fsync(file.fileno())
        (folder / "digests.tmp").rename(folder / NAME)


def verify(folder: pathlib.Path, names: Iterable[str] | None = None) -> bool:
    """Compares the files of `folder` with what was noted; files that came later are not looked at.

    Args:
        folder: where `write` was called.
        names: the files to compare, of those that were noted; None compares all.

    Returns:
        False where nothing was ever noted.

    Raises:
        ValueError: in words that name the first file that is not what it was.
    """
    noted = _read(folder)
    if noted is None:
        return False
    for name in noted if names is None else noted.keys() & set(names):
        if not (folder / name).is_file():
            raise ValueError(f"its file {name} is missing")
        if _digest(folder / name) != noted[name]:
            raise ValueError(f"its file {name} is not as it was written")
    return True


def _digest(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _text(noted: dict[str, str]) -> str:
    return json.dumps(noted, indent=1) + "\n"


def _read(folder: pathlib.Path) -> dict[str, str] | None:
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        noted = json.loads(path.read_bytes())
    except ValueError:
        noted = None
    if not isinstance(noted, dict) or not all(isinstance(digest, str) for digest in noted.values()):
        raise ValueError(f"its file {NAME} is not as it was written")
    return noted
