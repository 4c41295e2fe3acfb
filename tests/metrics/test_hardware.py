"""The table of hardware, and the measurement of this machine."""

import time

import pytest

from llmcourse.errors import UserError
from llmcourse.metrics.hardware import HARDWARE, Hardware, hardware, measure_this_machine


def test_the_table_holds_what_data_sheets_say() -> None:
    a100 = hardware("a100-80gb")
    assert (a100.name, a100.flops, a100.memory) == ("A100 80 GB", 312e12, 80e9)
    assert a100.ridge == pytest.approx(153, abs=1)
    assert hardware("H100 SXM").flops == 989e12             # dense; data sheets print the double, with sparsity
    assert set(HARDWARE) == {"A10", "A100 40 GB", "A100 80 GB", "H100 SXM", "H200", "L4", "MI300X"}


@pytest.mark.parametrize("name", list(HARDWARE))
def test_every_row_is_complete_and_plausible(name) -> None:
    machine = HARDWARE[name]
    assert 50e12 < machine.flops < 3e15 and 1e11 < machine.bandwidth < 1e13 and 1e10 < machine.memory < 3e11
    assert machine.watts and machine.price_per_hour and machine.source


def test_an_unknown_name_says_what_there_is() -> None:
    with pytest.raises(UserError, match="H100 SXM"):
        hardware("Z80")


def test_derated_keeps_the_rest() -> None:
    machine = Hardware("x", flops=100, bandwidth=10, memory=5, watts=7).derated(flops=0.5, bandwidth=0.8)
    assert machine == Hardware("x", flops=50, bandwidth=8, memory=5, watts=7)


def test_together_everything_adds_up() -> None:
    pair = hardware("H100 SXM").together(2)
    assert (pair.name, pair.flops, pair.bandwidth, pair.memory) == ("2 x H100 SXM", 1978e12, 6.7e12, 160e9)
    assert (pair.watts, pair.price_per_hour, pair.ridge) == (1400, 6.0, hardware("H100 SXM").ridge)
    assert Hardware("x", 1.0, 1.0, 1.0).together(3).watts is None
    with pytest.raises(UserError, match="at least 1"):
        pair.together(0)


def test_this_machine_is_hardware_like_any_other() -> None:
    machine = hardware("this machine")
    assert machine.source == "measured" and machine is hardware("This machine")


def test_this_machine_is_measured_in_a_short_time() -> None:
    start = time.perf_counter()
    machine = measure_this_machine(seconds=0.05)
    assert time.perf_counter() - start < 20                 # torch's import and a busy machine included
    assert machine.source == "measured" and "float32" in machine.name
    assert 1e8 < machine.flops < 1e15 and 1e8 < machine.bandwidth < 1e13 and machine.memory > 1e8
