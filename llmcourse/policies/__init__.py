"""WHO goes next: one short file per policy (weeks 3-6, 9-10)."""

from llmcourse.policies.fcfs import FCFS

__all__ = ["FCFS"]
