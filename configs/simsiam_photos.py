"""SimSiam on photographs of your own: any size, with or without labels.

    python -m experiments.prepare --images=DIR --name=mine
    python -m experiments.train --config=configs/simsiam_photos.py --workdir=runs/mine --config.data.name=mine

Both views of a photograph are cropped on the host, so sizes may vary. Without labels only the collapse gauge watches.
With class folders and a split `test`, --config=configs/simsiam_photos.py:labelled adds kNN and the probe. Expect no
number in particular: what the features are worth depends on the photographs. A half-width ResNet-18 at 64 px suits two
CPU cores and some thousands of images; with a GPU take --config.data.crop.size_px=224 and
--config.method.encoder.width_multiplier=1.0.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config(labels="unlabelled"):
    if labels not in ("labelled", "unlabelled"):
        raise ValueError(f"simsiam_photos.py:{labels}: write :labelled, or nothing")
    config = ConfigDict()
    config.experiment = {
        "type": "loop.Experiment",
        "paper": "SimSiam, arXiv 2011.10566",
        "group": "simsiam_photos",
        "tags": ("simsiam", "photos", labels),
    }
    config.seed = 0
    config.duration = "200 epochs"
    config.log_every = "50 steps"
    config.data = {
        "type": "data.feed.training",
        "name": "mine",
        "split": "train",
        "batch_size": 128,
        "feeding": "stream",
        "crop": {"type": "data.stream.HostCrop", "size_px": 64, "scale": (0.2, 1.0), "ratio": (3 / 4, 4 / 3)},
        "workers": 0,
        "data_dir": "",
    }
    config.preprocess = {
        "type": "augment.TwoViews",
        "first": {
            "type": "augment.View",
            "jitter": {
                "type": "augment.Jitter",
                "brightness": 0.4,
                "contrast": 0.4,
                "saturation": 0.4,
                "hue": 0.1,
                "probability": 0.8,
            },
            "grayscale": {"type": "augment.Grayscale", "probability": 0.2},
            "blur": {"type": "augment.Blur", "sigma": (0.1, 2.0), "probability": 0.5, "kernel_px": 7},
            "flip": {"type": "augment.Flip", "probability": 0.5},
            "mean": (0.485, 0.456, 0.406),
            "deviation": (0.229, 0.224, 0.225),
        },
    }
    encoder = ConfigDict(
        {
            "type": "models.resnet.ResNet",
            "depth": 18,
            "stem": "imagenet",
            "width_multiplier": 0.5,
            "dtype": "float32",
            "norm_groups": 1,
        }
    )
    dtype, norm_groups = encoder.get_ref("dtype"), encoder.get_ref("norm_groups")
    projector = ConfigDict(
        {
            "type": "models.heads.Projector",
            "hidden": 1024,
            "output": 1024,
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
            "hidden": 256,
            "output": projector.get_ref("output"),
            "dtype": dtype,
            "norm_groups": norm_groups,
        },
        "optimizer": {
            "type": "optim.sgd",
            "base_learning_rate": 0.05,
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
        "size_px": config.data.crop.get_ref("size_px"),
        "data_dir": config.data.get_ref("data_dir"),
    }
    test = {**train, "split": "test"}
    plain = {"type": "augment.Plain", "mean": (0.485, 0.456, 0.406), "deviation": (0.229, 0.224, 0.225)}
    config.checkpoint = {"type": "checkpoint.Policy", "every": "10 epochs", "keep_latest": 2, "best": ""}
    config.evaluators = {
        "collapse": {
            "type": "loop.Every",
            "steps": "1 epochs",
            "run": {"type": "evaluators.collapse.Collapse", "examples": dict(train), "preprocess": dict(plain)},
        },
    }
    if labels == "labelled":
        config.evaluators.update(
            {
                "knn": {
                    "type": "loop.Every",
                    "steps": "10 epochs",
                    "run": {
                        "type": "evaluators.knn.KNN",
                        "train": dict(train),
                        "test": dict(test),
                        "preprocess": dict(plain),
                    },
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
        )
        config.checkpoint.best = "eval/validation/accuracy_weighted_200"
    config.writers = {
        "console": {"type": "writers.console.Console"},
        "files": {"type": "writers.files.Files"},
        "page": {"type": "writers.page.Page"},
    }
    config.mesh = {"type": "mesh.data_parallel", "devices": placeholder(int), "shards": 1}
    return config
