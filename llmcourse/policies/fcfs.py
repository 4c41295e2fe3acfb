"""First come, first served: the order of arrival, and the latest arrival gives way.

The oldest request is never preempted for a younger one, so it always gets on; that is why every serving engine starts
from here. Its weakness, one long request that blocks short ones behind it, is the subject of week 3.
"""

from llmcourse.engine.policy import Policy


class FCFS(Policy):
    """Order by arrival; the latest arrival is the victim. Exactly what `Policy` does when nothing is overridden."""
