"""A classifier of digits in one of the two looks of configs/cyclegan_digits.py, to read what CycleGAN translates.

    python -m experiments.train --config=configs/classify_digit_domains.py:a --workdir=runs/classify_digits_a
    python -m experiments.train --config=configs/classify_digit_domains.py:b --workdir=runs/classify_digits_b

Each is trained from scratch, in a minute on two CPU cores, on the labelled training scans of its own domain; `:a` are
white on black, `:b` in colours. The last tenth of them chooses the best checkpoint and trains nothing. It has never
seen a translation; what it reads on real test scans, which is the most to expect of translated ones, is in
experiments/RESULTS.md.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config(form="a"):
    if form not in ("a", "b"):
        raise ValueError(f"classify_digit_domains.py:{form}: write :a or :b")
    config = ConfigDict()
    config.experiment = {
        "type": "loop.Experiment",
        "paper": "",
        "group": "classify_digit_domains",
        "tags": ("classify", "digit_domains", form),
    }
    config.seed = 0
    config.duration = "240 epochs"
    config.log_every = "50 steps"
    config.data = {
        "type": "data.feed.training",
        "name": "digit_domains",
        "split": f"train{form.upper()}[:90%]",
        "batch_size": 64,
        "feeding": "auto",
        "data_dir": "",
        "class_names": ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9"),
        "image_shape": (16, 16, 3),
    }
    config.preprocess = {
        "type": "augment.Labelled",
        "view": {
            "type": "augment.View",
            # A part of the scan, since what lies beyond it is unknown.
            "crop": {"type": "augment.Crop", "size_px": 16, "scale": (0.7, 1.0)},
            "tone": {"type": "augment.Tone", "log_gamma": 0.3, "log_gain": 0.2, "noise": 0.04},
            "mean": (0.0,),
            "deviation": (1.0,),
        },
    }
    config.method = {
        "type": "methods.classify.Classify",
        "train": "all",
        "encoder_rate": 1.0,
        "batch_norm": "batch",
        "encoder": {
            "type": "models.convnet.ConvNet",
            "channels": (32, 64, 64, 128),
            "strides": (1, 2, 1, 2),
            "dtype": "float32",
        },
        "head": {"type": "models.heads.Classifier", "classes": 10, "norm": "none"},
        "optimizer": {
            "type": "optim.sgd",
            "base_learning_rate": 0.4,
            "batch_size": config.data.get_ref("batch_size"),
            "decay_steps": "100 %",
            "momentum": 0.9,
            "weight_decay": 5e-4,
        },
    }
    examples = {
        "type": "data.feed.Evaluation",
        "name": config.data.get_ref("name"),
        "data_dir": config.data.get_ref("data_dir"),
        "class_names": config.data.get_ref("class_names"),
    }
    plain = {"type": "augment.Plain", "mean": (0.0,), "deviation": (1.0,)}
    config.evaluators = {
        "test": {
            "type": "loop.Every",
            "steps": "100 %",
            "run": {
                "type": "evaluators.classification.Classification",
                "examples": {**examples, "split": f"test{form.upper()}"},
                "preprocess": dict(plain),
                "name": "test",
            },
        },
        # The best checkpoint is chosen on training images, so that the test set chooses nothing.
        "validation": {
            "type": "loop.Every",
            "steps": "5 %",
            "run": {
                "type": "evaluators.classification.Classification",
                "examples": {**examples, "split": f"train{form.upper()}[90%:]"},
                "preprocess": dict(plain),
                "name": "validation",
            },
        },
    }
    config.checkpoint = {
        "type": "checkpoint.Policy",
        "every": "20 %",
        "keep_latest": 2,
        "best": "eval/validation/loss",
        "best_is": "lowest",
    }
    config.writers = {
        "console": {"type": "writers.console.Console"},
        "files": {"type": "writers.files.Files"},
        "page": {"type": "writers.page.Page"},
    }
    config.mesh = {"type": "mesh.data_parallel", "devices": placeholder(int), "shards": 1}
    return config
