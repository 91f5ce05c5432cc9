"""Linear evaluation on CIFAR-10 for an encoder that configs/simsiam_cifar10.py pre-trained.

    python -m experiments.linear_probe --run=runs/cifar10 --config=configs/probe_cifar10.py --workdir=runs/cifar10_probe

SGD at base rate 30 without weight decay, batch 256, 100 epochs: what the reimplementations that came near the paper's
91.8 % used (the paper states no protocol for CIFAR-10). `:lars` takes the ImageNet protocol's LARS instead, `:fast` a
grid of rates and decays on cached features. No number has been measured by this project on CIFAR-10's own pixels; on a
JPEG copy, 82.5 % by `:fast` after 360 epochs (experiments/RESULTS.md). The paper reports 91.8 % for 800.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config(form="sgd"):
    if form not in ("sgd", "lars", "fast"):
        raise ValueError(f"probe_cifar10.py:{form}: write :lars, :fast, or nothing")
    config = ConfigDict()
    config.experiment = {
        "type": "loop.Experiment",
        "paper": "SimSiam, arXiv 2011.10566",
        "group": "probe_cifar10",
        "tags": ("probe", "cifar10", form),
    }
    config.seed = 0
    config.duration = "100 epochs"
    config.log_every = "50 steps"
    config.graft = {"type": "pretrained.Graft", "origin": placeholder(str), "step": placeholder(int)}
    config.data = {
        "type": "data.feed.training",
        "name": "cifar10",
        "split": "train",
        "batch_size": 256,
        "feeding": "auto",
        "data_dir": "",
        "labels": {"type": "subsets.Subset", "per_class": placeholder(int), "share": placeholder(float), "seed": 0},
        "class_names": placeholder(tuple),
        "image_shape": placeholder(tuple),
    }
    colours = {"mean": placeholder(tuple), "deviation": placeholder(tuple)}
    config.preprocess = {
        "type": "augment.Labelled",
        "view": {
            "type": "augment.View",
            "crop": {"type": "augment.Crop", "size_px": 32, "scale": (0.08, 1.0), "ratio": (3 / 4, 4 / 3)},
            "flip": {"type": "augment.Flip", "probability": 0.5},
            **colours,
        },
    }
    config.method = {
        "type": "methods.classify.Classify",
        "train": "head",
        "encoder": placeholder(dict),
        "head": {"type": "models.heads.Classifier", "classes": placeholder(int), "norm": "none"},
        "optimizer": {
            "type": "optim.sgd",
            "base_learning_rate": 30.0,
            "batch_size": config.data.get_ref("batch_size"),
            "decay_steps": "100 %",
            "momentum": 0.9,
            "weight_decay": 0.0,
        },
    }
    train = {
        "type": "data.feed.Evaluation",
        "name": config.data.get_ref("name"),
        "split": config.data.get_ref("split"),
        "data_dir": config.data.get_ref("data_dir"),
        "class_names": placeholder(tuple),
        "image_shape": placeholder(tuple),
    }
    test = {**train, "split": "test"}
    plain = {"type": "augment.Plain", **colours}
    config.evaluators = {
        "test": {
            "type": "loop.Every",
            "steps": "100 %",
            "run": {
                "type": "evaluators.classification.Classification",
                "examples": dict(test),
                "preprocess": dict(plain),
                "name": "test",
            },
        },
        "frozen": {"type": "loop.Every", "steps": "100 %", "run": {"type": "evaluators.frozen.Frozen"}},
    }
    config.checkpoint = {"type": "checkpoint.Policy", "every": "10 epochs", "keep_latest": 2, "best": ""}
    config.writers = {
        "console": {"type": "writers.console.Console"},
        "files": {"type": "writers.files.Files"},
        "page": {"type": "writers.page.Page"},
    }
    config.mesh = {"type": "mesh.data_parallel", "devices": placeholder(int), "shards": 1}
    if form == "lars":
        config.data.batch_size = 4096
        config.method.optimizer = {
            "type": "optim.lars",
            "base_learning_rate": 0.1,
            "batch_size": config.data.get_ref("batch_size"),
            "decay_steps": "100 %",
            "momentum": 0.9,
            "weight_decay": 0.0,
            "trust_coefficient": 0.001,
        }
    if form == "fast":
        # Nothing is trained step by step: the evaluators look at the encoder once.
        config.duration = "0 steps"
        config.method.optimizer.decay_steps = "1 steps"
        config.data.labels = None
        config.checkpoint.every = "1 steps"
        config.evaluators = {
            "grid": {
                "type": "loop.Every",
                "steps": "1 steps",
                "run": {
                    "type": "evaluators.probe_grid.ProbeGrid",
                    "train": dict(train),
                    "test": dict(test),
                    "preprocess": dict(plain),
                    "name": "encoder",
                    "labels_per_class": (1, 10, 100),
                },
            },
            "frozen": {"type": "loop.Every", "steps": "1 steps", "run": {"type": "evaluators.frozen.Frozen"}},
        }
    return config
