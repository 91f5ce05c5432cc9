"""Run folders written as files, for the tests of what reads them."""

import json


def config(**changes):
    """A small config; `changes` replace or add keys of its section `method`, and `seed`."""
    seed = changes.pop("seed", 0)
    optimizer = {"type": "optim.sgd", "base_learning_rate": 0.5, "constant_rate": ["predictor"]}
    return {
        "seed": seed,
        "duration": "20 steps",
        "data": {"type": "data.feed.training", "name": "digits", "split": "train"},
        "method": {"type": "methods.simsiam.SimSiam", "optimizer": optimizer, **changes},
    }


def lines(accuracies, *, seconds_a_step=2.0):
    """A line of training and one of evaluation every tenth step, 10 steps an epoch."""
    found = []
    for place, accuracy in enumerate(accuracies, start=1):
        counts = {
            "step": 10 * place,
            "epoch": float(place),
            "images": 320 * place,
            "seconds": seconds_a_step * 10 * place,
        }
        found.append({**counts, "train/loss": -0.1 * place})
        found.append({**counts, "eval/knn/accuracy": accuracy, "eval/knn/error": 1 - accuracy})
    return found


def summary(accuracies, *, total_steps, finished=True):
    """What the writer `files` says of `lines(accuracies)`."""
    best = max(accuracies)
    at = 10 * (accuracies.index(best) + 1)
    return {
        "finished": finished,
        "step": 10 * len(accuracies),
        "total_steps": total_steps,
        "steps_per_epoch": 10,
        "batch_size": 32,
        "wall_seconds": 20.0 * len(accuracies) + 4.5,
        "seed": 7,
        "devices": 2,
        "device_kind": "TPU v4",
        "commit": "0123456789abcdef-dirty",
        "alarms": [],
        "last": {"train/loss": -0.1 * len(accuracies), "eval/knn/accuracy": accuracies[-1]},
        "best": {
            "eval/knn/accuracy": {"value": best, "step": at},
            "eval/knn/error": {"value": 1 - best, "step": at},
        },
    }


def write(folder, *, config, lines=(), summary=None):
    """Puts the three files into `folder` and returns it."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    if lines:
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if summary is not None:
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def two(place):
    """A finished run and one that was killed in the middle of its fifth line, which lead in nothing at its end."""
    first = [0.5, 0.9]
    one = write(place / "first", config=config(seed=7), lines=lines(first), summary=summary(first, total_steps=20))
    second = [0.7, 0.6]
    other = write(
        place / "second",
        config=config(optimizer={"type": "optim.sgd", "base_learning_rate": 1.0}, note="50% of <b>_x_</b>"),
        lines=lines(second, seconds_a_step=4.0),
        summary=summary(second, total_steps=40, finished=False),
    )
    with (other / "metrics.jsonl").open("a") as file:
        file.write('{"step": 30, "epoch": 3.0, "train/lo')
    return one, other
