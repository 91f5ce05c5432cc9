"""Images and their nearest neighbours, and images that are there twice."""

import numpy as np

from ssl_jax.analysis import neighbours, pixels
from ssl_jax.explore import blocks
from ssl_jax.explore.subject import Part, Subject, as_csv, evenly

LARGEST_ERROR = 0.02
"""Two images are copies up to this root mean square of their difference, over numbers in [0, 1]: about what saving as
JPEG again does."""

_QUERIES = 10
_NEIGHBOURS = 9
_SHOWN = 12
_LISTED = 1000
_AT_ONCE = 1024


def part(subject: Subject, training: Subject | None = None) -> Part:
    """Rows of an image and its nearest by cosine, and the pairs of images that are copies.

    Copies are looked for among these images and, where they are given, between them and the training images, by their
    pixels (shrunk to 3,072 numbers where they are larger): for each image its nearest one. Without images, or with
    training images of another shape, there are no pairs.

    Metrics: `copies_within`, the images that have a copy among these, and `copies_in_training`, those that have one
    there; of labelled images `neighbours_of_one_class_percent`, of the rows shown, and `copies_of_another_class`, how
    many have a copy under another label.

    Raises:
        UsageError: for features that do not vary.
    """
    subject.refuse_constant()
    queries = evenly(len(subject.features), _QUERIES)
    k = min(_NEIGHBOURS, len(subject.features) - 1)
    found, similar = neighbours.nearest(subject.features, subject.features[queries], k, own_rows=queries)
    files: dict[str, str | bytes] = {}
    metrics: dict[str, int] = {}
    if subject.images is None:
        rows = [
            [
                subject.names[query],
                *(f"{subject.names[row]} ({value:.3f})" for row, value in zip(ours, values, strict=True)),
            ]
            for query, ours, values in zip(queries, found[:, :3], similar[:, :3], strict=True)
        ]
        return Part(blocks.table(["image", "nearest", "", ""][: k + 1], rows, "Cosine similarity in brackets."))
    rows = np.concatenate([queries[:, None], found], axis=1)
    content = blocks.png(blocks.grid(subject.images[rows.reshape(-1)], 1 + k))
    files["neighbours.png"] = content
    html = blocks.picture(
        content, "Images and their nearest neighbours", "", "Each row an image and to its right its nearest by cosine."
    )
    known = (subject.labels[found] >= 0) & (subject.labels[queries] >= 0)[:, None]
    if known.any():
        agree = (subject.labels[found] == subject.labels[queries][:, None])[known]
        metrics["neighbours_of_one_class_percent"] = round(100 * float(agree.mean()))
    pairs = _pairs(subject, None)
    metrics["copies_within"] = len({row for row, *_ in pairs})
    told = f"{metrics['copies_within']:,} of {len(subject.images):,} images have a copy among them"
    if training is not None and training.images is not None:
        if training.images.shape[1:] == subject.images.shape[1:]:
            across = _pairs(subject, training)
            metrics["copies_in_training"] = len(across)
            told += f", and {len(across):,} have one among {training.counted} of the training set"
            pairs += across
        else:
            told += "; the training images are of another shape, and were not compared"
    if subject.labelled:
        labels = [(row, subject.class_of(row), other.class_of(place)) for row, other, place, _ in pairs]
        metrics["copies_of_another_class"] = len({row for row, one, two in labels if one and two and one != two})
    pairs.sort(key=lambda pair: pair[3])
    html += f"<h3>Copies</h3><p>{told}: their pixels differ by at most {LARGEST_ERROR} (root mean square).</p>"
    if pairs:
        # Two copies among these images find each other.
        shown = [pair for pair in pairs if pair[1] is not subject or pair[0] < pair[2]][:_SHOWN] or pairs[:_SHOWN]
        both = np.stack(
            [image for row, other, place, _ in shown for image in (subject.images[row], other.images[place])]
        )
        content = blocks.png(blocks.grid(both, 8))
        files["copies.png"] = content
        html += blocks.picture(content, "Pairs of copies", "", "Pairs side by side, the closest first.")
    files["copies.csv"] = _csv(subject, pairs)
    return Part(html, files, metrics, (f"copies: {told}",))


def _pairs(subject: Subject, training: Subject | None) -> list[tuple[int, Subject, int, float]]:
    """(row, whose, row there, difference) of each image whose nearest by pixels is a copy."""
    ours = _vectors(subject)
    other = subject if training is None else training
    theirs = ours if training is None else _vectors(training)
    own = np.arange(len(ours)) if training is None else None
    rows, _ = neighbours.euclidean(theirs, ours, 1, own_rows=own)
    nearest = rows[:, 0]
    # Again and exactly: the search's products leave a copy at a small distance, not at 0.
    differences = np.empty(len(ours))
    for first in range(0, len(ours), _AT_ONCE):
        part = slice(first, first + _AT_ONCE)
        differences[part] = np.sqrt(np.mean((ours[part] - theirs[nearest[part]]) ** 2, axis=1))
    return [
        (int(row), other, int(nearest[row]), float(differences[row]))
        for row in np.flatnonzero(differences <= LARGEST_ERROR)
    ]


def _vectors(subject: Subject) -> np.ndarray:
    if subject.pixels:
        return subject.features
    parts = range(0, len(subject.images), _AT_ONCE)
    return np.concatenate([np.asarray(pixels.vectors(subject.images[first : first + _AT_ONCE])) for first in parts])


def _csv(subject: Subject, pairs: list[tuple[int, Subject, int, float]]) -> str:
    lines = [["image", "class", "copy", "copy_class", "copy_is_in", "difference"]]
    for row, other, place, difference in pairs[:_LISTED]:
        where = "these images" if other is subject else "training images"
        told = [subject.names[row], subject.class_of(row), other.names[place], other.class_of(place)]
        lines.append([*told, where, f"{difference:.5f}"])
    return as_csv(lines)
