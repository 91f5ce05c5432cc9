import dataclasses
import json
import sys
import types as python_types
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import pytest

from configs import simsiam_digits
from ssl_jax import augment, build, loop, optim, types
from ssl_jax.types import Steps, UsageError

CLOCK = build.Clock(examples=1000, batch_size=30, total_steps=400)  # an epoch has 33 steps


@dataclasses.dataclass(frozen=True)
class Leaf:
    size_px: int = 4
    rate: float = 0.5
    word: str = "a"
    kind: Literal["round", "square", 3] = "round"
    flag: bool = False
    pair: tuple[float, float] = (0.0, 1.0)
    many: tuple[str, ...] = ()
    every: Steps = 1
    perhaps: int | None = None
    perhaps_every: Steps | None = None

    def __post_init__(self):
        if self.size_px > 100:
            raise UsageError(f"size_px is {self.size_px}: at most 100")


@dataclasses.dataclass(frozen=True)
class Branch:
    leaf: Leaf
    other: Leaf | None = None
    named: Mapping[str, Leaf] = dataclasses.field(default_factory=dict)
    anything: Any = None
    call: Callable[[int], int] = abs


class Pair(NamedTuple):
    first: int
    second: int = 2


@dataclasses.dataclass(frozen=True)
class Holder:
    pair: Pair


class Feed:
    """Remembers how often it was made."""

    made = 0

    def __init__(self, batch_size: int, examples: int = 1000):
        Feed.made += 1
        self.batch_size, self.examples, self.spec, self.chosen = batch_size, examples, {}, {}

    def batches(self, mesh, seed, first_step):
        raise NotImplementedError


def needs_package():
    raise NotImplementedError


def fit(
    *,
    folder: str,
    seed: int,
    duration: Steps,
    data: types.Feed,
    leaf: Leaf,
    named: Mapping[str, Branch],
    optimizer: optim.Optimizer,
    call: Callable[[int], int],
    optional: Leaf | None = None,
):
    raise NotImplementedError


@pytest.fixture(autouse=True)
def rooms(monkeypatch):
    """The classes above as modules below `ssl_jax`, where `build` looks for them."""
    module = python_types.ModuleType("ssl_jax.rooms")
    for item in (Leaf, Branch, Pair, Holder, Feed, fit):
        setattr(module, item.__name__, item)
    module._hidden = Leaf
    module.constant = 3
    monkeypatch.setitem(sys.modules, "ssl_jax.rooms", module)
    for item in (Leaf, Branch, Feed):
        monkeypatch.setattr(item, "__module__", "ssl_jax.rooms")
    monkeypatch.setattr(Feed, "made", 0)


def leaf(**more):
    return {"type": "rooms.Leaf", **more}


def config(**more):
    base = {
        "seed": 0,
        "duration": "10 epochs",
        "data": {"type": "rooms.Feed", "batch_size": 30},
        "leaf": leaf(),
        "named": {},
        "optimizer": {"type": "optim.sgd", "base_learning_rate": 0.1, "batch_size": 30, "decay_steps": "100 %"},
        "call": {"type": "augment.Plain"},
    }
    return {**base, **more}


def arguments(**more):
    return build.arguments(fit, config(**more), given=("folder",))


def refusal(function, *arguments, **more):
    with pytest.raises(UsageError) as caught:
        function(*arguments, **more)
    message = str(caught.value)
    assert "\n" not in message
    return message


# From a whole config to arguments.


def test_everything_is_built_from_its_section():
    built = arguments(named={"a": {"type": "rooms.Branch", "leaf": leaf(size_px=7)}}, optional=leaf(word="b"))
    assert built["seed"] == 0 and built["duration"] == 330
    assert isinstance(built["data"], Feed) and Feed.made == 1
    assert built["named"] == {"a": Branch(Leaf(size_px=7))} and built["optional"] == Leaf(word="b")
    assert isinstance(built["optimizer"], optim.Optimizer)
    assert float(built["optimizer"].learning_rate(330)) == 0.0 < float(built["optimizer"].learning_rate(329))
    assert built.keys() == config(optional=None).keys()


