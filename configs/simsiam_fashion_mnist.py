"""SimSiam on Fashion-MNIST (60,000 garments of 28x28) with a five-layer network, for two CPU cores.

    python -m experiments.prepare --tfds=fashion_mnist
    python -m experiments.train --config=configs/simsiam_fashion_mnist.py --workdir=runs/fashion_mnist

No paper prints a SimSiam number here; what this config reaches, and how long it takes, is in experiments/RESULTS.md.
Garments are grey and stand upright in the middle, so crops are mild and colour reduces to brightness and contrast.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config():
    config = ConfigDict()
    config.experiment = {
        "type": "loop.Experiment",
        "paper": "SimSiam, arXiv 2011.10566",
        "group": "simsiam_fashion_mnist",
        "tags": ("simsiam", "fashion_mnist"),
    }
    config.seed = 0
    config.duration = "5 epochs"
    config.log_every = "50 steps"
    config.data = {
        "type": "data.feed.training",
        "name": "fashion_mnist",
        "split": "train",
        "batch_size": 256,
        "feeding": "auto",
        "data_dir": "",
        "without": (),
    }
    config.preprocess = {
        "type": "augment.TwoViews",
        "first": {
            "type": "augment.View",
            "crop": {"type": "augment.Crop", "size_px": 28, "scale": (0.3, 1.0), "ratio": (3 / 4, 4 / 3)},
            "jitter": {
                "type": "augment.Jitter",
                "brightness": 0.4,
                "contrast": 0.4,
                "saturation": 0.0,
                "hue": 0.0,
                "probability": 0.8,
            },
            "flip": {"type": "augment.Flip", "probability": 0.5},
            "mean": (0.286,),
            "deviation": (0.353,),
        },
    }
    encoder = ConfigDict(
        {
            "type": "models.convnet.ConvNet",
            "channels": (32, 32, 64, 64, 128),
            "strides": (2, 1, 2, 1, 1),
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
            "base_learning_rate": 0.06,
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
    plain = {"type": "augment.Plain", "mean": (0.286,), "deviation": (0.353,)}
    config.evaluators = {
        "knn": {
            "type": "loop.Every",
            "steps": "1 epochs",
            "run": {"type": "evaluators.knn.KNN", "train": dict(train), "test": dict(test), "preprocess": dict(plain)},
        },
        # The best checkpoint is chosen on training images, so that the test set chooses nothing.
        "validation": {
            "type": "loop.Every",
            "steps": "1 epochs",
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
        "every": "2 epochs",
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
