"""CycleGAN, horses to zebras and back at 64x64: the paper's recipe, small enough for two CPU cores and an hour.

    python -m experiments.prepare --tfds=cycle_gan/horse2zebra
    python -m experiments.train --config=configs/cyclegan_horse2zebra_64.py --workdir=runs/horse2zebra_64

As configs/cyclegan_horse2zebra.py (arXiv 1703.10593), with 6 blocks, half the channels and patches of 34 px, 72 px
cropped to 64, and 10,000 steps. A thirtieth of the paper's training: stripes come, horses seldom vanish. What it
reached is in experiments/RESULTS.md. A part of the photographs will do: a folder with trainA, trainB, testA and testB,

    python -m experiments.prepare --images=FOLDER --name=mine
    python -m experiments.train --config=configs/cyclegan_horse2zebra_64.py --workdir=runs/mine_64 \\
        --config.data.name_a=mine --config.data.name_b=mine

`:judged` also follows distances between translations and real test images of their target, by the features of a SimSiam
encoder (configs/simsiam_tiny11.py in runs/tiny11). They are no FID and compare with nothing but each other.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config(form="plain"):
    if form not in ("plain", "judged"):
        raise ValueError(f"cyclegan_horse2zebra_64.py:{form}: write :judged, or nothing")
    config = ConfigDict()
    config.experiment = {
        "type": "loop.Experiment",
        "paper": "CycleGAN, arXiv 1703.10593",
        "group": "cyclegan_horse2zebra_64",
        "tags": ("cyclegan", "horse2zebra", "64px", form),
    }
    config.seed = 0
    config.duration = "10000 steps"
    config.log_every = "100 steps"
    config.data = {
        "type": "data.unpaired.training",
        "name_a": "cycle_gan/horse2zebra",
        "split_a": "trainA",
        "name_b": "cycle_gan/horse2zebra",
        "split_b": "trainB",
        "batch_size": 1,
        "load_px": 72,
        "data_dir": "",
    }
    config.preprocess = {
        "type": "augment.Unpaired",
        "a": {
            "type": "augment.View",
            "crop": {"type": "augment.Window", "size_px": 64},
            "flip": {"type": "augment.Flip", "probability": 0.5},
        },
    }
    adam = {
        "type": "optim.scheduled_adam",
        "learning_rate": {
            "type": "schedules.EpochwiseLinear",
            "start": 2e-4,
            "hold_steps": "50 %",
            "decay_steps": "50 %",
            "epoch_steps": "1 epochs",
        },
        "b1": 0.5,
        "b2": 0.999,
    }
    config.method = {
        "type": "methods.cyclegan.CycleGAN",
        "generator": {
            "type": "models.cyclegan.ResNetGenerator",
            "width": 32,
            "blocks": 6,
            "upsampling": "transposed",
            "border": "reflect",
            "dtype": "float32",
        },
        "discriminator": {"type": "models.cyclegan.PatchGAN", "width": 32, "strides": 2, "dtype": "float32"},
        "generator_optimizer": dict(adam),
        "discriminator_optimizer": dict(adam),
        "loss": "least_squares",
        "cycle_a": 10.0,
        "cycle_b": 10.0,
        "identity": 0.5,
        "pool": {"type": "image_pool.ImagePool", "size": 50, "pools": 1},
        "channels_a": 3,
        "channels_b": 3,
    }
    test = {
        "type": "data.unpaired.Test",
        "size_px": config.preprocess.a.crop.get_ref("size_px"),
        "data_dir": config.data.get_ref("data_dir"),
    }
    config.evaluators = {
        "translation": {
            "type": "loop.Every",
            "steps": "5 %",
            "run": {
                "type": "evaluators.translation.Translation",
                "a": {**test, "name": config.data.get_ref("name_a"), "split": "testA"},
                "b": {**test, "name": config.data.get_ref("name_b"), "split": "testB"},
                "preprocess": {"type": "augment.Plain"},
                "images": 64,
                "grid": 8,
                "alarms_after": "15 %",
            },
        },
    }
    if form == "judged":
        encoder = {"type": "extractors.Encoder", "origin": "runs/tiny11", "checkpoint": "last"}
        for source, target in (("a", "b"), ("b", "a")):
            sides = {
                side: {**test, "name": config.data.get_ref(f"name_{side}"), "split": f"test{side.upper()}"}
                for side in (source, target)
            }
            config.evaluators[f"distance_{source}{target}"] = {
                "type": "loop.Every",
                "steps": "10 %",
                "run": {
                    "type": "evaluators.distance.Distance",
                    "reference": {"type": "reference.Reference", "examples": sides[target], "extractor": encoder},
                    "translated": {
                        "type": "evaluators.distance.Translated",
                        "examples": sides[source],
                        "direction": source + target,
                        "preprocess": {"type": "augment.Plain"},
                    },
                    "samples": 120,
                    "batch_size": 40,
                    "subset_size": 100,
                    "name": f"distances_{source}{target}",
                },
            }
    config.checkpoint = {"type": "checkpoint.Policy", "every": "1 epochs", "keep_latest": 2}
    config.writers = {
        "console": {"type": "writers.console.Console"},
        "files": {"type": "writers.files.Files"},
        "page": {"type": "writers.page.Page"},
    }
    config.mesh = {"type": "mesh.data_parallel", "devices": placeholder(int), "shards": 1}
    return config
