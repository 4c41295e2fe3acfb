"""What we MEASURE, and the arithmetic of machines. No torch; pandas only where a frame is asked for.

Of a run: `records` (one per request, from the event log), `table` (the same as columns; `ledger` keeps them without a
log), `percentile`, `summary`, `slo`, `goodput`, `slowdown`, `concurrency`, `utilisation` (`meter` without a log),
`fairness`, `qoe`, `cost`, `availability`. Of a queue: `waiting_time`; of a fleet: `rental`. Of a machine: `hardware`,
`roofline`, `cost_model` and its neighbours. A file is named after what it holds:
``from llmcourse.metrics.summary import summary``. Weeks 2 to 6 and 10.
"""
