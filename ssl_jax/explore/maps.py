"""Maps of the features: principal components, t-SNE and UMAP, each image a point to hover over."""

import importlib.util
import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from ssl_jax import figures
from ssl_jax.analysis import pca
from ssl_jax.explore import blocks, scatter
from ssl_jax.explore.subject import Part, Subject, as_csv, evenly

_COMPONENTS_BEFORE = 50
_PERPLEXITY = 30
_UMAP_NEIGHBOURS = 15
# Three axes on paper: the first to the right, the second up, the third towards the lower left.
_FROM_THE_SIDE = np.array([[0.9, -0.15], [0.0, 0.95], [-0.45, -0.3]], np.float32)


def part(
    subject: Subject, colourings: Mapping[str, tuple[np.ndarray, Sequence[str]]], *, most: int = 2000, seed: int = 0
) -> Part:
    """The maps of evenly spread images, with thumbnails, coloured by class and cluster.

    t-SNE and UMAP see the first 50 principal components. t-SNE: scikit-learn's, perplexity 30 or a third of the images,
    started from the components. UMAP: umap-learn's, 15 neighbours. A map that cannot be made is told in words.

    Args:
        subject: what is mapped.
        colourings: by name, groups int [n] (-1 none) and the groups' names.
        most: images on a map.
        seed: of both maps.

    Raises:
        UsageError: for features that do not vary.
    """
    subject.refuse_constant()
    rows = evenly(len(subject.features), most)
    features = subject.features[rows]
    principal = pca.pca(features, min(_COMPONENTS_BEFORE, *features.shape))
    shares = principal.explained_variance_ratio
    few = principal.projected
    made: dict[str, np.ndarray] = {"pca": few[:, :3]}
    told: dict[str, str] = {}
    for name, make in (("tsne", _tsne), ("umap", _umap)):
        found = make(few, seed)
        (told if isinstance(found, str) else made)[name] = found
    held = [f"{share:.0%}" for share in shares[:3]]
    axes = [f"component {place + 1} ({share})" for place, share in enumerate(held)]
    points = scatter.Points(
        names=tuple(subject.names[row] for row in rows),
        colourings=tuple(
            scatter.Colouring(name=name, groups=groups[rows], names=tuple(names))
            for name, (groups, names) in colourings.items()
        ),
        images=None if subject.images is None else subject.images[rows],
    )
    html = (
        f'<p class="soft">{len(rows):,} of {len(subject.features):,} images. Hover over a point, touch it, or '
        "walk with the arrow keys to see its image. Distances within a map mean something nearby; between far groups "
        "t-SNE's and UMAP's do not.</p>" + scatter.shared(points)
    )
    panels, files, metrics = [], {}, {"images": len(rows)}
    first_groups, first_names = next(iter(colourings.values()))
    for name, places, label, captions in (
        ("pca", few[:, :2], "Principal components", axes[:2]),
        ("pca_3d", few[:, :3], "Principal components, turn them by dragging", axes),
        ("tsne", made.get("tsne"), "t-SNE", ()),
        ("umap", made.get("umap"), "UMAP", ()),
    ):
        if places is None or places.shape[1] < (3 if name == "pca_3d" else 2):
            continue
        panels.append(scatter.figure(name, places, label=label, axes=captions))
        deep = name == "pca_3d"
        drawn = figures.points(
            places @ _FROM_THE_SIDE if deep else places,
            first_groups[rows],
            first_names,
            label=f"Map of the features by {label}",
            **({} if deep else dict(zip(("x_label", "y_label"), captions, strict=False))),
        )
        files[f"map_{name}.png"] = drawn.png
    html += f'<div class="maps">{"".join(panels)}</div>'
    html += "".join(f'<p class="soft">{blocks.text(sentence)}</p>' for sentence in told.values())
    files["embedding.csv"] = _csv(subject, rows, made)
    return Part(html, files, metrics | {"not_made": told}, tuple(told.values()))


def _tsne(features: np.ndarray, seed: int) -> np.ndarray | str:
    if len(features) < 5 or features.shape[1] < 2:
        return f"No t-SNE: it wants 5 images and 2 dimensions, and there are {len(features)} and {features.shape[1]}."
    import sklearn.manifold

    perplexity = min(_PERPLEXITY, (len(features) - 1) / 3)
    made = sklearn.manifold.TSNE(perplexity=perplexity, init="pca", random_state=seed, n_jobs=-1)
    return made.fit_transform(features).astype(np.float32)


def _umap(features: np.ndarray, seed: int) -> np.ndarray | str:
    if importlib.util.find_spec("umap") is None:
        return "No UMAP: umap-learn is not installed; pip install umap-learn adds this map."
    if len(features) <= _UMAP_NEIGHBOURS or features.shape[1] < 2:
        return f"No UMAP: it wants more than {_UMAP_NEIGHBOURS} images and 2 dimensions, and there are {len(features)}."
    with warnings.catch_warnings():
        # It warns of a TensorFlow that it does not need, and that a seed makes it run in one thread.
        warnings.simplefilter("ignore")
        import umap

        made = umap.UMAP(n_neighbors=_UMAP_NEIGHBOURS, random_state=seed, n_jobs=1).fit_transform(features)
    return np.asarray(made, np.float32)


def _csv(subject: Subject, rows: np.ndarray, made: Mapping[str, np.ndarray]) -> str:
    """A line an image: its name, its class if it has one, and its place on every map."""
    columns = {
        f"{name}_{axis + 1}": places[:, axis] for name, places in made.items() for axis in range(places.shape[1])
    }
    lines = [["image", "class", *columns]]
    for place, row in enumerate(rows):
        told = [f"{column[place]:.6g}" for column in columns.values()]
        lines.append([subject.names[row], subject.class_of(row), *told])
    return as_csv(lines)
