"""What a machine can do at most: operations a second, bytes a second, bytes in all.

Two ceilings bound every step of a model, and a third bounds how many requests wait inside it. For real GPUs they stand
in `data/hardware.json`, from data sheets (dense, not the doubled figure for sparse matrices); for the machine at hand
they are measured. Nobody reaches a data sheet: `derated` says how much of it to believe. Torch loads only to measure.
Week 2.
"""

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from llmcourse.errors import UserError
from llmcourse.paths import DATA


@dataclass(frozen=True)
class Hardware:
    """One accelerator or machine.

    ``flops`` in FLOP/s and ``bandwidth`` in bytes/s are peaks, ``memory`` is in bytes, ``watts`` is the board's limit,
    ``price_per_hour`` is in dollars (a rounded list price); None is unknown.
    """

    name: str
    flops: float
    bandwidth: float
    memory: float
    watts: float | None = None
    price_per_hour: float | None = None
    source: str = ""

    @property
    def ridge(self) -> float:
        """FLOP per byte at which both ceilings meet: below it memory is the limit, above it compute."""
        return self.flops / self.bandwidth

    def derated(self, flops: float = 0.55, bandwidth: float = 0.8) -> "Hardware":
        """The same with the shares of its peaks that real kernels reach (a common experience of large GPUs)."""
        return replace(self, flops=self.flops * flops, bandwidth=self.bandwidth * bandwidth)

    def together(self, count: int) -> "Hardware":
        """``count`` of them as one machine: everything adds up, and what they tell each other is free."""
        if count < 1:
            raise UserError(f"{count} of {self.name} is no machine; it takes at least 1")
        return replace(self, name=f"{count} x {self.name}", flops=self.flops * count, bandwidth=self.bandwidth * count,
                       memory=self.memory * count, watts=self.watts and self.watts * count,
                       price_per_hour=self.price_per_hour and self.price_per_hour * count)


def read_hardware(path: Path) -> dict[str, Hardware]:
    """Name to hardware, in the order of the table."""
    return {row["name"]: Hardware(**row) for row in json.loads(path.read_text(encoding="utf-8"))["hardware"]}


@cache
def _table() -> dict[str, Hardware]:
    return read_hardware(DATA / "hardware.json")


def hardware(name: str) -> Hardware:
    """The accelerator of that name, for example ``"A100 80 GB"``; ``"this machine"`` is measured, once.

    Raises UserError naming what there is.
    """
    if _plain(name) == "thismachine":
        return _this_machine()
    found = {_plain(known): known for known in _table()}
    if _plain(name) not in found:
        raise UserError(f"no hardware {name!r}; there are {', '.join(_table())} and this machine")
    return _table()[found[_plain(name)]]


@cache
def _this_machine() -> Hardware:
    return measure_this_machine()


def _plain(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def measure_this_machine(device: str = "cpu", seconds: float = 0.4) -> Hardware:
    """Peaks of this machine, measured in about 1.5 s: float32 on a CPU, float16 on a GPU.

    Compute is the best product of two matrices, bandwidth the best product of one vector with a matrix far larger than
    the caches: what a prefill and a decode step do. ``seconds`` go into each. On a busy machine the answer is too low.
    """
    import torch

    kind = torch.float32 if device == "cpu" else torch.float16
    small, large = (512, 4096) if device == "cpu" else (8192, 16384)
    a, b = torch.ones(small, small, device=device, dtype=kind), torch.ones(small, small, device=device, dtype=kind)
    w = torch.ones(large, 2 * large, device=device, dtype=kind)
    x = torch.ones(1, large, device=device, dtype=kind)
    wait = torch.cuda.synchronize if device.startswith("cuda") else _nothing
    with torch.inference_mode():
        compute, read = _best_seconds(lambda: a @ b, wait, seconds), _best_seconds(lambda: x @ w, wait, seconds)
    if device.startswith("cuda"):
        name, memory = torch.cuda.get_device_name(device), torch.cuda.get_device_properties(device).total_memory
    else:
        name = f"this machine ({torch.get_num_threads()} threads, float32)"
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Hardware(name, 2 * small**3 / compute, w.numel() * w.element_size() / read, memory, source="measured")


def _nothing() -> None:
    """A CPU has done its work when a call returns."""


def _best_seconds(call: Callable[[], Any], wait: Callable[[], Any], seconds: float) -> float:
    """The shortest of as many runs as fit: what disturbs a run only ever makes it longer."""
    call()
    wait()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end or best == float("inf"):
        start = time.perf_counter()
        call()
        wait()
        best = min(best, time.perf_counter() - start)
    return best


def __getattr__(name: str) -> Any:
    """``HARDWARE``: the whole table by name, read on first use."""
    if name == "HARDWARE":
        return dict(_table())
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
