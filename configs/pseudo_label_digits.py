"""Self-training on handwritten digits: few labelled scans, and the rest of the 1,400 without their labels.

    make demo
    python -m experiments.pseudo_label --run=runs/demo --config=configs/pseudo_label_digits.py --workdir=runs/pseudo \\
        --config.data.labels.per_class=1

With one labelled scan a class, or another number, or --config.data.labels.share=0.01 of them. Fine-tunes the demo's
encoder at a tenth of the head's rate, takes the surest fifth of the unlabelled scans, as many of each class, under the
labels that it gives them, and fine-tunes the encoder afresh on both. What to expect is in experiments/RESULTS.md.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config():
    config = ConfigDict()
    config.experiment = {
        "type": "loop.Experiment",
        "paper": "Pseudo-Label, Lee 2013",
        "group": "pseudo_label_digits",
        "tags": ("pseudo_label", "digits"),
    }
    config.seed = 0
    config.duration = "300 steps"
    config.log_every = "50 steps"
    config.graft = {"type": "pretrained.Graft", "origin": placeholder(str), "step": placeholder(int)}
    config.data = {
        "type": "data.feed.training",
        "name": "digits",
        "split": "train",
        "batch_size": 64,
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
        "train": "all",
        "encoder_rate": 0.1,
        "layer_decay": 1.0,
        "unfreeze": (),
        "batch_norm": "running",
        "encoder": placeholder(dict),
        "head": {"type": "models.heads.Classifier", "classes": placeholder(int), "norm": "plain"},
        "optimizer": {
            "type": "optim.sgd",
            "base_learning_rate": 0.4,
            "batch_size": config.data.get_ref("batch_size"),
            "decay_steps": "100 %",
            "momentum": 0.9,
            "weight_decay": 5e-4,
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
    config.self_training = {
        "type": "self_training.SelfTraining",
        "rounds": 1,
        "keep": {"type": "analysis.confidence.ClassBalanced", "share": 0.2},
        "unlabelled": {key: value for key, value in train.items() if key != "class_names"},
    }
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
    }
    config.checkpoint = {"type": "checkpoint.Policy", "every": "20 %", "keep_latest": 2, "best": ""}
    config.writers = {
        "console": {"type": "writers.console.Console"},
        "files": {"type": "writers.files.Files"},
        "page": {"type": "writers.page.Page"},
    }
    config.mesh = {"type": "mesh.data_parallel", "devices": placeholder(int), "shards": 1}
    return config
