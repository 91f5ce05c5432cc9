"""Image folders, official TFDS builders and TFRecord copies become ArrayRecord data sets, without TensorFlow."""

import difflib
import json
import pathlib
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds
import tqdm
from tensorflow_datasets.core.download import checksums, extractor

from ssl_jax import types
from ssl_jax.data import catalog, folder, tfrecord, write
from ssl_jax.data.source import MADE_AT_FIRST_USE


def images(
    root: str, name: str, data_dir: str = "", broken: folder.Broken = "fatal", overwrite: bool = False
) -> write.Prepared:
    """A folder of image files becomes the data set `name`.

    Files are stored as they are, byte for byte, except that a photograph whose EXIF orientation tag is not 1 is turned
    upright and stored as lossless PNG. If all files are grey, in all splits and domains, the set has one channel, else
    three; if all have one size, that is recorded. `folder.scan` says which folders are understood. An unlabelled split
    beside labelled ones gets label -1.

    Args:
        root: the folder.
        name: letters, digits and underscores.
        data_dir: where prepared sets lie; "" is TFDS's own default.
        broken: whether a file that does not decode stops everything before anything is written, or is left out.
        overwrite: whether an earlier set that was made from images under this name is replaced, even if it was made
            from the same ones: it may be damaged.

    Raises:
        types.UsageError: the folder cannot be used, a file is broken, or the name is taken.
    """
    if catalog.parse(name) != catalog.Name(name, "", "") or name in MADE_AT_FIRST_USE:
        taken = " or ".join(MADE_AT_FIRST_USE)
        raise types.UsageError(f"--name={name} cannot be used: take letters, digits and underscores, and not {taken}")
    listing = folder.scan(pathlib.Path(root).expanduser())
    target = catalog.data_folder(data_dir) / name / write.VERSION
    stamp = listing.stamp()
    earlier = write.origin(target)
    if earlier is None and target.parent.is_dir() and any(target.parent.iterdir()):
        raise types.UsageError(f"{target.parent} holds a data set that was not made from images: take another --name")
    if earlier is not None and "content" not in earlier:
        raise types.UsageError(f"{target} was re-framed from TFRecord files: take another --name")
    if earlier is not None and not overwrite and earlier["stamp"] == stamp:
        return _already(target, "from these files", "replace it with --overwrite")
    found, complaints = folder.inspect(listing, broken)
    content_hash = folder.content_hash(found)
    if earlier is not None and not overwrite and earlier["content"] == content_hash:
        return _already(target, "from the same images", "replace it with --overwrite")
    if earlier is not None and not overwrite:
        raise types.UsageError(
            f"{target} was prepared from other images ({earlier['root']}): "
            "replace it with --overwrite, or take another --name"
        )
    grey = all(image.grey for image in found)
    sizes = {(image.height, image.width) for image in found}
    size = sizes.pop() if len(sizes) == 1 else (None, None)
    write.allow_without_tensorflow()
    bar = tqdm.tqdm(total=len(found), desc="writing", unit=" images", disable=None)

    def records(split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for image in found:
            if image.file.split == split:
                label = -1 if image.file.class_name is None else image.file.class_name
                named = {"label": label} if listing.class_names else {}
                yield image.file.key, {"image": folder.content(image), "id": image.file.key, **named}
                bar.update()

    splits = {split: lambda split=split: records(split) for split in dict.fromkeys(i.file.split for i in found)}
    origin = {"root": str(listing.root.resolve()), "stamp": stamp, "content": content_hash}
    with bar, write.workspace(catalog.data_folder(data_dir)) as scratch:
        built = write.records(name, splits, (*size, 1 if grey else 3), listing.class_names, scratch)
        write.remember(built, origin)
        _publish(built, target, None if earlier is None else scratch / "replaced")
    return write.Prepared(target, (*_remarks(listing, complaints), *_grey_in_colour(found)))


def tfrecord_copy(source: str, data_dir: str = "") -> write.Prepared:
    """A TFDS data set in TFRecord form becomes the same set in ArrayRecord form; the source is only read.

    Args:
        source: its version folder, or the folder above that.
        data_dir: where prepared sets lie; "" is TFDS's own default.

    Raises:
        types.UsageError: `source` is no TFRecord data set, or there is another set where the result would lie.
        types.RunError: a shard is missing, cut off or damaged.
    """
    version = catalog.find_copy(pathlib.Path(source).expanduser())
    try:
        contents = catalog.info(version)
        there = catalog.formats(version)
    except types.UsageError as error:
        # Not `catalog`'s own way out: nobody should remove what may be the only copy.
        raise types.UsageError(
            f"{version / catalog.INFO} is damaged ({error.__cause__}): get the copy again"
        ) from error
    if "tfrecord" not in there:
        raise types.UsageError(f"{version} is in {', '.join(sorted(there))} form, not TFRecord")
    try:
        info = tfds.builder_from_directory(version).info
        info.set_file_format("tfrecord", override=True, override_if_initialized=True)
        shards = [
            (pathlib.Path(path), length)
            for split in info.splits.values()
            for path, length in zip(split.filepaths, split.shard_lengths, strict=True)
        ]
    except write.UNREADABLE as error:
        raise types.UsageError(f"{version} is an incomplete copy ({_one_line(error)}): get it again") from error
    for path, _ in shards:
        if not path.is_file():
            raise types.RunError(f"shard {path} is missing: get the file again")
    target = catalog.data_folder(data_dir).joinpath(*info.full_name.split("/"))
    origin = {"root": str(version.resolve()), "stamp": repr([(path.name, path.stat().st_size) for path, _ in shards])}
    if target.exists():
        if write.origin(target) == origin:
            return _already(target, "from this copy", catalog.again(target))
        raise types.UsageError(f"{target} exists already: remove it, or name another folder with --data_dir")
    with write.workspace(catalog.data_folder(data_dir)) as scratch:
        built = scratch / "copy"
        built.mkdir()
        for path, length in tqdm.tqdm(shards, desc="re-framing", unit=" shards", disable=None):
            tfrecord.convert(path, built / path.name.replace(".tfrecord", f".{catalog.FORMAT}"), length)
        for path in version.iterdir():
            if path.is_file() and ".tfrecord" not in path.name and f".{catalog.FORMAT}" not in path.name:
                shutil.copyfile(path, built / path.name)
        contents = contents | {"fileFormat": catalog.FORMAT}
        contents.pop("alternativeFileFormats", None)
        (built / catalog.INFO).write_text(json.dumps(contents, indent=2))
        write.remember(built, origin)
        _publish(built, target, None)
    return write.Prepared(target, ())


def official(name: str, data_dir: str = "", archives: str = "") -> write.Prepared:
    """One of TFDS's official data sets, made by its own builder: the same records in the same order as with TensorFlow.

    Args:
        name: as TFDS writes it: `cifar10`, `cycle_gan/horse2zebra`, `mnist:3.0.1`.
        data_dir: where prepared sets lie; "" is TFDS's own default.
        archives: a folder that holds the archives under the names TFDS gives them; then nothing is fetched from the
            network. "" fetches them. Either way their checksums, where TFDS has them, are verified.

    Raises:
        types.UsageError: there is no such data set, an archive is missing or another than TFDS knows, or what lies in
            its place is of another form.
        types.RunError: the builder failed, for want of a network perhaps.
    """
    wanted, data_folder = catalog.parse(name), catalog.data_folder(data_dir)
    builder = _official_builder(wanted, data_folder)
    target = pathlib.Path(builder.data_dir)
    if target.exists():
        _check_official_copy(target)
        return _already(target, "", catalog.again(target))
    write.allow_without_tensorflow()
    unpacker = extractor._Extractor()
    if archives:
        _check_archives(builder, pathlib.Path(archives).expanduser())
        make = builder._make_download_manager
        builder._make_download_manager = lambda **given: _offline(make(**given), builder, archives, unpacker)
    tfds.display_progress_bar(sys.stderr.isatty())
    with write.workspace(data_folder) as scratch:
        # What is unpacked from local archives is of no use afterwards; what was downloaded is.
        downloads = scratch if archives else data_folder / "downloads"
        try:
            builder.download_and_prepare(
                download_dir=downloads,
                download_config=tfds.download.DownloadConfig(manual_dir=archives or None),
                file_format=catalog.FORMAT,
            )
        except (types.UsageError, types.RunError):
            raise
        except Exception as error:  # builders are others' code and raise anything, an AssertionError for a missing file
            if write.is_full_disk(error):
                raise
            hint = "" if archives else f"; without a network, {_archives_hint(builder)}"
            raise types.RunError(
                f"TFDS's builder of {wanted.name!r} failed: {type(error).__name__}: {_one_line(error)}{hint}"
            ) from error
        finally:
            # It unpacks in threads, which must not write into a scratch folder that is being removed.
            unpacker._executor.shutdown()
    return write.Prepared(target, ())


def _official_builder(wanted: catalog.Name, data_folder: pathlib.Path) -> tfds.core.DatasetBuilder:
    try:
        make = tfds.builder_cls(wanted.name)
    except tfds.core.DatasetNotFoundError as error:
        near = difflib.get_close_matches(
            wanted.name, tfds.list_builders(with_community_datasets=False), n=3, cutoff=0.6
        )
        hint = f"did you mean {' or '.join(near)}?" if near else "its catalogue: https://www.tensorflow.org/datasets"
        raise types.UsageError(f"TFDS has no data set {wanted.name!r}: {hint}") from error
    try:
        return make(data_dir=str(data_folder), config=wanted.config or None, version=wanted.version or None)
    except (ValueError, AssertionError) as error:
        configs = f"; its configs: {write.shorten(list(make.builder_configs))}" if make.builder_configs else ""
        raise types.UsageError(f"TFDS cannot make {wanted.name!r} that way: {_one_line(error)}{configs}") from error


def _check_official_copy(target: pathlib.Path) -> None:
    if not (target / catalog.INFO).is_file():
        raise types.UsageError(f"{target} is half-written (no {catalog.INFO}): remove that folder and try again")
    there = catalog.formats(target)
    if catalog.FORMAT not in there:
        raise types.UsageError(
            f"{target} holds this set in {', '.join(sorted(there))} form: prepare into another folder with "
            f"--data_dir=DIR, or re-frame it with python -m experiments.prepare --tfrecord={target} --data_dir=DIR"
        )


class _AskedError(Exception):
    """Carries the addresses out of a builder that was asked for its splits."""


class _Recorder:
    """Stands where TFDS's download manager would, to learn which archives a builder asks for."""

    def __init__(self, archives: pathlib.Path):
        self.manual_dir = archives

    def download(self, addresses: Any) -> None:
        raise _AskedError(_addresses(addresses))

    download_and_extract = download


def _addresses(nested: Any) -> list[str]:
    if isinstance(nested, dict):
        nested = list(nested.values())
    if isinstance(nested, list | tuple):
        return [address for part in nested for address in _addresses(part)]
    return [nested if isinstance(nested, str) else nested.url]


def _check_archives(builder: tfds.core.DatasetBuilder, archives: pathlib.Path) -> None:
    if not archives.is_dir():
        raise types.UsageError(f"--archives={archives} is not a folder")
    try:
        builder._split_generators(_Recorder(archives))
        addresses = []
    except _AskedError as asked:
        addresses = asked.args[0]
    except Exception as error:  # a builder that does more than ask for its archives may raise anything here
        addresses = []
        print(
            f"the archives of {builder.name} are not checked beforehand ({type(error).__name__}: {_one_line(error)}); "
            "one that is missing shows when the builder asks for it",
            file=sys.stderr,
        )
    known = [builder.url_infos[address] for address in addresses if address in builder.url_infos]
    missing = [info.filename for info in known if not (archives / info.filename).is_file()]
    if missing:
        raise types.UsageError(f"{archives} lacks {len(missing)} of {builder.name}'s archives: {', '.join(missing)}")
    for info in known:
        found = checksums.compute_url_info(archives / info.filename)
        if (found.size, found.checksum) != (info.size, info.checksum):
            raise types.UsageError(
                f"{archives / info.filename} is not the official archive of {builder.name}: "
                f"sha256 {found.checksum} and {int(found.size)} bytes, "
                f"where TFDS knows {info.checksum} and {int(info.size)}"
            )


def _offline(manager: Any, builder: tfds.core.DatasetBuilder, archives: str, unpacker: Any) -> Any:
    def refuse(resource: Any) -> None:
        known = builder.url_infos.get(resource.url)
        what = known.filename if known else f"what is at {resource.url}, for which TFDS has no file name and checksum"
        raise types.UsageError(f"{archives} lacks {what}: put it there, or leave --archives out to fetch it")

    manager._download = refuse
    # TFDS's own is shared by the whole process and can therefore not be waited for.
    manager._DownloadManager__extractor = unpacker
    return manager


def _archives_hint(builder: tfds.core.DatasetBuilder) -> str:
    names = sorted({info.filename for info in (builder.url_infos or {}).values()})
    return f"name a folder that holds its archives with --archives=DIR ({write.shorten(names)})"


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 400 else text[:400] + " ..."


def _already(target: pathlib.Path, source: str, way: str) -> write.Prepared:
    write.check_whole(target, way)
    return write.Prepared(
        target, (f"already prepared{source and ' '}{source}, nothing to do; if it is damaged, {way}",)
    )


def _publish(built: pathlib.Path, target: pathlib.Path, aside: pathlib.Path | None) -> None:
    try:
        write.publish(built, target, aside)
    except FileExistsError as error:
        raise types.RunError(f"{target}: {error.strerror}; nothing was changed, look at it and try again") from error


def _remarks(listing: folder.Listing, complaints: list[str]) -> tuple[str, ...]:
    remarks = [f"skipped broken image {complaint}" for complaint in complaints]
    if complaints:
        remarks.append(f"skipped {len(complaints)} broken of {len(listing.files)} files")
    if listing.others:
        some = ", ".join(str(path.relative_to(listing.root)) for path in listing.others[:5])
        more = ", ..." if len(listing.others) > 5 else ""
        remarks.append(f"left out {len(listing.others)} files that are no images: {some}{more}")
    return tuple(remarks)


def _grey_in_colour(found: list[folder.Image]) -> tuple[str, ...]:
    """Says which domains are read in colour though they are grey, because a set has one count of channels."""
    coloured = {image.file.split for image in found if not image.grey}
    grey = sorted({image.file.split for image in found} & set(folder.DOMAIN_SPLITS) - coloured)
    if not coloured or not grey:
        return ()
    return (f"only grey pictures, read with 3 channels because others of the set have colour: {', '.join(grey)}",)
