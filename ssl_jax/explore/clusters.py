"""Groups that the features fall into: three ways to find them, and how good they are."""

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from ssl_jax import figures
from ssl_jax.analysis import cluster_scores, kmeans, pca
from ssl_jax.explore import blocks, naming
from ssl_jax.explore.subject import Part, Subject, as_csv, evenly
from ssl_jax.types import UsageError

_CHOICE_ROWS = 5000
_DENSITY_COMPONENTS = 20
_MOST_DENSITY_ROWS = 20_000
_SHOWN = 8


@dataclasses.dataclass(frozen=True, eq=False)
class Clusters:
    """Every image's group.

    Attributes:
        by_way: int32 [n] by way (`kmeans`, `gaussian_mixture`, `hdbscan`), from 0, the largest group first; -1 for
            what HDBSCAN calls noise.
        centers: float32 [k, d], of k-means.
        silhouettes: float32 [n], of k-means.
        tried: the silhouette by number of clusters where the number was chosen; {} where it was given.
        not_made: what could not be made, by way, in words.
    """

    by_way: Mapping[str, np.ndarray]
    centers: np.ndarray
    silhouettes: np.ndarray
    tried: Mapping[int, float]
    not_made: Mapping[str, str]

    @property
    def count(self) -> int:
        """The number of clusters of k-means."""
        return len(self.centers)


def find(subject: Subject, *, count: int = 0, most: int = 15, seed: int = 0) -> Clusters:
    """Groups the features by k-means, a Gaussian mixture and HDBSCAN.

    k-means (ten starts) runs on the features as they are; without a count it is the number from 2 to `most` of largest
    mean silhouette, on 5,000 images evenly spread where there are more. The mixture (full covariances, started from
    k-means, as many components) and HDBSCAN (at least a hundredth of the images, and 5, in a group) run on the first 20
    principal components, for both fail in many dimensions.

    Raises:
        UsageError: for features that do not vary, or more clusters than images.
    """
    subject.refuse_constant()
    features = subject.features
    if count and not 2 <= count < len(features):
        raise UsageError(
            f"{count} clusters of {len(features):,} images: ask for 2 to {len(features) - 1:,} with --clusters"
        )
    tried = {} if count else _silhouettes(features[evenly(len(features), _CHOICE_ROWS)], most, seed)
    count = count or max(tried, key=tried.__getitem__)
    found = kmeans.fit(features, count, seed=seed)
    members = np.bincount(found.labels, minlength=count)
    order = np.argsort(-members, kind="stable")
    groups = np.argsort(order)[found.labels].astype(np.int32)
    # Rows that differ by rounding alone may leave a cluster empty.
    centers = np.asarray(found.centers)[order[: np.count_nonzero(members)]]
    few = pca.pca(features, min(_DENSITY_COMPONENTS, *features.shape)).projected
    by_way, not_made = {"kmeans": groups}, {}
    if len(centers) < 2:
        raise UsageError(f"the {len(features):,} images are the same to rounding: there are no clusters to tell apart")
    for way, grouped in (("gaussian_mixture", _mixture(few, groups, seed)), ("hdbscan", _hdbscan(few))):
        if isinstance(grouped, str):
            not_made[way] = grouped
        else:
            by_way[way] = _largest_first(grouped)
    return Clusters(by_way, centers, cluster_scores.silhouette_samples(features, groups), tried, not_made)


def part(subject: Subject, clusters: Clusters, given: list[str] | None = None) -> Part:
    """Scores of each way, the images in the midst and at the edge of every cluster, and two CSV files.

    Metrics: by way `clusters`, `noise` (the share in no cluster), `silhouette`, `davies_bouldin`, `calinski_harabasz`
    over what is in one, and with labels of two classes or more `nmi`, `ari` and `matched_accuracy` over labelled
    images, noise counting as one more cluster; None where a score is not defined; `silhouette_by_count` where the
    number was chosen.
    """
    given = given or [""] * clusters.count
    scores = {way: _scores(subject, groups) for way, groups in clusters.by_way.items()}
    central = central_rows(subject, clusters)
    columns = list(next(iter(scores.values())))
    html = blocks.table(
        ["", *(column.replace("_", " ") for column in columns)],
        [[way.replace("_", " "), *found.values()] for way, found in scores.items()],
        "Silhouette and Calinski-Harabasz are better when larger, Davies-Bouldin when smaller; all three by the "
        "features alone. NMI, ARI and matched accuracy compare with the classes, which no clustering saw.",
    )
    files: dict[str, str | bytes] = {}
    if clusters.tried:
        counts = np.array(list(clusters.tried))
        drawn = figures.lines(
            {"mean silhouette": (counts, np.array(list(clusters.tried.values())))},
            label="Mean silhouette against the number of clusters",
            x_label="clusters",
            y_label="silhouette",
        )
        html += blocks.panel(drawn, f"{clusters.count} clusters have the largest mean silhouette of those tried.")
        files["silhouettes.png"] = drawn.png
    if subject.images is not None:
        figure, picture = _sheets(subject, clusters, central, given)
        html += figure
        files["clusters.png"] = picture
    html += "".join(f'<p class="soft">{blocks.text(sentence)}</p>' for sentence in clusters.not_made.values())
    html += (
        f'<p class="soft">To name clusters, fill in the column <code>name</code> of <code>{naming.NAMES_FILE}</code> '
        f"and give the file back with <code>--names={naming.NAMES_FILE}</code>: each image gets its cluster's name.</p>"
    )
    files["clusters.csv"] = _images_csv(subject, clusters, given)
    files[naming.NAMES_FILE] = naming.to_fill_in(subject, central, given)
    metrics: dict[str, Any] = dict(scores)
    if clusters.tried:
        metrics["silhouette_by_count"] = {str(count): value for count, value in clusters.tried.items()}
    best = scores["kmeans"]
    line = f"clusters: {clusters.count} by k-means, silhouette {best['silhouette']:.3f}"
    if best.get("nmi") is not None:
        line += f", NMI {best['nmi']:.3f}, ARI {best['ari']:.3f}, matched accuracy {best['matched_accuracy']:.3f}"
    return Part(html, files, metrics, (line, *clusters.not_made.values()))


