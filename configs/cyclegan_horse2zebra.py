"""CycleGAN, horses to zebras and back at 256x256: the paper's recipe (arXiv 1703.10593, section 4 and appendix).

    python -m experiments.prepare --tfds=cycle_gan/horse2zebra
    python -m experiments.train --config=configs/cyclegan_horse2zebra.py --workdir=runs/horse2zebra
    python -m experiments.translate --run=runs/horse2zebra --input=PHOTOS --out=zebras --direction=ab

ResNet with 9 blocks, 70x70 PatchGAN, least squares, cycle weight 10, identity 0.5 of it, a pool of 50, batch 1, Adam
2e-4 (0.5, 0.999) for 100 epochs and falling over 100 more, 286 px cropped to 256. 200 epochs are 266,800 steps: days
on one GPU of the paper's time, and nothing for a CPU. FID on the 120 test horses against the 140 test zebras as others
measured it (mmgeneration, configs/cyclegan): 62.1 with the authors' weights, 64.5 retrained; 138.6 and 141.2 from zebra
to horse. It has not been trained at length here; what was measured is in experiments/RESULTS.md.

`:no_identity` is the published variant without the identity loss: there 77.2 and 74.8, 137.1 and 134.4. `:unet` has the
paper's other generators.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config(form="plain"):
    if form not in ("plain", "no_identity", "unet"):
        raise ValueError(f"cyclegan_horse2zebra.py:{form}: write :no_identity, :unet, or nothing")
    config = ConfigDict()
    config.experiment = {
        "type": "loop.Experiment",
        "paper": "CycleGAN, arXiv 1703.10593",
        "group": "cyclegan_horse2zebra",
        "tags": ("cyclegan", "horse2zebra", form),
    }
    config.seed = 0
    config.duration = "200 epochs"
    config.log_every = "100 steps"
    config.data = {
        "type": "data.unpaired.training",
        "name_a": "cycle_gan/horse2zebra",
        "split_a": "trainA",
        "name_b": "cycle_gan/horse2zebra",
        "split_b": "trainB",
        "batch_size": 1,
        "load_px": 286,
        "data_dir": "",
    }
    config.preprocess = {
        "type": "augment.Unpaired",
        "a": {
            "type": "augment.View",
            "crop": {"type": "augment.Window", "size_px": 256},
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
            "width": 64,
            "blocks": 9,
            "upsampling": "transposed",
            "border": "reflect",
            "dtype": "float32",
        },
        "discriminator": {"type": "models.cyclegan.PatchGAN", "width": 64, "strides": 3, "dtype": "float32"},
        "generator_optimizer": dict(adam),
        "discriminator_optimizer": dict(adam),
        "loss": "least_squares",
        "cycle_a": 10.0,
        "cycle_b": 10.0,
        "identity": 0.0 if form == "no_identity" else 0.5,
        "pool": {"type": "image_pool.ImagePool", "size": 50, "pools": 1},
        "channels_a": 3,
        "channels_b": 3,
    }
    if form == "unet":
        config.method.generator = {
            "type": "models.cyclegan.UNetGenerator",
            "width": 64,
            "halvings": 8,
            "dtype": "float32",
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
                "batch_size": 4,
                "grid": 8,
                "alarms_after": "5 %",
            },
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
