"""Which models can be served, in which version, and which of them are in memory.

A model is registered by name and version with a loader; loading costs seconds and gigabytes, so it happens once, when
the model is first needed, and the wait is written down: it is the cold start of weeks 10 and 12. A state says what may
be done with a model, and a failed load keeps its reason. Week 2.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from llmcourse.engine import Clock, Engine
from llmcourse.errors import UserError

Loader = Callable[[Clock], Engine]


class ModelState(StrEnum):
    """Where a model stands: known, being loaded, ready to serve, or failed to load."""

    REGISTERED = "registered"
    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


@dataclass
class Model:
    """One version of one model; ``load_seconds`` is what its last load took."""

    name: str
    version: str
    loader: Loader
    state: ModelState = ModelState.REGISTERED
    engine: Engine | None = None
    load_seconds: float = 0.0
    error: str = ""


class ModelRegistry:
    """Models by name and version. ``clock`` times the loads and goes to the loaders: all times are of one clock."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._models: dict[tuple[str, str], Model] = {}

    @property
    def models(self) -> list[Model]:
        """All versions of all models, in the order they were registered."""
        return list(self._models.values())

    @property
    def ready(self) -> list[Engine]:
        """Engines of the models that are in memory."""
        return [model.engine for model in self.models if model.engine is not None]

    def register(self, name: str, version: str, loader: Loader) -> None:
        """Make a version known; nothing is loaded yet. UserError when it is known already."""
        if (name, version) in self._models:
            raise UserError(f"{name} version {version} is registered already; a version never changes, use a new one")
        self._models[name, version] = Model(name, version, loader)

    def find(self, name: str, version: str | None = None) -> Model:
        """The asked version, or the one registered last. UserError that lists what there is."""
        found = [m for m in self.models if m.name == name and version in (None, m.version)]
        if not found:
            known = ", ".join(f"{m.name} version {m.version}" for m in self.models) or "no model yet"
            asked = name if version is None else f"{name} version {version}"
            raise UserError(f"there is no model {asked}; registered: {known}")
        return found[-1]

    def load(self, name: str, version: str | None = None) -> Engine:
        """The engine of a model, loaded now if it is not in memory. UserError with the reason when it cannot be."""
        model = self.find(name, version)
        if model.engine is None:
            self._load(model)
        assert model.engine is not None
        return model.engine

    def unload(self, name: str, version: str | None = None) -> None:
        """Let go of a model's memory; UserError while requests are in it, for their state would be lost."""
        model = self.find(name, version)
        if model.engine is not None and not model.engine.idle:
            scheduler = model.engine.scheduler
            raise UserError(f"{model.name} version {model.version} still serves "
                            f"{len(scheduler.running) + len(scheduler.waiting)} requests; wait for them or abort them")
        model.engine, model.state = None, ModelState.REGISTERED

    def _load(self, model: Model) -> None:
        model.state, model.error, started = ModelState.LOADING, "", self.clock.now
        try:
            model.engine = model.loader(self.clock)
        except Exception as error:                        # a loader may fail in any way; none may leave LOADING behind
            model.state, model.error = ModelState.FAILED, str(error) or type(error).__name__
            raise UserError(f"{model.name} version {model.version} did not load: {model.error}") from error
        model.state, model.load_seconds = ModelState.READY, self.clock.now - started
