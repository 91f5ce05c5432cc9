"""How the variance of the features lies: explained variance, the components as pictures, and what few of them keep."""

import numpy as np

from ssl_jax import figures
from ssl_jax.analysis import pca
from ssl_jax.explore import blocks
from ssl_jax.explore.subject import Part, Subject, evenly

SHARES = (0.5, 0.9, 0.95, 0.99)
_PICTURED = 16
_REBUILT = 8
_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


def part(subject: Subject) -> Part:
    """The share of variance that so many components hold; of pixels also pictures and reconstructions.

    Metrics: `components_<percent>`, how many hold that share, `share_1`, `share_2`, `share_3`, and for pixels
    `reconstruction_error_<k>`, the root mean square over numbers in [0, 1].

    Raises:
        UsageError: for features that do not vary.
    """
    subject.refuse_constant()
    shares = pca.spread(subject.features)
    held = np.minimum(np.cumsum(shares), 1.0)
    needed = {f"components_{share * 100:.0f}": int(np.searchsorted(held, share - 1e-9)) + 1 for share in SHARES}
    metrics = {f"share_{place + 1}": float(share) for place, share in enumerate(shares[:3])} | needed
    counts = np.arange(1, len(held) + 1)
    drawn = figures.lines(
        {"all up to here": (counts, held), "each by itself": (counts, shares)},
        label="Share of the variance against the number of principal components",
        x_label="component",
        y_label="share of the variance",
        log_x=True,
    )
    told = ", ".join(f"{needed[f'components_{share * 100:.0f}']:,} hold {share:.0%}" for share in SHARES)
    width = subject.features.shape[1]
    html = blocks.panel(drawn, f"Of {width:,} principal components {told} of the variance.")
    files = {"explained_variance.png": drawn.png}
    if subject.pixels and subject.images is not None:
        more, pictures, errors = _pixels(subject)
        html, files, metrics = html + more, files | pictures, metrics | errors
    return Part(html, files, metrics, (f"principal components: {told} of the variance",))


def _pixels(subject: Subject) -> tuple[str, dict[str, bytes], dict[str, float]]:
    images, features = subject.images, subject.features
    shape = _shape_of(subject)
    counts = [count for count in _COUNTS if count <= min(features.shape)]
    principal = pca.pca(features, counts[-1])
    axes = principal.components[:_PICTURED].reshape(-1, *shape)
    # Grey is zero: a component's sign means nothing, where it is large does.
    largest = np.abs(axes).max(axis=(1, 2, 3), keepdims=True)
    components = blocks.png(blocks.grid(np.rint(127.5 + 127.5 * axes / np.maximum(largest, 1e-12)).astype(np.uint8), 8))
    chosen = evenly(len(images), _REBUILT)
    rows, errors = [], {}
    for count in counts:
        rebuilt = pca.reconstruct(principal, count)
        errors[f"reconstruction_error_{count}"] = float(np.sqrt(np.mean((rebuilt - features) ** 2)))
        rows.append(np.rint(np.clip(rebuilt[chosen], 0, 1) * 255).astype(np.uint8).reshape(-1, *shape))
    rows.append(np.rint(np.clip(features[chosen], 0, 1) * 255).astype(np.uint8).reshape(-1, *shape))
    rebuilt = blocks.png(blocks.grid(np.concatenate(rows), _REBUILT))
    told = ", ".join(map(str, counts))
    html = '<div class="sheets">' + blocks.picture(
        components,
        "The first principal components as pictures",
        "components",
        "The directions of most variance as pictures, the first at the top left; grey is zero.",
    )
    html += blocks.picture(
        rebuilt,
        "Images rebuilt from few components",
        "reconstructions",
        f"From top to bottom {told} components, and the images themselves. Root mean square error over numbers in "
        f"[0, 1]: {errors[f'reconstruction_error_{counts[0]}']:.3f} with {counts[0]}, "
        f"{errors[f'reconstruction_error_{counts[-1]}']:.3f} with {counts[-1]}.",
    )
    return html + "</div>", {"components.png": components, "reconstructions.png": rebuilt}, errors


def _shape_of(subject: Subject) -> tuple[int, int, int]:
    """Height, width and channels of what `analysis.pixels.vectors` made vectors of."""
    height, width, channels = subject.images.shape[1:]
    numbers = subject.features.shape[1]
    if height * width * channels == numbers:
        return height, width, channels
    # Shrunk by one factor, so that the sides keep their proportion to within a pixel.
    area = numbers // channels
    rows = min(
        (side for side in range(1, area + 1) if area % side == 0),
        key=lambda side: abs(side * width - area / side * height),
    )
    return rows, area // rows, channels
