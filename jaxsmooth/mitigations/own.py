"""Remedies of the user's own, under names that the user gives them."""

import dataclasses
from collections.abc import Iterable, Mapping

from ..bert.params import Encoder
from ..errors import OptionError, arguments_checked, takes
from ..types import Edits
from .parse import METHODS, NamedRemedy, parse_remedies
from .remedies import AnyBatch, Remedy

Own = Edits | Remedy | str | NamedRemedy
"""What stands for a remedy: `Edits`, a function (model, batch) -> `Edits`, or the library's by name."""


@dataclasses.dataclass(frozen=True, eq=False)  # compared by identity: programs are compiled for this very function
class OwnRemedy:
    """A remedy of the user's own, used where a `NamedRemedy` is.

    Attributes:
      label: its name.
      given: `Edits`, or a function (model, batch) -> `Edits`.
    """

    label: str
    given: Edits | Remedy
    random = False
    mixes = False

    @property
    def description(self) -> str:
        """For the report."""
        return f"{self.label} (the user's own)"

    def change(self, model: Encoder) -> Encoder:
        """The model as it is: its weights are the user's to change before."""
        return model

    def edits(self, model: Encoder, batch: AnyBatch) -> Edits:
        """The edits for a batch.

        Raises:
          OptionError: the function returns something else.
        """
        found = self.given if isinstance(self.given, Edits) else self.given(model, batch)
        if not isinstance(found, Edits):
            raise OptionError(f"remedy {self.label!r} must return Edits; got {type(found).__name__}.")
        return found


@arguments_checked
def own_remedy(label: str, given: Own) -> NamedRemedy | OwnRemedy:
    """One remedy under the user's name.

    Args:
      label: the name; none of the library's, "none", or what has one of ",:+" in it.
      given: what it is.

    Raises:
      OptionError: a name that is taken, or something that is no remedy.

    >>> own_remedy("weak", "contranorm:0.05").description
    'contranorm(s=0.05, temperature=1)'
    """
    if not isinstance(label, str) or not label.strip() or label in (*METHODS, "none") or set(label) & set(",:+"):
        raise OptionError(f"a remedy of your own needs a name that no other has, without any of ',:+'; got {label!r}.")
    if isinstance(given, str):
        found = parse_remedies(given)
        if len(found) > 1:
            raise OptionError(f"remedy {label!r} must be one; got {given!r}. Join those to be used together by '+'.")
        given = found[0]
    if isinstance(given, NamedRemedy):
        return dataclasses.replace(given, label=label)
    if not isinstance(given, Edits) and not takes(given, 2):
        raise OptionError(
            f"remedy {label!r} must be Edits, a function (model, batch) -> Edits, or a remedy by name, as "
            f"'attnscale:0.3'; got {type(given).__name__}."
        )
    return OwnRemedy(label, given)


@arguments_checked
def chosen_remedies(
    remedies: str | Mapping[str, Own] | Iterable[str | NamedRemedy],
) -> list[NamedRemedy | OwnRemedy]:
    """The remedies that a study is asked for.

    Args:
      remedies: a list as `parse_remedies` reads it; or name -> remedy, see `own_remedy`; or several by name.

    Raises:
      OptionError: nothing at all, or as `parse_remedies` and `own_remedy`.

    >>> [one.label for one in chosen_remedies({"mine": lambda model, batch: Edits(), "weak": "contranorm:0.05"})]
    ['mine', 'weak']
    """
    if isinstance(remedies, str):
        return [*parse_remedies(remedies)]
    if not isinstance(remedies, Mapping | Iterable) or not (remedies := _kept(remedies)):
        raise OptionError(
            "remedies must be a string, as 'contranorm,attnscale:0.3', or name -> Edits, as {'mine': edits}; got "
            f"{remedies!r}."
        )
    if isinstance(remedies, Mapping):
        return [own_remedy(label, given) for label, given in remedies.items()]
    wrong = next((one for one in remedies if not isinstance(one, str | NamedRemedy)), None)
    if wrong is not None:
        raise OptionError(
            f"a remedy in a list must be one of the library's; got {type(wrong).__name__}. One of your own needs a "
            "name: {'mine': edits}."
        )
    return [one for given in remedies for one in (parse_remedies(given) if isinstance(given, str) else [given])]


def _kept(remedies: Mapping[str, Own] | Iterable[str | NamedRemedy]) -> Mapping[str, Own] | list[str | NamedRemedy]:
    return remedies if isinstance(remedies, Mapping) else list(remedies)
