"""The stub a student starts from: an answer with its solution taken out.

Signature, docstring and everything outside the solution stay, so that the cell still defines the same names.
A solution inside a function becomes one line that raises NotImplementedError and names the function; helpers
inside a class or at the top of the cell leave a comment.

Used by every lab.
"""

import ast

from llmcourse.grading.manifest import BEGIN, END, defined
from llmcourse.grading.percent import Cell


def stub(answer: Cell) -> str:
    """The answer without its solution: signature and docstring stay, the body raises NotImplementedError."""
    kept: list[str] = []
    inside = False
    for number, text in enumerate(answer.source.splitlines(), 1):
        if text.strip() == BEGIN:
            inside = True
            indent = text[: len(text) - len(text.lstrip())]
            kept.append(indent + _placeholder(answer, number))
        elif text.strip() == END:
            inside = False
        elif not inside:
            kept.append(text)
    source = "\n".join(kept)
    _check(answer, source)
    return source


def _check(answer: Cell, source: str) -> None:
    try:
        left = ast.parse(source)
    except SyntaxError as error:
        raise answer.error(
            f"without its solution the answer is no Python: {error.msg} (is a docstring missing?)"
        ) from None
    lost = [name for name in defined(ast.parse(answer.source)) if name not in defined(left)]
    if len(lost) == len(defined(ast.parse(answer.source))) or "raise NotImplementedError" not in source:
        raise answer.error(
            "the stub has nothing left to write: the solution stands inside a function, below its signature"
        )


def _placeholder(answer: Cell, number: int) -> str:
    """What stands where the solution starting on line `number` of the cell stood."""
    path = _around(ast.parse(answer.source), number)
    if not path or isinstance(path[-1], ast.ClassDef):
        return "# YOUR CODE HERE"
    name = ".".join(getattr(node, "name", "") for node in path)
    return f'raise NotImplementedError("{name} is not written yet")'


def _around(node: ast.AST, number: int) -> list[ast.AST]:
    """The functions and classes around a line, from the outside in."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    for child in ast.iter_child_nodes(node):
        if isinstance(child, kinds) and child.lineno < number <= (child.end_lineno or 0):
            return [child, *_around(child, number)]
    return []
