"""Linear evaluation of the demo's encoder on handwritten digits.

    make demo
    python -m experiments.linear_probe --run=runs/demo --config=configs/probe_digits.py --workdir=runs/demo_probe

SGD without weight decay and a cosine over 90 epochs on deformed scans, a batch norm without scale and bias before the
linear layer. Few labels: --config.data.labels.per_class=3. What to expect is in experiments/RESULTS.md.

    python -m experiments.linear_probe --run=runs/demo --config=configs/probe_digits.py:fast --workdir=runs/demo_fast

trains a grid of rates and decays, for 1, 3, 10 and all labels a class, on cached features.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config(form="published"):
    if form not in ("published", "fast"):
        raise ValueError(f"probe_digits.py:{form}: write :fast, or nothing")
    config = ConfigDict()
    config.experiment = {
        "type": "loop.Experiment",
        "paper": "SimSiam, arXiv 2011.10566",
        "group": "probe_digits",
        "tags": ("probe", "digits", form),
    }
    config.seed = 0
    config.duration = "90 epochs"
    config.log_every = "50 steps"
    config.graft = {"type": "pretrained.Graft", "origin": placeholder(str), "step": placeholder(int)}
    config.data = {
        "type": "data.feed.training",
        "name": "digits",
        "split": "train",
        "batch_size": 128,
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
            "crop": {
                "type": "augment.Deform",
                "size_px": 12,
                "log_scale": (-0.35, 0.2),
                "shift_px": 1.2,
                "shear": 0.5,
            },
            "tone": {"type": "augment.Tone", "log_gamma": 0.6, "log_gain": 0.4, "noise": 0.08},
            **colours,
        },
    }
    config.method = {
        "type": "methods.classify.Classify",
        "train": "head",
        "encoder": placeholder(dict),
        "head": {"type": "models.heads.Classifier", "classes": placeholder(int), "norm": "plain"},
        "optimizer": {
            "type": "optim.sgd",
            "base_learning_rate": 0.1,
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
    plain = {"type": "augment.Plain", "size_px": 12, **colours}
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
                    "labels_per_class": (1, 3, 10),
                },
            },
            "frozen": {"type": "loop.Every", "steps": "1 steps", "run": {"type": "evaluators.frozen.Frozen"}},
        }
    return config
