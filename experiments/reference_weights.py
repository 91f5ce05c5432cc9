"""Writes the networks of a CycleGAN run as files of the reference implementation, which its own scripts load.

    python -m experiments.reference_weights --run=runs/cyclegan --out=checkpoints/mine
    python -m experiments.reference_weights --run=runs/cyclegan --out=mine --format=npz      # without PyTorch

The reference is junyanz/pytorch-CycleGAN-and-pix2pix. Its G_A makes B out of A and its D_A judges B: our generator_ab
and discriminator_b. Averaged generators are taken where the run has them. An earlier call's files are replaced, and
anybody else's are not.

The way back: `--weights=latest_net_G_A.pth` of experiments.translate, and a `reference_weights.Graft` as config.graft.
"""

import pathlib

from absl import flags

from experiments import command, output
from ssl_jax import reference_weights
from ssl_jax.types import UsageError

RUN = flags.DEFINE_string("run", "", "The run folder of a CycleGAN.")
CHECKPOINT = flags.DEFINE_enum("checkpoint", "last", ["last", "best"], "Which checkpoint of the run.")
OUT = flags.DEFINE_string("out", "", "The folder for the files: a new one, or an earlier call's.")
FORMAT = flags.DEFINE_enum("format", "pth", ["pth", "npz"], "The reference reads pth, which takes PyTorch to write.")


def main(arguments):
    """Reads and writes."""
    command.refuse_stray_words(arguments)
    if not RUN.value or not OUT.value:
        raise UsageError("needs --run and --out: python -m experiments.reference_weights --run=runs/NAME --out=DIR")
    out = output.claim(pathlib.Path(OUT.value), "reference_weights.json", "experiments.reference_weights")
    networks = reference_weights.of_run(pathlib.Path(RUN.value), which=CHECKPOINT.value)
    contents, origins = {}, {}
    for theirs, state_dict in networks.state_dicts.items():
        file = f"latest_net_{theirs}.{FORMAT.value}"
        contents[file] = reference_weights.as_file(state_dict, f".{FORMAT.value}")
        origins[file] = networks.taken[theirs]
    facts = {"run": RUN.value, "step": networks.step, "checkpoint": CHECKPOINT.value}
    facts |= {"networks": origins, "options": networks.options}
    out.begin(list(contents), facts)
    print(f"{RUN.value}, its {CHECKPOINT.value} checkpoint, step {networks.step}")
    for file, content in contents.items():
        out.write(file, content)
        print(f"{out.folder / file}: {origins[file]}")
    if networks.left_out:
        print(f"no discriminators: {networks.left_out}")
    print(f"the reference builds them by {networks.options}")
    out.finish(list(contents), facts)


if __name__ == "__main__":
    command.run(main)
