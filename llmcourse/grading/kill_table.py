"""The kill table: proof that a lab's checks accept the right answer, refuse an empty one and catch every
known mistake.

The reference must earn every point, the untouched lab none, and each mutant, a wrong answer named after its
misconception, must lose its own exercise's points and no other's. It must lose them to a check that judged
its answer: a mutant that dies of a NameError proves nothing. `python -m llmcourse.grading.kill_table [LAB…]`
prints the table and fails on any gap.

Used for every lab.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from llmcourse.errors import UserError
from llmcourse.grading.exercise import Verdict
from llmcourse.grading.manifest import Exercise, Lab, Mutant, read_lab
from llmcourse.grading.rehearsal import Rehearsal, affected, rehearse
from llmcourse.paths import LABS

ACCIDENTS = {"NameError", "ImportError", "SyntaxError", "NotImplementedError"}  # no misconception dies of these


@dataclass(frozen=True)
class Row:
    """One line of the table: a version of the lab, what came of it, and `fault`, "" where it is as it must
    be.

    `outcome` is "wrong answer" or "crash" for a mutant that was killed; `check` and `message` say by what.
    """

    exercise: str
    version: str
    outcome: str
    check: str
    message: str
    seconds: float
    fault: str = ""


def kill_table(lab: Lab, limit: float = 60.0) -> Iterator[Row]:
    """A row for the reference, one for the untouched lab, and one for every mutant, as they are found."""
    yield _reference(lab, rehearse(lab, "reference", limit))
    yield _untouched(lab, rehearse(lab, "student", limit))
    for exercise in lab.exercises:
        touched = affected(lab, exercise)
        for mutant in exercise.mutants:
            run = rehearse(lab, mutant.cell.key, limit, touched, partial(_kills, exercise))
            yield _mutant(lab, exercise, mutant, run, touched)


def _reference(lab: Lab, run: Rehearsal) -> Row:
    earned = sum(exercise.points for exercise in lab.exercises if run.passes(exercise))
    faults = [f"{v.name} says {v.status}: {v.message}" for e in lab.exercises for v in run.of(e) if v.status != "PASS"]
    faults += [f"the cell {key} raised {type(error).__name__}: {error}" for key, error in run.errors.items()]
    return _row("", "reference", f"{earned} of {lab.points} points", run, faults)


def _untouched(lab: Lab, run: Rehearsal) -> Row:
    earned = sum(exercise.points for exercise in lab.exercises if run.passes(exercise))
    faults = [f"{exercise.id} earns its points untouched" for exercise in lab.exercises if run.passes(exercise)]
    verdicts = [verdict for exercise in lab.exercises for verdict in run.of(exercise)]
    faults += [f"{v.name} says {v.status}: {v.message}" for v in verdicts if v.status not in ("PASS", "NOT WRITTEN")]
    faults += [
        f"the cell {key} raised {type(error).__name__}, not NotImplementedError: {error}"
        for key, error in run.errors.items()
        if not isinstance(error, NotImplementedError)
    ]
    return _row("", "untouched", f"{earned} of {lab.points} points", run, faults)


def _row(exercise: str, version: str, outcome: str, run: Rehearsal, faults: list[str]) -> Row:
    return Row(exercise, version, outcome, "", "", run.seconds, "; ".join(faults))


def _mutant(lab: Lab, exercise: Exercise, mutant: Mutant, run: Rehearsal, touched: frozenset[str]) -> Row:
    killers = sorted((v for v in run.of(exercise) if v.status != "PASS"), key=_rank)
    others = [other for other in lab.exercises if other is not exercise and other.id in touched]
    collateral = [other.id for other in others if not run.passes(other)]
    if not killers:
        return Row(exercise.id, mutant.name, "SURVIVES", "", "", run.seconds, "no check notices it")
    killer = killers[0]
    outcome = "wrong answer" if _judged(killer) else "crash"
    faults = [f"it costs {other} its points too" for other in collateral]
    if not killer.message.strip():
        faults.append("its check says nothing")
    if killer.status == "NOT WRITTEN" or ACCIDENTS & set(killer.kinds) or killer.status == "BROKEN":
        faults.append(
            f"it dies by accident ({killer.status}: {killer.message.splitlines()[0]}), not by a check's verdict"
        )
    raised = run.errors.get(exercise.answer.key)
    if raised is not None:
        faults.append(f"its cell raised {type(raised).__name__}: {raised}")
    return Row(exercise.id, mutant.name, outcome, killer.name, killer.message, run.seconds, "; ".join(faults))


def _judged(verdict: Verdict) -> bool:
    """Whether a check judged an answer, rather than the student's code crashing on the way to one."""
    return verdict.status == "FAIL" or (verdict.status == "ERROR" and not verdict.kinds)


def _rank(verdict: Verdict) -> tuple[bool, bool]:
    accident = verdict.status in ("BROKEN", "NOT WRITTEN") or bool(ACCIDENTS & set(verdict.kinds))
    return accident, not _judged(verdict)


def _kills(exercise: Exercise, verdict: Verdict) -> bool:
    """Whether a mutant of the exercise is dead by this verdict, as well as by any other that might follow."""
    return verdict.exercise == exercise.id and verdict.status != "PASS" and _rank(verdict) == (False, False)


def main(argv: list[str] | None = None) -> int:
    """Print the kill tables; exit code 1 when one has a gap, 2 when there is nothing to show or a master is broken."""
    parser = argparse.ArgumentParser(prog="make kill-tables", description="Prove that the labs' checks judge rightly.")
    parser.add_argument("labs", nargs="*", help="labs, such as lab02 (default: all)")
    parser.add_argument("--source", type=Path, default=LABS / "source", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    try:
        masters = _masters(options.source, options.labs)
        return int(not all([_print(read_lab(master)) for master in masters]))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2


def _masters(source: Path, names: list[str]) -> list[Path]:
    masters = sorted(source.glob("lab*.py"))
    chosen = [master for master in masters if not names or any(master.stem.startswith(name) for name in names)]
    missing = [name for name in names if not any(master.stem.startswith(name) for master in masters)]
    if not chosen or missing:
        known = ", ".join(master.stem for master in masters) or "none"
        raise UserError(f"no lab {' '.join(missing) or 'at all'} in {source}; there are {known}")
    return chosen


def _print(lab: Lab) -> bool:
    """Print the lab's table row by row; whether it has no gap."""
    print(f"\n{lab.name}: {len(lab.exercises)} exercises, {lab.points} points")
    rows, width = [], max(len(exercise.id) for exercise in lab.exercises)
    for row in kill_table(lab):
        rows.append(row)
        print(_line(row, width), flush=True)
    faults, crashes = sum(bool(row.fault) for row in rows), sum(row.outcome == "crash" for row in rows)
    mutants = sum(len(exercise.mutants) for exercise in lab.exercises)
    seconds = sum(row.seconds for row in rows)
    print(f"{mutants} mutants, {crashes} of them killed by a crash, {faults} gaps, {seconds:.0f} s")
    return not faults


def _line(row: Row, width: int) -> str:
    first = row.message.strip().splitlines()
    said = " | ".join(line.strip() for line in first if not line.strip().startswith("asked:"))[:150]
    by = f"{row.check}: {said}" if row.check else ""
    fault = f"\n{'':{width + 4}}GAP: {row.fault}" if row.fault else ""
    return f"  {row.exercise:<{width}}  {row.version:<50}  {row.outcome:<14}  {by}{fault}"


if __name__ == "__main__":
    raise SystemExit(main())
