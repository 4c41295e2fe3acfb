# %% [markdown] key="welcome" lang="en"
# # Efficient serving of large language models
#
# Dynamic scheduling and system optimisation, in sixteen weeks. You build and measure the parts of a serving engine,
# on a real model that runs on this machine, without a network.
#
# **How to start**
#
# 1. Open a lecture below and choose *Run → Run All Cells*. Move the sliders. Outputs of lectures are not kept.
# 2. Open the week's lab. Each exercise has a cell to write in, and a cell that checks it and says what is wrong.
# 3. Run the check below, or `llmcourse check labs/…` in a terminal, to see your points.
#
# `llmcourse doctor` in a terminal says what this machine can run.

# %% [markdown] key="weeks" lang="en"
# ## The weeks
#
# <!-- weeks -->
#
# **Module 1 · LLMs and serving them**
#
# | Week | Title | Lecture | Rooms | Lab | What the lab is about |
# |---:|---|---|---|---|---|
# | 1 | Language models from the inside | [open](week01/lecture.ipynb) | `model`, `viz` | [open](labs/lab01_transformer.ipynb) | attention, RoPE, a decoder block, top-k and top-p, beam search |
# | 2 | Inference, the KV cache, and what a service is made of | [open](week02/lecture.ipynb) · [demo](week02/demo.ipynb) | `kv`, `engine`, `executors`, `serve` | [open](labs/lab02_inference.ipynb) | cached decoding, KV and weight bytes, roofline, token bucket, streaming |
# | 3 | Measuring a service | [open](week03/lecture.ipynb) · [demo](week03/demo.ipynb) | `metrics`, `workload`, `policies` | [open](labs/lab03_measuring.ipynb) | metrics from an event log, goodput, FCFS / RR / SJF / SRTF, cost |
#
# **Module 2 · What makes it hard**
#
# | Week | Title | Lecture | Rooms | Lab | What the lab is about |
# |---:|---|---|---|---|---|
# | 4 | Heterogeneous and unpredictable | [open](week04/lecture.ipynb) · [demo](week04/demo.ipynb) | `workload`, `engine`, `executors` | [open](labs/lab04_workloads.ipynb) | fitting traces, the iteration-level loop, head-of-line blocking, reservation |
# | 5 | SLOs and isolation among tenants | [open](week05/lecture.ipynb) · [demo](week05/demo.ipynb) | `policies`, `metrics` | [open](labs/lab05_isolation.ipynb) | interference, admission, chunking, KV quotas, a virtual token counter |
# | 6 | Fragmentation and priorities | [open](week06/lecture.ipynb) · [demo](week06/demo.ipynb) | `kv`, `policies` | [open](labs/lab06_memory.ipynb) | first-fit, a block pool, paged attention, a prefix index, ageing |
#
# **Module 3 · Key techniques**
#
# | Week | Title | Lecture | Rooms | Lab | What the lab is about |
# |---:|---|---|---|---|---|
# | 7 | Rescheduling at run time: migration | [open](week07/lecture.ipynb) · [demo](week07/demo.ipynb) | `cluster` | [open](labs/lab07_migration.ipynb) | staged live migration, downtime, aborts, recompute or copy |
# | 8 | Balance and consolidation across instances | [open](week08/lecture.ipynb) · [demo](week08/demo.ipynb) | `cluster` | [open](labs/lab08_balance.ipynb) | freeness, pairing, defragmentation, when a migration pays |
# | 9 | Prediction | [open](week09/lecture.ipynb) · [demo](week09/demo.ipynb) | `predict` | [open](labs/lab09_prediction.ipynb) | a length predictor, ListMLE, Kendall's tau, iterative SRTF, bins |
# | 10 | Preemption, fairness, autoscaling | [open](week10/lecture.ipynb) · [demo](week10/demo.ipynb) | `policies`, `cluster` | [open](labs/lab10_deciding.ipynb) | victims, swap or recompute, MLFQ, deficit fairness, an autoscaler |
#
# **Module 4 · Systems**
#
# | Week | Title | Lecture | Rooms | Lab | What the lab is about |
# |---:|---|---|---|---|---|
# | 11 | Distributed scheduling | planned | `cluster`, `serve` | planned | load reports, stale decisions, placement, recovery |
# | 12 | Case studies I: Llumnix, ServerlessLLM, vLLM | planned | `systems` | planned | a vLLM step, loading tiers, the Llumnix loop |
# | 13 | Case studies II: Orca, Sarathi-Serve, DistServe, QLM | planned | `systems` | planned | selective batching, token budgets, splitting prefill from decode, waiting time |
#
# **Module 5 · Frontier and project**
#
# | Week | Title | Lecture | Rooms | Lab | What the lab is about |
# |---:|---|---|---|---|---|
# | 14 | Frontier | planned | `systems`, `kv` | planned | online softmax, variants, tool calls, prefix-aware routing |
# | 15 | Outlook, ethics, review | planned | `metrics`, `policies` | planned | attribution of latency, carbon-aware shifting, adversarial load, bandits |
# | 16 | Project and exam | planned | `grading` | planned | the scheduler arena |
#
# <!-- end of weeks -->
#
# *Planned* means that it is not written yet. A room is a folder of the package `llmcourse`; a week opens the rooms beside it.

# %% [markdown] key="progress-title" lang="en"
# ## Your progress
#
# What your last checks said. Run the cell again (Shift + Enter) after a check.

# %% key="progress"
from llmcourse.cli.home import Progress

Progress()

# %% [markdown] key="instructors" lang="en"
# ## For instructors
#
# - The README in a week's folder (`week02/README.md`) has goals, minutes of each part, reading, questions to discuss and key terms.
# - `llmcourse demo 2` shows the demo of week 2 as a full-screen page; *View → Simple Interface* does for any lecture.
# - Lectures and labs are written as Python files (`week02/lecture.py`, `labs/source/`); `make notebooks` builds what
#   students get. Solutions and hidden checks stay in `labs/source/`: leave that folder out of what you hand out.
# - `make kill-tables` shows, for each lab, every misconception that its checks catch.
# - `llmcourse run 1 2` executes the lectures and times them, before the class does.
