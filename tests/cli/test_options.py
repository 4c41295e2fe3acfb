"""Choices with options, as they are typed: what is read, and what is refused in one line."""

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcourse.cli.options import chosen
from llmcourse.errors import UserError
from llmcourse.policies import POLICIES


def make(quantum: int = 64, share: float = 0.5, weights: dict | None = None, tier: str = "", on: bool = False):
    return quantum, share, tier, on


MAKERS = {"plain": object, "full": make, "needy": partial(lambda size, **options: options, 3)}


def test_values_are_read_as_python_reads_them_and_bare_words_are_words():
    assert chosen("--x", "full:quantum=3,share=1e-2,tier=dram,on=True", MAKERS, "x") == (3, 0.01, "dram", True)
    assert chosen("--x", "full: share = inf ", MAKERS, "x")[1] == float("inf")
    assert chosen("--policy", "vtc:weights={'a': 2, 'b': 1},input_weight=0.5", POLICIES, "policy").weights["a"] == 2


@pytest.mark.parametrize(("text", "said"), [
    ("", "no x ''; there are plain, full, needy"), ("Full", "no x 'Full'"),
    ("full:quantum", "write name:option=value"), ("full:quantum=", "write name:option=value"),
    ("full:3", "write name:option=value"), ("full:quantum=1,quantum=2", "each option once"),
    ("full:**{}", "each option once"), ("full:quantum=1)+(2", "write name:option=value"), ("full:)(", "write name"),
    ("full:quantum=1.5", "quantum is 1.5; it takes a whole number"), ("full:quantum=True", "it takes a whole number"),
    ("full:quantum=nan", "quantum is 'nan'; it takes a whole number"), ("full:share=nan", "it takes a number"),
    ("full:quantum=inf", "quantum is inf; it takes a whole number"), ("full:quantum=f()", "it takes a whole number"),
    ("full:on=1", "it takes True or False"), ("full:tier=3", "it takes a word"),
    ("full:size=3", "full has no option 'size'; there are quantum, share"),
    ("plain:x=1", "plain has no option 'x'; it has none"),
    ("full:" + "[" * 500, "write name:option=value")])
def test_anything_else_is_refused(text, said):
    with pytest.raises(UserError) as error:
        chosen("--x", text, MAKERS, "x")
    assert said in str(error.value) and "\n" not in str(error.value)


@given(st.text(alphabet="abq,=:(){}[]'\"0.*-\n inf", max_size=20))
def test_whatever_is_typed_is_a_choice_or_a_refusal(rest):
    try:
        chosen("--x", f"full:{rest}", MAKERS, "x")
    except UserError:
        pass


@pytest.mark.parametrize("name", [name for name in POLICIES if name not in ("fcfs", "sjf", "srtf")])
def test_policies_by_name_refuse_what_they_do_not_take(name):
    with pytest.raises(UserError, match=f"{name} has no option 'bogus'; there are "):
        chosen("--policy", f"{name}:bogus=1", POLICIES, "policy")
    with pytest.raises(UserError, match="has no option 'bogus'"):
        POLICIES[name](bogus=1)


def test_a_number_that_is_none_is_refused_by_every_policy():
    with pytest.raises(UserError, match="quantum is nan"):
        POLICIES["round-robin"](quantum=float("nan"))
    for make_it in ("RoundRobin", "FastServe", "DeficitRoundRobin"):
        import llmcourse.policies as policies
        with pytest.raises(UserError):
            getattr(policies, make_it)(quantum=float("nan"))
