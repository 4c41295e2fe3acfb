"""`llmcourse check` on answers that would spoil others, flood it, or not be the student's own."""

from pathlib import Path

import pytest

from llmcourse.grading.builder import build_lab, write
from llmcourse.grading.selfcheck import ExerciseResult, self_check
from tests.grading.test_selfcheck import EXERCISE, HEAD, MUTANT
from tests.grading.toy import cell

# What was handed in, and its verdict: status, and words in its reasons or notes. Order matters: the first spoils all.
CASES: dict[str, tuple[str, str, str]] = {
    "muting": ("import builtins\nbuiltins.print = lambda *a, **k: None\n" + HEAD + "    return 2 * x", "FAIL",
               "report"),
    "innocent": (HEAD + "    return 2 * x", "PASS", "it was judged by itself"),
    "wrong": (HEAD + "    return 10**400", "FAIL", "a whole number of about 400 digits"),
    "flooding": (HEAD + "    print('x' * 200_000)\n    return 2 * x", "PASS", ""),
    "borrowed": ("from llmcourse.predict import kendall_tau\n" + HEAD + "    return 2 * x", "FAIL", "line 1 of its"),
    "rewriting": ("def check(name):\n    return lambda f: print(f'PASS {name} · doubles:')\n" + HEAD + "    return 0",
                  "FAIL", "redefines `check`, which the checks need"),
    "asking": (HEAD + "    return input()", "FAIL", "StdinNotImplementedError"),
    "stopping": (HEAD + "    raise KeyboardInterrupt", "FAIL", "which stops a notebook"),
}  # fmt: skip


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ExerciseResult]:
    folder = tmp_path_factory.mktemp("labs")
    text = '# %% [markdown] key="title" lang="en"\n# # Many\n# %% key="setup" role="setup"\n'
    text += "from llmcourse.grading import check, expect_equal\n"
    for name in CASES:
        text += EXERCISE.format(name=name, key=name)
        text += "".join(MUTANT.format(name=name, key=name, n=n) for n in (1, 2, 3))
    (folder / "source").mkdir()
    (folder / "source" / "lab97_hostile.py").write_text(text)
    notebook = build_lab(folder / "source" / "lab97_hostile.py")
    for name, (source, _, _) in CASES.items():
        cell(notebook, f"{name}-answer")["source"] = source.replace("f_{name}", f"f_{name}")
    path: Path = folder / "lab97_hostile.ipynb"
    path.write_text(write(notebook))
    told: list[str] = []
    results = self_check(path, timeout=20.0, labs=folder, tell=told.append).exercises
    assert told[0] == "running the checks" and any("by itself" in line for line in told[1:]), told
    return {result.exercise: result for result in results}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_each_answer_is_judged_by_itself(hostile: dict[str, ExerciseResult], name: str) -> None:
    _, status, words = CASES[name]
    result = hostile[name]
    assert result.status == status, result
    assert words in " ".join(result.reasons + result.notes)
