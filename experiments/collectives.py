"""What a compiled program sends between its devices, read from its text: XLA says it nowhere else."""

import collections
import math
import re
from collections.abc import Mapping

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.-]+) (?:\([^=]*\) -> .*)?\{")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.-]+) = (.*)$")
_ARRAY = re.compile(r"\b(pred|token|[suf]\d+\w*|bf16|c64|c128)\[([\d,]*)\]")
_CALLED = re.compile(r"\b(?:calls|to_apply|body|condition)=%?([\w.-]+)")
_BRANCHES = re.compile(r"\b(?:branch_computations=\{([^}]*)\}|(?:true|false)_computation=%?([\w.-]+))")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_GROUPS = re.compile(
    r"replica_groups=(?:\{\{(?P<listed>[\d,]*)\}|\[\d+,(?P<iota>\d+)\]<=|mesh\[(?P<mesh>[^\]]*)\] \{(?P<axes>[^}]*)\})"
)
_AXIS = re.compile(r"'(\w+)'(?::\(\d+\)(\d+))?")  # a part of an axis names its length


def operand_bytes(program: str) -> dict[str, int]:
    """What each device gives to the collectives of one run of a program, in bytes by kind, where there are any.

    The body of a loop counts as often as the loop is known to run, else once, and of a condition the branch that gives
    most. An asynchronous pair counts once.

    Args:
        program: an optimised HLO module as `Compiled.as_text()` prints it.

    Raises:
        ValueError: for a text that is none.
    """
    return {kind: size for (kind, _), size in _sorted(_of_entry(program))}


def ring_bytes(program: str, devices: int) -> int:
    """What each device sends in one run where every collective goes around a ring, the least that is possible.

    Of n devices an all-reduce sends 2 (n - 1) / n of its operand, a reduce-scatter and an all-to-all (n - 1) / n, an
    all-gather n - 1 times it, a permutation all of it.

    Args:
        program: as of `operand_bytes`.
        devices: how many there are in all, for the collectives that name no groups.
    """
    total = 0.0
    for (kind, group), size in _of_entry(program).items():
        count = group or devices
        share = (count - 1) / count
        total += size * {"all-reduce": 2 * share, "all-gather": count - 1, "collective-permute": 1}.get(kind, share)
    return round(total)


def _sorted(counts):
    by_kind = collections.Counter()
    for (kind, _), size in counts.items():
        by_kind[kind] += size
    return [((kind, 0), by_kind[kind]) for kind in KINDS if by_kind[kind]]


def _of_entry(program):
    computations, entry = _computations(program)
    if entry is None:
        raise ValueError("the text has no ENTRY computation: it is no HLO module")
    known: dict[str, Mapping] = {}

    def of(name):
        if name not in known:
            known[name] = collections.Counter()  # a computation never calls itself
            total = collections.Counter()
            for line in computations.get(name, {}).values():
                _add(total, _own(line, computations[name]), 1)
                trips = _TRIPS.search(line)
                for called in _CALLED.findall(line):
                    _add(total, of(called), int(trips[1]) if trips else 1)
                branches = [
                    name for group in _BRANCHES.findall(line) for name in re.findall(r"[\w.-]+", " ".join(group))
                ]
                if branches:
                    _add(total, max((of(branch) for branch in branches), key=lambda counts: sum(counts.values())), 1)
            known[name] = total
        return known[name]

    return of(entry)


def _add(total, counts, times):
    for key, size in counts.items():
        total[key] += size * times


def _computations(program):
    """The instructions of every computation, their text by name, and which one is the entry."""
    computations, entry, current = {}, None, None
    for line in re.sub(r"/\*.*?\*/", "", program).splitlines():
        begins = _COMPUTATION.match(line)
        if begins:
            current = computations.setdefault(begins[2], {})
            entry = begins[2] if begins[1] else entry
        elif current is not None and (found := _INSTRUCTION.match(line)):
            current[found[1]] = found[2]
    return computations, entry


def _own(line, computation):
    """What one instruction gives to the others, by kind and size of the group, 0 where it names none."""
    shape_end = _end_of_shape(line)
    found = re.match(rf"\s*({'|'.join(KINDS)})(-start)?\(", line[shape_end:])
    if not found:
        return {}
    begin = shape_end + found.end()
    operands = line[begin : _closing(line, begin - 1)]
    size = _bytes(operands)
    if not size:  # the operands are printed without their shapes
        names = re.findall(r"%?([\w.-]+)", operands)
        size = sum(_bytes(computation[name][: _end_of_shape(computation[name])]) for name in names)
    return {(found[1], _group(line)): size}


def _group(line):
    """How many devices a collective brings together, 0 where it brings all."""
    groups = _GROUPS.search(line)
    if groups is None:
        return 0
    if groups["listed"] is not None:
        return len(groups["listed"].split(","))
    if groups["iota"] is not None:
        return int(groups["iota"])
    lengths = dict(re.findall(r"'(\w+)'=(\d+)", groups["mesh"]))
    return math.prod(int(part or lengths[axis]) for axis, part in _AXIS.findall(groups["axes"]))


def _end_of_shape(line):
    """Where the shape that an instruction begins with ends; a tuple's parts may be tuples."""
    return _closing(line, 0) + 1 if line.startswith("(") else line.find(" ")


def _closing(line, opening):
    depth = 0
    for place in range(opening, len(line)):
        depth += {"(": 1, ")": -1}.get(line[place], 0)
        if depth == 0:
            return place
    return len(line)


def _bytes(shapes):
    return sum(_width(kind) * math.prod(int(n) for n in axes.split(",") if n) for kind, axes in _ARRAY.findall(shapes))


def _width(kind):
    """Bytes of one number; four bits count as a byte, as they are mostly stored."""
    if kind in ("pred", "token"):
        return int(kind == "pred")
    bits = int(re.match(r"[a-z]+(\d+)", kind)[1])
    return max(1, bits // 8)
