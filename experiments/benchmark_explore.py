"""Time and memory of the analyses behind `experiments.explore`, beside scikit-learn's on the same features.

    python -m experiments.benchmark_explore --out=explore.json

Features are --features=FILE.npy, float [n, d], or made up: --rows rows of --width rectified, correlated numbers in ten
overlapping classes, fixed by seed. Every analysis of either side runs twice in a process of its own, which maps the
features from a file: `first_seconds` holds what is compiled or set up once, `seconds` does not. `peak_mb` is the most
memory that the process ever had resident, its libraries and the mapped features included; `before_mb` is what it had
after loading both, so that the difference is what the analysis needs. `cpu_seconds` are those of all threads, which
tell more than `seconds` on a machine that others use. scikit-learn uses all cores. Prints a JSON line an analysis, with
both sides and the largest difference of their results as far as that is one number.
"""

import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np
from absl import flags

FEATURES = flags.DEFINE_string("features", "", "An .npy file with features [n, d]; made up without it.")
ROWS = flags.DEFINE_integer("rows", 50_000, "Rows of the features that are made up.", lower_bound=2)
WIDTH = flags.DEFINE_integer("width", 512, "Their channels.", lower_bound=1)
PARTS = flags.DEFINE_list("parts", [], "Some of the analyses by name; all without it.")
OUT = flags.DEFINE_string("out", "", "A JSON file for all lines.")

COMPONENTS, CLUSTERS, STARTS, NEIGHBOURS = 50, 10, 10, 200


# All imports but the first few are made where they are needed, for the memory of neither side is to hold the other's
# libraries; and ssl_jax.types already imports JAX.
def _ours(part, features):
    """Our analysis as a call that returns arrays and numbers to compare."""
    import jax

    from ssl_jax.analysis import cluster_scores, kmeans, neighbours, pca, spectrum

    jax.block_until_ready(jax.numpy.zeros(1) + 1)
    rows, width = features.shape
    labels = _labels(rows)
    return {
        "pca": lambda: pca.pca(features, min(COMPONENTS, rows, width)).explained_variance_ratio,
        "kmeans_same_start": lambda: _kept(kmeans.fit(features, CLUSTERS, start=features[:CLUSTERS])),
        "kmeans": lambda: _kept(kmeans.fit(features, CLUSTERS, starts=STARTS)),
        "silhouette": lambda: cluster_scores.silhouette(features, labels),
        "neighbours": lambda: neighbours.euclidean(features, features, min(NEIGHBOURS, rows))[1].mean(axis=0),
        "spectrum": lambda: _kept(spectrum.measures(features)),
    }[part]


def _theirs(part, features):
    from sklearn import cluster, decomposition, metrics
    from sklearn import neighbors as nearest

    rows, width = features.shape
    labels = _labels(rows)

    def by_inertia(**settings):
        found = cluster.KMeans(CLUSTERS, algorithm="lloyd", **settings).fit(features)
        return {"inertia": float(found.inertia_), "iterations": int(found.n_iter_)}

    def principal():
        model = decomposition.PCA(min(COMPONENTS, rows, width))
        model.fit_transform(features)
        return model.explained_variance_ratio_

    def neighbours():
        search = nearest.NearestNeighbors(n_neighbors=min(NEIGHBOURS, rows), algorithm="brute").fit(features)
        return search.kneighbors(features)[0].mean(axis=0)

    return {
        "pca": principal,
        "kmeans_same_start": lambda: by_inertia(init=np.array(features[:CLUSTERS]), n_init=1),
        "kmeans": lambda: by_inertia(n_init=STARTS, random_state=0),
        "silhouette": lambda: metrics.silhouette_score(features, labels),
        "neighbours": neighbours,
        "spectrum": lambda: _spectrum(features),
    }[part]


ANALYSES = ("pca", "kmeans_same_start", "kmeans", "silhouette", "neighbours", "spectrum")


def main(arguments):
    """Runs every analysis of both sides and prints a line for each."""
    from experiments import command
    from ssl_jax import log
    from ssl_jax.types import UsageError

    command.refuse_stray_words(arguments)
    unknown = [part for part in PARTS.value if part not in ANALYSES]
    if unknown:
        raise UsageError(f"--parts={unknown[0]}: no such analysis; there are {', '.join(ANALYSES)}")
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(FEATURES.value) if FEATURES.value else pathlib.Path(folder) / "features.npy"
        if not FEATURES.value:
            np.save(file, _made_up(ROWS.value, WIDTH.value))
        if not file.is_file():
            raise UsageError(f"no file {file}")
        lines = [_beside(part, file) for part in (PARTS.value or ANALYSES)]
    if OUT.value:
        path = pathlib.Path(OUT.value)
        with log.writing(path):
            path.write_text(json.dumps({"analyses": lines, **log.environment()}, indent=1) + "\n")


