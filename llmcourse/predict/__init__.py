"""WHAT we guess: how long an answer will be, before or while it is written (week 9).

Length data of a real model, predictors under one face (`Predictor`), what they are worth (`evaluate`), and errors made
to measure for simulations (`noise`). Each file loads when one of its names is first used; torch with the networks only.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "LengthData": "data",
    "measure_lengths": "measure",
    "course_prompts": "measure",
    "Predictor": "predictor",
    "Oracle": "predictor",
    "Constant": "predictor",
    "annotate": "predictor",
    "timed": "predictor",
    "save_predictor": "store",
    "load_predictor": "store",
    "Ridge": "ridge",
    "MLP": "network",
    "BucketClassifier": "classify",
    "Ordinal": "classify",
    "ListMLE": "rank",
    "PairwiseRanker": "rank",
    "list_mle": "rank",
    "Probe": "probe",
    "Encoder": "encoder",
    "Noisy": "noise",
    "LognormalNoise": "noise",
    "Confusion": "noise",
    "realistic": "noise",
    "with_predictions": "noise",
    "mae": "evaluate",
    "accuracy": "evaluate",
    "kendall_tau": "evaluate",
    "calibration": "evaluate",
    "Score": "evaluate",
    "score": "evaluate",
    "noise_ceiling": "evaluate",
    "chance_share": "evaluate",
    "Outcome": "accuracy_or_order",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    """Load a name's module on first use (PEP 562)."""
    if name in _HOMES:
        return getattr(import_module(f"llmcourse.predict.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'llmcourse.predict' has no attribute {name!r}")
