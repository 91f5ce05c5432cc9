"""R3GAN's loss on mixtures of Gaussians in the plane, where lost modes can be counted; minutes on two CPU cores.

    python -m experiments.train --config=configs/gan_gaussians.py --workdir=runs/gaussians
    python -m experiments.train --config=configs/gan_gaussians.py:ring --workdir=runs/ring

25 Gaussians on a 5 x 5 grid, forty deviations from one to the next, or with `:ring` eight whose radius is a hundred.
The networks are dense. The penalty's weight falls as R3GAN's does in its burn-in: strong while the modes are found,
weak when their width is. For the plain loss beside it: --config.method.loss=non_saturating.
Expect every mode and more than 95 % of the samples within three deviations; the numbers are in experiments/RESULTS.md.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config(layout="grid"):
    if layout not in ("grid", "ring"):
        raise ValueError(f"gan_gaussians.py:{layout}: write :ring, or nothing for the grid")
    config = ConfigDict()
    config.experiment = {
        "type": "loop.Experiment",
        "paper": "R3GAN, arXiv 2501.05441",
        "group": "gan_gaussians",
        "tags": ("gan", "gaussians", layout),
    }
    config.seed = 0
    config.duration = "30000 steps"
    config.log_every = "200 steps"
    mixture = ConfigDict(
        {
            "type": "data.points.Mixture",
            "layout": layout,
            "spacing": 0.7 if layout == "grid" else 1.0,
            "deviation": 0.0175 if layout == "grid" else 0.01,
        }
    )
    config.data = {"type": "data.points.training", "mixture": mixture, "batch_size": 256, "examples": 100_000}
    config.preprocess = {"type": "augment.Unchanged"}
    network = {"hidden": (128, 128, 128), "dtype": "float32"}
    weight = {"type": "schedules.Cosine", "start": 0.1, "end": 0.02, "steps": "100 %"}
    adam = {
        "type": "optim.scheduled_adam",
        "learning_rate": {"type": "schedules.Cosine", "start": 2e-3, "end": 2e-5, "steps": "100 %"},
        "b1": 0.0,
        "b2": 0.99,
    }
    config.method = {
        "type": "methods.gan.GAN",
        "generator": {"type": "models.mlp.Generator", "output": 2, **network},
        "discriminator": {"type": "models.mlp.Discriminator", **network},
        "generator_optimizer": dict(adam),
        "discriminator_optimizer": dict(adam),
        "loss": "relativistic",
        "latent": 2,
        "latent_law": "normal",
        "regularizer": {"type": "regularizers.GradientPenalty", "r1": dict(weight), "r2": dict(weight)},
        "average": {"type": "moving_average.MovingAverage", "half_life": "500 steps", "ramp_up": 0.05},
    }
    config.evaluators = {
        "modes": {
            "type": "loop.Every",
            "steps": "5 %",
            "run": {"type": "evaluators.modes.Modes", "mixture": mixture, "samples": 10_000, "seed": 0},
        },
    }
    config.checkpoint = {"type": "checkpoint.Policy", "every": "10 %", "keep_latest": 2}
    config.writers = {
        "console": {"type": "writers.console.Console"},
        "files": {"type": "writers.files.Files"},
        "page": {"type": "writers.page.Page"},
    }
    config.mesh = {"type": "mesh.data_parallel", "devices": placeholder(int), "shards": 1}
    return config