def test_nothing_is_built_before_all_is_checked():
    message = refusal(arguments, named={"a": {"type": "rooms.Branch", "leaf": leaf(siz_px=3)}})
    assert "config.named.a.leaf.siz_px" in message and "did you mean 'size_px'?" in message
    assert Feed.made == 0
    build.check(fit, config(), given=("folder",))
    assert Feed.made == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sede": 1}, ("config.sede", "fit has no argument 'sede'", "did you mean 'seed'?")),
        ({"zzzz": 1}, ("config.zzzz", "it takes call, data, duration")),
        ({"folder": "x"}, ("config.folder", "no argument 'folder'")),
        ({"leaf": leaf(wurd="b")}, ("config.leaf.wurd", "rooms.Leaf has no argument 'wurd'", "did you mean 'word'?")),
        ({"leaf": leaf(qqqq=1)}, ("config.leaf.qqqq", "it takes every, flag, kind")),
        ({"leaf": leaf(self=1)}, ("config.leaf.self", "no argument 'self'")),
        ({"leaf": {"size_px": 3}}, ("config.leaf needs a `type`",)),
        ({"optional": {}}, ("config.optional needs a `type`",)),
        ({"leaf": 3}, ("config.leaf=3 should be Leaf",)),
        ({"leaf": None}, ("config.leaf=None should be Leaf",)),
        ({"optional": 3}, ("config.optional=3 should be Leaf or None",)),
        ({"data": "cifar10"}, ("config.data='cifar10' should be Feed",)),
        ({"seed": {"a": 1}}, ("config.seed is a section, but should be int",)),
        ({"seed": leaf()}, ("config.seed is 'rooms.Leaf', but should be int",)),
        ({"data": {"type": "rooms.Feed"}}, ("config.data: rooms.Feed needs batch_size",)),
        ({"named": {"a": {"type": "rooms.Branch"}}}, ("config.named.a: rooms.Branch needs leaf",)),
        ({"named": {"a": {"leaf": leaf()}}}, ("config.named.a needs a `type`",)),
        ({"named": {"a": 3}}, ("config.named.a=3 should be Branch",)),
        ({"named": 3}, ("config.named=3 should be", "Mapping[str")),
        (
            {"named": {"a": {"type": "rooms.Branch", "leaf": leaf(), "other": leaf(flg=True)}}},
            ("config.named.a.other.flg", "did you mean 'flag'?"),
        ),
        (
            {"named": {"a": {"type": "rooms.Branch", "leaf": leaf(), "named": {"b": leaf(rate="x")}}}},
            ("config.named.a.named.b.rate='x' should be float",),
        ),
        (
            {"named": {"a": {"type": "rooms.Branch", "leaf": leaf(), "anything": leaf(rate="x")}}},
            ("config.named.a.anything.rate='x' should be float",),
        ),
    ],
)
def test_faults_carry_their_whole_path(change, words):
    message = refusal(arguments, **change)
    assert all(word in message for word in words), message
    assert Feed.made == 0


def test_a_missing_argument_of_fit_is_named():
    whole = config()
    del whole["leaf"], whole["call"]
    assert refusal(build.arguments, fit, whole, given=("folder",)) == "config: fit needs leaf, call"


# Import paths.


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("augment.Corp", "did you mean 'augment.Crop'?"),
        ("augment.Quokka", "ssl_jax.augment has Blur, Crop,"),
        ("augmnet.Crop", "did you mean 'augment.Crop'?"),
        ("methods.simsam.SimSiam", "did you mean 'methods.simsiam.SimSiam'?"),
        ("losses.zzzzzz.Crop", "did you mean 'augment.Crop'?"),
        ("zzzzzz.Quokka", "there is no module ssl_jax.zzzzzz"),
        ("augment.Crop.boxes", "'augment.Crop.boxes'"),
        ("Crop", 'is not an import path below ssl_jax, such as "augment.Crop"'),
        ("rooms._hidden", "did you mean"),
        ("rooms.constant", "ssl_jax.rooms has Branch, Feed, Leaf"),
        (3, "is not an import path"),
        (None, "is not an import path"),
        ("", "is not an import path"),
        ("augment.", "ssl_jax.augment has Blur, Crop,"),
    ],
)
def test_unknown_types_name_the_nearest(path, words):
    message = refusal(arguments, optional={"type": path})
    if path == "rooms._hidden":
        words = "ssl_jax.rooms has"
    assert message.startswith(f"config.optional.type={path!r}") and words in message, message


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    monkeypatch.setitem(sys.modules, "grain.python", None)
    monkeypatch.delitem(sys.modules, "ssl_jax.data.stream", raising=False)
    message = refusal(arguments, optional={"type": "data.stream.HostCrop", "size_px": 3})
    assert "config.optional.type='data.stream.HostCrop' needs the Python package 'grain" in message, message


