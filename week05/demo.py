"""The pictures of week 5 for the projector. `recorded.json` is what the first panel's live run answers; `record()` writes it."""

# %% [markdown] key="title" lang="en"
# # Week 5 · Neighbours
#
# Three pictures for the projector. Move a control; the mechanism answers.
# %% key="setup"
import json
from functools import lru_cache
from itertools import product
from pathlib import Path

from llmcourse import viz
from llmcourse.engine import Engine
from llmcourse.engine.admission import Admission
from llmcourse.engine.replay import replay
from llmcourse.metrics.slo import attainment
from llmcourse.metrics.summary import summary
from llmcourse.policies import FCFS, VTC, SLOAdmission, TenantQuota
from llmcourse.serve import TokenBucket
from llmcourse.workload import SLO, Arrival, Lognormal, Poisson, merge, open_loop

CHAT, REPORTS, SECONDS = SLO(ttft=1.0, tpot=0.08), SLO(ttft=15.0, tpot=0.15), 40
# %% [markdown] key="neighbour" lang="en"
# ## 1 · The noisy neighbour
# %% key="neighbour-widget"


class TokenRate(Admission):
    """At most 5,000 prompt tokens a second of reports."""

    def __init__(self):
        self.bucket = TokenBucket(5000, 20000)

    def refuse(self, request, scheduler, now):
        """Chats pass; a report takes its prompt out of the bucket, or is sent away."""
        free = request.tenant == "chat" or self.bucket.allow(now, len(request.prompt))
        return None if free else "over the token rate"


ORDERS = {"first come": FCFS, "token counter": VTC, "memory quota": lambda: TenantQuota({"chat": 0.5, "reports": 0.5})}
DOORS = {"open": lambda engine: None, "predicted TTFT": lambda engine: SLOAdmission(engine.executor.cost),
         "reports 5,000 tokens/s": lambda engine: TokenRate()}


@lru_cache
def live(reports, chunks, order, door):
    """Forty seconds of both tenants on a simulated A100 with Llama 2 7B: what each of them got."""
    load = open_loop(Poisson(2.0), Lognormal(200, p99=800), Lognormal(120, p99=400), 2 * SECONDS, 3, "chat", CHAT)
    if reports:
        load = merge(load, open_loop(Poisson(reports), Lognormal(5000, p99=9000), Lognormal(80, p99=300), round(reports * SECONDS), 4,
                                     "reports", REPORTS))
    filling = {"batching": "mixed", "token_budget": 512} if chunks else {"batching": "continuous", "token_budget": 16384}
    admission = DOORS[door](Engine.simulated("Llama 2 7B", "A100 80 GB"))
    engine = Engine.simulated("Llama 2 7B", "A100 80 GB", policy=ORDERS[order](), max_running=64, admission=admission, **filling)
    table = replay(engine, load)
    return {tenant: numbers(table.of_tenant(tenant)) for tenant in table.tenants}


def numbers(table):
    """P99 TTFT and time between tokens (s), and the share within the SLO."""
    seen = summary(table)
    return {"ttft": round(seen.ttft.p99, 4), "itl": round(seen.itl.p99, 4), "attainment": round(attainment(table).both, 4)}


RECORD = Path("recorded.json")


def recorded(reports, chunks, order, door):
    """The same from the recorded run."""
    return json.loads(RECORD.read_text(encoding="utf-8"))[f"{reports:g} | {chunks} | {order} | {door}"]


def record():
    """Write the recorded run anew: every setting of the panel, live."""
    settings = [(0, False, "first come", "open"), *product((0.5, 1.0, 1.5, 2.0), (False, True), ORDERS, DOORS)]
    lines = [f' "{r:g} | {c} | {o} | {d}": {json.dumps(live(r, c, o, d))}' for r, c, o, d in settings]
    RECORD.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


SOURCES = {"live": live, "recorded": recorded}


