"""Columns of a run: the same facts as its records, selected and put together."""

import numpy as np
import pytest
from hypothesis import given, settings

from llmcourse.metrics.records import records
from llmcourse.metrics.table import COLUMNS, Table
from tests.metrics.logs import aborted, engines, one_request, queued


def table(*logs):
    return Table.of(records(event for log in logs for event in log))


MIXED = (one_request("a", tenant="x", times=(3.0, 4.0, 6.0)),
         one_request("b", tenant="y", times=(2.0, 7.0), ttft_slo=1.0),
         [queued(8.0, "c", tenant="x"), aborted(9.0, "c", reason="full")], [queued(9.0, "d", tenant="x")])


def test_a_row_for_each_request_in_order_of_the_log():
    made = table(*MIXED)
    assert len(made) == 4 and list(made["id"]) == ["a", "b", "c", "d"]
    assert list(made["finish_reason"]) == ["length", "length", "shed", ""]
    assert list(made.finished) == [True, True, False, False]
    assert list(made["ttft"][:2]) == [3.0, 2.0] and np.isnan(made["ttft"][2:]).all()
    assert made["ttft_slo"][1] == 1.0 and np.isnan(made["ttft_slo"][0])
    assert made["output_tokens"].dtype.kind == "i" and made.tenants == ["x", "y"]


def test_gaps_keep_their_owners():
    made = table(*MIXED)
    assert list(made.gap_seconds) == [1.0, 2.0, 5.0] and list(made.gap_counts) == [1, 1, 1]
    assert list(made.of_tenant("y").gap_seconds) == [5.0]
    assert list(made.of_tenant("x").gap_rows) == [0, 0]
    assert list(made.select(np.array([1, 0])).gap_rows) == [1, 1, 0]


def test_gaps_without_owners_cannot_be_selected():
    made = table(*MIXED)
    shared = Table(made.columns, made.gap_seconds, made.gap_counts)
    assert len(shared.of_tenant("x")) == 3 and len(shared.of_tenant("x").gap_seconds) == 0
    assert Table.concat([shared, made]).gap_rows is None


def test_instances_are_put_together():
    both = Table.concat([table(MIXED[0]), table(MIXED[1])])
    whole = table(*MIXED[:2])
    for name in COLUMNS:
        np.testing.assert_array_equal(both[name], whole[name])
    np.testing.assert_array_equal(both.gap_rows, whole.gap_rows)
    assert len(Table.concat([])) == 0


def test_an_empty_table_and_its_frame():
    empty = Table.of([])
    assert len(empty) == 0 and empty.tenants == [] and len(empty.frame()) == 0 and not empty.finished.any()
    assert list(table(*MIXED).frame().columns) == list(COLUMNS)


def test_a_table_with_a_hole_is_refused():
    made = table(*MIXED)
    with pytest.raises(ValueError, match="needs the column"):
        Table({k: v for k, v in made.columns.items() if k != "ttft"}, made.gap_seconds, made.gap_counts)
    with pytest.raises(ValueError, match="equally long"):
        Table({**made.columns, "ttft": np.zeros(1)}, made.gap_seconds, made.gap_counts)
    with pytest.raises(ValueError, match="3 gaps came with 2 counts"):
        Table(made.columns, made.gap_seconds, made.gap_counts[:2])


@settings(max_examples=50, deadline=None)
@given(engines())
def test_a_table_says_what_the_records_say(engine):
    rows = engine.records()
    made = Table.of(rows)
    for name in COLUMNS:
        for got, row in zip(made[name], rows, strict=True):
            want = getattr(row, name)
            assert got == want if want not in (None, "") else got == "" or np.isnan(got)
    assert made.gap_counts.sum() == sum(len(row.itl) for row in rows)
    parts = made["queue_time"] + made["prefill_time"] + made["decode_time"] + made["preempted_time"]
    np.testing.assert_allclose(parts[made.finished], made["e2e"][made.finished], atol=1e-9)
