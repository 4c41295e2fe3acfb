"""What we CHECK: the notebook builder, the exercise API, the nbval plugin, the self-check and the kill tables
(every lab).

A lab's setup cell imports its checking words from here; nothing heavy loads with them.
"""

from llmcourse.grading.exercise import CheckFailed, check
from llmcourse.grading.expect import expect_close, expect_equal, expect_raises, expect_true
from llmcourse.grading.student import Served, Student

__all__ = [
    "CheckFailed",
    "Served",
    "Student",
    "check",
    "expect_close",
    "expect_equal",
    "expect_raises",
    "expect_true",
]
