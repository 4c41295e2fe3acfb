"""WHAT we see: views, widgets, and the Chrome trace (every week).

One event log, many views. A view is a pure function from events (or plain numbers) to a plotly `Figure`; a widget is a
view with controls; `show` displays a figure with its alternative text. Nothing here changes what it looks at, and
plotly loads only when a name is first used.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "show": "display",
    "picture": "display",
    "to_svg": "svg",
    "summary": "theme",
    "table": "theme",
    "iteration_gantt": "gantt",
    "request_waterfall": "waterfall",
    "request_journey": "journey",
    "kv_occupancy": "occupancy",
    "block_map": "blocks",
    "attention_map": "attention",
    "next_token_distribution": "distribution",
    "roofline_chart": "roofline",
    "Point": "roofline",
    "Roof": "roofline",
    "kv_calculator": "kv_memory",
    "KVShape": "kv_memory",
    "beam_tree": "beam",
    "read_timeline": "timeline",
    "CourseWidget": "widget",
    "Explorer": "explorer",
    "Slider": "controls",
    "Choice": "controls",
    "Switch": "controls",
    "Text": "controls",
    "EventPlayer": "player",
    "attention_explorer": "panels",
    "distribution_explorer": "panels",
    "kv_explorer": "panels",
    "roofline_explorer": "panels",
    "latency_throughput": "latency_curve",
    "policy_race": "race",
    "latency_cdf": "cdf",
    "trace_explorer": "workload",
    "batching_gantt": "batches",
    "blocking_view": "blocking",
    "noisy_neighbour": "neighbours",
    "attainment_curve": "attainment",
    "service_curves": "service",
    "chunk_mixer": "mixer",
    "isolation_frontier": "frontier",
    "prefix_tree": "tree",
    "priority_ageing": "ageing",
    "length_distribution": "lengths",
    "reservation_curve": "lengths",
    "film": "filming",
    "car_park": "parking",
    "car_park_explorer": "parking",
    "memory_history": "bands",
    "migration_timeline": "migration",
    "client_streams": "stream",
    "downtime_curves": "downtime",
    "memory_split": "split",
    "cluster_film": "cluster_reader",
    "cluster_map": "cluster_view",
    "cluster_explorer": "cluster_view",
    "prediction_scatter": "scatter",
    "batch_bins": "bins",
    "swap_or_recompute": "swap",
    "break_even_curves": "swap",
    "swap_explorer": "swap",
    "scaling_steps": "scaling",
    "dashboard": "dashboard",
    "chrome_trace": "chrome",
    "write_chrome_trace": "chrome",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    """Load a name's module on first use (PEP 562)."""
    if name in _HOMES:
        value = getattr(import_module(f"llmcourse.viz.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'llmcourse.viz' has no attribute {name!r}")