# Literals against annotations.


@pytest.mark.parametrize(
    "values",
    [
        {"size_px": 3, "rate": 1, "word": "", "kind": "square", "flag": True, "pair": (1, 2.5), "many": ("a", "b")},
        {"kind": 3, "pair": [0.5, 1], "many": [], "perhaps": None, "perhaps_every": None},
        {"perhaps": 3, "every": 7, "perhaps_every": "5 %"},
    ],
)
def test_literals_that_fit(values):
    built = build.section(leaf(**values), "config.leaf", CLOCK)
    expected = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    if "perhaps_every" in values:
        expected["perhaps_every"] = values["perhaps_every"] and 20
    assert built == Leaf(**expected)
    assert all(isinstance(getattr(built, name), tuple) for name in ("pair", "many"))


@pytest.mark.parametrize(
    ("key", "value", "should"),
    [
        ("size_px", "4", "int"),
        ("size_px", 4.0, "int"),
        ("size_px", True, "int"),
        ("size_px", None, "int"),
        ("size_px", (4,), "int"),
        ("rate", "0.5", "float"),
        ("rate", True, "float"),
        ("word", 3, "str"),
        ("word", None, "str"),
        ("flag", 1, "bool"),
        ("flag", "true", "bool"),
        ("kind", "triangle", "one of 'round', 'square', 3"),
        ("kind", 3.0, "one of 'round', 'square', 3"),
        ("pair", (1.0,), "tuple[float, float]"),
        ("pair", (1.0, "a"), "tuple[float, float]"),
        ("pair", 1.0, "tuple[float, float]"),
        ("many", "ab", "tuple[str, ...]"),
        ("many", ("a", 1), "tuple[str, ...]"),
        ("perhaps", "3", "int or None"),
        ("every", 1.5, "a duration"),
        ("every", True, "a duration"),
        ("every", None, "a duration"),
    ],
)
def test_literals_that_do_not_fit(key, value, should):
    message = refusal(build.section, leaf(**{key: value}), "config.leaf", CLOCK)
    assert message.startswith(f"config.leaf.{key}={value!r} should be {should}"), message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"leaf": {"type": "augment.Crop", "size_px": 3}}, "config.leaf is Crop, but should be Leaf"),
        ({"optional": {"type": "augment.Crop", "size_px": 3}}, "config.optional is Crop, but should be Leaf or None"),
        (
            {"named": {"a": {"type": "rooms.Branch", "leaf": {"type": "augment.Flip"}}}},
            "config.named.a.leaf is Flip, but should be Leaf",
        ),
        ({"named": {"a": leaf()}}, "config.named.a is Leaf, but should be Branch"),
        ({"call": leaf()}, "config.call is Leaf, but should be "),
        ({"optimizer": {"type": "rooms.Pair", "first": 1}}, "config.optimizer is Pair, but should be Optimizer"),
        ({"optimizer": leaf()}, "config.optimizer is Leaf, but should be Optimizer"),
    ],
)
def test_an_object_of_another_kind_is_refused(change, words):
    assert refusal(arguments, **change).startswith(words)


def test_a_protocol_is_met_by_its_members():
    with pytest.raises(UsageError, match=r"config\.data is Leaf, but should be Feed"):
        build._check_built(Leaf(), types.Feed, "config.data")
    with pytest.raises(UsageError, match=r"config\.run is Leaf, but should be Evaluator"):
        build._check_built(Leaf(), types.Evaluator, "config.run")
    build._check_built(Feed(3), types.Feed, "config.data")
    build._check_built(lambda exports, state, untrained: None, types.Evaluator, "config.run")


def test_constructors_faults_get_the_path():
    message = refusal(arguments, named={"a": {"type": "rooms.Branch", "leaf": leaf(size_px=101)}})
    assert message == "config.named.a.leaf: size_px is 101: at most 100"
    optimizer = {**config()["optimizer"], "warmup_steps": "200 %"}
    assert refusal(arguments, optimizer=optimizer).startswith("config.optimizer: warmup_steps is 660")


def test_lists_are_taken_as_tuples_all_the_way_down():
    stored = json.loads(json.dumps(config(leaf=leaf(pair=(0.1, 0.2), many=("a", "b")))))
    built = build.arguments(fit, stored, given=("folder",))
    assert built["leaf"] == Leaf(pair=(0.1, 0.2), many=("a", "b"))
    assert build.normalised({"a": [1, [2, {"b": [3]}]]}) == {"a": (1, (2, {"b": (3,)}))}


