"""A trained classifier as one function, made from its run folder and nothing else."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax import build, checkpoint, mesh, pretrained, trainer
from ssl_jax.types import TrainState, UsageError


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A run's network with the way its images were prepared.

    Attributes:
        class_names: in the order of the probabilities.
        image_shape: height, width (None: any) and channels of the images it was trained on.
        step: of the checkpoint.
        probabilities: uint8 [b, h, w, c] to float32 [b, k].
        frame: a picture of any size, uint8 [h, w, c], at the size that the evaluation gave the network.
    """

    class_names: tuple[str, ...]
    image_shape: tuple[int | None, ...]
    step: int
    probabilities: Callable[[np.ndarray], np.ndarray]
    frame: Callable[[np.ndarray], np.ndarray]


def load(folder: pathlib.Path, *, which: Literal["last", "best"] = "last") -> Classifier:
    """The classifier that a run of `methods.classify` trained; of a run of self-training, its last round's.

    Images are prepared as its first evaluator of classification prepared them.

    Raises:
        UsageError: for a folder that is no run, or a run that is no classifier.
        RunError: for damaged checkpoints.
    """
    config = build.normalised(pretrained.run_config(folder))
    if "self_training" in config:
        folder = folder / f"round_{config['self_training']['rounds']}"
    looked = [item["run"] for item in config["evaluators"].values()] if "evaluators" in config else []
    looks = [run for run in looked if run["type"] == "evaluators.classification.Classification"]
    if "class_names" not in config["data"]:
        raise UsageError(
            f"{folder} is no classifier's run ({config['method']['type']}): give the --workdir of linear_probe, "
            "finetune or pseudo_label"
        )
    if not looks:
        raise UsageError(
            f"{folder} has no evaluator of classification, whose preparation of images is needed: a grid of probes "
            "keeps no classifier, so give a run of linear_probe without :fast, of finetune or pseudo_label"
        )
    params, stats, step = checkpoint.restore_networks(folder, None, which=which)
    method = build.section(config["method"], "config.method", build.clock_of(folder))
    preprocess = build.section(looks[0]["preprocess"], "config.preprocess")
    devices = mesh.data_parallel()
    logits = trainer.compiled_exports(method, devices)["logits"]
    state = TrainState(step=jnp.int32(step), params=params, stats=stats, opt={}, memory={})
    state = jax.device_put(state, mesh.replicated(devices))

    def probabilities(images: np.ndarray) -> np.ndarray:
        return np.asarray(jax.nn.softmax(logits(state, images, preprocess), axis=-1))

    examples, image_shape = looks[0]["examples"], config["data"]["image_shape"]
    size_px = examples["size_px"] if "size_px" in examples else None

    def frame(picture: np.ndarray) -> np.ndarray:
        # Only here, because a bare accelerator machine has no OpenCV, and self-training needs none.
        from ssl_jax.data import transforms

        if size_px is not None:
            return transforms.evaluation_crop(picture, size_px)
        return transforms.cover(picture, *image_shape[:2])

    return Classifier(
        class_names=config["data"]["class_names"],
        image_shape=image_shape,
        step=step,
        probabilities=probabilities,
        frame=frame,
    )
