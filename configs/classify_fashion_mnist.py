"""A classifier of Fashion-MNIST, trained from scratch with all labels in five minutes on two CPU cores.

    python -m experiments.prepare --tfds=fashion_mnist
    python -m experiments.train --config=configs/classify_fashion_mnist.py --workdir=runs/classify_fashion_mnist

It is there to judge generators: `experiments.measure --encoder=runs/classify_fashion_mnist` compares generated garments
with real ones by what this network sees in them. The last tenth of the training images chooses the best checkpoint and
trains nothing; what to expect is in experiments/RESULTS.md.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config():
    config = ConfigDict()
    config.experiment = {
        "type": "loop.Experiment",
        "paper": "",
        "group": "classify_fashion_mnist",
        "tags": ("classify", "fashion_mnist"),
    }
    config.seed = 0
    config.duration = "6 epochs"
    config.log_every = "50 steps"
    config.data = {
        "type": "data.feed.training",
        "name": "fashion_mnist",
        "split": "train[:90%]",
        "batch_size": 128,
        "feeding": "auto",
        "data_dir": "",
        "class_names": (
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
        "image_shape": (28, 28, 1),
    }
    config.preprocess = {
        "type": "augment.Labelled",
        "view": {
            "type": "augment.View",
            "crop": {"type": "augment.PadCrop", "padding_px": 2},
            "flip": {"type": "augment.Flip", "probability": 0.5},
            "mean": (0.286,),
            "deviation": (0.353,),
        },
    }
    config.method = {
        "type": "methods.classify.Classify",
        "train": "all",
        "encoder_rate": 1.0,
        "batch_norm": "batch",
        "encoder": {
            "type": "models.convnet.ConvNet",
            "channels": (32, 32, 64, 64, 128),
            "strides": (2, 1, 2, 1, 1),
            "dtype": "float32",
        },
        "head": {"type": "models.heads.Classifier", "classes": 10, "norm": "none"},
        "optimizer": {
            "type": "optim.sgd",
            "base_learning_rate": 0.2,
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
    plain = {"type": "augment.Plain", "mean": (0.286,), "deviation": (0.353,)}
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
            "steps": "1 epochs",
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
