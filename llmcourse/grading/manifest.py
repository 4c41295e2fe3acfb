"""What a lab consists of: its exercises, their points, checks and mutants, read from the lab's master.

The manifest is the one source of truth about points, checks and answers: the builder, the self-check, the
kill table and the class grader all read it, and none believes what a handed-in notebook says about itself.
Everything an author can get wrong is refused here, in one line with the file and the line.

Used by every week's lab.
"""

import ast
from dataclasses import dataclass
from pathlib import Path

from llmcourse.grading.percent import Cell, read_master

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
ROLES = {"": "", "setup": "code", "exercise": "markdown", "help": "markdown"} | dict.fromkeys(
    ("answer", "check", "hidden", "mutant"), "code"
)
MUTANTS = 3  # at least so many wrong solutions are tried on every exercise


@dataclass(frozen=True)
class Mutant:
    """A plausible wrong solution, named after its misconception; it follows the reference answer and overrides it."""

    name: str
    cell: Cell


@dataclass(frozen=True)
class Exercise:
    """One exercise: `names` are what its answer must define; `checks` and `hidden` name the check functions."""

    id: str
    title: str
    points: int
    difficulty: int
    minutes: int
    needs: str
    names: tuple[str, ...]
    statement: Cell
    answer: Cell
    check: Cell
    checks: tuple[str, ...]
    hidden: tuple[str, ...]
    mutants: tuple[Mutant, ...]

    @property
    def visible(self) -> str:
        """How many checks a student sees, in words."""
        total = len(self.checks) + len(self.hidden)
        return f"{len(self.checks)} of {total} {'check' if total == 1 else 'checks'} visible"


@dataclass(frozen=True)
class Lab:
    """A lab: its cells in order and its exercises. `name` is the stem of its file, such as lab02_inference."""

    name: str
    cells: tuple[Cell, ...]
    exercises: tuple[Exercise, ...]

    @property
    def points(self) -> int:
        """Points of the whole lab."""
        return sum(exercise.points for exercise in self.exercises)

    def exercise(self, name: str) -> Exercise:
        """The exercise called `name`."""
        return next(exercise for exercise in self.exercises if exercise.id == name)


def read_lab(path: Path) -> Lab:
    """The lab whose master is `path`; UserError with file and line where it is not complete."""
    cells = read_master(path)
    for cell in cells:
        _check_role(cell)
    headers = [cell for cell in cells if cell.role == "exercise"]
    if not headers:
        raise cells[0].error('the lab has no exercise; a statement carries role="exercise" exercise="name" points=2')
    exercises = [_exercise(cells, header) for header in headers]
    known = [exercise.id for exercise in exercises]
    for cell in cells:
        if cell.option("exercise") and cell.option("exercise") not in known:
            raise cell.error(f'there is no exercise "{cell.option("exercise")}"; this lab has {", ".join(known)}')
    return Lab(path.stem, tuple(cells), tuple(exercises))


def tree(cell: Cell) -> ast.Module:
    """The cell's code, parsed; UserError where it is not Python."""
    try:
        return ast.parse(cell.source)
    except SyntaxError as error:
        raise cell.error(f"line {error.lineno} of the cell is no Python: {error.msg}") from None


