"""What the tests of predictors share: small made-up data whose lengths follow from the prompt, up to chance."""

import numpy as np

from llmcourse.predict import LengthData

VERBS = {"Count to": 2.0, "Tell a story of length": 8.0, "Add": 0.3}


def made_up(prompts: int = 120, samples: int = 3, seed: int = 0, noise: float = 0.2) -> LengthData:
    """Prompts of a verb and a number; lengths grow with both."""
    rng = np.random.default_rng(seed)
    texts: dict[str, float] = {}
    while len(texts) < prompts:
        verb, number = rng.choice(list(VERBS)), int(rng.integers(2, 300))
        texts[f"{verb} {number}"] = 3 + VERBS[verb] * number / 4
    expected = np.array(list(texts.values()))[:, None]
    lengths = np.maximum(expected * np.exp(noise * rng.standard_normal((prompts, samples))), 1).astype(np.int64)
    return LengthData(tuple(texts), lengths)
