"""JavaScript for one map of `scatter`: it draws the points and answers pointer, wheel and keys.

It stands inside `scatter_script.SCRIPT` and uses what that defines.
"""

SCRIPT = r"""
function start(figure) {
  const told = JSON.parse(figure.querySelector("script").textContent), deep = told.places.length === 3;
  if (!told.rows && told.count !== shared.count)
    throw new Error(`${figure.id} has ${told.count} places, and the page ${shared.count} points`);
  const all = Array.from(told.places[0], (_, i) => told.rows ? (slots ? slots.get(told.rows[i]) : told.rows[i]) : i);
  const known = Array.from(all.keys()).filter((i) => all[i] !== undefined);
  const slotOf = known.map((i) => all[i]), count = known.length;
  const [xs, ys, zs] = told.places.map((axis) => known.map((i) => axis[i]));
  const inFront = Float64Array.from(xs), screenX = new Float64Array(count), screenY = new Float64Array(count);
  const order = Array.from(xs.keys()), indexOf = new Map(slotOf.map((slot, i) => [slot, i]));
  const most = (values) => values.reduce((far, value) => Math.max(far, Math.abs(value)), 1);
  const reach = deep ? Math.sqrt(xs.reduce((far, x, i) => Math.max(far, x * x + ys[i] ** 2 + zs[i] ** 2), 1)) : 0;
  const [reachX, reachY] = deep ? [reach, reach] : [most(xs), most(ys)];
  const first = {zoom: 1, x: 0, y: 0, yaw: .6, pitch: .4}, view = {...first};
  let width = 0, height = 0, waiting = false, drag = null;

  const frame = make("div", "map-frame"), points = make("canvas"), marks = make("canvas", "map-marks");
  points.setAttribute("aria-hidden", "true");
  marks.tabIndex = 0;
  marks.setAttribute("role", "application");
  marks.setAttribute("aria-label", `${told.label}: a map of ${number(count)} points. Arrow keys go from point to `
    + `point${deep ? ", with Shift they turn the map" : ""}, plus and minus zoom, 0 resets.`);
  marks.classList.toggle("turns", deep);
  frame.append(points, marks);

  const radius = () => (count < 300 ? 5.5 : count < 1500 ? 4.5 : count < 6000 ? 3.6 : 2.6)
    * Math.min(2, view.zoom ** .35) * (width < 420 ? .8 : 1);

  // Without perspective: what is as far apart looks as far apart, in front and behind.
  function turned(x, y, z) {
    const across = x * Math.cos(view.yaw) + z * Math.sin(view.yaw);
    const away = z * Math.cos(view.yaw) - x * Math.sin(view.yaw);
    return [across, y * Math.cos(view.pitch) - away * Math.sin(view.pitch),
      y * Math.sin(view.pitch) + away * Math.cos(view.pitch)];
  }

  function project() {
    const scale = view.zoom * Math.min((width / 2 - 18) / reachX, (height / 2 - 18) / reachY);
    for (let i = 0; i < count; i++) {
      const [x, y, away] = deep ? turned(xs[i], ys[i], zs[i]) : [xs[i], ys[i], 0];
      screenX[i] = width / 2 + view.x + scale * x;
      screenY[i] = height / 2 + view.y - scale * y;
      inFront[i] = deep ? -away / reach : 0;
    }
    if (deep) order.sort((one, other) => inFront[one] - inFront[other]);
  }

  function context(canvas) {
    const ratio = window.devicePixelRatio || 1, drawn = canvas.getContext("2d");
    const [wide, high] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (canvas.width !== wide || canvas.height !== high) [canvas.width, canvas.height] = [wide, high];
    drawn.setTransform(ratio, 0, 0, ratio, 0, 0);
    drawn.clearRect(0, 0, width, height);
    return drawn;
  }

  function stamp(group, size) {
    const ratio = window.devicePixelRatio || 1, half = Math.ceil(size * 1.4) + 1, canvas = make("canvas");
    canvas.width = canvas.height = Math.ceil(2 * half * ratio);
    const drawn = canvas.getContext("2d"), shape = shapeOf(group);
    drawn.setTransform(ratio, 0, 0, ratio, half * ratio, half * ratio);
    drawn.beginPath();
    if (shape) shape.forEach(([x, y], i) => drawn[i ? "lineTo" : "moveTo"](x * size, y * size));
    else drawn.arc(0, 0, size, 0, 2 * Math.PI);
    drawn.closePath();
    drawn.fillStyle = colourOf(group);
    drawn.fill();
    // A rim in the colour of the ground keeps neighbours apart.
    drawn.strokeStyle = ours("page");
    drawn.lineWidth = .7;
    drawn.stroke();
    return {canvas, half, side: canvas.width / ratio};
  }

  function draw() {
    waiting = false;
    const drawn = context(points), stamps = new Map(), size = radius();
    for (const bare of [true, false]) for (const i of order) {
      const group = groupOf(slotOf[i]);
      if ((group === -1) !== bare || !shows(slotOf[i])) continue;
      const level = deep ? Math.round((inFront[i] + 1) * 3) : 3, key = `${group} ${level}`;
      if (!stamps.has(key)) stamps.set(key, stamp(group, size * (bare ? .7 : 1) * (.76 + .08 * level)));
      const {canvas, half, side} = stamps.get(key);
      drawn.globalAlpha = (bare ? .5 : .88) * (deep ? .4 + .1 * level : 1);
      drawn.drawImage(canvas, screenX[i] - half, screenY[i] - half, side, side);
    }
    drawn.globalAlpha = 1;
    if (deep) compass(drawn);
  }

  function compass(drawn) {
    drawn.strokeStyle = drawn.fillStyle = ours("soft");
    drawn.lineWidth = 1.5;
    drawn.font = "600 11px system-ui, sans-serif";
    [drawn.textAlign, drawn.textBaseline] = ["center", "middle"];
    [[1, 0, 0], [0, 1, 0], [0, 0, 1]].forEach((axis, i) => {
      const [x, y] = turned(...axis);
      drawn.beginPath();
      drawn.moveTo(42, height - 42);
      drawn.lineTo(42 + 22 * x, height - 42 - 22 * y);
      drawn.stroke();
      drawn.fillText(String(i + 1), 42 + 31 * x, height - 42 - 31 * y);
    });
  }

  function redraw() {
    project();
    marks.classList.toggle("zoomed", view.zoom > 1 && !deep);
    if (!waiting) { waiting = true; requestAnimationFrame(draw); }
    mark();
    if (map.holdsTip) placeTip();
  }

  function mark() {
    const drawn = context(marks), i = indexOf.get(chosen);
    if (i === undefined || !shows(chosen)) return;
    for (const [colour, thick] of [[ours("page"), 5], [ours("ink"), 2]]) {
      [drawn.strokeStyle, drawn.lineWidth] = [colour, thick];
      drawn.beginPath();
      drawn.arc(screenX[i], screenY[i], radius() + 4, 0, 2 * Math.PI);
      drawn.stroke();
    }
  }

  const inside = (i) => screenX[i] >= 0 && screenX[i] <= width && screenY[i] >= 0 && screenY[i] <= height;
  function best(cost) {
    let found = -1, least = Infinity;
    for (let i = 0; i < count; i++) {
      const here = inside(i) && shows(slotOf[i]) ? cost(i) : Infinity;
      if (here < least) [found, least] = [i, here];
    }
    return found;
  }
  const nearest = (x, y, limit) => best((i) => {
    const far = Math.hypot(screenX[i] - x, screenY[i] - y);
    return far > limit ? Infinity : far - 2 * inFront[i];
  });
  const pick = (i) => choose(i < 0 ? -1 : slotOf[i], i < 0 ? undefined : map);

  function step(right, down) {
    const from = map.holdsTip ? indexOf.get(chosen) : undefined;
    if (from === undefined) return pick(nearest(width / 2, height / 2, Infinity));
    const next = best((i) => {
      const [x, y] = [screenX[i] - screenX[from], screenY[i] - screenY[from]];
      const along = x * right + y * down, across = Math.abs(x * down - y * right);
      return along > .5 && across <= 1.5 * along ? along + 2 * across : Infinity;
    });
    if (next >= 0) pick(next);
  }

  function zoom(factor, x = width / 2, y = height / 2) {
    const before = view.zoom;
    view.zoom = Math.max(1, Math.min(40, before * factor));
    const grown = view.zoom / before, limit = view.zoom - 1;
    if (!deep) {
      view.x = x - width / 2 - grown * (x - width / 2 - view.x);
      view.y = y - height / 2 - grown * (y - height / 2 - view.y);
    }
    pan(0, 0);
  }
  function pan(x, y) {
    const within = (value, side) => Math.max(-1, Math.min(1, value / (side || 1))) * side;
    view.x = within(view.x + x, (view.zoom - 1) * width / 2);
    view.y = within(view.y + y, (view.zoom - 1) * height / 2);
    redraw();
  }
  function turn(x, y) {
    view.yaw -= x;
    view.pitch = Math.max(-Math.PI / 2, Math.min(Math.PI / 2, view.pitch + y));
    redraw();
  }

  const place = (event) => {
    const box = marks.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  marks.addEventListener("pointerdown", (event) => {
    if (event.isPrimary && event.button === 0) drag = {at: place(event), moved: false};
  });
  marks.addEventListener("pointermove", (event) => {
    const [x, y] = place(event);
    if (!drag) {
      if (event.pointerType !== "touch") pick(nearest(x, y, 14));
      return;
    }
    const [right, down] = [x - drag.at[0], y - drag.at[1]];
    if (!drag.moved && Math.hypot(right, down) < 5) return;
    if (!drag.moved) {
      drag.moved = true;
      // Events that a program made up have no pointer to follow beyond the map.
      if (event.isTrusted) marks.setPointerCapture(event.pointerId);
      choose(-1);
    }
    drag.at = [x, y];
    if (deep) turn(right / 160, down / 160); else if (view.zoom > 1) pan(right, down);
  });
  marks.addEventListener("pointerup", (event) => {
    if (drag && !drag.moved) pick(nearest(...place(event), event.pointerType === "touch" ? 28 : 14));
    drag = null;
  });
  marks.addEventListener("pointercancel", () => { drag = null; });
  marks.addEventListener("pointerleave", (event) => { if (event.pointerType !== "touch" && !drag) choose(-1); });
  marks.addEventListener("wheel", (event) => {
    // The wheel alone belongs to the page.
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 200), ...place(event));
  }, {passive: false});
  marks.addEventListener("focus", () => { if (marks.matches(":focus-visible") && chosen < 0) step(0, 0); });
  marks.addEventListener("blur", () => { if (map.holdsTip) choose(-1); });
  marks.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const arrow = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
    if (arrow && deep && event.shiftKey) turn(arrow[0] * .15, arrow[1] * .15);
    else if (arrow) step(...arrow);
    else if (event.key === "+" || event.key === "=") zoom(1.5);
    else if (event.key === "-") zoom(1 / 1.5);
    else if (event.key === "0") { Object.assign(view, first); redraw(); }
    else if (event.key === "Escape" && chosen >= 0) choose(-1);
    else return;
    event.preventDefault();
  });

  const tools = make("div", "map-tools"), select = make("select"), zooms = make("div", "map-zoom");
  if (shared.colourings.length > 1) {
    const label = make("label", "", "Colour by");
    for (const each of shared.colourings) select.append(make("option", "", each.name));
    select.addEventListener("change", () => { colouring = select.selectedIndex; recolour(); });
    label.append(select);
    tools.append(label);
  }
  zooms.append(button("\u2212", "Zoom out", () => zoom(1 / 1.5)), button("+", "Zoom in", () => zoom(1.5)),
    button("Reset", "", () => { Object.assign(view, first); redraw(); }));
  tools.append(zooms);

  const entries = make("div", "map-legend");
  entries.setAttribute("role", "group");
  function legend() {
    select.selectedIndex = colouring;
    if (!now()) return;
    const counts = new Map();
    for (const slot of slotOf) counts.set(groupOf(slot), (counts.get(groupOf(slot)) || 0) + 1);
    const groups = Array.from(counts.keys()).sort((one, other) => (one < 0) - (other < 0) || one - other);
    const off = hidden[colouring], active = Array.from(entries.children).indexOf(document.activeElement);
    entries.setAttribute("aria-label", `Groups by ${now().name}: press to hide or show`);
    entries.replaceChildren();
    if (groups.length > 2) entries.append(
      button("Show all", "", () => { off.clear(); recolour(); }),
      button("Hide all", "", () => { for (const group of groups) off.add(group); recolour(); }));
    for (const group of groups) {
      const entry = button("", "", () => { if (!off.delete(group)) off.add(group); recolour(); });
      entry.setAttribute("aria-pressed", String(!off.has(group)));
      const word = make("span", "map-word", nameOf(now(), group));
      entry.append(sign(group), word, make("small", "", number(counts.get(group))));
      entries.append(entry);
    }
    if (active >= 0) entries.children[active].focus();
  }

  figure.append(tools);
  if (!deep && told.axes.length) figure.append(make("div", "map-axis", `\u2191 ${told.axes[1]}`));
  figure.append(frame);
  if (told.axes.length) figure.append(deep
    ? make("div", "map-axis", `Axes: ${told.axes.map((name, i) => `${i + 1} \u2013 ${name}`).join("; ")}`)
    : make("div", "map-axis end", `${told.axes[0]} \u2192`));
  figure.append(entries, make("figcaption", "", (count < told.count ? `${number(count)} of ` : "") + number(told.count)
    + " points. Hover over one or tap it to see it, or go from one to the next with the arrow keys."
    + (deep ? " Drag to turn the map." : "") + " Ctrl and the wheel zoom."));
  const map = {legend, mark, redraw, holdsTip: false, onScreen: () => {
    const box = marks.getBoundingClientRect(), i = indexOf.get(chosen);
    return [box.left + screenX[i], box.top + screenY[i]];
  }};
  maps.push(map);
  const resize = () => {
    const box = frame.getBoundingClientRect();
    if (box.width === width && box.height === height) return;
    const grown = width ? box.width / width : 1;
    [width, height, view.x, view.y] = [box.width, box.height, view.x * grown, view.y * grown];
    redraw();
  };
  legend();
  resize();
  new ResizeObserver(resize).observe(frame);
}
"""