# Durations.


@pytest.mark.parametrize(
    ("value", "steps"),
    [
        (0, 0),
        (5000, 5000),
        ("5000", 5000),
        ("5000 steps", 5000),
        ("1 step", 1),
        ("800 epochs", 800 * 33),
        ("1 epoch", 33),
        ("0.5 epochs", 16),  # 16.5, rounded to even
        ("2.5epochs", 82),
        ("25 Mimages", 833_333),
        ("10 kimages", 333),
        ("90 images", 3),
        ("5 %", 20),
        ("100 %", 400),
        ("0.1 %", 1),  # less than a step is still something
        ("1 images", 1),
        ("0 epochs", 0),
        (" 3 epochs ", 99),
    ],
)
def test_durations(value, steps):
    assert CLOCK.steps(value, "config.x") == steps
    assert isinstance(CLOCK.steps(value, "config.x"), int)


@pytest.mark.parametrize(
    "value", [-1, "-5 epochs", "", "epochs", "5 weeks", "5 epochs 3", "1e3 steps", "5 mimages", "five", "5 . %", "."]
)
def test_nonsense_is_no_duration(value):
    message = refusal(CLOCK.steps, value, "config.x")
    assert message.startswith(f"config.x={value!r} is not a duration: write steps (5000)")


def test_the_whole_is_no_share_of_itself():
    message = refusal(arguments, duration="5 %")
    assert message == "config.duration='5 %': the whole cannot be a share of itself; write steps or \"800 epochs\""


def test_a_training_of_no_steps_is_refused_unless_it_is_meant():
    assert refusal(arguments, duration="0 epochs").startswith("config.duration='0 epochs' comes to 0 steps")
    for meant in (0, "0", "0 steps"):
        assert arguments(duration=meant)["duration"] == 0


def test_steps_in_a_tuple_are_resolved_one_by_one():
    class Several:
        def __init__(self, times: tuple[types.Steps, ...]):
            self.times = times

    rooms = sys.modules["ssl_jax.rooms"]
    rooms.Several = Several
    section = {"type": "rooms.Several", "times": ("20 %", 7, "2 epochs")}
    clock = build.Clock(examples=100, batch_size=10, total_steps=50)
    assert build.section(section, "config.x", clock).times == (10, 7, 20)
    with pytest.raises(UsageError, match=r"config\.x\.times\[1\]='soon' is not a duration"):
        build.section({**section, "times": (1, "soon")}, "config.x", clock)


@pytest.mark.parametrize("value", [2**31, 10**400])
def test_more_steps_than_a_device_counts_are_refused(value):
    assert CLOCK.steps(2**31 - 1, "config.x") == 2**31 - 1
    assert refusal(CLOCK.steps, value, "config.x").endswith(": 2,147,483,647 steps are the most")


def test_a_duration_in_words_needs_something_to_measure_by():
    message = refusal(build.section, leaf(every="5 epochs"), "config.leaf")
    assert message.startswith("config.leaf.every='5 epochs': no data set is at hand")
    assert build.section(leaf(every=5), "config.leaf") == Leaf(every=5)


def test_durations_in_nested_and_optional_places_are_resolved():
    built = arguments(named={"a": {"type": "rooms.Branch", "leaf": leaf(every="10 %"), "named": {"b": leaf(every=2)}}})
    assert built["named"]["a"].leaf.every == 33 and built["named"]["a"].named["b"].every == 2


# A real config.


def test_references_follow_an_override():
    digits = simsiam_digits.get_config()
    digits.data.batch_size = 32
    whole = build.normalised(digits.to_dict())
    assert whole["method"]["optimizer"]["batch_size"] == 32
    # A reference put into a dict comes out as the number it stood for.
    json.dumps(whole)


def test_a_misspelt_key_of_a_real_config_is_found():
    digits = simsiam_digits.get_config().to_dict()
    digits["preprocess"]["first"]["crop"]["size"] = 12
    digits["evaluators"] = {}
    message = refusal(build.check, loop.fit, digits, given=("folder", "config"))
    assert (
        message == "config.preprocess.first.crop.size: augment.Deform has no argument 'size'; did you mean 'size_px'?"
    )


def test_a_section_by_itself():
    built = build.section({"type": "augment.Crop", "size_px": 8, "scale": [0.5, 1]}, "config.crop")
    assert built == augment.Crop(size_px=8, scale=(0.5, 1))
