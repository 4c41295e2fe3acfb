"""Without a rule for balancing, the global scheduler moves what is on an instance to be emptied, and nothing else."""

from llmcourse.cluster import Freeness, GlobalScheduler, LoadReport, Migrate, Rebalance


def test_who_was_preempted_stays_when_nobody_asked_for_balance():
    crowded = LoadReport(0, 0.0, 100, 16, running=5, waiting=2, used_blocks=99, waiting_blocks=20, head_blocks=10,
                         virtual_blocks=109, preempted=2)
    empty = LoadReport(1, 0.0, 100, 16)
    assert GlobalScheduler(Freeness()).decide([crowded, empty]) == []
    assert [(m.source, m.destination) for m in Rebalance().pairs([crowded, empty])] == [(0, 1)]
    leaving = crowded._replace(preempted=0, terminating=True)
    assert GlobalScheduler(Freeness()).decide([leaving, empty]) == [Migrate(0, 1, 100, "drain")]
