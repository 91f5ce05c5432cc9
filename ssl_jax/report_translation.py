"""The section of a run's page about translations whose truth is known."""

import html
from collections.abc import Mapping
from typing import Any

from ssl_jax import log

_DASH = "&ndash;"
_HEADS = ("translations", "PSNR (dB)", "pixel error", "read rightly", "of real images", "pairs")


def section(summary: Mapping[str, Any]) -> str:
    """A row for each direction of each entry of `summary` that `evaluators.counterpart` made; "" without any.

    An entry is one of `log.counterparts`; shares that a classifier reads are shown where there was one.
    """
    entries = log.counterparts(summary)
    if not entries:
        return ""
    body = ""
    for name, entry in entries.items():
        for one, other in ("ab", "ba"):
            shares = (
                f"{entry[key]:.3f}" if key in entry else _DASH for key in (f"read_{one}{other}", f"read_real_{other}")
            )
            numbers = (f"{entry[f'psnr_{one}{other}']:.2f}", f"{entry[f'error_{one}{other}']:.4f}", *shares)
            cells = "".join(f"<td>{cell}</td>" for cell in (*numbers, f"{entry['examples']:,}"))
            way = f"{name}, {one.upper()} to {other.upper()}"
            body += f'<tr><th scope="row">{html.escape(way)}</th>{cells}</tr>'
    top = "".join(f'<th scope="col">{head}</th>' for head in _HEADS)
    caption = (
        "Translations against their true counterparts, which training never saw side by side. PSNR, the higher the "
        "better, and the mean error of a pixel in [0, 1] are of every pixel. A classifier of real images of the target "
        "domain reads the translations; beside it, how many of the real images it reads rightly, which is the most to "
        "expect."
    )
    return (
        f'<section><h2>How true the translations are</h2><div class="wide"><table><caption>{caption}</caption>'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div></section>"
    )