def defined(source: ast.Module) -> tuple[str, ...]:
    """Names of the functions and classes a cell defines at its top, private helpers (`_name`) left out."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return tuple(node.name for node in source.body if isinstance(node, kinds) and not node.name.startswith("_"))


def _check_role(cell: Cell) -> None:
    if cell.role not in ROLES:
        roles = ", ".join(role for role in ROLES if role)
        raise cell.error(f'role "{cell.role}" is unknown; roles are {roles}')
    if ROLES[cell.role] not in ("", cell.kind):
        raise cell.error(f'role "{cell.role}" is for a {ROLES[cell.role]} cell, this is a {cell.kind} cell')
    if cell.role not in ("", "setup") and not cell.option("exercise"):
        raise cell.error(f'a cell with role "{cell.role}" names its exercise: exercise="name"')
    if cell.kind == "code":
        tree(cell)
    if cell.role != "answer" and (BEGIN in cell.source or END in cell.source):
        raise cell.error('only a cell with role="answer" holds a solution')


def _exercise(cells: list[Cell], header: Cell) -> Exercise:
    mine = [cell for cell in cells if cell.option("exercise") == header.option("exercise")]
    _only(header, "exercise", mine)
    answer, check = _only(header, "answer", mine), _only(header, "check", mine)
    if not header.line < answer.line < check.line:
        raise header.error(f'exercise "{header.option("exercise")}" goes statement, answer, check; mend the order')
    names = defined(tree(answer))
    _check_answer(answer, names)
    checks, hidden = _all_checks(header, check, [cell for cell in mine if cell.role == "hidden"])
    return Exercise(
        id=header.option("exercise"),
        title=_title(header),
        points=_number(header, "points", 1, 100),
        difficulty=_number(header, "difficulty", 1, 5),
        minutes=_number(header, "minutes", 1, 600),
        needs=header.option("needs"),
        names=names,
        statement=header,
        answer=answer,
        check=check,
        checks=checks,
        hidden=hidden,
        mutants=_mutants(header, names, [cell for cell in mine if cell.role == "mutant"]),
    )


def _only(header: Cell, role: str, cells: list[Cell]) -> Cell:
    found = [cell for cell in cells if cell.role == role]
    if len(found) != 1:
        there = "no cell" if not found else f"{len(found)} cells"
        where = found[-1] if found else header
        raise where.error(f'exercise "{header.option("exercise")}" has {there} with role="{role}"; it needs one')
    return found[0]


def _number(header: Cell, name: str, low: int, high: int) -> int:
    value = header.options.get(name)
    if not isinstance(value, int) or not low <= value <= high:
        there = f"{name}={value!r}" if value is not None else f"no {name}"
        raise header.error(f'exercise "{header.option("exercise")}" has {there}; write {name}= from {low} to {high}')
    return value


def _title(header: Cell) -> str:
    first = header.source.splitlines()[0]
    if not first.startswith("#"):
        raise header.error("an exercise's statement starts with a heading, such as ## Exercise 1 · Bytes per token")
    return first.lstrip("#").strip()


def _check_answer(answer: Cell, names: tuple[str, ...]) -> None:
    if not names:
        raise answer.error("the answer defines no function and no class")
    if BEGIN not in answer.source:
        raise answer.error(f'the answer holds no solution; put it between "{BEGIN}" and "{END}"')
    inside = False
    for number, text in enumerate(answer.source.splitlines(), answer.line + 1):
        if text.strip() in (BEGIN, END):
            if inside is (text.strip() == BEGIN):
                raise answer.error(f'"{text.strip()}" on line {number} has no partner before it')
            inside = not inside
        elif BEGIN in text or END in text:
            raise answer.error(f'line {number}: "{BEGIN}" and "{END}" stand alone on their lines')
    if inside:
        raise answer.error(f'"{BEGIN}" is never closed by "{END}"')


def _all_checks(header: Cell, check: Cell, cells: list[Cell]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    checks, hidden = _checks(check), tuple(name for cell in cells for name in _checks(cell))
    twice = [name for name in checks + hidden if (checks + hidden).count(name) > 1]
    if twice:
        raise header.error(f'exercise "{header.option("exercise")}" has two checks called "{twice[0]}"; rename one')
    return checks, hidden


def _checks(cell: Cell) -> tuple[str, ...]:
    """Names of the functions under @check(...) in a check cell."""
    names = []
    for node in tree(cell).body:
        for mark in getattr(node, "decorator_list", []):
            if isinstance(mark, ast.Call) and getattr(mark.func, "id", "") == "check":
                _check_mark(cell, node, mark)
                names.append(node.name)  # type: ignore[attr-defined]
    if not names:
        raise cell.error(f'the cell holds no check; write @check("{cell.option("exercise")}") above a function')
    return tuple(names)


def _check_mark(cell: Cell, node: ast.AST, mark: ast.Call) -> None:
    given = [each.value for each in mark.args if isinstance(each, ast.Constant)]
    if given != [cell.option("exercise")] or mark.keywords:
        line = cell.line + getattr(node, "lineno", 0)
        raise cell.error(f'line {line}: this cell checks "{cell.option("exercise")}", its decorator says {given}')


def _mutants(header: Cell, names: tuple[str, ...], cells: list[Cell]) -> tuple[Mutant, ...]:
    if len(cells) < MUTANTS:
        raise header.error(
            f'exercise "{header.option("exercise")}" has {len(cells)} mutants; it needs {MUTANTS} or more'
        )
    for cell in cells:
        if not cell.option("name"):
            raise cell.error('a mutant is named after its misconception: name="counts K but forgets V"')
        if not set(defined(tree(cell))) & set(names):
            raise cell.error(
                f'the mutant "{cell.option("name")}" defines none of the answer\'s names: {", ".join(names)}'
            )
    return tuple(Mutant(cell.option("name"), cell) for cell in cells)
