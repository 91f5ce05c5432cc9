"""SimSiam on scikit-learn's handwritten digits: the whole road in two minutes on two CPU cores.

1,797 real 8x8 scans, the last 397 kept for testing. A four-layer convolutional network learns from two random
deformations of each scan and never sees a label; a probe then shows what a few labels are worth with and without it.

    make demo
    python -m experiments.train --config=configs/simsiam_digits.py --workdir=runs/digits

Expect kNN accuracy near 0.98 and, with 1, 3, 10 and all labels a class, about 0.82, 0.93, 0.97 and 0.99, against 0.60,
0.76, 0.85 and 0.91 on raw pixels; see experiments/RESULTS.md.

Three ablations of the paper fail on purpose, `:no_stop_gradient` and `:no_predictor` by collapsing, `:fixed_predictor`
by not converging; experiments.explore says of each which it is.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config(ablation="none"):
    if ablation not in ("none", "no_stop_gradient", "no_predictor", "fixed_predictor"):
        raise ValueError(
            f"simsiam_digits.py:{ablation}: write :no_stop_gradient, :no_predictor, :fixed_predictor, or nothing"
        )
    config = ConfigDict()
    config.experiment = {
        "type": "loop.Experiment",
        "paper": "SimSiam, arXiv 2011.10566",
        "group": "simsiam_digits",
        "tags": ("simsiam", "digits", *([] if ablation == "none" else [ablation])),
    }
    config.seed = 0
    config.duration = "360 epochs"
    config.log_every = "2 epochs"
    config.data = {
        "type": "data.feed.training",
        "name": "digits",
        "split": "train",
        "batch_size": 128,
        "feeding": "auto",
        "data_dir": "",
        "without": (),
    }
    config.preprocess = {
        "type": "augment.TwoViews",
        "first": {
            "type": "augment.View",
            "crop": {
                "type": "augment.Deform",
                "size_px": 12,
                "log_scale": (-0.35, 0.2),
                "shift_px": 1.2,
                "shear": 0.5,
            },
            "tone": {"type": "augment.Tone", "log_gamma": 0.6, "log_gain": 0.4, "noise": 0.08},
            "mean": (0.0,),
            "deviation": (1.0,),
        },
    }
    encoder = ConfigDict(
        {
            "type": "models.convnet.ConvNet",
            "channels": (32, 64, 64, 128),
            "strides": (2, 1, 2, 1),
            "dtype": "float32",
            "norm_groups": 1,
        }
    )
    dtype, norm_groups = encoder.get_ref("dtype"), encoder.get_ref("norm_groups")
    projector = ConfigDict(
        {
            "type": "models.heads.Projector",
            "hidden": 256,
            "output": 256,
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
            "hidden": 64,
            "output": projector.get_ref("output"),
            "dtype": dtype,
            "norm_groups": norm_groups,
        },
        "optimizer": {
            "type": "optim.sgd",
            "base_learning_rate": 0.8,
            "batch_size": config.data.get_ref("batch_size"),
            "decay_steps": "100 %",
            "warmup_steps": "0 epochs",
            "hold_steps": "1 steps",
            "momentum": 0.9,
            "weight_decay": 5e-4,
            "constant_rate": ("predictor",),
            "accumulate_steps": 1,
        },
        "stop_gradient": ablation != "no_stop_gradient",
    }
    if ablation == "fixed_predictor":
        config.method.train_predictor = False
    if ablation == "no_predictor":
        config.method.predictor = {"type": "models.heads.NoPredictor"}
        config.method.optimizer.constant_rate = ()
    train = {
        "type": "data.feed.Evaluation",
        "name": config.data.get_ref("name"),
        "split": "train",
        "data_dir": config.data.get_ref("data_dir"),
    }
    test = {**train, "split": "test"}
    plain = {"type": "augment.Plain", "size_px": 12, "mean": (0.0,), "deviation": (1.0,)}
    config.evaluators = {
        "knn": {
            "type": "loop.Every",
            "steps": "30 epochs",
            "run": {"type": "evaluators.knn.KNN", "train": dict(train), "test": dict(test), "preprocess": dict(plain)},
        },
        # The best checkpoint is chosen on training images, so that the test set chooses nothing.
        "validation": {
            "type": "loop.Every",
            "steps": "30 epochs",
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
            "steps": "30 epochs",
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
                "neighbours": 5,
            },
        },
    }
    config.checkpoint = {
        "type": "checkpoint.Policy",
        "every": "30 epochs",
        "keep_latest": 2,
        "best": "eval/validation/accuracy_cosine_10",
    }
    config.writers = {
        "console": {"type": "writers.console.Console"},
        "files": {"type": "writers.files.Files"},
        "page": {"type": "writers.page.Page"},
    }
    config.mesh = {"type": "mesh.data_parallel", "devices": placeholder(int), "shards": 1}
    return config
