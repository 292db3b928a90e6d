"""Accelerators as their makers describe them."""

from typing import NamedTuple

GIB = 2**30


class Chip(NamedTuple):
    """One device, from its maker's data sheet.

    Attributes:
      kind: a part of jax's `device_kind`; the PCIe cards of an H100 are slower and not meant.
      flops: dense bfloat16 matrix FLOP/s.
      memory: bytes.
      bandwidth: of the memory, bytes/s.
      link: to devices of the same node or pod, over all links together, one way, bytes/s.
    """

    kind: str
    flops: float
    memory: float
    bandwidth: float
    link: float


CHIPS = {
    "A100-80": Chip("A100", 312e12, 80e9, 2.039e12, 300e9),
    "H100": Chip("H100 80GB HBM3", 989e12, 80e9, 3.35e12, 450e9),
    "H200": Chip("H200", 989e12, 141e9, 4.8e12, 450e9),
    "v4": Chip("TPU v4", 275e12, 32 * GIB, 1.2e12, 300e9),
    "v5e": Chip("TPU v5 lite", 197e12, 16 * GIB, 0.82e12, 200e9),
    "v5p": Chip("TPU v5", 459e12, 95 * GIB, 2.765e12, 600e9),  # after the lite: jax names it "v5" or "v5p"
    "v6e": Chip("TPU v6 lite", 918e12, 32 * GIB, 1.64e12, 400e9),
}


def peak_flops(device_kind: str) -> float | None:
    """Published bf16 FLOP/s of one device of this kind, or None where it is not in `CHIPS`."""
    return next((chip.flops for chip in CHIPS.values() if chip.kind in device_kind), None)
