"""Fine-tuning on the 11 classes of Tiny-ImageNet that configs/simsiam_tiny11.py names.

    python -m experiments.finetune --run=runs/tiny11 --config=configs/finetune_tiny11.py --workdir=runs/tiny11_tuned

Every parameter is trained, the encoder's at a tenth of the head's rate; batch norm keeps the running statistics of the
pre-training. `:staged` trains the head alone first and thaws the six convolutions one by one from the top; `:scratch`
takes the network alone and begins at random, at the full rate and with the batch's own statistics.

With few labels: --config.data.labels.per_class=10, or --config.data.labels.share=0.01, and steps instead of epochs, as
an epoch of few images is short: --config.duration="400 steps". What to expect is in experiments/RESULTS.md.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config(form="plain"):
    if form not in ("plain", "staged", "scratch"):
        raise ValueError(f"finetune_tiny11.py:{form}: write :staged, :scratch, or nothing")
    config = ConfigDict()
    config.experiment = {
        "type": "loop.Experiment",
        "paper": "SimSiam, arXiv 2011.10566",
        "group": "finetune_tiny11",
        "tags": ("finetune", "tiny11", form),
    }
    config.seed = 0
    config.duration = "20 epochs"
    config.log_every = "50 steps"
    config.graft = {"type": "pretrained.Graft", "origin": placeholder(str), "step": placeholder(int)}
    config.data = {
        "type": "data.feed.training",
        "name": "tiny11",
        "split": "train",
        "batch_size": 32,
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
            "crop": {"type": "augment.Crop", "size_px": 32, "scale": (0.2, 1.0), "ratio": (3 / 4, 4 / 3)},
            "jitter": {
                "type": "augment.Jitter",
                "brightness": 0.4,
                "contrast": 0.4,
                "saturation": 0.4,
                "hue": 0.1,
                "probability": 0.8,
            },
            "flip": {"type": "augment.Flip", "probability": 0.5},
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
    plain = {"type": "augment.Plain", "size_px": 32, **colours}
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
    if form == "staged":
        # The head alone for a fifth of the run, then one convolution after the other from the top.
        config.method.unfreeze = ("20 %", "30 %", "40 %", "50 %", "60 %", "70 %")
    if form == "scratch":
        config.graft = None
        config.method.encoder_rate = 1.0
        config.method.batch_norm = "batch"
    return config
