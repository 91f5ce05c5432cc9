"""Restores pictures with a trained GAN: removes blur, fills holes, enlarges small pictures.

    python -m experiments.restore --run=runs/gan --input=PICTURES --task=deblur --out=restored
    python -m experiments.restore --run=runs/gan --input=PICTURES --task=upscale --strength=4 --out=restored
    python -m experiments.restore --run=runs/gan --input=PICTURES --task=inpaint --mask=mask.png --out=restored
    python -m experiments.restore --run=runs/gan --input=BLURRED --given=degraded --task=deblur --out=restored

For every picture a latent is looked for whose image, degraded alike, comes nearest to it (Bora et al., arXiv
1703.03208). --input holds whole pictures, which are degraded first, so that the PSNR against the truth can be told;
with --given=degraded it holds pictures that are degraded already. Pictures of any size are brought to the generator's,
small ones for upscale to that over the factor.

--strength: deblur, the Gaussian's deviation in the generator's pixels (the side over 28, at least 1); upscale, the
factor (4, or 2 where that leaves too little); inpaint, the centred square hole's share of the side (0.5). With
--task=inpaint known pixels are the picture's own and the hole alone is the generator's.

--out gets NAME.png for every picture, side_by_side.png (truth, degraded, for upscale bicubic, restored) and
restored.json. A broken picture is named and the rest go on.
"""

import difflib
import pathlib
import sys

import numpy as np
import tqdm
from absl import flags

from experiments import command, output
from ssl_jax import generator, log, restore, rng, sheet
from ssl_jax.data import pictures, transforms
from ssl_jax.types import RunError, UsageError
from ssl_jax.writers import files as writer

RUN = flags.DEFINE_string("run", "", "The run folder of a GAN.")
CHECKPOINT = flags.DEFINE_enum("checkpoint", "last", ["last", "best"], "Which checkpoint of the run.")
INPUT = flags.DEFINE_string("input", "", "A folder of pictures, searched through all its depths.")
OUT = flags.DEFINE_string("out", "", "The folder for the restored pictures: a new one, or an earlier call's.")
TASK = flags.DEFINE_enum("task", None, ["deblur", "inpaint", "upscale"], "What is wrong with the pictures.")
GIVEN = flags.DEFINE_enum("given", "whole", ["whole", "degraded"], "What the input is; see above.")
STRENGTH = flags.DEFINE_float("strength", None, "How badly: pixels, a factor or a share; see above.")
MASK = flags.DEFINE_string("mask", "", "inpaint: a picture that is white where pixels are missing.")
LABEL = flags.DEFINE_string("label", "", "The class of every picture, by name or number; by default all are tried.")
STEPS = flags.DEFINE_integer("steps", 300, "Updates of the latents.", 1)
STARTS = flags.DEFINE_integer("starts", 0, "Random starts for each picture; by default 8, or one a class if more.", 0)
SEED = flags.DEFINE_integer("seed", 0, "Of the starts.", 0, 2**31 - 1)
LEARNING_RATE = flags.DEFINE_float("learning_rate", 0.05, "Of Adam.")
PRIOR = flags.DEFINE_float("prior", None, "Weight of the latent's squared length: 1e-4, for uniform latents 0.")

_AT_ONCE = 128
_SHOWN = 64


