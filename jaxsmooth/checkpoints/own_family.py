"""A family of models from outside the library: its rows are put into the tables, for as long as the program runs."""

from collections.abc import Callable, Mapping
from typing import Any

from ..bert.config import FAMILY_NAMES, OWN_FAMILIES
from ..bert.heads import FORMS
from ..errors import ConfigError, arguments_checked
from ..inputs.tokenizer_class import OF_FAMILY
from . import wrappers
from .families import FAMILIES, Family
from .head_names import HEADS, HeadFamily
from .names import NAMES, Names

_TABLES: tuple[dict[str, Any], ...] = (FAMILIES, NAMES, HEADS, FORMS, OF_FAMILY)


@arguments_checked
def register_family(
    name: str,
    *,
    like: str = "bert",
    family: Family | Mapping[str, Any] | None = None,
    names: Names | Mapping[str, str] | None = None,
    heads: HeadFamily | None = None,
) -> Callable[[], None]:
    """Let `load`, `save` and all commands know models of this `model_type`. Registered again, it is replaced.

    Args:
      name: the `model_type` of its `config.json`.
      like: the family of the library that it is built as: what is not given here is that one's, its tokenizer's class
        and the form of its heads among it.
      family: how its `config.json` is read: a row for `checkpoints.families`, or some fields of one.
      names: what its tensors are called: a row for `checkpoints.names`; or parts of the names of `like` -> what stands
        in their place, one after the other.
      heads: its classes with heads, a row for `checkpoints.head_names`; none unless given.

    Returns:
      A function that takes it out of the tables again.

    Raises:
      ConfigError: a name of the library's own, a family `like` that it does not have, or fields that a row has not.

    >>> import jaxsmooth
    >>> undo = register_family("housebert", family={"settings": {"placement": "pre", "final_norm": True}})
    >>> sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    >>> jaxsmooth.config_from_dict({"model_type": "housebert", "vocab_size": 99, **sizes}).placement
    'pre'
    >>> undo()
    """
    if not isinstance(name, str) or not name or name in FAMILY_NAMES:
        raise ConfigError(f"a family of your own needs a model_type that no other has; got {name!r}.")
    if like not in FAMILY_NAMES:
        raise ConfigError(f"like must be one of {FAMILY_NAMES}; got {like!r}.")
    FAMILIES[name] = family if isinstance(family, Family) else _changed(FAMILIES[like], name, family or {})
    NAMES[name] = names if isinstance(names, Names) else _renamed(NAMES[like], names or {})
    HEADS[name], FORMS[name] = heads or HeadFamily({}), FORMS[like]
    OF_FAMILY.pop(name, None)
    if like in OF_FAMILY:
        OF_FAMILY[name] = OF_FAMILY[like]
    OWN_FAMILIES.add(name)
    wrappers.forget()

    def undo() -> None:
        for table in _TABLES:
            table.pop(name, None)
        OWN_FAMILIES.discard(name)
        wrappers.forget()

    return undo


def _changed(row: Family, name: str, fields: Mapping[str, Any]) -> Family:
    wrong = sorted(set(fields) - set(Family._fields))
    if wrong:
        raise ConfigError(f"a family has the fields {', '.join(Family._fields)}; got {', '.join(wrong)}.")
    return row._replace(**{"architecture": f"{name}Model", **fields})


def _renamed(row: Names, parts: Mapping[str, str]) -> Names:
    def new(tensor: str) -> str:
        for old, its in parts.items():
            tensor = tensor.replace(old, its)
        return tensor

    entries = (entry._replace(tensor=new(entry.tensor)) for entry in row.entries)
    return row._replace(entries=tuple(entries), prefix=new(row.prefix), ignored=tuple(map(new, row.ignored)))
