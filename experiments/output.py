"""A folder that a script fills with pictures: whose it is, and what a second call replaces."""

import dataclasses
import io
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image

from ssl_jax import log
from ssl_jax.types import UsageError


@dataclasses.dataclass(frozen=True)
class Output:
    """An output folder whose files are listed in a JSON file beside them; `claim` makes one.

    Attributes:
        folder: where the files go.
        record: the name of the JSON file.
        script: what wrote it, such as "experiments.sample".
        earlier: the files of an earlier call.
        found: what its record says beside them.
    """

    folder: pathlib.Path
    record: str
    script: str
    earlier: frozenset[str]
    found: Mapping[str, Any]

    def begin(self, files: Sequence[str], facts: Mapping[str, Any]) -> None:
        """Makes the folder, says in the record what it will hold, and removes what only an earlier call wrote.

        Args:
            files: every file to come, as paths below the folder.
            facts: what else the record says.

        Raises:
            UsageError: for a file of that name that no earlier call wrote, or a folder that is a link to elsewhere.
        """
        for file in {*files, *self.earlier}:
            self._refuse_elsewhere(file)
        for file in files:
            if file not in self.earlier and (self.folder / file).exists():
                raise UsageError(f"{self.folder / file} is not this script's: move it away or give another --out")
        with log.writing(self.folder):
            for file in files:
                (self.folder / file).parent.mkdir(parents=True, exist_ok=True)
        # Before the files, so that a call that was cut short leaves a folder that the next one knows as its own.
        self._record({**facts, "finished": False, "files": sorted({*files, *self.earlier})})
        for file in self.earlier - set(files):
            with log.writing(self.folder / file):
                (self.folder / file).unlink(missing_ok=True)

    def write(self, file: str, content: bytes) -> None:
        """Puts one file below the folder."""
        log.replace(self.folder / file, content)

    def finish(self, files: Sequence[str], facts: Mapping[str, Any]) -> None:
        """Says in the record that all is there."""
        self._record({**facts, "finished": True, "files": list(files)})

    def _refuse_elsewhere(self, file):
        parent = (self.folder / file).parent
        if not parent.resolve().is_relative_to(self.folder.resolve()):
            raise UsageError(f"{parent} is a link to elsewhere: remove it or give another --out")

    def _record(self, facts):
        text = json.dumps(log.plain({"script": self.script, **facts}), indent=1, allow_nan=False, ensure_ascii=False)
        # Half a surrogate, as names may have, is written as the escape that JSON has for it.
        log.replace(self.folder / self.record, text.encode(errors="backslashreplace") + b"\n")


def claim(folder: pathlib.Path, record: str, script: str) -> Output:
    """The output folder of a script; nothing is written yet.

    Raises:
        UsageError: for a file, and for a folder with something in it that this script did not write.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out={folder} is a file: give a folder")
    earlier, found = [], {}
    if folder.is_dir() and any(folder.iterdir()):
        try:
            found = json.loads((folder / record).read_text(encoding="utf-8"))
            # What lies elsewhere no earlier call wrote, whoever wrote the record.
            earlier = [file for file in found["files"] if inside(file)] if found["script"] == script else None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            earlier = None
        if earlier is None:
            raise UsageError(f"--out={folder} is not empty and holds no {record} of {script}: give a new folder")
    said = {name: value for name, value in found.items() if name not in ("script", "finished", "files")}
    return Output(folder, record, script, frozenset(earlier), said)


def inside(file: object) -> bool:
    """Whether an entry of a record, which may be anybody's, is a path that stays below its folder."""
    try:
        parts = [os.fsencode(part) for part in file.split("/")] if isinstance(file, str) and "\0" not in file else [b""]
    except UnicodeEncodeError:  # no file system has such a name
        return False
    return all(part not in (b"", b".", b"..") and len(part) <= 255 for part in parts)


def picture(image: np.ndarray, suffix: str = ".png") -> bytes:
    """A file of one image, uint8 [h, w, c], grey for c = 1 and colour for c = 3; ".jpg" makes a JPEG of quality 95."""
    file = io.BytesIO()
    whole = PIL.Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    if suffix == ".jpg":
        whole.save(file, "JPEG", quality=95)
    else:
        whole.save(file, "PNG")
    return file.getvalue()


def image_names(names: Sequence[str], taken: Sequence[str], suffix: str = ".png") -> list[str]:
    """A file's path for each of some pictures' paths: `a/cat.jpg` to `a/cat.png`, with `.png` more where two meet.

    Args:
        names: different paths.
        taken: paths that none may get.
        suffix: what the paths end in.
    """
    paths: list[str] = []
    held = set(taken)
    for name in names:
        path = str(pathlib.PurePosixPath(name).with_suffix(suffix))
        if path in held:
            path = f"{name}{suffix}"
        while path in held:
            path += suffix
        paths.append(path)
        held.add(path)
    return paths
