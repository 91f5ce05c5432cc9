"""Run folders of CycleGAN as a training leaves them, without the training, for tests of what translates."""

import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp

from ssl_jax import build, checkpoint
from ssl_jax.methods import cyclegan
from ssl_jax.types import TrainState

RESNET = {"type": "models.cyclegan.ResNetGenerator", "width": 2, "blocks": 1, "deviation": 0.3}
UNET = {"type": "models.cyclegan.UNetGenerator", "width": 2, "halvings": 3, "deviation": 0.3}


def method_section(generator: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A small method's config section."""
    adam = {"type": "optim.scheduled_adam", "learning_rate": 2e-4, "b1": 0.5, "b2": 0.999}
    return {
        "type": "methods.cyclegan.CycleGAN",
        "generator": generator,
        "discriminator": {"type": "models.cyclegan.PatchGAN", "width": 2, "strides": 1},
        "generator_optimizer": adam,
        "discriminator_optimizer": adam,
        **more,
    }


def write_run(folder: pathlib.Path, section: dict[str, Any]) -> tuple[cyclegan.CycleGAN, TrainState]:
    """A run's folder as training leaves it: config, summary and the state of step 7, its numbers all different."""
    folder.mkdir()
    config = {"method": section, "preprocess": {}}
    (folder / "config.json").write_text(json.dumps(config))
    clock = {"steps_per_epoch": 5, "batch_size": 2, "total_steps": 10}
    (folder / "summary.json").write_text(json.dumps(clock))
    method = build.section(section, "config.method", build.clock_of(folder))
    spec = {
        name: jax.ShapeDtypeStruct((2, 16, 16, channels), jnp.float32)
        for name, channels in (("image_a", method.channels_a), ("image_b", method.channels_b))
    }
    state = jax.jit(lambda: method.init(jax.random.key(3), spec))()
    moved = {
        name: jax.tree.map(lambda leaf, place=place: leaf + 0.01 * place, tree)
        for place, (name, tree) in enumerate(sorted(state.params.items()))
    }
    state = state.replace(params=moved, step=jnp.int32(7))
    saved = checkpoint.Policy(every=1).open(folder)
    saved.save(7, state, config=config)
    saved.close()
    return method, state


def write_both(folder: pathlib.Path) -> dict[str, tuple[cyclegan.CycleGAN, TrainState]]:
    """Runs "colour" (averaged) and "grey" (grey to colour, a U-Net) in a folder; each one's method and state."""
    average = {"type": "moving_average.MovingAverage", "half_life": "1 epochs"}
    sections = {
        "colour": method_section(RESNET, average=average),
        "grey": method_section(UNET, channels_a=1, identity=0),
    }
    return {name: write_run(folder / name, section) for name, section in sections.items()}
