"""JavaScript for the maps of `scatter`: what all maps of a page share, their colours and the panel about a point."""

from ssl_jax.explore import scatter_map_script

_BEFORE = r"""
const shared = JSON.parse(document.getElementById("map-points").textContent);
const sprite = document.getElementById("map-sprite");
const plus = [[-.4, -1.1], [.4, -1.1], [.4, -.4], [1.1, -.4], [1.1, .4], [.4, .4], [.4, 1.1], [-.4, 1.1], [-.4, .4],
  [-1.1, .4], [-1.1, -.4], [-.4, -.4]];
const star = Array.from({length: 10}, (_, i) => {
  const far = i % 2 ? .5 : 1.25, angle = Math.PI * (i / 5 - .5);
  return [far * Math.cos(angle), far * Math.sin(angle)];
});
// A circle comes first; the others are corners, in radii of a point.
const shapes = [null, [[-.9, -.9], [.9, -.9], [.9, .9], [-.9, .9]], [[0, -1.15], [1.1, .85], [-1.1, .85]],
  [[0, -1.25], [1.05, 0], [0, 1.25], [-1.05, 0]], [[0, 1.15], [1.1, -.85], [-1.1, -.85]], plus,
  plus.map(([x, y]) => [(x - y) * .72, (x + y) * .72]), star];
const slots = shared.rows && new Map(shared.rows.map((row, slot) => [row, slot]));
const hidden = shared.colourings.map(() => new Set());
const maps = [];
let colouring = 0, chosen = -1;

const make = (tag, name, text) => {
  const made = document.createElement(tag);
  if (name) made.className = name;
  if (text !== undefined) made.textContent = text;
  return made;
};
const button = (text, label, act) => {
  const made = make("button", "", text);
  made.type = "button";
  if (label) { made.setAttribute("aria-label", label); made.title = label; }
  made.addEventListener("click", act);
  return made;
};
const ours = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const number = (value) => value.toLocaleString("en");
const now = () => shared.colourings[colouring];
const groupOf = (slot) => now() ? now().groups[slot] : -2;
const shows = (slot) => !now() || !hidden[colouring].has(groupOf(slot));
const colourOf = (group) => group >= 0 ? shared.colours[group % shared.colours.length]
  : ours(group === -1 ? "soft" : "series-0");
const shapeOf = (group) => shapes[Math.floor(Math.max(0, group) / shared.colours.length) % shapes.length];
const nameOf = (each, group) => group < 0 ? "none" : each.names[group];

function sign(group) {
  const made = make("i", "map-sign"), shape = shapeOf(group);
  made.style.background = colourOf(group);
  if (group < 0) made.style.opacity = .6;
  made.style.clipPath = shape ? `polygon(${shape.map(([x, y]) => `${50 + 40 * x}% ${50 + 40 * y}%`)})` : "circle(45%)";
  return made;
}

const tip = make("div", "map-tip");
tip.setAttribute("role", "status");
tip.hidden = true;
document.body.append(tip);

function fillTip() {
  tip.replaceChildren();
  if (sprite && shared.thumbnails) {
    const {columns, width, height} = shared.thumbnails, picture = make("canvas");
    const factor = Math.max(1, Math.floor(144 / Math.max(width, height)));
    [picture.width, picture.height] = [width, height];
    [picture.style.width, picture.style.height] = [`${width * factor}px`, `${height * factor}px`];
    const left = chosen % columns * width, top = Math.floor(chosen / columns) * height;
    const draw = () => picture.getContext("2d").drawImage(sprite, left, top, width, height, 0, 0, width, height);
    if (sprite.complete) draw(); else sprite.addEventListener("load", draw, {once: true});
    tip.append(picture);
  }
  tip.append(make("strong", "", shared.names[chosen]));
  for (const each of shared.colourings) {
    const line = make("div"), group = each.groups[chosen];
    if (each === now()) line.append(sign(group));
    line.append(make("span", "", `${each.name} `), nameOf(each, group));
    tip.append(line);
  }
}

// Beside the point, on the side with room, and never out of sight.
function placeTip() {
  const from = maps.find((map) => map.holdsTip);
  if (!from || tip.hidden) return;
  const [x, y] = from.onScreen(), {width, height} = tip.getBoundingClientRect();
  const [wide, high] = [document.documentElement.clientWidth, window.innerHeight];
  const fits = x + 18 + width <= wide - 8 || x - 18 - width >= 8;
  const left = x + 18 + width <= wide - 8 ? x + 18 : fits ? x - 18 - width : x - width / 2;
  const top = fits ? y - height / 2 : y - 18 - height >= 8 ? y - 18 - height : y + 18;
  tip.style.left = `${Math.max(8, Math.min(left, wide - 8 - width))}px`;
  tip.style.top = `${Math.max(8, Math.min(top, high - 8 - height))}px`;
}

function choose(slot, map) {
  const same = slot === chosen && (!map || map.holdsTip);
  chosen = slot;
  for (const each of maps) each.holdsTip = each === map;
  tip.hidden = slot < 0;
  if (slot >= 0) { if (!same) fillTip(); placeTip(); }
  if (!same) for (const each of maps) each.mark();
}

function recolour() {
  if (chosen >= 0 && !shows(chosen)) choose(-1);
  for (const map of maps) { map.legend(); map.redraw(); }
  if (chosen >= 0) { fillTip(); placeTip(); }
}
"""
_AFTER = r"""
document.querySelectorAll("figure.map").forEach(start);
document.addEventListener("pointerdown", (event) => {
  if (!event.target.closest(".map-marks") && chosen >= 0) choose(-1);
});
document.addEventListener("scroll", () => { if (chosen >= 0) placeTip(); }, {passive: true, capture: true});
window.addEventListener("resize", () => { if (chosen >= 0) placeTip(); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);
"""
SCRIPT = f"(() => {{\n'use strict';{_BEFORE}{scatter_map_script.SCRIPT}{_AFTER}}})();\n"
"""The whole script, which needs no library and leaves no name behind."""
