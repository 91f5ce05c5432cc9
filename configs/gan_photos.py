"""A GAN on a folder of your own pictures at 64x64: DCGAN's layers, R3GAN's loss and penalties, DiffAugment.

    python -m experiments.prepare --images=photos --name=mine
    python -m experiments.train --config=configs/gan_photos.py --workdir=runs/mine_gan --config.data.name=mine
    python -m experiments.sample --run=runs/mine_gan --out=runs/mine_gan_samples

No labels are needed. Each picture is cropped to nearly its whole shorter side and mirrored at random. With fewer than
some ten thousand pictures DiffAugment keeps the discriminator from knowing them by heart (arXiv 2006.10738); with more
leave it out by --config.method.augment.probability=0.0. What to expect depends on the pictures: faces or flowers within
hours of a GPU, scenes of everything hardly; two CPU cores are too slow but for a try. Longer is better as long as
eval/samples/memorised stays near 0.5.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config():
    config = ConfigDict()
    config.experiment = {
        "type": "loop.Experiment",
        "paper": "R3GAN, arXiv 2501.05441",
        "group": "gan_photos",
        "tags": ("gan", "photos"),
    }
    config.seed = 0
    config.duration = "10 Mimages"
    config.log_every = "100 steps"
    config.data = {
        "type": "data.feed.training",
        "name": "mine",
        "split": "train",
        "batch_size": 64,
        "feeding": "stream",
        "data_dir": "",
        "crop": {
            "type": "data.stream.HostCrop",
            "size_px": 64,
            "scale": (0.8, 1.0),
            "ratio": (1.0, 1.0),
            "views": 1,
            "small_images": "refused",
        },
        "workers": 0,
    }
    colours = {"mean": (0.5,), "deviation": (0.5,)}
    config.preprocess = {
        "type": "augment.Labelled",
        "view": {"type": "augment.View", "flip": {"type": "augment.Flip", "probability": 0.5}, **colours},
    }
    adam = {
        "type": "optim.scheduled_adam",
        "learning_rate": {"type": "schedules.Cosine", "start": 2e-4, "end": 5e-5, "steps": "100 %"},
        "b1": 0.0,
        "b2": 0.99,
    }
    weight = {"type": "schedules.Cosine", "start": 10.0, "end": 1.0, "steps": "50 %"}
    config.method = {
        "type": "methods.gan.GAN",
        "generator": {
            "type": "models.dcgan.Generator",
            "size_px": config.data.crop.get_ref("size_px"),
            "image_channels": 3,
            "channels": (512, 256, 128, 64),
            "dtype": "float32",
        },
        "discriminator": {
            "type": "models.dcgan.Discriminator",
            "channels": (64, 128, 256, 512),
            "norm": "none",
            "dtype": "float32",
        },
        "generator_optimizer": dict(adam),
        "discriminator_optimizer": dict(adam),
        "loss": "relativistic",
        "latent": 128,
        "latent_law": "normal",
        "discriminator_steps": 1,
        "regularizer": {"type": "regularizers.GradientPenalty", "r1": dict(weight), "r2": dict(weight), "every": 1},
        "average": {"type": "moving_average.MovingAverage", "half_life": "500 kimages", "ramp_up": 0.05},
        "augment": {"type": "diff_augment.DiffAugment", "probability": 0.8},
    }
    train = {
        "type": "data.feed.Evaluation",
        "name": config.data.get_ref("name"),
        "split": "train",
        "data_dir": config.data.get_ref("data_dir"),
        "size_px": config.data.crop.get_ref("size_px"),
    }
    config.evaluators = {
        "samples": {
            "type": "loop.Every",
            "steps": "5 %",
            "run": {
                "type": "evaluators.samples.Samples",
                "real": dict(train),
                "preprocess": {"type": "augment.Plain", **colours},
                "images": 512,
                "grid": 100,
                "columns": 20,
            },
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
