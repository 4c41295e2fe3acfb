"""An engine that runs by itself, and does what it is told between two steps.

One thread steps. Whoever else wants anything of the engine leaves a command, and waits until the thread has carried it
out. So everything happens at a step boundary, no step ever sees a request half moved, and no lock is needed but the
queue's. What clients should be sent is collected after each step, and handed to whoever asks next. Week 7.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from llmcourse.cluster.instance import Delivery, Instance
from llmcourse.cluster.report import LoadReport
from llmcourse.engine.events import Event

NOTHING_TO_DO = 0.001                    # seconds to wait for a command when a step could do nothing


class Ended(Exception):
    """The loop has ended, and why: nothing can be asked of this instance any more."""


class News(NamedTuple):
    """What has happened on an instance since somebody asked: sent to clients, logged, and its load now."""

    deliveries: list[Delivery]
    events: list[Event]
    report: LoadReport


class EngineLoop:
    """Runs ``instance`` in a thread of its own until `stop`."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self._commands: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._news = threading.Condition()
        self._deliveries: list[Delivery] = []
        self._told = 0                                        # events that somebody has been told
        self._report = instance.report()
        self.ended = ""                                       # why the loop has ended; empty: it runs
        self._thread = threading.Thread(target=self._run, name=f"instance {instance.number}", daemon=True)
        self._thread.start()

    # ---- from other threads ----------------------------------------------------------------------------------------

    def do(self, command: Callable[[], Any]) -> Any:
        """Carry a command out between two steps; returns what it returned, or raises what it raised, or `Ended`."""
        done: Future[Any] = Future()
        self._commands.put((done, command))
        if self.ended:                                        # it may have ended before it saw the command
            self._refuse_all()
        return done.result()

    def check(self) -> None:
        """`Ended` if it has."""
        if self.ended:
            raise Ended(self.ended)

    def take(self, patience: float) -> News:
        """What is new, as soon as there is anything, or after ``patience`` seconds; `Ended` when nothing will be."""
        with self._news:
            self._news.wait_for(lambda: self._deliveries or self.ended, patience)
            if not self._deliveries:
                self.check()
            deliveries, self._deliveries = self._deliveries, []
            events = self.instance.engine.log[self._told:]
            self._told += len(events)
            return News(deliveries, events, self._report)

    def stop(self) -> None:
        """End after the step that is being taken."""
        self._commands.put(None)
        self._thread.join()

    # ---- the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._carry_out():
                if not self.instance.engine.idle:
                    worked = self.instance.engine.step()
                    self._collect()
                    if not worked and not self._carry_out(NOTHING_TO_DO):
                        break
            self.ended = "it was stopped"
        except BaseException as error:                        # whatever it is: nobody waits for ever
            self.ended = f"{type(error).__name__}: {error}"
        self._refuse_all()
        with self._news:
            self._news.notify_all()

    def _carry_out(self, patience: float = 0.0) -> bool:
        """All commands that have come; the first is waited for when there is nothing else to do. False: stop."""
        wait = self.instance.engine.idle
        while True:
            try:
                command = self._commands.get(wait or patience > 0, None if wait else patience or None)
            except Empty:
                return True
            if command is None:
                return False
            done, verb = command
            try:
                done.set_result(verb())
            except Exception as error:
                done.set_exception(error)
            self._collect()
            wait, patience = False, 0.0

    def _collect(self) -> None:
        deliveries = self.instance.hear()
        with self._news:
            self._report = self.instance.report()
            self._deliveries += deliveries
            if deliveries:
                self._news.notify_all()

    def _refuse_all(self) -> None:
        while True:
            try:
                command = self._commands.get_nowait()
            except Empty:
                return
            if command is not None:
                command[0].set_exception(Ended(self.ended))
