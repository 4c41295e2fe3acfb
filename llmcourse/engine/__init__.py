"""ONE instance: request, batch, policy, scheduler, executor protocol, engine, clock, events (weeks 2-4). No torch."""

from llmcourse.engine.admission import Admission
from llmcourse.engine.batch import Batch, Executor, Limits, ScheduledTokens, StepResult
from llmcourse.engine.clock import Clock, VirtualClock, WallClock
from llmcourse.engine.counters import Counters
from llmcourse.engine.engine import Engine
from llmcourse.engine.events import Event, EventKind
from llmcourse.engine.policy import Policy
from llmcourse.engine.replay import replay
from llmcourse.engine.request import Completion, Request, SamplingParams, Status
from llmcourse.engine.scheduler import Scheduler

__all__ = ["Admission", "Batch", "Clock", "Completion", "Counters", "Engine", "Event", "EventKind", "Executor",
           "Limits", "Policy", "Request", "SamplingParams", "ScheduledTokens", "Scheduler", "Status", "StepResult",
           "VirtualClock", "WallClock", "replay"]
