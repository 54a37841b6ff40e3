"""Which column of a user's table is which: by its exact name, or as the user says; never by what is left over."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ...assets.headers import LIKE, bare
from ...errors import DataError
from .tasks import Kind

# Kind -> the sets of roles that make it. A choice's continuations are `choices`, or choice0, choice1, ...
_NEEDS: dict[Kind, tuple[frozenset[str], ...]] = {
    "classification": (frozenset(("text", "label")),),
    "regression": (frozenset(("text", "score")),),
    "span": (frozenset(("question", "context", "answer", "start")), frozenset(("question", "context", "answers"))),
    "choice": (frozenset(("prompt", "choices", "label")), frozenset(("prompt", "choice0", "choice1", "label"))),
}
_OPTIONAL: dict[Kind, tuple[str, ...]] = {
    "classification": ("pair", "id"),
    "regression": ("pair", "id"),
    "span": ("starts", "id"),
    "choice": ("id",),
    "masked_lm": ("id",),
}
TARGETS = frozenset(("label", "score", "answer", "start", "answers", "starts"))
"""Roles that a table to predict on need not have."""

# Numbers of rows, as pandas writes them, say nothing of the task.
_NUMBERS = frozenset(("id", "idx", "index", "", "Unnamed: 0", "__index_level_0__"))
_ROLES = frozenset(
    role
    for role in ("text", "pair", "score", "id", *(role for needs in _NEEDS.values() for need in needs for role in need))
) | {"starts"}


class Roles(NamedTuple):
    """A table's task and where its parts are.

    Attributes:
      kind: of the task.
      columns: role -> column.
    """

    kind: Kind
    columns: dict[str, str]


def roles_of(names: Sequence[str], mapping: Mapping[str, str], path: Path) -> Roles:
    """The task that a table's columns describe.

    Args:
      names: of the columns.
      mapping: role -> column, as the user says; then no other column is read. Empty: columns go by their names.
      path: of the table, for errors.

    Raises:
      DataError: no task, several, a role or column that does not exist, or a column that may be a second text.

    >>> roles_of(["text", "label", "date"], {}, Path("a.csv")).columns
    {'text': 'text', 'label': 'label'}
    >>> roles_of(["review", "stars"], {"text": "review", "score": "stars"}, Path("a.csv")).kind
    'regression'
    """
    columns = _mapped(names, mapping, path) if mapping else {name: name for name in names if _is_role(name)}
    kinds = [kind for kind, needs in _NEEDS.items() if any(need <= columns.keys() for need in needs)]
    only = columns.keys() - {"id"} == {"text"}
    if not kinds and only and (mapping or not set(names) - {"text"} - _NUMBERS):
        kinds = ["masked_lm"]
    if kinds in ([], ["choice"]):
        _refuse_gaps(columns, path)
    if len(kinds) != 1:
        several = f"describe {' and '.join(kinds)} at once" if kinds else "describe no task"
        raise DataError(f"{path}: the columns {list(names)} {several}. {_expected(names, path)}")
    kind = kinds[0]
    extra = [role for role in columns if role not in _taken(kind, columns)]
    if mapping and extra:
        raise DataError(f"{path}: a {kind} task has no {', '.join(extra)}; got columns={dict(mapping)}.")
    found = {role: column for role, column in columns.items() if role not in extra}
    doubtful = [] if mapping else _doubtful(names, found)
    if doubtful:
        raise DataError(
            f"{path}: {doubtful} may be meant too, and would not be read beside {list(found)}. Say which column is "
            f"which: {_flag(names)}; {_as_flag(found)} leaves them out."
        )
    return Roles(kind, found)


def roles_like(first: Roles, names: Sequence[str], path: Path, *, targets: bool) -> dict[str, str]:
    """Where the parts of a known task are in another table.

    Args:
      first: of the training table.
      names: of the other table's columns.
      path: of the other table, for errors.
      targets: whether what is to be predicted must be there.

    Returns:
      Role -> column; without the targets where the table has none of them.

    Raises:
      DataError: a column that is missing.
    """
    absent = {role for role, column in first.columns.items() if column not in names} - {"id"}
    # one that is spelled otherwise is not absent, and must not pass for it
    near = {bare(first.columns[role]).rstrip("s") for role in absent} & {bare(name).rstrip("s") for name in names}
    if near or absent - (frozenset() if targets else TARGETS):
        wanted = [first.columns[role] for role in sorted(absent)]
        raise DataError(
            f"{path} has no column {', '.join(map(repr, wanted))}, which the training data have; its columns are "
            f"{list(names)}."
        )
    dropped = absent | ({"id"} if first.columns.get("id") not in names else set()) | (TARGETS if absent else set())
    return {role: column for role, column in first.columns.items() if role not in dropped}


def roles_to_read(kind: Kind, *, pairs: bool, names: Sequence[str], mapping: Mapping[str, str], path: Path) -> Roles:
    """Where the parts that a trained model reads are in a table; what it predicts need not be there.

    Args:
      kind: of the model's task.
      pairs: whether it reads two texts.
      names: of the columns.
      mapping: as for `roles_of`; what it says of the targets is passed over.
      path: of the table, for errors.

    Raises:
      DataError: a column that is missing.
    """
    texts = {"span": ("question", "context"), "choice": ("prompt", *_choice_roles(names, mapping))}
    roles = texts.get(kind, ("text", "pair") if pairs else ("text",))
    columns = {role: mapping.get(role, role) for role in (*roles, "id")}
    missing = [columns[role] for role in roles if columns[role] not in names]
    if missing:
        raise DataError(
            f"{path} has no column {', '.join(map(repr, missing))}; its columns are {list(names)}. Say which column is "
            f"which: {_flag(names)}"
        )
    return Roles(kind, {role: column for role, column in columns.items() if column in names})


def _choice_roles(names: Sequence[str], mapping: Mapping[str, str]) -> list[str]:
    known = list(mapping or names)
    return [name for name in known if _is_numbered(name)] if "choices" not in known else ["choices"]


def _mapped(names: Sequence[str], mapping: Mapping[str, str], path: Path) -> dict[str, str]:
    for role, column in mapping.items():
        if not _is_role(role):
            raise DataError(f"there is no {role!r} to map a column to; there are {', '.join(sorted(_ROLES))}.")
        if column not in names:
            raise DataError(f"{path} has no column {column!r}; its columns are {list(names)}.")
    return dict(mapping)


def _is_role(name: str) -> bool:
    return name in _ROLES or _is_numbered(name)


def _is_numbered(name: str) -> bool:
    return name.startswith("choice") and name[6:].isdecimal()


def _refuse_gaps(columns: Mapping[str, str], path: Path) -> None:
    """Numbered choices whose numbers are not those that the labels count."""
    numbers = sorted(int(role[6:]) for role in columns if _is_numbered(role))
    if numbers != list(range(len(numbers))):
        raise DataError(
            f"{path}: choices are counted from choice0, as their labels are, without a gap; got "
            f"{[f'choice{number}' for number in numbers]}. Say which column is which: --columns "
            "prompt=NAME,choice0=NAME,choice1=NAME,label=NAME."
        )


def _taken(kind: Kind, columns: Mapping[str, str]) -> set[str]:
    """The roles that a kind reads of those that are there."""
    if kind == "masked_lm":
        return {"text", "id"}
    need = next(need for need in _NEEDS[kind] if need <= columns.keys())
    numbered = {role for role in columns if _is_numbered(role)} if "choice0" in need else set()
    return {*need, *_OPTIONAL[kind], *numbered}


def _doubtful(names: Sequence[str], found: Mapping[str, str]) -> list[str]:
    """Columns that are another spelling of one that is read, or of a second text where none is."""
    read = {bare(column) for column in found.values()}
    second = set(LIKE["pair"].split()) if "text" in found and "pair" not in found else set()
    return [name for name in names if name not in found.values() and bare(name) and bare(name) in read | second]


def _expected(names: Sequence[str], path: Path) -> str:
    parts = [
        "Expected text with label or score, or question, context, answers and starts, or prompt, choices and label, or "
        f"text alone. Say which column is which: {_flag(names)}; for a masked LM: {_flag(names).partition(',')[0]}."
    ]
    if path.suffix.lower() in (".csv", ".tsv"):
        if path.suffix.lower() == ".tsv" and any(name.startswith('"') for name in names):
            parts.append("Is it quoted? A TSV has no quoting: save it as CSV.")
        else:
            parts.append("Does the first line name the columns?")
    return " ".join(parts)


def _flag(names: Sequence[str]) -> str:
    """`--columns` as it may be meant: a column that looks like a role for it, else NAME."""
    guesses = {role: next((name for name in names if bare(name) in like.split()), None) for role, like in LIKE.items()}
    goal = "score" if guesses["score"] and not guesses["label"] else "label"
    kept = [role for role in ("text", "pair", goal) if role != "pair" or guesses["pair"]]
    return _as_flag({role: guesses[role] or "NAME" for role in kept})


def _as_flag(columns: Mapping[str, str]) -> str:
    return "--columns " + ",".join(f"{role}={column}" for role, column in columns.items())
