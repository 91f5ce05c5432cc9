"""Which prepared data sets lie in a TFDS data folder, by looking at its folders and `dataset_info.json` files alone.

TFDS keeps a set in `<data_dir>/<name>/[<config>/]<version>/`.
"""

import dataclasses
import difflib
import json
import os
import pathlib
import re

from ssl_jax import types

INFO = "dataset_info.json"
FORMAT = "array_record"
_NAME = re.compile(r"(?P<name>[A-Za-z]\w*)(/(?P<config>[\w+.\-]+?))?(:(?P<version>\d+\.\d+\.\d+))?")
_VERSION = re.compile(r"\d+\.\d+\.\d+")


@dataclasses.dataclass(frozen=True)
class Name:
    """A data set's name taken apart, `name[/config][:version]`; what was left out is ""."""

    name: str
    config: str
    version: str


def parse(text: str) -> Name:
    """Takes `fashion_mnist`, `cifar10:3.0.2` or `cycle_gan/horse2zebra:3.0.0` apart.

    Raises:
        types.UsageError: the text is no such name.
    """
    match = _NAME.fullmatch(text)
    if not match:
        raise types.UsageError(
            f"{text!r} is no data set's name: write name, name:1.2.3 or name/config:1.2.3, "
            "where name is letters, digits and underscores"
        )
    return Name(*(match[part] or "" for part in ("name", "config", "version")))


def data_folder(data_dir: str) -> pathlib.Path:
    """The folder that holds prepared sets: `data_dir`, or TFDS's own default where it is ""."""
    default = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return pathlib.Path(data_dir or default).expanduser()


def prepare_command(name: str, data_dir: str) -> str:
    """How the user gets the set: the command, with both of its forms."""
    place = f" --data_dir={data_dir}" if data_dir else ""
    return (
        f"python -m experiments.prepare --tfds={name}{place} (an official TFDS set) "
        f"or --images=DIR --name={name}{place} (your own images)"
    )


def find(text: str, data_dir: str) -> pathlib.Path:
    """The version folder of a prepared set: the newest version where none is named.

    Where a set has several configs and none is named, it is TFDS's recorded default or the only one there.

    Raises:
        types.UsageError: nothing is prepared under that name, only half of it, or several configs are.
    """
    wanted, folder = parse(text), data_folder(data_dir)
    home = folder / wanted.name
    if not home.is_dir():
        raise types.UsageError(_unknown(wanted.name, folder, data_dir))
    newest = _newest(_with_config(home, wanted), wanted)
    if newest is None:
        raise types.UsageError(
            f"data set {text!r} in {home} has no prepared version; there are: {_listing(home)}; "
            f"prepare it: {prepare_command(wanted.name, data_dir)}"
        )
    if not (newest / INFO).is_file():
        raise types.UsageError(
            f"data set {text!r} is half-written: {newest} has no {INFO}; "
            f"remove that folder and prepare it again: {prepare_command(wanted.name, data_dir)}"
        )
    return newest


def find_copy(folder: pathlib.Path) -> pathlib.Path:
    """The version folder at `folder`, which is one, or a set's folder with versions or a single config in it.

    Raises:
        types.UsageError: there is no prepared version.
    """
    if (folder / INFO).is_file():
        return folder
    if not folder.is_dir():
        raise types.UsageError(f"{folder} is not a folder")
    nothing = Name(folder.name, "", "")
    newest = _newest(_with_config(folder, nothing), nothing)
    if newest is None or not (newest / INFO).is_file():
        raise types.UsageError(
            f"{folder} holds no TFDS data: name the version folder with {INFO} in it, "
            "such as ~/tensorflow_datasets/mnist/3.0.1"
        )
    return newest


def again(version_folder: pathlib.Path | str) -> str:
    """The way out of a damaged set; it must go first, since what is there counts as prepared."""
    return f"remove {version_folder} and prepare the data set again"


def info(version_folder: pathlib.Path) -> dict:
    """The contents of a version folder's `dataset_info.json`.

    Raises:
        types.UsageError: the file is not readable JSON.
    """
    path = version_folder / INFO
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise types.UsageError(f"{path} is damaged ({error}): {again(version_folder)}") from error


def formats(version_folder: pathlib.Path) -> set[str]:
    """The file formats that a prepared version has; TFDS before 4.7 recorded none and wrote TFRecord."""
    contents = info(version_folder)
    recorded = contents["fileFormat"] if "fileFormat" in contents else "tfrecord"
    return {recorded, *(contents["alternativeFileFormats"] if "alternativeFileFormats" in contents else ())}


def prepared(folder: pathlib.Path) -> list[str]:
    """The names of the sets in a data folder, sorted."""
    if not folder.is_dir():
        return []
    found = {path.parent for depth in ("*/*", "*/*/*") for path in folder.glob(f"{depth}/{INFO}")}
    return sorted({name for path in found if (name := path.relative_to(folder).parts[0])[0] != "."})


def _unknown(name: str, folder: pathlib.Path, data_dir: str) -> str:
    there = prepared(folder)
    near = difflib.get_close_matches(name, there, n=3, cutoff=0.5)
    if near:
        hint = f"the nearest there: {', '.join(near)}"
    elif there:
        hint = f"there are: {', '.join(there[:8])}" + (f" and {len(there) - 8} more" if len(there) > 8 else "")
    else:
        hint = "no data set is there"
    return f"data set {name!r} is not prepared in {folder} ({hint}); prepare it: {prepare_command(name, data_dir)}"


def _versions(folder: pathlib.Path) -> list[pathlib.Path]:
    found = [path for path in folder.iterdir() if path.is_dir() and _VERSION.fullmatch(path.name)]
    return sorted(found, key=lambda path: tuple(map(int, path.name.split("."))))


def _with_config(home: pathlib.Path, wanted: Name) -> pathlib.Path:
    if wanted.config:
        return home / wanted.config
    configs = sorted(p.name for p in home.iterdir() if p.is_dir() and p.name[0] != "." and _versions(p))
    if _versions(home) or not configs:
        return home
    default = home / ".config" / "metadata.json"
    if default.is_file():
        name = json.loads(default.read_text())["default_config_name"]
        if name in configs:
            return home / name
    if len(configs) > 1:
        raise types.UsageError(
            f"data set {wanted.name!r} has several configs in {home}: write one of "
            + ", ".join(f"{wanted.name}/{config}" for config in configs)
        )
    return home / configs[0]


def _newest(folder: pathlib.Path, wanted: Name) -> pathlib.Path | None:
    if not folder.is_dir():
        return None
    versions = [path for path in _versions(folder) if wanted.version in ("", path.name)]
    # An interrupted newer version must not hide a whole older one.
    whole = [path for path in versions if (path / INFO).is_file()]
    return (whole or versions or [None])[-1]


def _listing(home: pathlib.Path) -> str:
    found = sorted(str(p.parent.relative_to(home)) for depth in ("*", "*/*") for p in home.glob(f"{depth}/{INFO}"))
    return ", ".join(found) or "none"
