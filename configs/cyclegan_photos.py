"""CycleGAN between two folders of your own photographs at 256x256, without pairs.

    python -m experiments.prepare --images=FOLDER --name=mine
    python -m experiments.train --config=configs/cyclegan_photos.py --workdir=runs/mine_cyclegan
    python -m experiments.translate --run=runs/mine_cyclegan --input=PHOTOS --out=translated --direction=ab

FOLDER holds trainA and trainB, some hundred pictures each, and testA and testB, ten at least. The recipe is the paper's
(arXiv 1703.10593, configs/cyclegan_horse2zebra.py) with what its users asked for since: generators that enlarge by
resizing, whose kernels leave no checkerboard, and a moving average of them that translates. What to expect depends on
the pictures: textures and colours change, shapes hardly. 256 px want a GPU; configs/cyclegan_horse2zebra_64.py is
small enough for a CPU.

Two data sets of their own instead of one folder: --config.data.name_a=summer --config.data.split_a=train and the same
for b. `:paired` also holds every translation against its truth, where testA and testB show the same things under the
same names (maps, facades): pixel error and PSNR.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config(form="plain"):
    if form not in ("plain", "paired"):
        raise ValueError(f"cyclegan_photos.py:{form}: write :paired, or nothing")
    config = ConfigDict()
    config.experiment = {
        "type": "loop.Experiment",
        "paper": "CycleGAN, arXiv 1703.10593",
        "group": "cyclegan_photos",
        "tags": ("cyclegan", "photos", form),
    }
    config.seed = 0
    config.duration = "200 epochs"
    config.log_every = "100 steps"
    config.data = {
        "type": "data.unpaired.training",
        "name_a": "mine",
        "split_a": "trainA",
        "name_b": "mine",
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
            "upsampling": "resize",
            "border": "reflect",
            "dtype": "float32",
        },
        "discriminator": {"type": "models.cyclegan.PatchGAN", "width": 64, "strides": 3, "dtype": "float32"},
        "generator_optimizer": dict(adam),
        "discriminator_optimizer": dict(adam),
        "loss": "least_squares",
        "cycle_a": 10.0,
        "cycle_b": 10.0,
        "identity": 0.5,
        "pool": {"type": "image_pool.ImagePool", "size": 50, "pools": 1},
        "average": {"type": "moving_average.MovingAverage", "half_life": "10 kimages", "ramp_up": 0.05},
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
                "batch_size": 4,
                "grid": 8,
                "alarms_after": "5 %",
            },
        },
    }
    if form == "paired":
        sides = {f"name_{side}": config.data.get_ref(f"name_{side}") for side in "ab"}
        config.evaluators.counterpart = {
            "type": "loop.Every",
            "steps": "5 %",
            "run": {
                "type": "evaluators.counterpart.Counterpart",
                "pairs": {
                    **test,
                    "type": "data.unpaired.Pairs",
                    **sides,
                    "split_a": "testA",
                    "split_b": "testB",
                },
                "preprocess": {"type": "augment.Plain"},
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
