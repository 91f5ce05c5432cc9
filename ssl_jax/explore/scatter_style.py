"""How the maps of `scatter` look, on a page that has `charts.STYLE`."""

STYLE = """\
#map-sprite { display: none; }
.map { background: var(--panel); border-radius: 10px; padding: 1rem; max-width: 46rem; margin: 1rem 0; }
.panels .map { margin: 0; max-width: none; }
.map h3 { font: 600 1rem/1.4 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; margin: 0 0 .5rem; }
.map-tools { display: flex; flex-wrap: wrap; gap: .4rem .8rem; align-items: center; justify-content: space-between;
  font-size: .85rem; color: var(--soft); margin-bottom: .5rem; }
.map-tools label { display: flex; gap: .5rem; align-items: center; }
.map-zoom { display: flex; gap: .3rem; margin-left: auto; }
.map select, .map button { font: inherit; font-size: .85rem; color: var(--ink); background: var(--page);
  border: 1px solid var(--rule); border-radius: 6px; padding: .2rem .55rem; min-height: 1.9rem; }
.map select { max-width: 14rem; } .map button { cursor: pointer; }
.map :focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.map-frame .map-marks:focus-visible { outline-offset: -2px; }
.map-frame { position: relative; width: 100%; aspect-ratio: 4 / 3; border-radius: 6px; background: var(--page);
  border: 1px solid var(--rule); }
.map-frame canvas { position: absolute; inset: 0; width: 100%; height: 100%; border-radius: 6px; }
.map-frame .map-marks { touch-action: pan-y pinch-zoom; }
.map-frame .map-marks.turns { cursor: grab; } .map-frame .map-marks.zoomed { cursor: move; touch-action: none; }
.map-axis { font-size: .8rem; color: var(--soft); line-height: 1.5; overflow-wrap: anywhere; }
.map-axis.end { text-align: right; }
.map-legend { display: flex; flex-wrap: wrap; gap: .3rem; margin: .6rem 0; max-height: 16rem; overflow-y: auto; }
.map-legend button { display: flex; align-items: center; gap: .4rem; max-width: 100%; }
.map-legend button[aria-pressed="false"] { opacity: .5; text-decoration: line-through; }
.map-legend small { color: var(--soft); font-variant-numeric: tabular-nums; }
.map-sign { flex: none; display: inline-block; width: .75rem; height: .75rem; }
.map-word { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.map-tip { position: fixed; z-index: 9; left: 0; top: 0; width: max-content; max-width: min(17rem, calc(100vw - 16px));
  max-height: calc(100vh - 16px); overflow: hidden; pointer-events: none; padding: .6rem .7rem; border-radius: 8px;
  background: var(--page); color: var(--ink); border: 1px solid var(--rule); box-shadow: 0 4px 18px rgb(0 0 0 / .25);
  font-size: .85rem; line-height: 1.45; overflow-wrap: anywhere; }
.map-tip[hidden] { display: none; }
.map-tip canvas { display: block; image-rendering: pixelated; border-radius: 4px; margin-bottom: .45rem; }
.map-tip strong { display: block; } .map-tip .map-sign { margin-right: .45rem; vertical-align: -.1em; }
.map-tip span { color: var(--soft); }
@media (pointer: coarse) { .map select, .map button { min-height: 2.4rem; padding: .3rem .8rem; } }
@media (max-width: 34rem) { .map { padding: .8rem; } .map-frame { aspect-ratio: 1; } }
@media (forced-colors: active) { .map-sign { forced-color-adjust: none; } }
"""
