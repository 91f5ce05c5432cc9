"""Maps show every point where it lies, say what it is when asked, and hold any text without running it."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from ssl_jax import page, types
from ssl_jax.explore import scatter
from tests import browser

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
# Where five points lie, from the middle: three of group 0, one of group 1, one of none.
CROSS = np.array([[0.0, 0.0], [10.0, 0.0], [-10.0, 0.0], [0.0, 6.0], [0.0, -6.0]])


def cross(*, image_px=3, channels=3):
    """The `Points` of `CROSS`, whose images are of one tone each."""
    tones = np.array([10, 60, 110, 160, 210], np.uint8)
    images = np.tile(tones[:, None, None, None], (1, image_px, image_px + 1, channels))
    kind = scatter.Colouring("kind", np.array([0, 0, 0, 1, -1]), ("even", EVIL))
    other = scatter.Colouring("order", np.arange(5), tuple(f"nr {i}" for i in range(5)))
    return scatter.Points(("middle", EVIL, "west", "north", "south"), (kind, other), images)


def told(fragment):
    return [json.loads(text) for text in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', fragment)]


def sprite(fragment):
    kind, text = re.search(r'src="data:image/(\w+);base64,([^"]+)"', fragment).groups()
    return kind, np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def many(count, images=None):
    return scatter.Points(tuple(map(str, range(count))), (), images)


def test_what_a_page_holds_is_what_the_points_say():
    (held,) = told(scatter.shared(cross()))
    assert held["names"] == ["middle", EVIL, "west", "north", "south"]
    assert [(each["name"], each["groups"], each["names"]) for each in held["colourings"]] == [
        ("kind", [0, 0, 0, 1, -1], ["even", EVIL]),
        ("order", [0, 1, 2, 3, 4], ["nr 0", "nr 1", "nr 2", "nr 3", "nr 4"]),
    ]
    assert held["rows"] is None


def test_no_text_of_a_user_ends_a_script_or_begins_a_tag():
    fragment = scatter.shared(cross()) + scatter.figure('a"b', CROSS, label=EVIL, axes=(EVIL, "y"))
    assert fragment.count("</script>") == 2
    assert "<img src=x" not in fragment and "alert(1)</script><" not in fragment
    assert 'id="map-a&quot;b"' in fragment
    assert told(fragment)[1]["label"] == EVIL


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("offset", [0.0, 1e6, -1e30])
def test_places_keep_their_proportions_to_a_ten_thousandth(dimensions, offset):
    width = 3.0 if abs(offset) < 1e9 else 1e30
    places = np.random.default_rng(0).random((40, dimensions)) * width + offset
    held = np.array(told(scatter.figure("a", places, label="a"))[0]["places"], float).T
    middle = (places.min(axis=0) + places.max(axis=0)) / 2
    widest = np.ptp(places, axis=0).max()
    np.testing.assert_allclose(held / 10_000 * widest, places - middle, rtol=0, atol=0.51e-4 * widest)


def test_all_points_in_one_place_are_drawn_in_the_middle():
    assert told(scatter.figure("a", np.full((3, 2), 7.0), label="a"))[0]["places"] == [[0, 0, 0], [0, 0, 0]]
    assert told(scatter.figure("a", np.empty((0, 2)), label="a"))[0]["places"] == [[], []]


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_thumbnails_that_are_small_enough_are_exact(channels):
    points = cross(channels=channels)
    points.images[1, 0, 2] = np.arange(channels) * 40
    fragment = scatter.shared(points)
    kind, picture = sprite(fragment)
    how = told(fragment)[0]["thumbnails"]
    assert (kind, how["width"], how["height"]) == ("png", 4, 3)
    for place in range(5):
        left, top = place % how["columns"] * 4, place // how["columns"] * 3
        shown = picture[top : top + 3, left : left + 4]
        wanted = points.images[place]
        wanted = wanted if channels == 3 else np.rint(wanted.mean(axis=-1)).astype(np.uint8)
        shown = shown[..., 0] if channels == 5 else shown  # in grey, but stored as colours
        np.testing.assert_array_equal(shown, wanted.reshape(shown.shape))


def test_large_images_become_thumbnails_that_keep_their_shape_and_mean():
    images = np.zeros((2, 100, 50, 3), np.uint8)
    images[1, :, 25:] = 200
    fragment = scatter.shared(many(2, images), thumbnail_px=40)
    how = told(fragment)[0]["thumbnails"]
    assert (how["height"], how["width"]) == (40, 20)
    _, picture = sprite(fragment)
    assert picture.mean() == pytest.approx(images.mean(), abs=2)
    np.testing.assert_array_equal(picture[:40, 20:30], 0)  # the left half of the second is black, as it was


def test_many_photographs_are_told_in_about_a_kilobyte_each(monkeypatch):
    monkeypatch.setattr(scatter, "_MOST_LOSSLESS_BYTES", 100_000)  # 3 MB in earnest, of ten times as many
    random = np.random.default_rng(0)
    # Soft shapes with some grain; noise alone is what nothing compresses.
    soft = random.integers(0, 240, (100, 6, 6, 3), np.uint8).repeat(8, axis=1).repeat(8, axis=2)
    images = soft + random.integers(0, 16, soft.shape, np.uint8)
    fragment = scatter.shared(many(100, images))
    kind, picture = sprite(fragment)
    assert kind == "jpeg" and len(fragment) < 100 * 2200
    np.testing.assert_allclose(picture[48:96, :48].mean(axis=(0, 1)), images[10].mean(axis=(0, 1)), atol=3)


def test_above_twenty_thousand_every_few_are_kept_and_a_map_holds_the_same():
    count = 50_001
    rows = scatter.kept(count)
    assert len(rows) == 20_000 and rows[0] == 0 and set(np.diff(rows)) == {2, 3} and rows[-1] >= count - 3
    (held,) = told(scatter.shared(many(count)))
    assert held["names"] == [str(row) for row in rows] and held["rows"] == rows.tolist() and held["count"] == count
    places = np.stack([np.arange(count), np.zeros(count)], axis=1)
    (drawn,) = told(scatter.figure("a", places, label="a"))
    assert len(drawn["places"][0]) == 20_000 and drawn["count"] == count
    ends = np.interp(rows, [0, rows[-1]], [-5000, 5000])
    np.testing.assert_allclose(drawn["places"][0], ends, atol=0.51)
    np.testing.assert_array_equal(scatter.kept(20_000), np.arange(20_000))


@pytest.mark.parametrize(
    ("call", "told_of"),
    [
        (lambda: scatter.figure("a", np.zeros((3, 4)), label=""), r"places \[n, 2 or 3\].*\(3, 4\)"),
        (lambda: scatter.figure("a", np.zeros((3, 2)), label="", axes=("x",)), "a name an axis"),
        (lambda: scatter.figure("a", np.zeros((3, 2)), label="", rows=np.arange(4)), r"3 places but rows \(4,\)"),
        (lambda: scatter.figure("a", [[0, np.nan], [0, 0]], label=""), "1 of 2 places of the map 'a' are not finite"),
        (lambda: scatter.shared(scatter.Points(("a",), (scatter.Colouring("k", np.array([2]), "xy"),), None)), "'k'"),
        (lambda: scatter.shared(scatter.Points(("a",), (scatter.Colouring("k", np.zeros(2), "xy"),), None)), "'k'"),
        (lambda: scatter.shared(many(2, np.zeros((2, 4, 4, 1)))), "uint8.*not float64"),
        (lambda: scatter.shared(many(3, np.zeros((2, 4, 4, 1), np.uint8))), r"uint8 \[3, h, w, c\]"),
    ],
)
def test_what_does_not_fit_is_a_usage_error(call, told_of):
    with pytest.raises(types.UsageError, match=told_of):
        call()


# What the scripts of a page are asked with: the points that a pointer finds, each with where it was found.
SEEK = """
const find = (map, pointerType = "mouse") => {
  const marks = document.querySelector(`#map-${map} .map-marks`), box = marks.getBoundingClientRect(), found = {};
  const tip = document.querySelector(".map-tip");
  for (let y = 2; y < box.height; y += 7) for (let x = 2; x < box.width; x += 7) {
    const at = {clientX: box.left + x, clientY: box.top + y, bubbles: true, isPrimary: true, pointerType};
    if (pointerType === "mouse") marks.dispatchEvent(new PointerEvent("pointermove", at));
    else for (const kind of ["pointerdown", "pointerup"]) marks.dispatchEvent(new PointerEvent(kind, at));
    if (tip.hidden) continue;
    const name = tip.querySelector("strong").textContent, seen = tip.getBoundingClientRect();
    const all = (found[name] ||= {x: 0, y: 0, hits: 0, text: tip.innerText, out: 0});
    all.x += x; all.y += y; all.hits += 1;
    const within = seen.left >= 0 && seen.top >= 0 && seen.right <= innerWidth && seen.bottom <= innerHeight;
    all.out += !within;
    const canvas = tip.querySelector("canvas");
    all.picture = canvas && [...canvas.getContext("2d").getImageData(0, 0, 1, 1).data.slice(0, 3), canvas.width,
      canvas.height, canvas.getBoundingClientRect().width];
  }
  for (const all of Object.values(found)) { all.x /= all.hits * box.width; all.y /= all.hits * box.height; }
  return found;
};
const key = (map, name, more = {}) => document.querySelector(`#map-${map} .map-marks`).dispatchEvent(
  new KeyboardEvent("keydown", {key: name, bubbles: true, cancelable: true, ...more}));
