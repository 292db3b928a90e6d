"""What a partitioned program does on each device, read from XLA's text: matrix products and collectives.

The text is the dump after the SPMD partitioner, or what goes in where there is one device; dtypes are still those that
were asked for, a CPU later widens bfloat16. `cost_analysis()` counts the body of a loop once; here it counts as often
as it runs.
"""

import collections
import dataclasses
import math
import re

_BYTES = {"pred": 1, "f64": 8, "s64": 8, "u64": 8, "f32": 4, "s32": 4, "u32": 4, "bf16": 2, "f16": 2, "s8": 1, "u8": 1}
_COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.-]+) (?:\(.*)?\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\((.*)$")
_SHAPE = re.compile(r"(\w+)\[([\d,]*)\]")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One kind of exchange.

    Attributes:
      kind: as XLA calls it.
      dtype: of what moves, as XLA calls it.
      group: how many devices take part in each.
    """

    kind: str
    dtype: str
    group: int


@dataclasses.dataclass
class Cost:
    """What one device does in one run of a program; of a condition its cheapest branch, the one of fewest products.

    Attributes:
      flops: of matrix products, two for each multiplication.
      most_flops: the same, where the dearest branch of every condition is taken.
      collectives: bytes of the results, by `Collective`.
    """

    flops: int = 0
    most_flops: int = 0
    collectives: collections.Counter[Collective] = dataclasses.field(default_factory=collections.Counter)

    def add(self, other: "Cost", times: int) -> None:
        """Counts another cost `times` times."""
        self.flops += other.flops * times
        self.most_flops += other.most_flops * times
        for what, size in other.collectives.items():
            self.collectives[what] += size * times

    def sent(self) -> float:
        """Bytes each device must send at least: an all-reduce counts as the reduce-scatter that may suffice."""
        return sum(
            size if what.kind == "collective-permute" else size * (what.group - 1) / (what.group * _shards(what))
            for what, size in self.collectives.items()
        )


def _shards(what: Collective) -> float:
    """The result of a reduce-scatter is one part of what moves."""
    return 1 / what.group if what.kind == "reduce-scatter" else 1


def cost(text: str) -> Cost:
    """The cost of a module, from its text."""
    computations: dict[str, list[re.Match[str]]] = {}
    entry, lines = "", []
    for line in text.splitlines():
        if header := _HEADER.match(line):
            lines = computations[header[2]] = []
            entry = header[2] if header[1] else entry
        elif instruction := _INSTRUCTION.match(line):
            lines.append(instruction)
    known: dict[str, Cost] = {}

    def of(name: str) -> Cost:
        if name not in known:
            known[name] = total = Cost()
            shapes = {found[1]: found[2] for found in computations[name]}
            for _, shape, kind, rest in (found.groups() for found in computations[name]):
                kind = kind.removesuffix("-start")
                if kind == "dot":
                    flops = _dot_flops(shape, rest, shapes)
                    total.add(Cost(flops, flops), 1)
                elif kind in _COLLECTIVES:
                    for dtype, size in _sizes(shape):
                        total.collectives[Collective(kind, dtype, _group(rest))] += size
                elif kind == "while":
                    condition, body = (_called(rest, what)[0] for what in ("condition", "body"))
                    total.add(of(body), _trips(computations[condition]))
                elif kind == "conditional":
                    names = ("branch_computations", "true_computation", "false_computation")
                    branches = [of(callee) for what in names for callee in _called(rest, what)]
                    least = min(branches, key=lambda branch: branch.flops)
                    most_flops = max(branch.most_flops for branch in branches)
                    total.add(dataclasses.replace(least, most_flops=most_flops), 1)
                elif kind in ("call", "fusion"):
                    for callee in _called(rest, "to_apply") + _called(rest, "calls"):
                        total.add(of(callee), 1)
        return known[name]

    return of(entry)


def _sizes(shape: str) -> list[tuple[str, int]]:
    """(dtype, bytes) of every array of a shape, which may be a tuple's."""
    return [(dtype, _BYTES[dtype] * _product(sizes)) for dtype, sizes in _SHAPE.findall(shape)]


def _product(sizes: str) -> int:
    return math.prod(int(size) for size in sizes.split(",") if size)


def _called(rest: str, what: str) -> list[str]:
    found = re.search(rf"\b{what}=(?:\{{(.*?)\}}|([^\s,]+))", rest)
    return [name.strip(" %") for name in (found[1] or found[2]).split(",")] if found else []


def _trips(condition: list[re.Match[str]]) -> int:
    """How often a loop runs whose counter starts at 0 and stays below a constant, as those of `scan` do."""
    limits = [found[4] for found in condition if found[3] == "constant" and found[2].startswith("s32[]")]
    assert len(limits) == 1, f"a loop that does not count to one constant: {limits}"
    return int(limits[0].split(")")[0])


def _dot_flops(shape: str, rest: str, shapes: dict[str, str]) -> int:
    operand = re.match(r"(?:\w+\[\S* )?%?([\w.-]+)", rest)
    dims = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", rest)
    assert operand
    assert dims
    sizes = _SHAPE.findall(shapes[operand[1]])[0][1].split(",")
    contracted = math.prod(int(sizes[int(dim)]) for dim in dims[1].split(",") if dim)
    return 2 * contracted * _product(_SHAPE.findall(shape)[0][1])


def _group(rest: str) -> int:
    """Devices in a group; XLA writes the groups in three ways."""
    if mesh := re.search(r"replica_groups=mesh\[(.*?)\].*?\{('.*?)\}", rest):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", mesh[1]))
        return math.prod(int(part or sizes[axis]) for axis, part in re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", mesh[2]))
    if iota := re.search(r"replica_groups=\[\d+,(\d+)\]<=", rest):
        return int(iota[1])
    if groups := re.search(r"replica_groups=\{\{([\d,]*)\}", rest):
        return len(groups[1].split(","))
    return 2
