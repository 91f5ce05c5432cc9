"""SimSiam on CIFAR-10 exactly as published: 800 epochs of a ResNet-18 (arXiv 2011.10566, appendix D).

    python -m experiments.prepare --tfds=cifar10
    python -m experiments.train --config=configs/simsiam_cifar10.py --workdir=runs/cifar10

The paper reports 91.8 % by linear evaluation after 800 epochs (appendix D); reimplementations print kNN accuracies
near 90 %. Meant for one GPU, in bfloat16 with --config.method.encoder.dtype=bfloat16 (the heads follow): an H200 does
41,000 images a second, 1.2 seconds an epoch. This project has not run it in full: experiments/RESULTS.md has a run of
360 epochs on a JPEG copy of the images (82.5 % by linear evaluation), and the speeds.

The paper leaves the projector's hidden width open (2048 here, as in its reimplementations). The predictor's rate is
held constant, as in the authors' code with --fix-pred-lr; the code changes the rate once an epoch, here it changes at
every step (`hold_steps="1 epochs"` gives the code's form).
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config():
    config = ConfigDict()
    config.experiment = {
        "type": "loop.Experiment",
        "paper": "SimSiam, arXiv 2011.10566",
        "group": "simsiam_cifar10",
        "tags": ("simsiam", "cifar10"),
    }
    config.seed = 0
    config.duration = "800 epochs"
    config.log_every = "50 steps"
    config.data = {
        "type": "data.feed.training",
        "name": "cifar10",
        "split": "train",
        "batch_size": 512,
        "feeding": "auto",
        "data_dir": "",
    }
    config.preprocess = {
        "type": "augment.TwoViews",
        "first": {
            "type": "augment.View",
            "crop": {"type": "augment.Crop", "size_px": 32, "scale": (0.2, 1.0), "ratio": (3 / 4, 4 / 3)},
            "jitter": {
                "type": "augment.Jitter",
                "brightness": 0.4,
                "contrast": 0.4,
                "saturation": 0.4,
                "hue": 0.1,
                "probability": 0.8,
            },
            "grayscale": {"type": "augment.Grayscale", "probability": 0.2},
            "flip": {"type": "augment.Flip", "probability": 0.5},
            "mean": (0.4914, 0.4822, 0.4465),
            "deviation": (0.2470, 0.2435, 0.2616),
        },
    }
    encoder = ConfigDict(
        {
            "type": "models.resnet.ResNet",
            "depth": 18,
            "stem": "cifar",
            "width_multiplier": 1.0,
            "dtype": "float32",
            "norm_groups": 1,
        }
    )
    dtype, norm_groups = encoder.get_ref("dtype"), encoder.get_ref("norm_groups")
    projector = ConfigDict(
        {
            "type": "models.heads.Projector",
            "hidden": 2048,
            "output": 2048,
            "layers": 2,
            "dtype": dtype,
            "norm_groups": norm_groups,
        }
    )
    config.method = {
        "type": "methods.simsiam.SimSiam",
        "encoder": encoder,
        "projector": projector,
        "predictor": {
            "type": "models.heads.Predictor",
            "hidden": 512,
            "output": projector.get_ref("output"),
            "dtype": dtype,
            "norm_groups": norm_groups,
        },
        "optimizer": {
            "type": "optim.sgd",
            "base_learning_rate": 0.03,
            "batch_size": config.data.get_ref("batch_size"),
            "decay_steps": "100 %",
            "warmup_steps": "0 epochs",
            "hold_steps": "1 steps",
            "momentum": 0.9,
            "weight_decay": 5e-4,
            "constant_rate": ("predictor",),
            "accumulate_steps": 1,
        },
        "stop_gradient": True,
    }
    train = {
        "type": "data.feed.Evaluation",
        "name": config.data.get_ref("name"),
        "split": "train",
        "data_dir": config.data.get_ref("data_dir"),
    }
    test = {**train, "split": "test"}
    plain = {"type": "augment.Plain", "mean": (0.4914, 0.4822, 0.4465), "deviation": (0.2470, 0.2435, 0.2616)}
    config.evaluators = {
        "knn": {
            "type": "loop.Every",
            "steps": "10 epochs",
            "run": {"type": "evaluators.knn.KNN", "train": dict(train), "test": dict(test), "preprocess": dict(plain)},
        },
        # The best checkpoint is chosen on training images, so that the test set chooses nothing.
        "validation": {
            "type": "loop.Every",
            "steps": "10 epochs",
            "run": {
                "type": "evaluators.knn.KNN",
                "train": {**train, "split": "train[:90%]"},
                "test": {**train, "split": "train[90%:]"},
                "preprocess": dict(plain),
                "gallery": 0,
            },
        },
        "collapse": {
            "type": "loop.Every",
            "steps": "1 epochs",
            "run": {"type": "evaluators.collapse.Collapse", "examples": dict(train), "preprocess": dict(plain)},
        },
        "probe": {
            "type": "loop.Every",
            "steps": "100 %",
            "run": {
                "type": "evaluators.linear.LinearProbe",
                "train": dict(train),
                "test": dict(test),
                "preprocess": dict(plain),
                "name": "simsiam",
            },
        },
    }
    config.checkpoint = {
        "type": "checkpoint.Policy",
        "every": "10 epochs",
        "keep_latest": 2,
        "best": "eval/validation/accuracy_weighted_200",
    }
    config.writers = {
        "console": {"type": "writers.console.Console"},
        "files": {"type": "writers.files.Files"},
        "page": {"type": "writers.page.Page"},
    }
    config.mesh = {"type": "mesh.data_parallel", "devices": placeholder(int), "shards": 1}
    return config
