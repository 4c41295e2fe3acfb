"""What an answer may not do, and what makes it judged apart from the others; read from its source."""

import ast

import pytest

from llmcourse.grading.manifest import read_lab
from llmcourse.grading.manners import defines, reaches_out, refused
from llmcourse.paths import LABS

NEEDED = {"check", "expect_equal"}


@pytest.mark.parametrize(("source", "said"), [
    ("from llmcourse.predict import kendall_tau", "line 1 of its answer cell reaches for llmcourse.predict"),
    ("def f(x):\n    import llmcourse.kv as kv\n    return kv", "line 2 of its answer cell reaches for llmcourse.kv"),
    ("f = __import__('llmcourse')", "reaches for llmcourse"),
    ("def f():\n    return sys.modules['llmcourse.policies']", "reaches for llmcourse.policies"),
    ("def f(a, b):\n    return course_tau(a, b)", "`course_tau`, the course's own version"),
    ("def check(name):\n    return print", "redefines `check`"), ("expect_equal = print", "redefines `expect_equal`"),
    ("def f():\n    global check\n    check = 1", "redefines `check`"),
    ("import json as check", "redefines `check`"), ("for check in range(3): pass", "redefines `check`"),
    ("get_ipython().input_transformers_post.append(f)", "uses get_ipython")])
def test_what_is_not_an_answer_of_ones_own_is_refused(source, said):
    assert said in refused(source, NEEDED)


@pytest.mark.parametrize("source", [
    "def f(check):\n    return check", "def f():\n    check = 1\n    return check", "class A:\n    check = 1",
    '"""How llmcourse does it."""', "def f(course_length):\n    return course_length", "import math, torch",
    "def f():\n    course_tau = 3\n    return course_tau"])
def test_what_stays_inside_an_answer_is_its_own_business(source):
    assert refused(source, NEEDED) == ""


@pytest.mark.parametrize(("source", "does"), [
    ("def f(x):\n    rows = [x]\n    rows.append(x)\n    return rows", False),
    ("class A:\n    def __init__(self):\n        self.n = 0\n        self.rows[0] = 1", False),
    ("def f(x):\n    x[0] = 1", False), ("def f():\n    return torch.Generator().manual_seed(0)", False),
    ("def f():\n    return [].append(1)", False), ("def f(rows):\n    [row.sort() for row in rows]", False),
    ("math.sqrt = abs", True), ("def f():\n    LENGTHS.append(1)", True), ("def f():\n    LENGTHS[0] = 1", True),
    ("del LENGTHS[0]", True), ("torch.manual_seed(0)", True), ("np.random.seed(0)", True),
    ("import sys\nsys.setrecursionlimit(60)", True), ("import sys\ndef f():\n    sys.exit(0)", False),
    ("import sys\nsys.stdout = None", True), ("setattr(math, 'sqrt', abs)", True), ("def f():\n    global g", True),
    ("helper = 3", False), ("taken = 3", True), ("def taken(): pass", True)])
def test_what_may_change_what_all_exercises_share(source, does):
    assert reaches_out(source, {"taken"}) is does


def test_names_that_a_cell_sets_for_all():
    assert defines("import a.b\nfrom c import d as e\nx, y = 1, 2\ndef f():\n    z = 1\nclass G:\n    h = 1") == {
        "a", "e", "x", "y", "f", "G"}


@pytest.mark.parametrize("master", sorted((LABS / "source").glob("lab*.py")), ids=lambda path: path.stem)
def test_no_reference_answer_is_refused_or_reaches_out(master):
    for exercise in read_lab(master).exercises:
        assert refused(exercise.answer.source, NEEDED) == ""
        assert not reaches_out(exercise.answer.source), exercise.id
        assert ast.parse(exercise.answer.source)
