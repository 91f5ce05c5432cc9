"""R3GAN on CIFAR-10, class-conditional, no normalisation anywhere (Huang et al. 2024, arXiv 2501.05441).

    python -m experiments.prepare --tfds=cifar10
    python -m experiments.train --config=configs/gan_cifar10_r3gan.py --workdir=runs/gan_cifar10_r3gan
    python -m experiments.measure --run=runs/gan_cifar10_r3gan --data=cifar10:train --samples=50000 \\
        --inception=pt_inception-2015-12-05-6726825d.pth

Expected: FID 1.96 in the paper after 250 million images, which took its authors four days on eight L40 GPUs. The
relativistic pairing, R1 and R2 at every update, and the burn-in over 20 million images (rates, penalty, second moment,
moving average, augmentation) are theirs. Departures: the augmentation is DiffAugment where theirs is StyleGAN2-ADA's
pipeline, both raised from probability 0 to 0.55; the discriminator's update comes first; float32 where theirs is partly
float16. A third of the width: --config.method.generator.widths="(256,256,256,256)" and the discriminator's alike.
Not run here in full.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def get_config():
    config = ConfigDict()
    config.experiment = {
        "type": "loop.Experiment",
        "paper": "R3GAN, arXiv 2501.05441",
        "group": "gan_cifar10_r3gan",
        "tags": ("gan", "cifar10", "r3gan"),
    }
    config.seed = 0
    config.duration = "250 Mimages"
    config.log_every = "100 steps"
    config.data = {
        "type": "data.feed.training",
        "name": "cifar10",
        "split": "train",
        "batch_size": 512,
        "feeding": "auto",
        "data_dir": "",
        "class_names": CLASSES,
    }
    colours = {"mean": (0.5,), "deviation": (0.5,)}
    config.preprocess = {
        "type": "augment.Labelled",
        "view": {"type": "augment.View", "flip": {"type": "augment.Flip", "probability": 0.5}, **colours},
    }
    burn_in = "20 Mimages"
    adam = {
        "type": "optim.scheduled_adam",
        "learning_rate": {"type": "schedules.Cosine", "start": 2e-4, "end": 5e-5, "steps": burn_in},
        "b1": 0.0,
        "b2": {"type": "schedules.Cosine", "start": 0.9, "end": 0.99, "steps": burn_in},
    }
    weight = {"type": "schedules.Cosine", "start": 0.05, "end": 0.005, "steps": burn_in}
    network = {"widths": (768, 768, 768, 768), "blocks": 2, "channels_per_group": 16}
    classes = len(CLASSES)
    config.method = {
        "type": "methods.gan.GAN",
        "generator": {
            "type": "models.r3gan.Generator",
            "size_px": 32,
            "image_channels": 3,
            **network,
            "classes": classes,
            "dtype": "float32",
        },
        "discriminator": {"type": "models.r3gan.Discriminator", **network, "classes": classes, "dtype": "float32"},
        "generator_optimizer": dict(adam),
        "discriminator_optimizer": dict(adam),
        "loss": "relativistic",
        "latent": 64,
        "latent_law": "normal",
        "classes": classes,
        "discriminator_steps": 1,
        "regularizer": {"type": "regularizers.GradientPenalty", "r1": dict(weight), "r2": dict(weight), "every": 1},
        "average": {
            "type": "moving_average.MovingAverage",
            "half_life": "5 Mimages",
            "ramp_up": 1.0,
            "burn_in": burn_in,
        },
        "augment": {
            "type": "diff_augment.DiffAugment",
            "probability": {"type": "schedules.Cosine", "start": 0.0, "end": 0.55, "steps": burn_in},
        },
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