def panel(reports, chunks, order, door, source):
    """Chat alone, shared without fences, shared with these switches."""
    ask = SOURCES[source]
    runs = {"chat alone": ask(0, False, "first come", "open"), "no fences": ask(reports, False, "first come", "open"),
            "your switches": ask(reports, chunks, order, door)}
    return viz.noisy_neighbour(runs, quiet="chat", title=f"Chat beside {reports:g} reports a second")


off = {"reports": 2.0, "chunks": False, "order": "first come", "door": "open", "source": "live"}
neighbour = viz.Explorer(
    "Noisy neighbour", panel,
    {"reports": viz.Slider("reports", [0.5, 1.0, 1.5, 2.0], 2.0, "a second"), "chunks": viz.Switch("chunks of 512"),
     "order": viz.Choice("order", list(ORDERS), "first come"), "door": viz.Choice("door", list(DOORS), "open"),
     "source": viz.Choice("numbers", list(SOURCES), "live")},
    presets={"break it": off, "only chunks": off | {"chunks": True}, "only the counter": off | {"order": "token counter"},
             "only the clever door": off | {"door": "predicted TTFT"}, "mend it": off | {"chunks": True, "order": "memory quota"},
             "Replay": off | {"chunks": True, "order": "memory quota", "source": "recorded"}},
    question="which single switch saves the chat, and which pair?",
    answer="None alone. Chunks bound the time between tokens but not the queue; the counter and the quota mend the queue but not "
           "the pauses. Together they keep both promises.")
neighbour
# %% [markdown] key="budget" lang="en"
# ## 2 · A step that no prompt can stretch
# %% key="budget-widget"


def mixer(budget, prompt):
    """Twelve answers under way, and a long prompt comes."""
    engine = Engine.simulated("Llama 2 7B", "A100 80 GB", token_budget=budget)
    replay(engine, [Arrival(0.0, 60, 70)] * 12 + [Arrival(0.3, prompt, 5)])
    return viz.chunk_mixer(engine.events, budget=budget, title=f"A prompt of {prompt:,} tokens under a budget of {budget:,}")


budget = viz.Explorer(
    "Token budget", mixer,
    {"budget": viz.Slider("token budget", [64, 128, 256, 512, 1024, 2048, 4096, 8192], 512, "tokens"),
     "prompt": viz.Slider("prompt", [1000, 2000, 4000, 8000], 4000, "tokens")},
    presets={"whole": {"budget": 8192, "prompt": 4000}, "chunks": {"budget": 512, "prompt": 4000}, "crumbs": {"budget": 64, "prompt": 4000}},
    question="what do twelve readers feel, and what does the prompt pay?",
    answer="The longest step is the longest pause of everybody, and it falls with the budget. The prompt needs more steps, each of "
           "which reads all weights: crumbs are late, and save nothing more.")
budget
# %% [markdown] key="fair" lang="en"
# ## 3 · Who shouts loudest
# %% key="fair-widget"


@lru_cache
def clients(times, order):
    """Two clients of an A10, both overload it, the large one `times` as much; the service of each."""
    engine = Engine.simulated("Llama 2 7B", "A10", num_blocks=640, max_running=64, policy={"FCFS": FCFS, "VTC": VTC}[order]())
    small = [Arrival(k / 1.5, 256, 256, "small") for k in range(75)]
    large = [Arrival(k / (1.5 * times), 256, 256, "large") for k in range(75 * times)]
    replay(engine, merge(small, large), stop=lambda: engine.clock.now > 50)
    return engine.events


def service(times):
    """First come, first served beside a virtual token counter."""
    return viz.service_curves({order: clients(times, order) for order in ("FCFS", "VTC")}, until=50.0,
                              title=f"One client sends {times} times as many requests as the other")


fair = viz.Explorer(
    "Fair queueing", service, {"times": viz.Slider("the large client sends", [1, 2, 3, 4], 2, "times as many")},
    presets={"twice": {"times": 2}, "four times": {"times": 4}}, question="does it pay to shout?",
    answer="First come, first served: service follows the requests. A virtual token counter: both get the same, because "
           "both always have somebody waiting.")
fair
