"""The frame of every HTML page: one file that asks nobody for anything, light or dark as its reader likes."""

import html
from collections.abc import Sequence

from ssl_jax import charts

STYLE = """\
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.6 system-ui, -apple-system, "Segoe UI",
  Roboto, "Noto Sans", sans-serif; }
main { max-width: 66rem; margin: 0 auto; padding: 3rem 1.5rem 5rem; }
h1 { font-size: 2.1rem; line-height: 1.2; margin: 0 0 .4rem; letter-spacing: -.02em;
  overflow-wrap: anywhere; }
h2 { font-size: 1.35rem; margin: 3.2rem 0 .6rem; letter-spacing: -.01em; }
h3 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
p, figcaption, caption { max-width: 46rem; }
.soft, figcaption, caption { color: var(--soft); font-size: .9rem; line-height: 1.5; }
.lead { font-size: 1.15rem; }
.alarms { border: 2px solid var(--alarm); background: var(--alarm-page); color: var(--alarm); border-radius: 8px;
  padding: .9rem 1.2rem; margin: 0 0 2rem; }
.alarms h2 { margin: 0 0 .3rem; font-size: 1.1rem; } .alarms ul { margin: 0; padding-left: 1.2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .8rem 0; }
caption { caption-side: bottom; text-align: left; padding-top: .6rem; }
th, td { padding: .45rem 1.1rem .45rem 0; text-align: left; border-bottom: 1px solid var(--rule); white-space: nowrap; }
thead th { color: var(--soft); font-weight: 600; font-size: .85rem; }
tbody th { font-weight: 600; } td.best { font-weight: 700; color: var(--accent); }
td small { color: var(--soft); font-weight: 400; }
a { color: var(--accent); }
details { margin: .8rem 0; } summary { cursor: pointer; color: var(--accent); }
pre { background: var(--panel); border-radius: 10px; padding: 1rem 1.2rem; overflow-x: auto; font: .85rem/1.55
  ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
code { font: .9em ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
"""
"""How text, tables, alarms and code look, beside `charts.STYLE`."""

# The browser itself then keeps a page that runs something from asking others.
_POLICY = (
    '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'\">"
)


def whole(title: str, body: str, *, styles: Sequence[str] = (), scripts: Sequence[str] = ()) -> str:
    """A whole page of the HTML `body`, in the colours of `charts.STYLE`.

    `styles` follow its own; `scripts` run in turn once everything is there, and a page with any is kept from loading
    what is not inside it. `title` is plain text, the other texts are taken as they are.

    Raises ValueError for a style or script that would end its own element.
    """
    for text in (*styles, *scripts):
        if "</" in text:
            raise ValueError(f"a style or script may not hold '</', as in {text[text.index('</') :][:20]!r}")
    policy = _POLICY if scripts else ""
    run = "".join(f"<script>{script}</script>\n" for script in scripts)
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">{policy}'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{charts.STYLE}{STYLE}{''.join(styles)}</style></head>\n"
        f"<body><main>\n{body}\n</main>\n{run}</body>\n</html>\n"
    )
