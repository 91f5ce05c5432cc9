"""SNGAN on CIFAR-10, class-conditional, residual networks (Miyato et al. 2018, arXiv 1802.05957 and 1802.05637).

    python -m experiments.prepare --tfds=cifar10
    python -m experiments.train --config=configs/gan_cifar10_sngan.py --workdir=runs/gan_cifar10_sngan
    python -m experiments.measure --run=runs/gan_cifar10_sngan --data=cifar10:train --samples=50000 \\
        --inception=pt_inception-2015-12-05-6726825d.pth

Expected: FID 9.0 and Inception Score 8.8 (StudioGAN's benchmark; 21.7 in the paper, unconditional; the resize there is
Pillow's bilinear, here TensorFlow's). The recipe is StudioGAN's: hinge loss, spectral norm in the discriminator,
conditional batch norm, projection, 100,000 steps of five updates of the discriminator on 64 images each. Departure:
samples come from a moving average. Not run here in full: on one GPU expect about a day, on two CPU cores weeks.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def get_config():
    config = ConfigDict()
    config.experiment = {
        "type": "loop.Experiment",
        "paper": "SNGAN, arXiv 1802.05957",
        "group": "gan_cifar10_sngan",
        "tags": ("gan", "cifar10", "sngan"),
    }
    config.seed = 0
    config.duration = "100000 steps"
    config.log_every = "100 steps"
    config.data = {
        "type": "data.feed.training",
        "name": "cifar10",
        "split": "train",
        "batch_size": 320,
        "feeding": "auto",
        "data_dir": "",
        "class_names": CLASSES,
    }
    colours = {"mean": (0.5,), "deviation": (0.5,)}
    config.preprocess = {
        "type": "augment.Labelled",
        "view": {"type": "augment.View", "flip": {"type": "augment.Flip", "probability": 0.5}, **colours},
    }
    adam = {
        "type": "optim.scheduled_adam",
        "learning_rate": 2e-4,
        "b1": 0.5,
        "b2": 0.999,
    }
    classes = len(CLASSES)
    config.method = {
        "type": "methods.gan.GAN",
        "generator": {
            "type": "models.sngan.Generator",
            "size_px": 32,
            "image_channels": 3,
            "classes": classes,
            "dtype": "float32",
        },
        "discriminator": {"type": "models.sngan.Discriminator", "classes": classes, "dtype": "float32"},
        "generator_optimizer": dict(adam),
        "discriminator_optimizer": {**adam, "updates_per_step": 5},
        "loss": "hinge",
        "latent": 128,
        "latent_law": "normal",
        "classes": classes,
        "discriminator_steps": 5,
        "average": {"type": "moving_average.MovingAverage", "half_life": "500 kimages", "ramp_up": 0.05},
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
            "steps": "1 %",
            "run": {
                "type": "evaluators.samples.Samples",
                "real": dict(train),
                "held_out": {**train, "split": "test"},
                "preprocess": {"type": "augment.Plain", **colours},
                "classes": classes,
                "images": 1024,
                "grid": 100,
                "columns": 10,
            },
        },
    }
    config.checkpoint = {"type": "checkpoint.Policy", "every": "1 %", "keep_latest": 2}
    config.writers = {
        "console": {"type": "writers.console.Console"},
        "files": {"type": "writers.files.Files"},
        "page": {"type": "writers.page.Page"},
    }
    config.mesh = {"type": "mesh.data_parallel", "devices": placeholder(int), "shards": 1}
    return config
