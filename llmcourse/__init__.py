"""llmcourse: the companion package of a course on serving large language models.

One scheduler, many worlds: the same scheduling code drives a real model, a mock and a simulator. Nothing heavy
(torch, plotly, ray) loads here; each room loads what it needs when it is first used.
"""

__version__ = "0.1.0"