def _beside(part, file):
    from ssl_jax.types import RunError

    line = {"analysis": part}
    for side in ("ours", "sklearn"):
        source = f"from experiments import benchmark_explore as b; b.alone({part!r}, {side!r}, {str(file)!r})"
        done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RunError(f"{part} of {side} ended with {done.returncode}: {done.stderr.strip()[-300:]}")
        line[side] = json.loads(done.stdout.splitlines()[-1])
    ours, theirs = (line[side].pop("result") for side in ("ours", "sklearn"))
    if isinstance(ours, dict):
        line |= {"result": ours, "sklearn_result": theirs}
    else:
        line["largest_difference"] = float(np.max(np.abs(np.subtract(ours, theirs))))
        line["largest_result"] = float(np.max(np.abs(theirs)))
    line["seconds_over_sklearn"] = round(line["ours"]["seconds"] / line["sklearn"]["seconds"], 3)
    print(json.dumps(line), flush=True)
    return line


def alone(part: str, side: str, file: str) -> None:
    """One analysis of one side ("ours" or "sklearn"), twice, on the features in `file`; prints a JSON line."""
    # Mapped, as a large file of features is.
    features = np.load(file, mmap_mode="r", allow_pickle=False).view(np.ndarray)
    shape = [int(length) for length in features.shape]
    work = {"ours": _ours, "sklearn": _theirs}[side](part, features)
    features.sum()
    before, seconds, used = _resident_mb(), [], []
    for _ in range(2):
        began, cpu = time.perf_counter(), time.process_time()
        result = work()
        seconds.append(time.perf_counter() - began)
        used.append(time.process_time() - cpu)
    line = {
        "rows_and_width": shape,
        "seconds": round(seconds[1], 6),
        "first_seconds": round(seconds[0], 6),
        "cpu_seconds": round(used[1], 6),
        "peak_mb": round(_resident_mb()),
        "before_mb": round(before),
        "cores": os.cpu_count(),
        "result": result.tolist() if hasattr(result, "tolist") else result,
    }
    print(json.dumps(line))


def _resident_mb():
    """The most memory that this process had resident."""
    status = pathlib.Path("/proc/self/status")
    if status.is_file():
        # Linux counts what the parent had into ru_maxrss.
        return (
            next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 2**10
        )
    # macOS counts in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _kept(found):
    if isinstance(found, dict):
        return {name: float(value) for name, value in found.items()}
    return {"inertia": found.inertia, "iterations": found.iterations}


def _spectrum(features):
    """The measures that follow from all singular values at once, from numpy's own decomposition."""
    raw = np.linalg.svd(features, compute_uv=False)
    around = np.linalg.svd(features - features.mean(axis=0), compute_uv=False)
    shares = raw / raw.sum() + 1e-7
    return {
        "rank_me": float(np.exp(-np.sum(shares * np.log(shares)))),
        "stable_rank": float(np.sum((raw / raw[0]) ** 2)),
        "condition_number": float(raw[0] / raw[-1]),
        "collapse_auc": float(np.mean(np.cumsum(around)) / around.sum()),
        "nesum": float(np.sum((around / around[0]) ** 2)),
    }


def _labels(rows):
    """Clusters for the silhouette, the classes of the features that are made up."""
    return np.arange(rows) % CLUSTERS


def _made_up(rows, width):
    """Correlated features whose scales fall off, as an encoder's do, in overlapping classes."""
    import jax

    from ssl_jax import rng

    def normal(name, *shape):
        return np.asarray(jax.random.normal(rng.stream(0, name), shape))

    falling = (1 / np.sqrt(1 + np.arange(width))).astype(np.float32)
    mixed = (normal("rows", rows, width) + 0.1 * normal("classes", CLUSTERS, width)[_labels(rows)]) * falling
    return np.maximum(mixed @ normal("mixing", width, width), 0.0)


if __name__ == "__main__":
    from experiments import command

    command.run(main)
