"""DCGAN on CIFAR-10, unconditional (Radford et al. 2016, arXiv 1511.06434, at 32x32).

    python -m experiments.prepare --tfds=cifar10
    python -m experiments.train --config=configs/gan_cifar10_dcgan.py --workdir=runs/gan_cifar10_dcgan
    python -m experiments.measure --run=runs/gan_cifar10_dcgan --data=cifar10:train --samples=50000 \\
        --inception=pt_inception-2015-12-05-6726825d.pth

Expected: FID 48.3 and Inception Score 6.1 (StudioGAN's benchmark, 50,000 samples against the training set, TensorFlow's
Inception after Pillow's bilinear resize; the resize here is TensorFlow's, so compare with care). The recipe is
StudioGAN's: 200,000 steps of two updates of the discriminator on 64 images each, normal latents of 128, images and
their mirror images. Departures: weights start from the paper's N(0, 0.02), and samples come from a moving average. Not
run here in full: on one GPU expect hours, on two CPU cores days.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config():
    config = ConfigDict()
    config.experiment = {
        "type": "loop.Experiment",
        "paper": "DCGAN, arXiv 1511.06434",
        "group": "gan_cifar10_dcgan",
        "tags": ("gan", "cifar10", "dcgan"),
    }
    config.seed = 0
    config.duration = "200000 steps"
    config.log_every = "100 steps"
    config.data = {
        "type": "data.feed.training",
        "name": "cifar10",
        "split": "train",
        "batch_size": 128,
        "feeding": "auto",
        "data_dir": "",
    }
    colours = {"mean": (0.5,), "deviation": (0.5,)}
    config.preprocess = {
        "type": "augment.Labelled",
        "view": {"type": "augment.View", "flip": {"type": "augment.Flip", "probability": 0.5}, **colours},
    }
    adam = {"type": "optim.scheduled_adam", "learning_rate": 2e-4, "b1": 0.5, "b2": 0.999}
    config.method = {
        "type": "methods.gan.GAN",
        "generator": {
            "type": "models.dcgan.Generator",
            "size_px": 32,
            "image_channels": 3,
            "channels": (512, 256, 128),
            "dtype": "float32",
        },
        "discriminator": {
            "type": "models.dcgan.Discriminator",
            "channels": (64, 128, 256),
            "norm": "batch",
            "dtype": "float32",
        },
        "generator_optimizer": dict(adam),
        "discriminator_optimizer": {**adam, "updates_per_step": 2},
        "loss": "non_saturating",
        "latent": 128,
        "latent_law": "normal",
        "discriminator_steps": 2,
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
