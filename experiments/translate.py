"""Translates every picture below a folder into the other domain with a trained CycleGAN, whatever its size.

    python -m experiments.translate --run=runs/cyclegan --input=PHOTOS --direction=ab --out=translated
    python -m experiments.translate --run=runs/cyclegan --input=PHOTOS --direction=ab --out=translated --cycle
    python -m experiments.translate --weights=latest_net_G_A.pth --input=PHOTOS --out=translated

--out gets a picture of the same name, folder and size for each, side_by_side.png (the first 16: picture, translation,
with --cycle the way back) and translated.json; --cycle also writes the way back, in the folder `back`. A picture that
is broken or too small is named and the rest go on.

A call that was cut short goes on where it stopped: what is translated by the same network with the same settings is
left as it is, unless its picture has changed. --out with translations of another network is refused without
--overwrite.

Pictures of more than 1 Mpx are computed in tiles, exactly: each tile sees what lies around it, and the norms take the
whole picture's statistics. --tile_px sets the rows of a tile for all; fewer take less memory and more time.
"""

import dataclasses
import pathlib

import numpy as np
import PIL.Image
import PIL.ImageOps
import tqdm
from absl import flags

from experiments import command, output
from ssl_jax import log, sheet, translator
from ssl_jax.data import paths, pictures
from ssl_jax.types import RunError, UsageError

RUN = flags.DEFINE_string("run", "", "The run folder of a CycleGAN.")
CHECKPOINT = flags.DEFINE_enum("checkpoint", "last", ["last", "best"], "Which checkpoint of the run.")
WEIGHTS = flags.DEFINE_string(
    "weights", "", "Instead of --run: a generator of the reference implementation, latest_net_G_A.pth or an .npz of it."
)
WEIGHTS_BACK = flags.DEFINE_string("weights_back", "", "With --weights and --cycle: the other generator's file.")
DIRECTION = flags.DEFINE_enum("direction", None, ["ab", "ba"], "From A to B or from B to A.")
INPUT = flags.DEFINE_string("input", "", "A folder of pictures, searched through all its depths.")
OUT = flags.DEFINE_string("out", "", "The folder for the translations: a new one, or an earlier call's.")
CYCLE = flags.DEFINE_bool("cycle", False, "Also translate back again, for comparison.")
TILE_PX = flags.DEFINE_integer("tile_px", 0, "Rows of a tile; by default tiles are used where they are needed.", 0)
WHOLE = flags.DEFINE_bool("whole", False, "Compute every picture at once, however large.")
SIZE_PX = flags.DEFINE_integer("size_px", 0, "Resize to this shorter side first; by default as they are.", 0)
FORMAT = flags.DEFINE_enum("format", "png", ["png", "jpg"], "Of the translations.")
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Remove an earlier call's files and begin anew.")

SIDE_BY_SIDE, RECORD, BACK = "side_by_side.png", "translated.json", "back"
_SHOWN, _SHOWN_PX = 16, 256


def main(arguments):
    """Reads, translates, writes."""
    command.refuse_stray_words(arguments)
    _check_flags()
    root = pathlib.Path(INPUT.value)
    files = paths.keyed(root, pictures.find(root))
    out = output.claim(pathlib.Path(OUT.value), RECORD, "experiments.translate")
    forth, back = _translators()
    settings = {
        "network": forth.sha256,
        "network_back": back.sha256 if back else None,
        "size_px": SIZE_PX.value,
        "format": FORMAT.value,
    }
    out, settings = _emptied_or_continued(out, settings)
    rows = _rows(out, list(files))
    facts = _facts(forth) | settings
    planned = sorted({SIDE_BY_SIDE, *out.earlier, *_files(rows)})
    there = {name for name, path in files.items() if _is_there(out, rows[name], path)}
    rows |= {name: rows[name] | {"modified_ns": _modified_ns(path)} for name, path in files.items()}
    out.begin(planned, facts | {"pictures": list(rows.values()), "left_out": []})

    print(forth.describe() + (f"; back: {back.describe()}" if back else ""))
    waiting = [path for name, path in files.items() if name not in there]
    left_out = _translated(out, rows, forth, back, root, waiting)
    rows = {name: row for name, row in rows.items() if (out.folder / row["translated"]).exists()}
    done = [name for name in files if name in rows and name not in left_out]
    if not done:
        raise RunError(f"none of the {len(files)} pictures in {root} could be translated")
    shown = _side_by_side(out, rows, root, [files[name] for name in done[:_SHOWN]])
    if shown is not None:
        out.write(SIDE_BY_SIDE, output.picture(shown))
    written = [file for file in planned if (out.folder / file).exists()]
    out.finish(written, facts | {"pictures": list(rows.values()), "left_out": left_out})
    parts = [f"{len(done) - len(there)} pictures translated"]
    parts += [f"{len(there)} were there already"] if there else []
    parts += [f"{len(left_out)} left out"] if left_out else []
    print(f"{out.folder}: {', '.join(parts)}")


