"""The pictures of week 10 for the projector: shares of two clients, and a fleet that grows and shrinks. All live, in a second each."""

# %% [markdown] key="title" lang="en"
# # Week 10 · Shares and fleets
#
# Two pictures for the projector. Move a control; the mechanism answers.
# %% key="setup"
from functools import lru_cache, partial

import numpy as np

from llmcourse import viz
from llmcourse.cluster import Freeness, Rebalance, Reporting, VirtualDriver
from llmcourse.cluster.autoscale import ColdStart, KVBased, Predictive, QueueBased, Reactive
from llmcourse.engine import Engine, replay
from llmcourse.metrics.fairness import vtc_bound
from llmcourse.metrics.ledger import Ledger
from llmcourse.policies import FCFS, VTC, DeficitRoundRobin
from llmcourse.workload import SLO, Constant, Diurnal, Poisson, PowerLaw, merge, open_loop

# %% [markdown] key="shares" lang="en"
# ## 1 · Who gets how much? Two clients who ask for more than there is
# %% key="shares-widget"
SPAN, BLOCKS = 120.0, 625
POLICIES = {"FCFS": lambda quantum: FCFS(), "VTC": lambda quantum: VTC(), "deficit round robin": DeficitRoundRobin}


@lru_cache
def shared(policy, quantum, heavy):
    """90 and `heavy` requests a minute of 256 + 256 tokens on one A10 with KV for 10,000: the events of two minutes."""
    work = merge(*(open_loop(Poisson(rate / 60), Constant(256), Constant(256), int(rate * SPAN / 60), number, tenant)
                   for number, (tenant, rate) in enumerate((("light", 90), ("heavy", heavy)))))
    engine = Engine.simulated("Llama 2 7B", "A10", policy=POLICIES[policy](quantum), num_blocks=BLOCKS)
    replay(engine, work, stop=lambda: engine.clock.now > SPAN)
    return engine.events


def curves(left, right, quantum, heavy):
    """Service of both clients under two policies, and the gap below."""
    runs = {policy: shared(policy, quantum if policy.startswith("deficit") else 0, heavy) for policy in dict.fromkeys((left, right))}
    return viz.service_curves(runs, vtc_bound(256, 16 * BLOCKS), until=SPAN, title=f"The heavy client sends {heavy} requests a minute, the light one 90")


start = {"left": "FCFS", "right": "VTC", "quantum": 1000, "heavy": 180}
shares = viz.Explorer(
    "Service of each client", curves,
    {"left": viz.Choice("left", list(POLICIES), "FCFS"), "right": viz.Choice("right", list(POLICIES), "VTC"),
     "quantum": viz.Slider("quantum (deficit)", [500, 1000, 5000, 20_000], 1000, "tokens"), "heavy": viz.Slider("the heavy client sends", [90, 180, 360], 180, "a minute")},
    presets={"counters": start, "turns": start | {"right": "deficit round robin"}, "long turns": start | {"left": "VTC", "right": "deficit round robin", "quantum": 20_000},
             "who asks four times as much": start | {"heavy": 360}},
    question="Which gap grows as long as both wait? Where are the turns of a long quantum?",
    answer="Under FCFS service follows demand. The counters of VTC and the deficits keep the clients together whatever they ask for; long turns are seen as steps.",
    lecture=True)
shares
# %% [markdown] key="fleet" lang="en"
# ## 2 · A day in ten minutes: load, instances, and who waits
# %% key="fleet-widget"
DAY, LENGTHS, SERVES = 600, PowerLaw.of_mean(256, longest=6000), 0.7


@lru_cache
def day(seed):
    """A compressed day with two bursts."""
    process = Diurnal(0.5, 4.0, float(DAY), bursts=2.0, factor=2.0, burst=45.0)
    return [arrival for arrival in open_loop(process, LENGTHS, LENGTHS, 5 * DAY, seed, slo=SLO(ttft=2.0)) if arrival.time < DAY]


YESTERDAY = tuple(np.histogram([arrival.time for arrival in day(1000)], bins=DAY // 60, range=(0, DAY))[0] / 60)
RULES = {"reactive": lambda threshold, cold, **rest: Reactive(threshold, threshold / 2, **rest),
         "queue": lambda threshold, cold, **rest: QueueBased(2.0, **rest),
         "freeness": lambda threshold, cold, **rest: KVBased(60.0, **rest),
         "forecast": lambda threshold, cold, **rest: Predictive(SERVES, float(DAY), YESTERDAY, cold, -0.4, threshold, **rest),
         "forecast of a wrong day, no guard": lambda threshold, cold, **rest: Predictive(SERVES, float(DAY), tuple(rate / 3 for rate in YESTERDAY), cold, 0.25, None, **rest)}


DRAINS = {"migration": "migrate", "waiting": "wait"}


@lru_cache
def served(rule, threshold, cooldown, cold, drain):
    """A fleet of A10 that starts with one: the driver and the table."""
    ledger = Ledger()
    build = partial(Engine.simulated, "Llama 2 7B", "A10", num_blocks=851, ledger=ledger)
    scaler = RULES[rule](threshold, float(cold), up_after=min(15.0, cooldown), down_after=float(cooldown))
    driver = VirtualDriver([build()], Freeness(), Rebalance() if drain == "migration" else None, reporting=Reporting(1.0), autoscaler=scaler, build=build,
                           cold_start=ColdStart(boot=float(cold)), drain_by=DRAINS[drain])
    return driver, driver.run(day(0))


def steps(rule, threshold, cooldown, cold, drain):
    """Load, instances with cold starts and drains, and who waits."""
    driver, table = served(rule, threshold, cooldown, cold, drain)
    return viz.scaling_steps(driver.fleet.leases.values(), table["arrival"], table["ttft"], driver.now, f"{rule}: cold start {cold} s, cooldown {cooldown} s, drained by {drain}")


usual = {"rule": "reactive", "threshold": 0.6, "cooldown": 60, "cold": 26, "drain": "migration"}
autoscaling = viz.Explorer(
    "A day in ten minutes", steps,
    {"rule": viz.Choice("rule", list(RULES), "reactive"), "threshold": viz.Slider("grow above (reactive, guard)", [0.3, 0.45, 0.6, 0.75, 0.9], 0.6, "of KV"), "cooldown": viz.Slider("cooldown", [2, 15, 60, 180], 60, "s"),
     "cold": viz.Slider("cold start", [2, 18, 26, 70], 26, "s"), "drain": viz.Choice("drained by", list(DRAINS), "migration")},
    presets={"usual": usual, "slow to start": usual | {"cold": 70}, "restless": usual | {"cooldown": 2}, "drained by waiting": usual | {"drain": "waiting"}, "a forecast": usual | {"rule": "forecast"},
             "its wrong day": usual | {"rule": "forecast of a wrong day, no guard"}},
    question="How far does the line of instances run behind the load, and what stands at the bottom meanwhile?",
    answer="By what it takes to notice and a cold start. What is hatched is paid for and serves nobody new: starts, and instances that wait for their last answer when nothing moves away.",
    lecture=True)
autoscaling
