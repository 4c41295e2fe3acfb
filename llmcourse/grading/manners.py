"""What an answer does besides defining what it was asked for, read from its source.

Two things. An answer that brings in the course's own solution, or rewrites the checks, is refused: its result would say
nothing about the student. And an answer that changes what all exercises share (a module, a setting, a name of the
setup) may spoil the others, so those that fail beside it are judged once more by themselves. Reading is no fence: who
hides an import well gets past it here, and meets the sandbox of the class grader.

Used by `llmcourse check`, every lab.
"""

import ast
from collections.abc import Iterable, Iterator

COMPARISON = ("course_", "Course")  # names under which a setup gives the course's own version, to compare with
REACHING = {"__import__", "compile", "delattr", "eval", "exec", "exit", "globals", "quit", "setattr", "vars"}
SETTINGS = {"alarm", "chdir", "disable", "filterwarnings", "manual_seed", "putenv", "seed", "seterr",
            "set_default_dtype", "set_grad_enabled", "set_num_threads", "setprofile", "setrecursionlimit", "settrace",
            "signal", "simplefilter"}  # fmt: skip
CHANGES = {"add", "append", "clear", "discard", "extend", "insert", "pop", "remove", "reverse", "setdefault", "shuffle",
           "sort", "update"}  # fmt: skip
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def refused(source: str, protected: Iterable[str]) -> str:
    """Why an answer does not count, with its line; "" if it may. ``protected``: names that the checks need."""
    tree, needed = ast.parse(source), set(protected)
    bound = _bound(tree)
    for node in ast.walk(tree):
        line = f"line {getattr(node, 'lineno', 0)} of its answer cell"
        for module in _modules(node):
            if module == "llmcourse" or module.startswith("llmcourse."):
                return f"{line} reaches for {module}: an answer is your own, built on what the lab's setup gives you"
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            if node.id.startswith(COMPARISON) and node.id not in bound:
                return f"{line} uses `{node.id}`, the course's own version: an answer is your own; it is for comparing"
            if node.id == "get_ipython":
                return f"{line} uses get_ipython: an answer is plain Python, and leaves the notebook as it is"
    for name, number in _top(tree):
        if name in needed:
            return f"line {number} of its answer cell redefines `{name}`, which the checks need; choose another name"
    return ""


def reaches_out(source: str, taken: Iterable[str] = ()) -> bool:
    """Whether an answer may change what other exercises use; ``taken``: names that other cells define too."""
    tree, shared = ast.parse(source), set(taken)
    if shared & {name for name, _ in _top(tree)}:
        return True
    bound = _bound(tree)
    return any(_reaches(node, bound) for node in ast.walk(tree))


def defines(source: str) -> set[str]:
    """Names that a cell sets for all cells."""
    return {name for name, _ in _top(ast.parse(source))}


def _reaches(node: ast.AST, bound: set[str]) -> bool:
    if isinstance(node, ast.Global):
        return True
    if isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load):
        return _foreign(node, bound)
    if isinstance(node, ast.Name):
        return node.id in REACHING and isinstance(node.ctx, ast.Load)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        made = any(isinstance(each, ast.Call) for each in ast.walk(node.func))      # of an object made on the spot
        return (node.func.attr in SETTINGS | CHANGES) and not made and _foreign(node.func, bound)
    return False


def _foreign(node: ast.AST, bound: set[str]) -> bool:
    root = _root(node)
    return bool(root) and root not in bound


def _modules(node: ast.AST) -> Iterator[str]:
    """Modules that a node names: by importing them, or as a text."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield node.module or ""
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and " " not in node.value:
        yield node.value


def _root(node: ast.AST) -> str:
    """The name that an attribute or an item is of, through whatever lies between; "" for none."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def _bound(tree: ast.AST) -> set[str]:
    """Names that an answer sets itself, imports aside: what is changed through them is mostly its own."""
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, FUNCTIONS):
            every = node.args
            given = [*every.posonlyargs, *every.args, *every.kwonlyargs, every.vararg, every.kwarg]
            names |= {argument.arg for argument in given if argument is not None}
    return names


def _top(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Names set outside of functions and classes, and those declared global in one, with their lines."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno
            yield from ((name, each.lineno) for each in ast.walk(node) if isinstance(each, ast.Global)
                        for name in each.names)
            continue
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            yield node.id, node.lineno
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from (((alias.asname or alias.name).partition(".")[0], node.lineno) for alias in node.names)
        waiting += ast.iter_child_nodes(node)
