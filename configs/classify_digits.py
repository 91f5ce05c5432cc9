"""A classifier of scikit-learn's handwritten digits, trained from scratch with all labels in a minute on two CPU cores.

    python -m experiments.train --config=configs/classify_digits.py --workdir=runs/classify_digits

It is there to judge generators: `experiments.measure --encoder=runs/classify_digits` compares generated digits with
real ones by what this network sees in them. The last tenth of the training scans chooses the best checkpoint and trains
nothing; what to expect is in experiments/RESULTS.md.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config():
    config = ConfigDict()
    config.experiment = {
        "type": "loop.Experiment",
        "paper": "",
        "group": "classify_digits",
        "tags": ("classify", "digits"),
    }
    config.seed = 0
    config.duration = "240 epochs"
    config.log_every = "50 steps"
    config.data = {
        "type": "data.feed.training",
        "name": "digits",
        "split": "train[:90%]",
        "batch_size": 64,
        "feeding": "auto",
        "data_dir": "",
        "class_names": ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9"),
        "image_shape": (8, 8, 1),
    }
    config.preprocess = {
        "type": "augment.Labelled",
        "view": {
            "type": "augment.View",
            "crop": {
                "type": "augment.Deform",
                "size_px": 12,
                "log_scale": (-0.2, 0.2),
                "shift_px": 1.0,
                "shear": 0.3,
            },
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
            "strides": (2, 1, 2, 1),
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
    plain = {"type": "augment.Plain", "size_px": 12, "mean": (0.0,), "deviation": (1.0,)}
    config.evaluators = {
        "test": {
            "type": "loop.Every",
            "steps": "100 %",
            "run": {
                "type": "evaluators.classification.Classification",
                "examples": {**examples, "split": "test"},
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
                "examples": {**examples, "split": "train[90%:]"},
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