const chosen = () => {
  const tip = document.querySelector(".map-tip");
  return tip.hidden ? null : tip.querySelector("strong").textContent;
};
const entry = (map, word) => [...document.querySelectorAll(`#map-${map} .map-legend button`)].find(
  (each) => each.textContent.startsWith(word));
await new Promise((done) => setTimeout(done, 200));
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A page with the cross, the same in space, some of its rows, and room to scroll."""
    folder = tmp_path_factory.mktemp("maps")
    body = (
        "<h1>Maps</h1>"
        + scatter.shared(cross())
        + scatter.figure("flat", CROSS, label=f"flat {EVIL}", axes=(f"x {EVIL}", "y"))
        + scatter.figure("deep", np.insert(CROSS, 2, [0, 0, 0, 5, 5], axis=1), label="deep", axes=("a", "b", "c"))
        + scatter.figure("some", CROSS[[3, 1]], label="some", rows=np.array([3, 1]))
    )
    file = folder / "index.html"
    file.write_text(page.whole("Maps", body, styles=[scatter.STYLE], scripts=[scatter.SCRIPT]), encoding="utf-8")
    return file


def asked(written, script, **options):
    """What the page answers; fails for anything that it got wrong, asked of others or could not fit."""
    answer = browser.ask(written.parent, written, SEEK + script, **options)
    assert answer["errors"] == [] and answer["loaded"] == []
    assert answer["scroll_width"] <= answer["inner_width"]
    return answer["value"]


@browser.needs_chromium
def test_a_pointer_finds_every_point_where_it_lies_and_reads_what_it_is(written):
    found = asked(written, 'return {flat: find("flat"), some: find("some"), width: innerWidth};')
    flat = found["flat"]
    assert sorted(flat) == sorted(["middle", EVIL, "west", "north", "south"])
    # West to east; north is up; one scale for both axes in a frame of 4 to 3.
    across, up = (flat[EVIL]["x"] - flat["middle"]["x"]) / 10, (flat["middle"]["y"] - flat["north"]["y"]) / 6
    assert across == pytest.approx((flat["middle"]["x"] - flat["west"]["x"]) / 10, abs=3e-3)
    assert up == pytest.approx((flat["south"]["y"] - flat["middle"]["y"]) / 6, abs=3e-3)
    assert across > 0.04 and across * 4 == pytest.approx(up * 3, abs=0.01)
    assert flat["west"]["text"].split("\n") == ["west", "kind even", "order nr 2"]
    assert flat["south"]["text"].split("\n") == ["south", "kind none", "order nr 4"]
    assert flat["north"]["text"].split("\n") == ["north", f"kind {EVIL}", "order nr 3"]
    assert flat["north"]["picture"] == [160, 160, 160, 4, 3, 144] and flat["middle"]["picture"][0] == 10
    assert all(each["out"] == 0 for each in flat.values())
    assert sorted(found["some"]) == sorted([EVIL, "north"])
    assert found["some"]["north"]["x"] < found["some"][EVIL]["x"] and found["some"]["north"]["picture"][0] == 160


@browser.needs_chromium
def test_on_a_phone_a_tap_shows_a_point_inside_the_screen(written):
    found = asked(written, 'return {points: find("flat", "touch"), width: innerWidth};', frame_px=360, height_px=740)
    assert found["width"] == 360
    assert len(found["points"]) == 5
    assert all(each["out"] == 0 for each in found["points"].values())


@browser.needs_chromium
def test_keys_walk_from_point_to_point_and_groups_can_be_hidden(written):
    walked = asked(
        written,
        """
        const path = ["Right", "Right", "Right", "Left", "Up", "Down", "Left"].map((way) => {
          key("flat", `Arrow${way}`);
          return chosen();
        });
        key("flat", "Escape");
        path.push(chosen());
        entry("deep", "even").click();
        const pressed = ["flat", "deep", "some"].map((map) => entry(map, "even").getAttribute("aria-pressed"));
        const left = Object.keys(find("flat"));
        const select = document.querySelector("#map-some select");
        select.selectedIndex = 1;
        select.dispatchEvent(new Event("change"));
        const all = Object.keys(find("flat")).length;
        entry("flat", "Hide all").click();
        const none = Object.keys(find("flat")).length;
        entry("some", "nr 1").click();
        return {path, pressed, left, all, none, one: Object.keys(find("flat")),
          selected: [...document.querySelectorAll("select")].map((each) => each.value)};
        """,
    )
    # The first key of all begins in the middle.
    assert walked["path"] == ["middle", EVIL, EVIL, "middle", "north", "middle", "west", None]
    assert walked["pressed"] == ["false", "false", "false"]
    assert sorted(walked["left"]) == ["north", "south"]
    assert (walked["all"], walked["none"], walked["one"]) == (5, 0, [EVIL])
    assert walked["selected"] == ["order"] * 3


@browser.needs_chromium
def test_a_map_in_space_turns_and_a_wheel_alone_scrolls_the_page(written):
    done = asked(
        written,
        """
        const marks = document.querySelector("#map-deep .map-marks"), box = marks.getBoundingClientRect();
        const wheel = (ctrlKey) => marks.dispatchEvent(new WheelEvent("wheel", {deltaY: -200, ctrlKey, bubbles: true,
          cancelable: true, clientX: box.left + box.width / 2, clientY: box.top + box.height / 2}));
        const places = () => { const all = find("deep"); return [all.west.x, all.west.y, all.north.y]; };
        const before = places(), free = wheel(false), same = places();
        const at = (x, y) => ({clientX: box.left + x, clientY: box.top + y, bubbles: true, isPrimary: true,
          pointerType: "mouse"});
        marks.dispatchEvent(new PointerEvent("pointerdown", at(100, 100)));
        marks.dispatchEvent(new PointerEvent("pointermove", at(100 + 160 * 0.6, 100 - 160 * 0.4)));
        marks.dispatchEvent(new PointerEvent("pointerup", at(100 + 160 * 0.6, 100 - 160 * 0.4)));
        const facing = places(), held = wheel(true), nearer = find("deep");
        key("deep", "0");
        return {before, free, same, facing, held, nearer: Object.keys(nearer), reset: places()};
        """,
    )
    assert done["free"] is True and done["same"] == done["before"]
    assert done["held"] is False and "west" not in done["nearer"] and "middle" in done["nearer"]
    # The drag undoes the turn that a map begins with: the first two axes lie in the screen, and west on a level with
    # the middle, where turned it lay nearer.
    west_x, west_y, north_y = done["facing"]
    assert west_y == pytest.approx(0.5, abs=5e-3) and done["before"][1] > 0.52
    height_of_west, height_of_north = 0.5 - west_x, (0.5 - north_y) * 3 / 4
    assert height_of_west / height_of_north == pytest.approx(10 / 6, abs=0.04)
    np.testing.assert_allclose(done["reset"], done["before"], atol=1e-6)


@browser.needs_chromium
def test_a_map_of_other_points_than_those_of_the_page_says_so(tmp_path):
    file = tmp_path / "wrong.html"
    body = scatter.shared(cross()) + scatter.figure("a", CROSS[:3], label="a")
    file.write_text(page.whole("Wrong", body, styles=[scatter.STYLE], scripts=[scatter.SCRIPT]))
    answer = browser.ask(tmp_path, file, "return 0;")
    assert [error for error in answer["errors"] if "map-a has 3 places, and the page 5 points" in error]


@browser.needs_chromium
@pytest.mark.parametrize(("dark", "ground"), [(False, (255, 255, 255)), (True, (20, 24, 29))])
def test_a_page_is_light_or_dark_as_its_reader_likes(written, tmp_path, dark, ground):
    file = tmp_path / "seen.png"
    browser.screenshot(tmp_path, written, file, dark=dark)
    picture = np.asarray(Image.open(file).convert("RGB"))
    assert tuple(picture[5, 5]) == ground
    # The first two colours of groups are there: points are drawn, and not only their legend.
    orange = np.abs(picture[200:].astype(int) - (0xE6, 0x9F, 0x00)).sum(axis=-1) < 90
    assert orange.sum() > 150