def main(arguments):
    """Reads, degrades, restores, compares, writes."""
    command.refuse_stray_words(arguments)
    if not RUN.value or not INPUT.value or not OUT.value or not TASK.value:
        raise UsageError(
            "needs --run, --input, --task and --out: python -m experiments.restore --run=runs/NAME --input=DIR "
            "--task=deblur --out=DIR"
        )
    root = pathlib.Path(INPUT.value)
    files = pictures.find(root)
    out = output.claim(pathlib.Path(OUT.value), "restored.json", "experiments.restore")
    trained = generator.load(pathlib.Path(RUN.value), which=CHECKPOINT.value)
    damage = restore.degradation(TASK.value, STRENGTH.value, *trained.image_shape[:2], _mask(trained))
    classes = _classes(trained)
    prior = PRIOR.value if PRIOR.value is not None else {"normal": 1e-4, "uniform": 0.0}[trained.latent_law]
    settings = restore.Settings(trained.latent_law, STEPS.value, LEARNING_RATE.value, prior)
    starts = STARTS.value or max(8, len(classes))
    if starts < len(classes):
        raise UsageError(f"--starts={starts} tries {starts} of {len(classes)} classes: give more, or --label=CLASS")

    print(f"generator of {RUN.value}, its {CHECKPOINT.value} checkpoint, step {trained.step}")
    names, frames, broken = _read(root, files, trained, damage)
    targets = output.image_names(names, ("side_by_side.png",))
    facts = _facts(trained, damage, starts, settings) | {"broken": broken}
    out.begin([*targets, "side_by_side.png"], facts)

    degraded = _degraded(damage, frames)
    restored, labels, objectives = _restored(trained, damage, names, _floats(degraded), starts, classes, settings)
    baseline = sheet.as_bytes(damage.enlarged(_floats(degraded)))
    rows = [{"picture": name, "objective": float(value)} for name, value in zip(names, objectives, strict=True)]
    if labels is not None:
        for row, label in zip(rows, labels, strict=True):
            row["class"] = trained.class_name(label)
    if GIVEN.value == "whole":
        _compare(rows, damage, frames, baseline, restored)
    for target, image in zip(targets, restored, strict=True):
        out.write(target, output.picture(image))
    columns = [frames] if GIVEN.value == "whole" else []
    # Small pictures at the others' size, their pixels as squares.
    squares = [full // small for full, small in zip(trained.image_shape, degraded.shape[1:3], strict=False)]
    columns += [degraded.repeat(squares[0], axis=1).repeat(squares[1], axis=2)]
    columns += [baseline, restored] if TASK.value == "upscale" else [restored]
    shown = np.stack(columns, axis=1)[:_SHOWN].reshape(-1, *trained.image_shape)
    out.write("side_by_side.png", writer.png(sheet.grid(shown, columns=len(columns))))
    for row, target in zip(rows, targets, strict=True):
        row["restored"] = target
    out.finish([*targets, "side_by_side.png"], facts | {"pictures": rows})
    print(f"{out.folder}: {len(rows)} pictures restored" + (f", {len(broken)} broken left out" if broken else ""))
    if len(rows) > _SHOWN:
        print(f"side_by_side.png shows the first {_SHOWN}")


def _read(root, files, trained, damage):
    """Names, pictures uint8 [n, h, w, c] in the size that they are given in, and the names of broken ones."""
    size = trained.image_shape[:2] if GIVEN.value == "whole" else damage.size
    names, frames, broken = [], [], []
    for name, picture in pictures.read(files, root, trained.image_shape[-1]):
        if isinstance(picture, str):
            broken.append(name)
            print(f"not restored: {picture}", file=sys.stderr)
        else:
            names.append(name)
            frames.append(transforms.cover(picture, *size))
    if not names:
        raise RunError(f"none of the {len(broken)} pictures in {root} could be read")
    return names, np.stack(frames), broken


def _degraded(damage, frames):
    """uint8, as if read out of a file; of degraded pictures, what lies in a hole is blanked."""
    if GIVEN.value == "degraded" and damage.missing is None:
        return frames
    return sheet.as_bytes(damage.apply(_floats(frames)))


def _restored(trained, damage, names, degraded, starts, classes, settings):
    """Restored pictures uint8 [n, h, w, c], their labels (None without classes) and objectives."""
    at_once = min(len(names), max(1, _AT_ONCE // starts))
    labels = np.tile(np.resize(classes, starts), (at_once, 1)).astype(np.int32) if classes else None
    images, kinds, objectives = [], [], []
    rounds = range(0, len(names), at_once)
    with tqdm.tqdm(total=len(rounds) * (STEPS.value + 1), desc="restoring", unit=" steps", disable=None) as bar:
        for first in rounds:
            # Filled up to one length, so that one compiled program serves all.
            places = np.minimum(np.arange(first, first + at_once), len(names) - 1)
            # By its name, so that a picture's starts do not depend on what lies beside it.
            keys = [rng.stream(SEED.value, f"restore/{names[place]}") for place in places]
            found = restore.search(
                trained.images_of,
                degraded[places],
                damage,
                settings,
                latents=np.stack([trained.draw(key, starts) for key in keys]),
                labels=labels,
                told=bar.update,
            )
            here = min(at_once, len(names) - first)
            images.append(sheet.as_bytes(damage.completed(found.images, degraded[places]))[:here])
            objectives.append(found.objectives[:here])
            kinds.append(None if labels is None else found.labels[:here])
    return np.concatenate(images), None if labels is None else np.concatenate(kinds), np.concatenate(objectives)


def _compare(rows, damage, truth, baseline, restored):
    """Adds PSNR to the rows and prints them with their mean."""
    plain = "bicubic" if TASK.value == "upscale" else "degraded"
    parts = {"": None} if damage.missing is None else {"": None, "_in_hole": damage.missing}
    values = {
        f"psnr_{name}{part}": restore.psnr(images, truth, where)
        for part, where in parts.items()
        for name, images in ((plain, baseline), ("restored", restored))
    }
    for name, numbers in values.items():
        for row, number in zip(rows, numbers.tolist(), strict=True):
            row[name] = number
    lines = [["PSNR in dB", *(name.removeprefix("psnr_").replace("_", " ") for name in values)]]
    lines += [[row["picture"], *(f"{row[name]:.2f}" for name in values)] for row in rows]
    lines += [["mean", *(f"{np.mean(numbers):.2f}" for numbers in values.values())]]
    print(log.aligned(lines))


def _facts(trained, damage, starts, settings):
    return {
        "run": RUN.value,
        "step": trained.step,
        "checkpoint": CHECKPOINT.value,
        "task": TASK.value,
        "strength": damage.strength,
        "mask": MASK.value,
        "given": GIVEN.value,
        "label": LABEL.value,
        "steps": settings.steps,
        "starts": starts,
        "seed": SEED.value,
        "learning_rate": settings.learning_rate,
        "prior": settings.prior,
    }


def _classes(trained):
    """The labels to try; [] without classes."""
    if trained.classes is None:
        if LABEL.value:
            raise UsageError(f"--label={LABEL.value}: the generator of {RUN.value} knows no classes")
        return []
    if not LABEL.value:
        return list(range(trained.classes))
    known = [trained.class_name(label) for label in range(trained.classes)]
    if LABEL.value in known:
        return [known.index(LABEL.value)]
    if LABEL.value.isdecimal() and int(LABEL.value) < trained.classes:
        return [int(LABEL.value)]
    near = difflib.get_close_matches(LABEL.value, known, 5, 0.0)
    raise UsageError(f"--label={LABEL.value}: there is no such class; near are {', '.join(near)}")


def _mask(trained):
    if not MASK.value:
        return None
    try:
        white = transforms.decode(pathlib.Path(MASK.value).read_bytes(), 1)
    except (OSError, ValueError) as error:
        raise UsageError(f"--mask={MASK.value} cannot be read as a picture ({error})") from error
    return transforms.cover(white, *trained.image_shape[:2])[..., 0] > 127


def _floats(images):
    return images.astype(np.float32) / 127.5 - 1.0


if __name__ == "__main__":
    command.run(main)
