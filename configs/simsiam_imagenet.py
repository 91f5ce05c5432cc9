"""SimSiam on ImageNet exactly as published: 100 epochs of a ResNet-50 (arXiv 2011.10566, section 4 and appendix A).

    python -m experiments.prepare --tfds=imagenet2012 --archives=DIR
    python -m experiments.train --config=configs/simsiam_imagenet.py --workdir=runs/imagenet

The paper reports 68.1 % by linear evaluation with a batch of 512 and a constant predictor rate (table 1), and the
authors' code the same. Photographs vary in size: the two random resized crops are made on the host, as torchvision's,
and everything after them on the device. Meant for eight GPUs (the authors' eight V100 take about a day), in bfloat16
with --config.method.encoder.dtype=bfloat16. This project has not run it.

As in the authors' code, the rate changes once an epoch, the predictor's never, and blur has probability 0.5. The kNN
evaluation uses a tenth of the training set.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config():
    config = ConfigDict()
    config.experiment = {
        "type": "loop.Experiment",
        "paper": "SimSiam, arXiv 2011.10566",
        "group": "simsiam_imagenet",
        "tags": ("simsiam", "imagenet"),
    }
    config.seed = 0
    config.duration = "100 epochs"
    config.log_every = "50 steps"
    config.data = {
        "type": "data.feed.training",
        "name": "imagenet2012",
        "split": "train",
        "batch_size": 512,
        "feeding": "stream",
        "crop": {
            "type": "data.stream.HostCrop",
            "small_images": "enlarged",
            "size_px": 224,
            "scale": (0.2, 1.0),
            "ratio": (3 / 4, 4 / 3),
        },
        "workers": 16,
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
            "blur": {"type": "augment.Blur", "sigma": (0.1, 2.0), "probability": 0.5},
            "flip": {"type": "augment.Flip", "probability": 0.5},
            "mean": (0.485, 0.456, 0.406),
            "deviation": (0.229, 0.224, 0.225),
        },
    }
    encoder = ConfigDict(
        {
            "type": "models.resnet.ResNet",
            "depth": 50,
            "stem": "imagenet",
            "width_multiplier": 1.0,
            "dtype": "float32",
            "norm_groups": 1,
        }
    )
    dtype, norm_groups = encoder.get_ref("dtype"), encoder.get_ref("norm_groups")
    projector = ConfigDict(
        {
            "type": "models.heads.Projector",
            "hidden": 2048,
            "output": 2048,
            "layers": 3,
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
            "hidden": 512,
            "output": projector.get_ref("output"),
            "dtype": dtype,
            "norm_groups": norm_groups,
        },
        "optimizer": {
            "type": "optim.sgd",
            "base_learning_rate": 0.05,
            "batch_size": config.data.get_ref("batch_size"),
            "decay_steps": "100 %",
            "hold_steps": "1 epochs",
            "warmup_steps": "0 epochs",
            "momentum": 0.9,
            "weight_decay": 1e-4,
            "constant_rate": ("predictor",),
            "accumulate_steps": 1,
        },
        "stop_gradient": True,
    }
    train = {
        "type": "data.feed.Evaluation",
        "name": config.data.get_ref("name"),
        "split": "train[:10%]",
        "size_px": 224,
        "data_dir": config.data.get_ref("data_dir"),
    }
    test = {**train, "split": "validation"}
    plain = {"type": "augment.Plain", "mean": (0.485, 0.456, 0.406), "deviation": (0.229, 0.224, 0.225)}
    config.evaluators = {
        "knn": {
            "type": "loop.Every",
            "steps": "10 epochs",
            "run": {"type": "evaluators.knn.KNN", "train": dict(train), "test": dict(test), "preprocess": dict(plain)},
        },
        # The best checkpoint is chosen on training images, so that the test set chooses nothing.
        "validation": {
            "type": "loop.Every",
            "steps": "10 epochs",
            "run": {
                "type": "evaluators.knn.KNN",
                "train": {**train, "split": "train[:9%]"},
                "test": {**train, "split": "train[9%:10%]"},
                "preprocess": dict(plain),
                "gallery": 0,
            },
        },
        "collapse": {
            "type": "loop.Every",
            "steps": "1 epochs",
            "run": {"type": "evaluators.collapse.Collapse", "examples": dict(train), "preprocess": dict(plain)},
        },
    }
    config.checkpoint = {
        "type": "checkpoint.Policy",
        "every": "10 epochs",
        "keep_latest": 2,
        "best": "eval/validation/accuracy_weighted_200",
    }
    config.writers = {
        "console": {"type": "writers.console.Console"},
        "files": {"type": "writers.files.Files"},
        "page": {"type": "writers.page.Page"},
    }
    config.mesh = {"type": "mesh.data_parallel", "devices": placeholder(int), "shards": 1}
    return config
