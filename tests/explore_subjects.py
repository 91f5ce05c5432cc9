"""For the tests of the exploration: blobs whose clusters, classes, odd ones and copies are known, and a small run."""

import json

import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax import build
from ssl_jax.checkpoint import Policy
from ssl_jax.explore.subject import Subject

PLAIN = {"type": "augment.Plain", "size_px": 12, "mean": (0.1,), "deviation": (0.4,)}
VIEW = {"type": "augment.View", "tone": {"type": "augment.Tone", "noise": 0.2}, "mean": (0.1,), "deviation": (0.4,)}
METHOD = {
    "type": "methods.simsiam.SimSiam",
    "encoder": {"type": "models.convnet.ConvNet", "channels": (4, 6), "strides": (2, 2)},
    "projector": {"type": "models.heads.Projector", "hidden": 8, "output": 8, "layers": 2},
    "predictor": {"type": "models.heads.Predictor", "hidden": 4, "output": 8},
    "optimizer": {"type": "optim.sgd", "base_learning_rate": 0.1, "batch_size": 8, "decay_steps": 10},
}


def blobs(count=120, groups=3, width=6, seed=0, labelled=True, images=True):
    """Rows of `groups` far blobs in turn: row i belongs to blob i % groups; images are noise, no two alike."""
    draw = np.random.default_rng(seed)
    centers = 10 * np.eye(groups, width)
    labels = np.arange(count) % groups
    features = (centers[labels] + draw.normal(size=(count, width)) / 4).astype(np.float32)
    return Subject(
        features=features,
        told="blobs",
        names=tuple(f"image {row}" for row in range(count)),
        labels=labels.astype(np.int32) if labelled else np.full(count, -1, np.int32),
        class_names=tuple("abcdefgh"[:groups]) if labelled else (),
        images=draw.integers(0, 256, (count, 8, 8, 1), dtype=np.uint8) if images else None,
    )


def config_of(**changes):
    """The config of a SimSiam run on digits; `changes` replace its sections, `examples` adds to what is evaluated."""
    examples = {"type": "data.feed.Evaluation", "name": "digits", "split": "test"} | changes.pop("examples", {})
    look = {"type": "loop.Every", "steps": "100 %", "run": {"examples": examples, "preprocess": PLAIN}}
    return {
        "method": METHOD,
        "data": {"type": "data.feed.training", "name": "digits", "batch_size": 8},
        "preprocess": {"type": "augment.TwoViews", "first": VIEW},
        "evaluators": {"test": look},
        **changes,
    }


def run_folder(folder, config=None):
    """The folder of such a run with checkpoints at steps 3 (the best) and 5, in the form that trainings leave."""
    config = config or config_of()
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "summary.json").write_text(json.dumps({"steps_per_epoch": 2, "batch_size": 8, "total_steps": 5}))
    method = build.section(config["method"], "config.method", build.Clock(16, 8, 5))
    keeper = Policy(every=1, best="score").open(folder)
    for step in (3, 5):
        spec = {name: jax.ShapeDtypeStruct((8, 8, 8, 1), jnp.float32) for name in ("view_1", "view_2")}
        state = method.init(jax.random.key(step), spec).replace(step=jnp.int32(step))
        keeper.save(step, state, config=config, scalars={"score": float(step == 3)})
    keeper.close()
    return folder
