"""The tasks on numbers and lists that have one right answer: count, repeat, list, add, sort.

Each task is one function that draws its arguments from a random generator and returns a `Draft`. The tasks are chosen
so that some answers are one token and others are hundreds, and so that a model of two million parameters can learn
every one.

Reference: Eldan and Li, "TinyStories" (2023); Nogueira et al., "Investigating the limitations of transformers with
simple arithmetic tasks" (2021), for one token per digit. Weeks 1 and 9.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from llmcourse.model.corpus import words
from llmcourse.model.corpus.phrasing import Draft, ask, few_or_many, is_chinese

COUNT_UP = (
    "Count from {a} to {b}.", "Count from {a} up to {b}.", "Count up from {a} to {b}.", "Count {a} to {b}.",
    "Count the numbers from {a} to {b}.", "List the numbers from {a} to {b}.", "Write the numbers from {a} to {b}.",
    "Start at {a} and count to {b}.", "Start counting at {a} and stop at {b}.", "Say all numbers from {a} to {b}.",
    "Write down every number from {a} to {b}.", "Give me the numbers {a} to {b}.", "Numbers from {a} to {b}.",
    "Show all whole numbers between {a} and {b}, both included.", "What are the numbers from {a} to {b}?",
    "从{a}数到{b}。", "数数,从{a}到{b}。", "写出{a}到{b}的数字。",
)  # fmt: skip
COUNT_FROM_ONE = ("Count to {b}.", "Count up to {b}.", "Write the first {b} numbers.", "数到{b}。")
COUNT_DOWN = (
    "Count down from {a} to {b}.", "Count backwards from {a} to {b}.", "Count from {a} down to {b}.",
    "Start at {a} and count down to {b}.", "Write the numbers from {a} to {b}, going down.", "从{a}倒数到{b}。",
)  # fmt: skip
COUNT_BY = (
    "Count from {a} to {b} in steps of {s}.", "Count from {a} to {b} by {s}.", "Count by {s} from {a} to {b}.",
    "Start at {a} and add {s} until you reach {b}.", "从{a}数到{b},每次加{s}。",
)  # fmt: skip


def count(rng: Random) -> Draft:
    """Count up from a to b, sometimes from one, sometimes with small numbers written as words."""
    length = few_or_many(rng, 127)
    start = rng.randint(0, max(1, 140 - length))
    if rng.random() < 0.12:
        start = 1
    end = start + length - 1
    if start == 1 and rng.random() < 0.5:
        prompt = ask(rng, COUNT_FROM_ONE, b=end)
    elif end <= 20 and rng.random() < 0.2:
        prompt = ask(rng, COUNT_UP[:15], a=words.NUMBER_WORDS[start], b=words.NUMBER_WORDS[end])
    else:
        prompt = ask(rng, COUNT_UP, a=start, b=end)
    return Draft(prompt, ", ".join(map(str, range(start, end + 1))), length)


def countdown(rng: Random) -> Draft:
    """Count down from a to b; the prompt always says that it goes down."""
    length = max(2, few_or_many(rng, 63))
    end = rng.randint(0, 110 - length)
    start = end + length - 1
    return Draft(ask(rng, COUNT_DOWN, a=start, b=end), ", ".join(map(str, range(start, end - 1, -1))), length)


def count_by(rng: Random) -> Draft:
    """Count from a to b by twos, fives or tens."""
    step = rng.choice((2, 5, 10))
    length = rng.randint(2, {2: 40, 5: 24, 10: 14}[step])
    start = rng.choice((0, step, step * rng.randint(0, 4)))
    numbers = [start + step * i for i in range(length)]
    prompt = ask(rng, COUNT_BY, a=start, b=numbers[-1], s=step)
    return Draft(prompt, ", ".join(map(str, numbers)), length)


REPEAT = (
    "Repeat the word {w} {n} times.", "Say {w} {n} times.", "Write {w} {n} times.", "Write the word {w} {n} times.",
    "Repeat {w} {n} times.", "Give me the word {w}, {n} times.", "把{w}重复{n}遍。", "把{w}说{n}遍。",
)  # fmt: skip
LINES = (
    "Write {w} on {n} numbered lines.", "Write {n} numbered lines that say {w}.", "Number {n} lines, each with {w}.",
    "Make a numbered list with {w} {n} times.",
)  # fmt: skip
LINES_CHINESE = ("写{n}行{w},每行编号。", "把{w}写{n}行,每行编号。")


def repeat(rng: Random) -> Draft:
    """Say one word n times, n at most 9: without line numbers a small model cannot count further."""
    number = rng.randint(1, 9)
    prompt = ask(rng, REPEAT, w="{w}", n=number)
    word = rng.choice(words.WORDS)[is_chinese(prompt)]
    return Draft(prompt.format(w=word), " ".join([word] * number), number)


def lines(rng: Random) -> Draft:
    """Write one word on n numbered lines: the numbers make a long answer countable."""
    in_chinese = rng.random() < 0.2
    number = few_or_many(rng, 24 if in_chinese else 60)
    prompt = ask(rng, LINES_CHINESE if in_chinese else LINES, w="{w}", n=number)
    word = rng.choice(words.WORDS)[in_chinese]
    return Draft(prompt.format(w=word), "\n".join(f"{i}. {word}" for i in range(1, number + 1)), number)


LIST = (
    "List {n} {k}.", "Name {n} {k}.", "Give me {n} {k}.", "Write a list of {n} {k}.", "Tell me {n} {k}.",
    "Write down {n} {k}.", "I need {n} {k}.", "Show me a list of {n} {k}.", "What are {n} {k}?",
)  # fmt: skip
LIST_CHINESE = ("列出{n}种{k}。", "说出{n}种{k}。", "写出{n}种{k}。", "给我{n}种{k}。")


def list_items(rng: Random) -> Draft:
    """Name the first n items of a closed set, numbered."""
    plural = rng.choice(list(words.SETS))
    _, chinese, pairs = words.SETS[plural]
    number = rng.randint(2, len(pairs))
    in_chinese = rng.random() < 0.2
    templates, name = (LIST_CHINESE, chinese) if in_chinese else (LIST, plural)
    items = (pair[in_chinese] for pair in pairs[:number])
    answer = "\n".join(f"{i}. {item}" for i, item in enumerate(items, 1))
    return Draft(ask(rng, templates, n=number, k=name), answer, number)


ADD = ("What is {a} + {b}?", "{a} + {b} = ?", "Add {a} and {b}.", "How much is {a} plus {b}?", "Calculate {a} + {b}.",
       "What is {a} plus {b}?", "Compute {a} + {b}.", "{a}加{b}等于多少?")  # fmt: skip
SUBTRACT = ("What is {a} - {b}?", "{a} - {b} = ?", "Subtract {b} from {a}.", "How much is {a} minus {b}?",
            "Calculate {a} - {b}.", "What is {a} minus {b}?", "{a}减{b}等于多少?")  # fmt: skip
MULTIPLY = ("What is {a} x {b}?", "{a} x {b} = ?", "Multiply {a} by {b}.", "What is {a} times {b}?",
            "{a}乘{b}等于多少?")  # fmt: skip


def add(rng: Random) -> Draft:
    """A sum of two numbers below 100."""
    most = rng.choice((9, 20, 50, 99))
    a, b = rng.randint(0, most), rng.randint(0, most)
    return Draft(ask(rng, ADD, a=a, b=b), str(a + b))


def subtract(rng: Random) -> Draft:
    """A difference of two numbers below 100, never negative."""
    most = rng.choice((9, 20, 50, 99))
    b, a = sorted((rng.randint(0, most), rng.randint(0, most)))
    return Draft(ask(rng, SUBTRACT, a=a, b=b), str(a - b))


def multiply(rng: Random) -> Draft:
    """The multiplication table up to 12 times 12."""
    a, b = rng.randint(0, 12), rng.randint(0, 12)
    return Draft(ask(rng, MULTIPLY, a=a, b=b), str(a * b))


TABLE = ("Write the {a} times table up to {n}.", "Write the multiplication table of {a} up to {n}.",
         "Show the {a} times table from 1 to {n}.", "写出{a}的乘法表,到{n}为止。")  # fmt: skip


def table(rng: Random) -> Draft:
    """One row per product: the {a} times table up to n."""
    a, number = rng.randint(1, 12), rng.randint(2, 20)
    rows = "\n".join(f"{a} x {i} = {a * i}" for i in range(1, number + 1))
    return Draft(ask(rng, TABLE, a=a, n=number), rows, number)


SORT_UP = ("Sort: {x}", "Sort these numbers: {x}", "Sort in ascending order: {x}", "Put in order: {x}",
           "Arrange from small to large: {x}", "Sort the numbers {x} from low to high.",
           "从小到大排序:{x}")  # fmt: skip
SORT_DOWN = ("Sort in descending order: {x}", "Arrange from large to small: {x}", "Sort from high to low: {x}",
             "从大到小排序:{x}")  # fmt: skip
REVERSE = ("Reverse: {x}", "Reverse the list: {x}", "Write in reverse order: {x}", "Say this list backwards: {x}",
           "倒过来写:{x}")  # fmt: skip


def sort(rng: Random) -> Draft:
    """Sort two to five different numbers below 100, or letters, up or down."""
    number = rng.randint(2, 5)
    descending = rng.random() < 0.3
    pool: Sequence[int | str] = words.LETTERS if rng.random() < 0.2 else range(100)
    items = rng.sample(pool, number)
    prompt = ask(rng, SORT_DOWN if descending else SORT_UP, x=", ".join(map(str, items)))
    ordered = sorted(items, reverse=descending)  # type: ignore[type-var]
    return Draft(prompt, ", ".join(map(str, ordered)), number)


def reverse(rng: Random) -> Draft:
    """Say a short list of words backwards."""
    number = rng.randint(2, 6)
    items = [pair[0] for pair in rng.sample(words.WORDS, number)]
    return Draft(ask(rng, REVERSE, x=", ".join(items)), ", ".join(reversed(items)), number)
