"""Linear evaluation on ImageNet as the SimSiam authors do it (arXiv 2011.10566, appendix A; `main_lincls.py`).

    python -m experiments.linear_probe --run=runs/imagenet --config=configs/probe_imagenet.py --workdir=runs/probe

Batch 4096, 90 epochs, cosine, no weight decay, random resized crops of area 0.08 to 1 and flips in training, resize to
256 and centre crop of 224 in validation. Three forms, since paper and code differ:
    (nothing)  LARS at the code's base rate 0.1, trust coefficient 0.001
    :paper     LARS at the paper's base rate 0.02
    :sgd       SGD at base rate 30, batch 256, the rate set once an epoch (MoCo's settings), about a point lower
The paper's 100-epoch ResNet-50 reaches 68.1 %. Not run here: no machine of this project holds ImageNet.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config(form="code"):
    if form not in ("code", "paper", "sgd"):
        raise ValueError(f"probe_imagenet.py:{form}: write :paper, :sgd, or nothing")
    config = ConfigDict()
    config.experiment = {
        "type": "loop.Experiment",
        "paper": "SimSiam, arXiv 2011.10566",
        "group": "probe_imagenet",
        "tags": ("probe", "imagenet", form),
    }
    config.seed = 0
    config.duration = "90 epochs"
    config.log_every = "50 steps"
    config.graft = {"type": "pretrained.Graft", "origin": placeholder(str), "step": placeholder(int)}
    config.data = {
        "type": "data.feed.training",
        "name": "imagenet2012",
        "split": "train",
        "batch_size": 4096,
        "feeding": "stream",
        "crop": {
            "type": "data.stream.HostCrop",
            "size_px": 224,
            "scale": (0.08, 1.0),
            "ratio": (3 / 4, 4 / 3),
            "views": 1,
            "small_images": "enlarged",
        },
        "workers": 16,
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
            "type": "optim.lars",
            "base_learning_rate": 0.1,
            "batch_size": config.data.get_ref("batch_size"),
            "decay_steps": "100 %",
            "momentum": 0.9,
            "weight_decay": 0.0,
            "trust_coefficient": 0.001,
        },
    }
    validation = {
        "type": "data.feed.Evaluation",
        "name": config.data.get_ref("name"),
        "split": "validation",
        "data_dir": config.data.get_ref("data_dir"),
        "size_px": config.data.crop.get_ref("size_px"),
        "class_names": placeholder(tuple),
        "image_shape": placeholder(tuple),
    }
    plain = {"type": "augment.Plain", **colours}
    config.evaluators = {
        "validation": {
            "type": "loop.Every",
            "steps": "100 %",
            "run": {
                "type": "evaluators.classification.Classification",
                "examples": dict(validation),
                "preprocess": dict(plain),
                "name": "validation",
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
    if form == "paper":
        config.method.optimizer.base_learning_rate = 0.02
    if form == "sgd":
        config.data.batch_size = 256
        config.method.optimizer = {
            "type": "optim.sgd",
            "base_learning_rate": 30.0,
            "batch_size": config.data.get_ref("batch_size"),
            "decay_steps": "100 %",
            "hold_steps": "1 epochs",
            "momentum": 0.9,
            "weight_decay": 0.0,
        }
    return config
