"""Maps of points that a reader can ask: hover, tap or walk with the arrow keys, hide groups, zoom, turn in 3-D."""

import base64
import dataclasses
import html
import io
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from ssl_jax import charts, sheet, types
from ssl_jax.explore import scatter_script, scatter_style

SCRIPT, STYLE = scatter_script.SCRIPT, scatter_style.STYLE
"""What `page.whole` is given once for all maps of a page."""

_MOST_DRAWN = 20_000
_MOST_SPRITE_PIXELS = 12_000_000
_MOST_LOSSLESS_BYTES = 3_000_000
_FINEST = 5000


@dataclasses.dataclass(frozen=True)
class Colouring:
    """One way to colour the points.

    Attributes:
        name: what the groups are, such as `class`.
        groups: int [n], which of `names` each row belongs to; -1 for none.
        names: of the groups.
    """

    name: str
    groups: np.ndarray
    names: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Points:
    """What all maps of a page say of the same rows.

    Attributes:
        names: of the n rows.
        colourings: the first is shown at the beginning; may be empty.
        images: uint8 [n, h, w, c], or None.
    """

    names: tuple[str, ...]
    colourings: tuple[Colouring, ...]
    images: np.ndarray | None


def kept(count: int) -> np.ndarray:
    """The rows of `count` that a page holds, int64: all of up to 20,000, else 20,000 evenly taken."""
    return np.arange(count) if count <= _MOST_DRAWN else np.arange(_MOST_DRAWN) * count // _MOST_DRAWN


def shared(points: Points, *, thumbnail_px: int = 48) -> str:
    """What the maps of a page share, once a page: names, groups and one picture of all thumbnails, of the `kept` rows.

    Thumbnails keep their shape, their longer side at most `thumbnail_px`, less for more than 5,000 of them; they are
    exact unless that takes more than 3 MB, and JPEG then. Raises UsageError for lengths, groups or images that do not
    fit the names.
    """
    count = len(points.names)
    rows = kept(count)
    for colouring in points.colourings:
        groups = np.asarray(colouring.groups)
        if groups.shape != (count,) or (count and not -1 <= groups.min() <= groups.max() < len(colouring.names)):
            raise types.UsageError(
                f"the colouring {colouring.name!r} must give each of {count} points a group from -1 to "
                f"{len(colouring.names) - 1}, as int [{count}]"
            )
    told: dict[str, Any] = {
        "names": [points.names[row] for row in rows],
        # Left out where row i is point i.
        "rows": rows.tolist() if len(rows) < count else None,
        "count": count,
        "colours": charts.CLASS_COLOURS,
        "colourings": [
            {"name": each.name, "names": each.names, "groups": np.asarray(each.groups)[rows].tolist()}
            for each in points.colourings
        ],
    }
    picture = ""
    if points.images is not None and count:
        if points.images.dtype != np.uint8 or points.images.ndim != 4 or len(points.images) != count:
            raise types.UsageError(
                f"thumbnails are made of uint8 [{count}, h, w, c], not {points.images.dtype} {points.images.shape}"
            )
        picture, told["thumbnails"] = _sprite(points.images, rows, thumbnail_px)
    return f'{picture}<script type="application/json" id="map-points">{_json(told)}</script>'


def figure(
    identifier: str,
    places: np.ndarray,
    *,
    label: str,
    axes: Sequence[str] = (),
    rows: np.ndarray | None = None,
) -> str:
    """One map, as a `<figure>`.

    Args:
        identifier: unlike that of any other map of the page.
        places: float [n, 2] or [n, 3], drawn with one scale for all axes, to a 10,000th of the widest.
        label: what the map shows, in words.
        axes: what the axes are, as many as there are, or none.
        rows: int [n], which rows of the page's `Points` they are; None for all of them. Rows that are not among those
            `kept` are not drawn.

    Raises UsageError for places of another shape, or not finite, or not as many as `rows` or `axes` say.
    """
    places = np.asarray(places, np.float64)
    if places.ndim != 2 or places.shape[1] not in (2, 3) or len(axes) not in (0, places.shape[1]):
        raise types.UsageError(
            f"the map {identifier!r} takes places [n, 2 or 3] and a name an axis, not {places.shape}"
        )
    if rows is not None and np.shape(rows) != (len(places),):
        raise types.UsageError(f"the map {identifier!r} has {len(places)} places but rows {np.shape(rows)}")
    if not np.isfinite(places).all():
        wrong = int(np.sum(~np.isfinite(places).all(axis=1)))
        raise types.UsageError(f"{wrong:,} of {len(places):,} places of the map {identifier!r} are not finite")
    total = len(places)
    if rows is None:
        places = places[kept(total)]
    told = {
        "label": label,
        "axes": list(axes),
        "count": total,
        "rows": None if rows is None else np.asarray(rows).tolist(),
        "places": [axis.tolist() for axis in _whole(places)],
    }
    own = html.escape(f"map-{identifier}")
    return (
        f'<figure class="map" id="{own}"><h3>{html.escape(label)}</h3>'
        f'<script type="application/json">{_json(told)}</script>'
        "<noscript><p>This map is drawn by a script, which this browser does not run.</p></noscript></figure>"
    )


def _whole(places: np.ndarray) -> np.ndarray:
    """Places as int [2 or 3, n] in [-5000, 5000], their middle at 0: a few bytes each, finer than any screen."""
    if not len(places):
        return places.T.astype(int)
    low, high = places.min(axis=0), places.max(axis=0)
    # Halves first: the difference of two large numbers may not be finite.
    widest = np.max(high / 2 - low / 2)
    scaled = (places / 2 - (low / 4 + high / 4)) * (2 * _FINEST / widest) if widest else np.zeros_like(places)
    return np.rint(scaled.T).astype(int)


def _sprite(images: np.ndarray, rows: np.ndarray, thumbnail_px: int) -> tuple[str, dict[str, int]]:
    """All thumbnails as one picture, row by row, and how it is to be read."""
    longest = max(images.shape[1:3])
    most = min(thumbnail_px, math.isqrt(_MOST_SPRITE_PIXELS // len(rows)))
    # JPEG works on squares of 8 pixels, and none should mix two thumbnails.
    most = most if longest <= most else max(8, most - most % 8)
    height, width = (max(1, round(side * min(1.0, most / longest))) for side in images.shape[1:3])
    columns = math.ceil(math.sqrt(len(rows) * height / width))
    picture = Image.new("RGB", (columns * width, math.ceil(len(rows) / columns) * height))
    for place, row in enumerate(rows):
        thumbnail = Image.fromarray(np.ascontiguousarray(sheet.coloured(images[row])))
        if longest > most:
            thumbnail = thumbnail.resize((width, height), Image.Resampling.BOX)
        picture.paste(thumbnail, (place % columns * width, place // columns * height))
    kind, content = "png", _saved(picture.convert("L") if images.shape[-1] == 1 else picture, "png")
    if len(content) > _MOST_LOSSLESS_BYTES:
        kind, content = "jpeg", _saved(picture, "jpeg", quality=85, subsampling=0)
    text = base64.b64encode(content).decode()
    how = {"columns": columns, "width": width, "height": height}
    return f'<img id="map-sprite" alt="" src="data:image/{kind};base64,{text}">', how


def _saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def _json(value: Any) -> str:
    # Inside a script element, nothing in a name may end it.
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