def _check_flags():
    if not INPUT.value or not OUT.value or not (RUN.value or WEIGHTS.value):
        raise UsageError(
            "needs --run (or --weights), --input, --out and --direction: python -m experiments.translate "
            "--run=runs/NAME --input=DIR --direction=ab --out=DIR"
        )
    if RUN.value and WEIGHTS.value:
        raise UsageError("--run and --weights each name a generator: give one of them")
    if RUN.value and not DIRECTION.value:
        raise UsageError("which way? Give --direction=ab (from A to B) or --direction=ba")
    if WEIGHTS_BACK.value and not (WEIGHTS.value and CYCLE.value):
        raise UsageError("--weights_back is the way back of --weights: add --weights and --cycle")
    if WEIGHTS.value and CYCLE.value and not WEIGHTS_BACK.value:
        raise UsageError("--cycle needs the other generator too: give --weights_back=FILE")
    if TILE_PX.value and WHOLE.value:
        raise UsageError("--tile_px and --whole exclude each other: give one of them")
    out, root = pathlib.Path(OUT.value).resolve(), pathlib.Path(INPUT.value).resolve()
    if out.is_relative_to(root):
        raise UsageError(
            f"--out={OUT.value} lies in --input={INPUT.value}: the next call would translate translations; give a "
            "folder elsewhere"
        )
    if root.is_relative_to(out):
        raise UsageError(
            f"--input={INPUT.value} lies in --out={OUT.value}, where files are replaced: give --out a folder elsewhere"
        )


def _translators():
    """The generator, and with --cycle the one that leads back."""
    if RUN.value:
        run = pathlib.Path(RUN.value)
        forth = translator.load(run, DIRECTION.value, which=CHECKPOINT.value)
        back = translator.load(run, DIRECTION.value[::-1], which=CHECKPOINT.value) if CYCLE.value else None
    else:
        forth = translator.from_file(pathlib.Path(WEIGHTS.value))
        back = translator.from_file(pathlib.Path(WEIGHTS_BACK.value)) if CYCLE.value else None
    if back and (back.channels, back.made_channels) != (forth.made_channels, forth.channels):
        raise UsageError(
            f"{back.origin} makes {back.made_channels} channel(s) of {back.channels}, and {forth.origin} "
            f"{forth.made_channels} of {forth.channels}: they are not each other's way back"
        )
    for each in (forth, back):
        if each:
            each.check_tile(TILE_PX.value)
    return forth, back


def _emptied_or_continued(out, settings):
    """The output folder, with no earlier translations in it but those of the same networks and settings."""
    if OVERWRITE.value and out.earlier:
        # Under the record that they have, so that they are never taken for translations of this call.
        out.begin((), out.found)
        return dataclasses.replace(out, earlier=frozenset(), found={}), settings
    found = {name: out.found.get(name) for name in settings} if out.earlier else settings
    if not CYCLE.value or found["network_back"] is None:
        # Ways back that were made stay, and where none were made none can be wrong.
        settings = settings | {"network_back": settings["network_back"] or found["network_back"]}
        found = found | {"network_back": settings["network_back"]}
    differing = [name for name in settings if found[name] != settings[name]]
    if differing:
        of_what = ", ".join(f"another {name.replace('_', ' ').replace(' px', '')}" for name in differing)
        raise UsageError(f"{out.folder} holds translations with {of_what}: give another --out, or add --overwrite")
    return out, settings


def _facts(forth):
    return {
        "run": RUN.value,
        "weights": WEIGHTS.value,
        "checkpoint": forth.which,
        "step": forth.step,
        "direction": DIRECTION.value,
        "generator": forth.name,
    }


def _rows(out, names):
    """For each picture, those of earlier calls included, where its translation is to lie."""
    earlier = out.found.get("pictures", ()) if out.earlier else ()
    if not _sound(earlier):
        raise UsageError(f"{out.folder / RECORD} is damaged: give another --out, or add --overwrite")
    rows = {row["picture"]: row for row in earlier}
    suffix = f".{FORMAT.value}"
    taken = [*out.earlier, *_files(rows), SIDE_BY_SIDE, RECORD]
    fresh = [name for name in names if name not in rows]
    for name, path in zip(fresh, output.image_names(fresh, taken, suffix), strict=True):
        rows[name] = {"picture": name, "translated": path}
    if CYCLE.value:
        taken += _files(rows)
        fresh = [name for name in names if "back" not in rows[name]]
        targets = output.image_names([f"{BACK}/{rows[name]['translated']}" for name in fresh], taken, suffix)
        for name, path in zip(fresh, targets, strict=True):
            rows[name] = rows[name] | {"back": path}
    return rows


