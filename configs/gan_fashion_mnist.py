"""A GAN on Fashion-MNIST (60,000 garments of 28x28): DCGAN's layers, R3GAN's loss and penalties, for two CPU cores.

    python -m experiments.prepare --tfds=fashion_mnist
    python -m experiments.train --config=configs/gan_fashion_mnist.py --workdir=runs/gan_fashion_mnist
    python -m experiments.sample --run=runs/gan_fashion_mnist --out=runs/gan_fashion_mnist_samples

Loss and penalties: arXiv 2501.05441; layers: arXiv 1511.06434, here without batch norm in the discriminator. No paper
prints a number that compares; what this config reaches, and how long it takes, is in experiments/RESULTS.md. Judged by
a classifier: configs/classify_fashion_mnist.py, then experiments.measure, or `:judged` to follow the distances while it
trains.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config(form="plain"):
    if form not in ("plain", "judged"):
        raise ValueError(f"gan_fashion_mnist.py:{form}: write :judged, or nothing")
    config = ConfigDict()
    config.experiment = {
        "type": "loop.Experiment",
        "paper": "R3GAN, arXiv 2501.05441",
        "group": "gan_fashion_mnist",
        "tags": ("gan", "fashion_mnist", form),
    }
    config.seed = 0
    config.duration = "6 epochs"
    config.log_every = "100 steps"
    config.data = {
        "type": "data.feed.training",
        "name": "fashion_mnist",
        "split": "train",
        "batch_size": 64,
        "feeding": "auto",
        "data_dir": "",
    }
    colours = {"mean": (0.5,), "deviation": (0.5,)}
    config.preprocess = {"type": "augment.Labelled", "view": {"type": "augment.View", **colours}}
    adam = {
        "type": "optim.scheduled_adam",
        "learning_rate": {"type": "schedules.Cosine", "start": 5e-4, "end": 5e-5, "steps": "100 %"},
        "b1": 0.0,
        "b2": 0.99,
    }
    weight = {"type": "schedules.Cosine", "start": 2.0, "end": 0.2, "steps": "50 %"}
    config.method = {
        "type": "methods.gan.GAN",
        "generator": {
            "type": "models.dcgan.Generator",
            "size_px": 28,
            "image_channels": 1,
            "channels": (128, 64),
            "dtype": "float32",
        },
        "discriminator": {
            "type": "models.dcgan.Discriminator",
            "channels": (64, 128),
            "norm": "none",
            "dtype": "float32",
        },
        "generator_optimizer": dict(adam),
        "discriminator_optimizer": dict(adam),
        "loss": "relativistic",
        "latent": 64,
        "latent_law": "normal",
        "discriminator_steps": 1,
        "regularizer": {"type": "regularizers.GradientPenalty", "r1": dict(weight), "r2": dict(weight), "every": 1},
        "average": {"type": "moving_average.MovingAverage", "half_life": "50 kimages", "ramp_up": 0.05},
    }
    train = {
        "type": "data.feed.Evaluation",
        "name": config.data.get_ref("name"),
        "split": "train",
        "data_dir": config.data.get_ref("data_dir"),
    }
    config.evaluators = {
        "samples": {
            "type": "loop.Every",
            "steps": "5 %",
            "run": {
                "type": "evaluators.samples.Samples",
                "real": dict(train),
                "held_out": {**train, "split": "test"},
                "preprocess": {"type": "augment.Plain", **colours},
                "images": 512,
                "grid": 100,
                "columns": 10,
            },
        },
    }
    if form == "judged":
        config.evaluators.distances = {
            "type": "loop.Every",
            "steps": "20 %",
            "run": {
                "type": "evaluators.distance.Distance",
                "reference": {
                    "type": "reference.Reference",
                    "examples": {**train, "split": "test"},
                    "extractor": {
                        "type": "extractors.Encoder",
                        "origin": "runs/classify_fashion_mnist",
                        "checkpoint": "last",
                    },
                },
                "samples": 2_000,
            },
        }
    config.checkpoint = {"type": "checkpoint.Policy", "every": "5 %", "keep_latest": 2}
    config.writers = {
        "console": {"type": "writers.console.Console"},
        "files": {"type": "writers.files.Files"},
        "page": {"type": "writers.page.Page"},
    }
    config.mesh = {"type": "mesh.data_parallel", "devices": placeholder(int), "shards": 1}
    return config
