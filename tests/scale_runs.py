"""Trainings of every method and feed in one process or as one of several, for the tests that compare the two.

    python -m tests.scale_runs JOBS FOLDER STEPS [PROCESSES PROCESS PORT]

A job is NAME=PLACE or NAME:SHARDS=PLACE, a run of that name in FOLDER/PLACE; several are joined by commas.
"""

import pathlib
import socket
import subprocess
import sys

from ssl_jax import build, loop, mesh
from tests import gan_runs, runs, test_cyclegan_resume


def config_of(name: str, data_dir: pathlib.Path, encoder: pathlib.Path, steps: int) -> dict:
    """The config of one run, such as "gan" or "gan_stream"; all but "simsiam_stream" with evaluators and writers."""
    method, _, feed = name.partition("_")
    form = feed or "resident"
    text, given = {
        "simsiam": (runs.CONFIG, ()),
        "gan": (gan_runs.CONFIG, ()),
        "cyclegan": (test_cyclegan_resume.CONFIG, (form,)),
    }[method]
    settings = {"steps": 100, "pool": test_cyclegan_resume.POOL, "rate": test_cyclegan_resume.RATE}
    scope = {}
    exec(text.format(data_dir=data_dir, **settings), scope)
    config = scope["get_config"](*given).to_dict()
    # Under seed 0 an input of a ReLU comes within rounding of 0 at step 4, and any two programs part there.
    config |= {"duration": steps, "log_every": 1, "seed": 1}
    config["data"]["feeding"] = form
    config["checkpoint"]["every"] = 5
    if method == "cyclegan":
        # What takes long to compile and is compared elsewhere stays out; the pools are those of two processes.
        config["method"] |= {"regularizer": None, "augment": None, "average": None}
        config["method"]["pool"] |= {"size": 2, "pools": 2}
    if name != "simsiam_stream":
        config["evaluators"] = _evaluators(method, data_dir, encoder)
        config["writers"]["console"] = {"type": "writers.console.Console"}
        config["writers"]["page"] = {"type": "writers.page.Page"}
    return config


def _evaluators(method, data_dir, encoder):
    train = {"type": "data.feed.Evaluation", "name": "digits", "split": "train[:20%]", "data_dir": str(data_dir)}
    test = {**train, "split": "test[:20%]"}
    plain = {"type": "augment.Plain", "mean": (0.5,), "deviation": (0.5,)}
    both = {"train": dict(train), "test": dict(test), "preprocess": dict(plain)}
    domains = {
        side: {"type": "data.unpaired.Test", "name": "digit_domains", "split": f"test{side.upper()}"} for side in "ab"
    }
    judged = {"type": "extractors.Encoder", "origin": str(encoder), "checkpoint": "last"}
    found = {
        "simsiam": {
            "knn": {"type": "evaluators.knn.KNN", **both, "gallery": 3},
            "collapse": {"type": "evaluators.collapse.Collapse", "examples": dict(train), "preprocess": dict(plain)},
            "probe": {
                "type": "evaluators.linear.LinearProbe",
                **both,
                "draws": 1,
                "labels_per_class": (3,),
                "penalties": (0.1,),
                "map_examples": 20,
                "neighbours": 2,
            },
        },
        "gan": {
            "samples": {
                "type": "evaluators.samples.Samples",
                "real": dict(train),
                "held_out": dict(test),
                "preprocess": dict(plain),
                "images": 60,
                "grid": 9,
                "columns": 3,
            },
            "distances": {
                "type": "evaluators.distance.Distance",
                "reference": {"type": "reference.Reference", "examples": dict(test), "extractor": judged},
                "samples": 70,
                "subset_size": 20,
            },
        },
        "cyclegan": {
            "translation": {
                "type": "evaluators.translation.Translation",
                **{side: {**domain, "data_dir": str(data_dir)} for side, domain in domains.items()},
                "preprocess": {"type": "augment.Plain"},
                "images": 16,
                "grid": 3,
            },
        },
    }[method]
    return {name: {"type": "loop.Every", "steps": "100 %", "run": run} for name, run in found.items()}


def is_free(name: str) -> bool:
    """Whether an array is a bias before a norm, or its moments: nothing holds it, so rounding alone moves it."""
    return test_cyclegan_resume.is_free(name)


def main(jobs, folder, steps, processes="1", process="0", port="0"):
    """Trains; every process is given the same but for its number."""
    folder = pathlib.Path(folder)
    with mesh.together():
        if int(processes) > 1:
            mesh.join_processes(f"127.0.0.1:{port}", int(processes), int(process))
        for job in jobs.split(","):
            name, _, place = job.partition("=")
            name, _, shards = name.partition(":")
            # The judge of distances is the same in all runs, so that these differ in the samples alone.
            config = config_of(name, folder / "data", folder / "alone" / "simsiam", int(steps))
            config["mesh"]["shards"] = int(shards or 1)
            config = build.normalised(config)
            built = build.arguments(loop.fit, config, given=("folder", "config"))
            loop.fit(folder=folder / place, config=config, **built)


def start(jobs, folder, steps, processes, env) -> list[subprocess.Popen]:
    """Starts a training of `jobs`, run by run, in so many processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "tests.scale_runs", ",".join(jobs), folder, steps, processes]
    return [
        subprocess.Popen(
            [str(word) for word in (*words, process, port)],
            env=env,
            cwd=runs.REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(processes)
    ]


def finish(children: list[subprocess.Popen]) -> list[tuple[str, str]]:
    """What each printed, and what it said on its error stream, once all have ended well."""
    said = [child.communicate(timeout=300) for child in children]
    assert [child.returncode for child in children] == [0] * len(children), said
    return said


if __name__ == "__main__":
    main(*sys.argv[1:])
