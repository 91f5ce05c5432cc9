"""CycleGAN between handwritten digits as they are and others in another look, whose true translations are known.

    python -m experiments.train --config=configs/cyclegan_digits.py --workdir=runs/cyclegan_digits

Domain A: 700 scans, white on black. Domain B: 700 other scans through a fixed map, blurred, inverted and in colours
over a diagonal ground. No scan is in both, so no pair is ever trained on; the 397 test scans have both looks, so every
translation can be held against the truth (arXiv 1703.10593, here with a small network for 16x16 images). Two minutes
on two CPU cores; what it reaches, and how often, is in experiments/RESULTS.md.

`:identity` is the same run with the published weight of the identity loss, which rewards tones that stay as they are:
here, where dark must become light, it turns figure into ground and never comes back, and the run says so. `:judged`
also asks classifiers of either domain which digits they read:

    python -m experiments.train --config=configs/classify_digit_domains.py:a --workdir=runs/classify_digits_a
    python -m experiments.train --config=configs/classify_digit_domains.py:b --workdir=runs/classify_digits_b
    python -m experiments.train --config=configs/cyclegan_digits.py:judged --workdir=runs/cyclegan_digits
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config(form="plain"):
    if form not in ("plain", "identity", "judged"):
        raise ValueError(f"cyclegan_digits.py:{form}: write :identity, :judged, or nothing")
    config = ConfigDict()
    config.experiment = {
        "type": "loop.Experiment",
        "paper": "CycleGAN, arXiv 1703.10593",
        "group": "cyclegan_digits",
        "tags": ("cyclegan", "digits", form),
    }
    config.seed = 0
    config.duration = "2000 steps"
    config.log_every = "2 %"
    config.data = {
        "type": "data.unpaired.training",
        "name_a": "digit_domains",
        "split_a": "trainA",
        "name_b": "digit_domains",
        "split_b": "trainB",
        "batch_size": 16,
        "data_dir": "",
    }
    config.preprocess = {"type": "augment.Unpaired", "a": {"type": "augment.View"}}
    adam = {
        "type": "optim.scheduled_adam",
        "learning_rate": {
            "type": "schedules.Linear",
            "start": 5e-4,
            "end": 0.0,
            "steps": "100 %",
            "hold_steps": "50 %",
        },
        "b1": 0.5,
        "b2": 0.999,
    }
    config.method = {
        "type": "methods.cyclegan.CycleGAN",
        "generator": {
            "type": "models.cyclegan.ResNetGenerator",
            "width": 24,
            "blocks": 1,
            "halvings": 1,
            "outer_px": 3,
            "upsampling": "resize",
            "border": "reflect",
            "dtype": "float32",
        },
        "discriminator": {"type": "models.cyclegan.PatchGAN", "width": 32, "strides": 1, "dtype": "float32"},
        "generator_optimizer": dict(adam),
        "discriminator_optimizer": dict(adam),
        "loss": "least_squares",
        "cycle_a": 10.0,
        "cycle_b": 10.0,
        "identity": 0.5 if form == "identity" else 0.0,
        "pool": {"type": "image_pool.ImagePool", "size": 50, "pools": 1},
        "channels_a": 3,
        "channels_b": 3,
    }
    test = {"type": "data.unpaired.Test", "data_dir": config.data.get_ref("data_dir")}
    plain = {"type": "augment.Plain"}
    pairs = {
        "type": "data.unpaired.Pairs",
        "name_a": config.data.get_ref("name_a"),
        "split_a": "testA",
        "name_b": config.data.get_ref("name_b"),
        "split_b": "testB",
        "data_dir": config.data.get_ref("data_dir"),
    }
    counterpart = {"type": "evaluators.counterpart.Counterpart", "pairs": pairs, "preprocess": dict(plain)}
    if form == "judged":
        for domain in "ab":
            counterpart[f"reader_{domain}"] = {
                "type": "extractors.Encoder",
                "origin": f"runs/classify_digits_{domain}",
                "checkpoint": "last",
            }
    config.evaluators = {
        "translation": {
            "type": "loop.Every",
            "steps": "5 %",
            "run": {
                "type": "evaluators.translation.Translation",
                "a": {**test, "name": config.data.get_ref("name_a"), "split": "testA"},
                "b": {**test, "name": config.data.get_ref("name_b"), "split": "testB"},
                "preprocess": dict(plain),
                "images": 128,
                "grid": 10,
                "alarms_after": "15 %",
                # White on black becomes dark on light: here the negative is the right translation.
                "polarity": "opposite",
            },
        },
        "counterpart": {"type": "loop.Every", "steps": "10 %", "run": counterpart},
    }
    config.checkpoint = {"type": "checkpoint.Policy", "every": "10 %", "keep_latest": 2}
    config.writers = {
        "console": {"type": "writers.console.Console"},
        "files": {"type": "writers.files.Files"},
        "page": {"type": "writers.page.Page"},
    }
    config.mesh = {"type": "mesh.data_parallel", "devices": placeholder(int), "shards": 1}
    return config
