"""What a report says of the model and of the data."""

import dataclasses

RATES = ("actual", "L4", "L3", "L2b", "L2", "L1", "L0")
"""The contraction of a block and its upper bounds, tightest first; definitions in `jaxsmooth.theory.block.ladder`."""


@dataclasses.dataclass(frozen=True)
class ModelSummary:
    """Which model was diagnosed. `note` warns about weights that are not what they seem ("random weights").

    `departures` says what sets its blocks apart from the post-LN blocks that the ladder of bounds speaks of ("pre-LN
    blocks"); where there are any, the threshold has no value, and of the bounds only `rungs` have one: L1 for pre-LN
    blocks, whose own rate it then is.
    """

    name: str
    family: str
    layers: int
    heads: int
    width: int
    mlp_width: int
    activation: str
    parameters: int
    precision: str
    note: str = ""
    departures: tuple[str, ...] = ()
    rungs: tuple[str, ...] = RATES[1:]

    @property
    def label(self) -> str:
        """The name, with the note if there is one."""
        return f"{self.name} ({self.note})" if self.note else self.name


@dataclasses.dataclass(frozen=True)
class DataSummary:
    """Which text was read: sentences, real tokens (special tokens included), and how many were truncated."""

    name: str
    sentences: int
    tokens: int
    truncated: int
