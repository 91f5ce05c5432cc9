"""SimSiam on 11 classes of Tiny-ImageNet (5,500 photographs of 64x64) with a six-layer network, for two CPU cores.

The set: goldfish, king penguin, golden retriever, Egyptian cat, monarch, African elephant, school bus, sports car,
teapot, pizza, lakeside; 500 training and 50 test images each. From Tiny-ImageNet's public archive, put the class
folders under DIR/train and DIR/test, then:

    python -m experiments.prepare --images=DIR --name=tiny11
    python -m experiments.train --config=configs/simsiam_tiny11.py --workdir=runs/tiny11

The network sees crops at 32x32, which two cores can train in about 40 minutes. No paper prints a number for this set;
what this config reaches, and how long it takes, is in experiments/RESULTS.md. Your own folder of photographs of one
size works the same way: --config.data.name=NAME.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config():
    config = ConfigDict()
    config.experiment = {
        "type": "loop.Experiment",
        "paper": "SimSiam, arXiv 2011.10566",
        "group": "simsiam_tiny11",
        "tags": ("simsiam", "tiny11"),
    }
    config.seed = 0
    config.duration = "120 epochs"
    config.log_every = "50 steps"
    config.data = {
        "type": "data.feed.training",
        "name": "tiny11",
        "split": "train",
        "batch_size": 128,
        "feeding": "auto",
        "data_dir": "",
        "without": (),
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
            "blur": {"type": "augment.Blur", "sigma": (0.1, 2.0), "probability": 0.5, "kernel_px": 5},
            "flip": {"type": "augment.Flip", "probability": 0.5},
            "mean": (0.485, 0.456, 0.406),
            "deviation": (0.229, 0.224, 0.225),
        },
    }
    encoder = ConfigDict(
        {
            "type": "models.convnet.ConvNet",
            "channels": (32, 32, 64, 64, 128, 256),
            "strides": (1, 2, 1, 2, 1, 2),
            "dtype": "float32",
            "norm_groups": 1,
        }
    )
    dtype, norm_groups = encoder.get_ref("dtype"), encoder.get_ref("norm_groups")
    projector = ConfigDict(
        {
            "type": "models.heads.Projector",
            "hidden": 512,
            "output": 512,
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
            "hidden": 128,
            "output": projector.get_ref("output"),
            "dtype": dtype,
            "norm_groups": norm_groups,
        },
        "optimizer": {
            "type": "optim.sgd",
            "base_learning_rate": 0.1,
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
    plain = {"type": "augment.Plain", "size_px": 32, "mean": (0.485, 0.456, 0.406), "deviation": (0.229, 0.224, 0.225)}
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