def _silhouettes(features: np.ndarray, most: int, seed: int) -> dict[int, float]:
    found = {}
    distinct = len(np.unique(features, axis=0))
    for count in range(2, min(most, distinct - 1) + 1):
        found[count] = cluster_scores.silhouette(features, kmeans.fit(features, count, seed=seed).labels)
    if not found:
        raise UsageError(f"{distinct} different images make no 2 clusters with more than one image: give more")
    return found


def _mixture(features: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray | str:
    import sklearn.exceptions
    import sklearn.mixture

    count = int(groups.max()) + 1
    members = np.bincount(groups, minlength=count)
    means = np.stack([features[groups == group].mean(axis=0) for group in range(count)])
    mixture = sklearn.mixture.GaussianMixture(
        count,
        means_init=means,
        weights_init=members / members.sum(),
        # A thousandth of the mean variance keeps a small component from collapsing onto a plane.
        reg_covar=float(1e-3 * features.var(axis=0).mean()),
        random_state=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sklearn.exceptions.ConvergenceWarning)
        try:
            return mixture.fit_predict(features.astype(np.float64))
        except ValueError as error:
            return f"No Gaussian mixture: {' '.join(str(error).split())[:200]}"


def _hdbscan(features: np.ndarray) -> np.ndarray | str:
    import sklearn.cluster

    if len(features) > _MOST_DENSITY_ROWS:
        return f"No HDBSCAN of more than {_MOST_DENSITY_ROWS:,} images, for its time grows with their square."
    least = max(5, len(features) // 100)
    if len(features) < 2 * least:
        return f"No HDBSCAN: it wants {2 * least} images for two groups, and there are {len(features)}."
    found = sklearn.cluster.HDBSCAN(min_cluster_size=least, n_jobs=-1, copy=True).fit_predict(features)
    return found if found.max() >= 0 else "HDBSCAN found no group: the features lie in one cloud."


def _largest_first(groups: np.ndarray) -> np.ndarray:
    """The same groups from 0 on by size, none left empty; -1 stays."""
    known, members = np.unique(groups[groups >= 0], return_counts=True)
    order = known[np.argsort(-members, kind="stable")]
    renamed = np.full(int(groups.max()) + 2, -1, np.int32)
    renamed[order] = np.arange(len(order))
    return renamed[groups]


def _scores(subject: Subject, groups: np.ndarray) -> dict[str, Any]:
    inside = groups >= 0
    found: dict[str, Any] = {"clusters": int(groups.max()) + 1, "noise": float(np.mean(~inside))}
    for name in ("silhouette", "davies_bouldin", "calinski_harabasz"):
        defined = 2 <= found["clusters"] < inside.sum()
        score = getattr(cluster_scores, name)
        found[name] = float(score(subject.features[inside], groups[inside])) if defined else None
    known = subject.labels >= 0
    if subject.labelled and len(np.unique(subject.labels[known])) > 1:
        for name, score in (
            ("nmi", cluster_scores.normalised_mutual_information),
            ("ari", cluster_scores.adjusted_rand_index),
            ("matched_accuracy", cluster_scores.matched_accuracy),
        ):
            found[name] = float(score(subject.labels[known], groups[known]))
    return found


def central_rows(subject: Subject, clusters: Clusters) -> list[np.ndarray]:
    """The rows of each cluster, the nearest to its centre first."""
    found = []
    for group, center in enumerate(clusters.centers):
        rows = np.flatnonzero(clusters.by_way["kmeans"] == group)
        distances = np.linalg.norm(subject.features[rows] - center, axis=1)
        found.append(rows[np.argsort(distances, kind="stable")])
    return found


def _sheets(subject, clusters, central, given) -> tuple[str, bytes]:
    groups = clusters.by_way["kmeans"]
    figures_, every = [], []
    for group, rows in enumerate(central):
        border = rows[np.argsort(clusters.silhouettes[rows], kind="stable")][:_SHOWN]
        both = np.concatenate([_filled(subject.images[chosen]) for chosen in (rows[:_SHOWN], border)])
        every.append(both)
        heading = f"cluster {group}" + (f": {given[group]}" if given[group] else "")
        note = f"{np.sum(groups == group):,} images" + naming.most_common(subject, rows, ", most of them {} ({:.0%})")
        figures_.append(
            blocks.picture(
                blocks.png(blocks.grid(both, _SHOWN)),
                f"Images of {heading}",
                heading,
                f"{blocks.text(note)}. Above the most central, below the most borderline.",
            )
        )
    return f'<div class="sheets">{"".join(figures_)}</div>', blocks.png(blocks.grid(np.concatenate(every), 2 * _SHOWN))


def _filled(images: np.ndarray) -> np.ndarray:
    """Images filled up with grey to the length of a row of a sheet."""
    return np.concatenate([images, np.full((_SHOWN - len(images), *images.shape[1:]), 128, np.uint8)])


def _images_csv(subject, clusters, given) -> str:
    lines = [["image", "class", *clusters.by_way, "name", "silhouette"]]
    for row, name in enumerate(subject.names):
        ways = [groups[row] for groups in clusters.by_way.values()]
        mine = clusters.by_way["kmeans"][row]
        lines.append([name, subject.class_of(row), *ways, given[mine], f"{clusters.silhouettes[row]:.4f}"])
    return as_csv(lines)
