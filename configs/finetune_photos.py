"""Fine-tuning on photographs of your own, of any size, for an encoder that configs/simsiam_photos.py pre-trained.

    python -m experiments.finetune --run=runs/mine --config=configs/finetune_photos.py --workdir=runs/mine_tuned
    python -m experiments.predict --run=runs/mine_tuned --input=NEW_PHOTOS --out=predictions.csv

The data set (--config.data.name, "mine" here) has class folders and a split `test`. Every parameter is trained, the
encoder's at a tenth of the head's rate. `:staged` trains the head alone first and thaws the stages from the top;
`:scratch` begins at random. Few labels: --config.data.labels.per_class=10. Expect no number in particular.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config(form="plain"):
    if form not in ("plain", "staged", "scratch"):
        raise ValueError(f"finetune_photos.py:{form}: write :staged, :scratch, or nothing")
    config = ConfigDict()
    config.experiment = {
        "type": "loop.Experiment",
        "paper": "SimSiam, arXiv 2011.10566",
        "group": "finetune_photos",
        "tags": ("finetune", "photos", form),
    }
    config.seed = 0
    config.duration = "20 epochs"
    config.log_every = "50 steps"
    config.graft = {"type": "pretrained.Graft", "origin": placeholder(str), "step": placeholder(int)}
    config.data = {
        "type": "data.feed.training",
        "name": "mine",
        "split": "train",
        "batch_size": 64,
        "feeding": "stream",
        "crop": {
            "type": "data.stream.HostCrop",
            "size_px": 64,
            "scale": (0.2, 1.0),
            "ratio": (3 / 4, 4 / 3),
            "views": 1,
        },
        "workers": 0,
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
        "size_px": config.data.crop.get_ref("size_px"),
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
    }
    config.checkpoint = {"type": "checkpoint.Policy", "every": "20 %", "keep_latest": 2, "best": ""}
    config.writers = {
        "console": {"type": "writers.console.Console"},
        "files": {"type": "writers.files.Files"},
        "page": {"type": "writers.page.Page"},
    }
    config.mesh = {"type": "mesh.data_parallel", "devices": placeholder(int), "shards": 1}
    if form == "staged":
        # The head alone for a fifth of the run, then the four stages from the top, the stem last.
        config.method.unfreeze = ("20 %", "35 %", "50 %", "65 %", "80 %")
    if form == "scratch":
        config.graft = None
        config.method.encoder_rate = 1.0
        config.method.batch_norm = "batch"
    return config
