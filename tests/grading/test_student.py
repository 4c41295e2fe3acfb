"""The student as a check sees one: plain answers, handles, iterators, stand-ins, and errors told in words."""

import ast
import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pytest
import torch

from llmcourse.grading.failure import NotWritten, StudentError
from llmcourse.grading.student import NamespaceStudent, Question, Served, Student
from tests.grading.toy import failure

CODE = """
def double(x): return 2 * x
def mutate(items): items.append(1); return items
def crash(x):
    y = x + 1
    return y / 0
def stub(): raise NotImplementedError("stub is not written yet")
def leave(): raise SystemExit(0)
def forever():
    while True: yield 1
def count(n):
    for i in range(n): yield i
def breaks():
    yield 1
    raise KeyError("gone")
def use(model, tokens): return model(tokens) + model.bias
def poke(model): return model._secret
def call_back(model, thing): return model.ask(thing)
class Counter:
    def __init__(self, start=0): self.value = start
    def add(self, n=1): self.value += n; return self.value
    def grow(self): return Counter(self.value + 1)
    def items(self): yield from range(self.value)
    @property
    def bad(self): raise RuntimeError("no")
class AlwaysTrue(int):
    def __eq__(self, other): raise AssertionError("ran")
    __hash__ = int.__hash__
def lie(): return AlwaysTrue(1)
text = "hello"
class Nasty(Exception):
    def __str__(self): raise ValueError
def nasty(): raise Nasty
"""


@pytest.fixture
def student() -> NamespaceStudent:
    namespace: dict[str, Any] = {}
    exec(compile(ast.parse(CODE), "<answer>", "exec"), namespace)
    return NamespaceStudent(namespace)


class Model:
    """A checker's object that counts its calls."""

    bias, _secret, calls = 0.5, 42, 0

    def __call__(self, tokens: Any) -> Any:
        self.calls += 1
        return tokens.float()

    def ask(self, thing: Any) -> int:
        return int(thing.add(5)) + int(thing.value)


def test_a_call_gives_plain_data(student: NamespaceStudent) -> None:
    assert student.call("double", 3) == 6
    assert student.call("double", x=[1]) == [1, 1]
    assert student.call("double", torch.ones(2)).tolist() == [2.0, 2.0]
    assert student.has("double") and not student.has("triple")


def test_arguments_are_copies(student: NamespaceStudent) -> None:
    mine = [0]
    assert student.call("mutate", mine) == [0, 1]
    assert mine == [0]


def test_handles_keep_objects_on_the_students_side(student: NamespaceStudent) -> None:
    counter = student.new("Counter", start=2)
    assert counter.call("add", 3) == 5 and counter.get("value") == 5
    assert list(counter.iterate("items")) == [0, 1, 2, 3, 4]
    assert counter.new("grow").get("value") == 6
    assert failure(lambda: student.call("lie")).endswith("class AlwaysTrue, built on int but not a plain int")
    assert "not plain data" in failure(lambda: counter.call("grow"))


def test_served_objects_stay_with_the_checker(student: NamespaceStudent) -> None:
    model = Model()
    assert student.call("use", Served(model), torch.tensor([1, 2])).tolist() == [1.5, 2.5]
    assert model.calls == 1
    assert "private to the checker" in failure(lambda: student.call("poke", Served(model)))


def test_a_served_function_counts_as_true_and_an_empty_list_does_not() -> None:
    code = {"asked": lambda progress: bool(progress) and progress(1, 2)}
    student = NamespaceStudent(code)
    assert student.call("asked", Served(lambda done, of: done + of)) == 3
    assert student.call("asked", Served([])) is False


def test_a_served_object_may_use_a_students_object(student: NamespaceStudent) -> None:
    counter = student.new("Counter")
    assert student.call("call_back", Served(Model()), counter) == 10
    assert counter.get("value") == 5


def test_iterating_is_lazy_and_bounded(student: NamespaceStudent) -> None:
    assert next(student.iterate("forever")) == 1
    assert list(student.iterate("count", 3)) == [0, 1, 2]
    assert "forever() yielded more than 10 items" in failure(lambda: list(student.iterate("forever", limit=10)))
    items: Iterator[Any] = student.iterate("breaks")
    assert next(items) == 1
    assert "KeyError: 'gone'" in failure(lambda: next(items))
    assert "should yield items one by one" in failure(lambda: list(student.iterate("double", 1)))


@pytest.mark.parametrize(
    ("name", "args", "words"),
    [
        ("triple", (1,), "there is no `triple` in the notebook"),
        ("double", (1, 2), "your double(x) cannot be called as the check calls it: double(1, 2)"),
        ("text", (), "`text` is a str, not a function"),
        ("crash", (1,), "crash(1) raised ZeroDivisionError: division by zero\n  in your crash, line 6:"),
        ("leave", (), "leave() raised SystemExit"),
        ("count", (3,), "count(3) returned a generator, not the values themselves; put them in a list"),
        ("Counter", (), "not plain data"),
        ("nasty", (), "(an error that cannot be printed)"),
    ],
)
def test_what_goes_wrong_is_told_in_words(
    student: NamespaceStudent, name: str, args: tuple[Any, ...], words: str
) -> None:
    with pytest.raises(StudentError) as error:
        student.call(name, *args)
    assert words in str(error.value)


def test_a_stub_is_not_written(student: NamespaceStudent) -> None:
    with pytest.raises(NotWritten, match="stub is not written yet"):
        student.call("stub")


def test_objects_without_what_is_asked(student: NamespaceStudent) -> None:
    counter = student.new("Counter")
    assert failure(lambda: counter.call("subtract")) == "your Counter has no `subtract`; the check needs it"
    assert "RuntimeError: no" in failure(lambda: counter.get("bad"))


def test_the_same_questions_come_in_the_same_order(student: NamespaceStudent) -> None:
    numbers = [student.new("Counter").number for _ in range(3)]
    assert numbers == [1, 2, 3]


class WireStudent(Student):
    """A student behind a line of JSON, as the class grader's will be: questions and answers cross as text."""

    def __init__(self, behind: Student) -> None:
        self.behind = behind

    def ask(self, question: Question) -> Any:
        line = json.dumps(asdict(question))
        return json.loads(json.dumps(self.behind._ask(Question(**json.loads(line)))))


def test_every_question_and_answer_fits_a_line_of_json(student: NamespaceStudent) -> None:
    wire = WireStudent(student)
    counter = wire.new("Counter", start=2)
    assert (counter.call("add", 3), counter.get("value")) == (5, 5)
    assert list(wire.iterate("count", 3)) == [0, 1, 2] == list(counter.iterate("items"))[:3]
    assert counter.new("grow").call("add") == 7
    assert "there is no `triple`" in failure(lambda: wire.call("triple"))
