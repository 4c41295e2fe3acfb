"""The tasks on words and texts that have one right answer: yes or no, which is larger, what comes next, find, copy.

Half of them have answers of one word after prompts of any length, up to some hundred tokens for "find" and "quote":
a long prompt does not mean a long answer. Copying tasks have answers as long as the text in the prompt. Together with
the number tasks they give prompts and answers that are long and short in all four combinations.

Reference: Mohtashami and Jaggi, "Landmark Attention" (2023), for the hidden-number question. Weeks 1, 4 and 9.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from llmcourse.model.corpus import words
from llmcourse.model.corpus.phrasing import Draft, ask, is_chinese
from llmcourse.model.corpus.stories import passage

GREATER = ("Is {a} greater than {b}?", "Is {a} larger than {b}?", "Is {a} bigger than {b}?", "Is {a} more than {b}?",
           "{a}比{b}大吗?")  # fmt: skip
SMALLER = ("Is {a} smaller than {b}?", "Is {a} less than {b}?", "{a}比{b}小吗?")
PARITY = ("Is {a} an {p} number?", "Is {a} {p}?", "Is the number {a} {p}?")
MEMBER = ("Is {w} {k}?", "Is {w} {k}, yes or no?", "Yes or no: is {w} {k}?")
MEMBER_CHINESE = ("{w}是{k}吗?", "{w}是不是{k}?")
YES_NO = {False: ("No", "Yes"), True: ("不是", "是")}


def _verdict(prompt: str, truth: bool) -> Draft:
    return Draft(prompt, YES_NO[is_chinese(prompt)][truth])


def yes_no_number(rng: Random) -> Draft:
    """Is a greater, smaller, even, odd?"""
    a, b = rng.sample(range(100), 2)
    match rng.randrange(3):
        case 0:
            return _verdict(ask(rng, GREATER, a=a, b=b), a > b)
        case 1:
            return _verdict(ask(rng, SMALLER, a=a, b=b), a < b)
    parity = rng.choice(("even", "odd"))
    templates = PARITY if parity == "odd" else (*PARITY[1:], "Is {a} an even number?")
    return _verdict(ask(rng, templates, a=a, p=parity), (a % 2 == 0) == (parity == "even"))


def yes_no_fact(rng: Random) -> Draft:
    """Does a word belong to a closed set?"""
    plural = rng.choice(list(words.SETS))
    other = plural if rng.random() < 0.5 else rng.choice([key for key in words.SETS if key != plural])
    one, chinese, _ = words.SETS[plural]
    pair = rng.choice(words.SETS[other][2])
    if rng.random() < 0.25:
        return _verdict(ask(rng, MEMBER_CHINESE, w=pair[1], k=chinese), other == plural)
    return _verdict(ask(rng, MEMBER, w=pair[0], k=one), other == plural)


LARGEST = ("Which is larger: {x}?", "What is the largest of {x}?", "Find the maximum of {x}.", "Largest number: {x}",
           "最大的数是哪个:{x}?")  # fmt: skip
SMALLEST = ("Which is smaller: {x}?", "What is the smallest of {x}?", "Find the minimum of {x}.",
            "Smallest number: {x}", "最小的数是哪个:{x}?")  # fmt: skip


def extreme(rng: Random) -> Draft:
    """The largest or the smallest of two to five numbers."""
    numbers = rng.sample(range(100), rng.randint(2, 5))
    listed = ", ".join(map(str, numbers))
    if rng.random() < 0.5:
        return Draft(ask(rng, LARGEST, x=listed), str(max(numbers)))
    return Draft(ask(rng, SMALLEST, x=listed), str(min(numbers)))


AFTER = ("What comes after {a}?", "What is next after {a}?", "Which {k} follows {a}?", "After {a} comes what?")
BEFORE = ("What comes before {a}?", "Which {k} is before {a}?")
FROM_TO = ("List the {k}s from {a} to {b}.", "Say the {k}s from {a} to {b}.", "Write all {k}s from {a} to {b}.",
           "Which {k}s go from {a} to {b}?")  # fmt: skip
ALPHABET = ("Say the alphabet.", "Write the alphabet.", "Recite the alphabet.", "List all letters.")
SERIES: dict[str, Sequence[str]] = {
    "day": words.DAYS, "month": words.MONTHS, "letter": words.LETTERS, "number": tuple(map(str, range(100)))
}  # fmt: skip


def neighbour(rng: Random) -> Draft:
    """What comes before or after a day, month, letter or number?"""
    kind = rng.choice(list(SERIES))
    series = SERIES[kind]
    place = rng.randrange(len(series) - 1)
    if rng.random() < 0.6:
        return Draft(ask(rng, AFTER, a=series[place], k=kind), series[place + 1])
    return Draft(ask(rng, BEFORE, a=series[place + 1], k=kind), series[place])


def series(rng: Random) -> Draft:
    """Days, months or letters from a to b."""
    kind = rng.choice(("day", "month", "letter"))
    items = SERIES[kind]
    if kind == "letter" and rng.random() < 0.1:
        return Draft(ask(rng, ALPHABET), ", ".join(items), len(items))
    first, last = sorted(rng.sample(range(len(items)), 2))
    chosen = items[first : last + 1]
    return Draft(ask(rng, FROM_TO, k=kind, a=chosen[0], b=chosen[-1]), ", ".join(chosen), len(chosen))


TO_CHINESE = ("What is {w} in Chinese?", "Translate {w} into Chinese.", "How do you say {w} in Chinese?",
              "{w} in Chinese?", "Chinese for {w}?")  # fmt: skip
TO_ENGLISH = ("{w}用英语怎么说?", "把{w}翻译成英语。", "What is {w} in English?", "Translate {w} into English.")


def translate(rng: Random) -> Draft:
    """One word, English to Chinese or back."""
    english, chinese = rng.choice(words.WORDS)
    if rng.random() < 0.5:
        return Draft(ask(rng, TO_CHINESE, w=english), chinese)
    return Draft(ask(rng, TO_ENGLISH, w=chinese), english)


ECHO = ("Repeat after me: {x}", "Copy this text: {x}", "Say exactly this: {x}", "Echo: {x}", "Repeat: {x}",
        "Write this again: {x}")  # fmt: skip


def echo(rng: Random) -> Draft:
    """Copy a text of one to ten sentences, or a few words."""
    if rng.random() < 0.5:
        chosen = rng.sample(words.WORDS, rng.randint(1, 6))
        column = int(rng.random() < 0.25)
        text = " ".join(pair[column] for pair in chosen)
    else:
        text = " ".join(passage(rng, rng.choice((1, 1, 1, 2, 2, 3, 4, 6, 8, 10)))[0])
    return Draft(ask(rng, ECHO, x="{x}").format(x=text), text, len(text))


FIND = ("Read this text. {x}\n\n{q}", "{x}\n\n{q}", "Here is a text: {x}\n\n{q}", "Text: {x}\n\nQuestion: {q}")
ASK_NUMBER = ("What is the secret number?", "Which secret number is in the text?", "Find the secret number.")
ASK_NAME = ("What is the name of the {h}?", "What is the {h} called?", "Who is the story about?")
ASK_LAST = ("Repeat the last sentence.", "What is the last sentence?", "Copy the last sentence of the text.")
ASK_FIRST = ("Repeat the first sentence.", "What is the first sentence?", "Copy the first sentence of the text.")


def find(rng: Random) -> Draft:
    """A number or a name hidden in a text of three to 34 sentences: a long prompt, a short answer."""
    text, cast = passage(rng, rng.randint(3, 34))
    if rng.random() < 0.5:
        secret = str(rng.randint(10, 99))
        text.insert(rng.randint(1, len(text)), f"The secret number is {secret}.")
        return Draft(rng.choice(FIND).format(x=" ".join(text), q=rng.choice(ASK_NUMBER)), secret)
    question = rng.choice(ASK_NAME).format(**cast)
    return Draft(rng.choice(FIND).format(x=" ".join(text), q=question), cast["n"])


def quote(rng: Random) -> Draft:
    """The last or the first sentence of a text of two to 28 sentences."""
    text, _ = passage(rng, rng.randint(2, 28))
    last = rng.random() < 0.6
    question = rng.choice(ASK_LAST if last else ASK_FIRST)
    return Draft(rng.choice(FIND).format(x=" ".join(text), q=question), text[-1 if last else 0])