def _sound(rows):
    """Whether a record's rows are such as this script writes, with every file below its folder."""
    if not isinstance(rows, list | tuple) or not all(isinstance(row, dict) for row in rows):
        return False
    named = all(isinstance(row.get("picture"), str) and "translated" in row for row in rows)
    return named and all(output.inside(row[part]) for row in rows for part in ("translated", "back") if part in row)


def _files(rows):
    return [row[part] for row in rows.values() for part in ("translated", "back") if part in row]


def _is_there(out, row, path):
    """Whether a picture needs no translation any more. Files are put in place whole, so one that is there is done."""
    wanted = [
        out.folder / row[part] for part in ("translated", "back") if part in row and (part != "back" or CYCLE.value)
    ]
    modified_ns = _modified_ns(path)
    # Both, because a picture may be replaced by one that is older, and a call be cut short after its record.
    same = modified_ns is not None and row.get("modified_ns") == modified_ns
    return same and all(file.exists() and file.stat().st_mtime_ns >= modified_ns for file in wanted)


def _modified_ns(path):
    """When a picture was changed, None where that cannot be told; reading it will then say why."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def _translated(out, rows, forth, back, root, waiting):
    """Writes the translations and adds what they are to the rows; returns the names of those left out."""
    left_out, suffix = [], f".{FORMAT.value}"
    bar = tqdm.tqdm(
        pictures.read(waiting, root, forth.channels),
        total=len(waiting),
        desc="translating",
        unit=" pictures",
        disable=None,
    )
    for name, picture in bar:
        try:
            if isinstance(picture, str):
                raise UsageError(picture)
            if SIZE_PX.value:
                picture = _resized(picture, SIZE_PX.value)
            height, width = picture.shape[:2]
            tile_px = forth.tile_px(height, width, TILE_PX.value, whole=WHOLE.value)
            made = _one(forth, picture, tile_px, name)
            if back:
                out.write(rows[name]["back"], output.picture(sheet.as_bytes(_one(back, made, tile_px, name)), suffix))
            out.write(rows[name]["translated"], output.picture(sheet.as_bytes(made), suffix))
        except UsageError as error:
            left_out.append(name)
            log.say(f"not translated: {error if isinstance(picture, str) else f'{root / name}: {error}'}")
            continue
        rows[name] = rows[name] | {"height": height, "width": width, "tile_px": tile_px}
    return left_out


def _one(network, picture, tile_px, name):
    if not tile_px:
        return network.translate(picture, whole=True)
    with tqdm.tqdm(desc=name, unit=" bands", leave=False, disable=None) as bar:

        def told(_, count):
            bar.total = count
            bar.update()

        return network.translate(picture, tile_px, progress=told)


def _resized(picture, size_px):
    """Its shorter side made `size_px`, bicubic, its proportions kept."""
    height, width = picture.shape[:2]
    scale = size_px / min(height, width)
    whole = PIL.Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture)
    whole = whole.resize((max(round(width * scale), 1), max(round(height * scale), 1)), PIL.Image.Resampling.BICUBIC)
    return np.asarray(whole).reshape(whole.height, whole.width, picture.shape[-1])


def _side_by_side(out, rows, root, shown):
    """A row a picture: it, its translation and, where there is one, the way back, each fitted into one frame."""
    parts = ("translated", "back") if CYCLE.value else ("translated",)
    cells = []
    for name, picture in pictures.read(shown, root, 3):
        files = [out.folder / rows[name][part] for part in parts]
        images = [picture, *(made for _, made in pictures.read(files, out.folder, 3))]
        # What was there already is read here for the first time, and may have been spoilt.
        if not any(isinstance(image, str) for image in images):
            cells += [_framed(image) for image in images]
    return sheet.grid(np.stack(cells), columns=1 + len(parts)) if cells else None


def _framed(picture):
    fitted = PIL.ImageOps.contain(PIL.Image.fromarray(picture), (_SHOWN_PX, _SHOWN_PX))
    frame = PIL.Image.new("RGB", (_SHOWN_PX, _SHOWN_PX), (128, 128, 128))
    frame.paste(fitted, ((_SHOWN_PX - fitted.width) // 2, (_SHOWN_PX - fitted.height) // 2))
    return np.asarray(frame)


if __name__ == "__main__":
    command.run(main)
