"""Writes one network of a run to a file that needs nothing of this project to be read.

    python -m experiments.export --run=runs/tiny11 --out=encoder.npz            # or encoder.safetensors

Arrays are named `params/conv1/kernel`, `stats/norm1/mean` and so on; `metadata` holds JSON with the architecture, the
normalisation of images, the step and a hash. linear_probe, finetune and pseudo_label take the file as their --run.
"""

import pathlib

from absl import flags

from experiments import command
from ssl_jax import pretrained
from ssl_jax.types import UsageError

RUN = flags.DEFINE_string("run", "", "The run folder.")
CHECKPOINT = flags.DEFINE_enum("checkpoint", "last", ["last", "best"], "Which checkpoint of the run.")
NETWORK = flags.DEFINE_string("network", "encoder", "Which network of the run.")
OUT = flags.DEFINE_string("out", "", "The file, ending in .npz or .safetensors.")


def main(arguments):
    """Reads and writes."""
    command.refuse_stray_words(arguments)
    if not RUN.value or not OUT.value:
        raise UsageError("needs --run and --out: python -m experiments.export --run=runs/NAME --out=encoder.npz")
    network = pretrained.read(RUN.value, NETWORK.value, which=CHECKPOINT.value)
    pretrained.write(network, pathlib.Path(OUT.value))
    print(f"{OUT.value}: {network.describe()}, SHA-256 {network.sha256[:12]}")


if __name__ == "__main__":
    command.run(main)
