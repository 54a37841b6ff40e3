"""The model and the data of a result, summarised."""

import dataclasses

LADDER = ("actual", "L4", "L3", "L2b", "L2", "L1", "L0")
"""The contraction of a block and the ladder of bounds that are proved of each other too, tightest first; definitions in
`jaxsmooth.theory.block.ladder`."""

RATES = ("actual", "L5", *LADDER[1:])
"""The same with what is tighter still, and knows the MLP's pre-activations: `jaxsmooth.theory.rates.spectrum_rung`."""


@dataclasses.dataclass(frozen=True)
class ModelSummary:
    """Which model was studied.

    Attributes:
      note: a warning about weights that are not what they seem ("random weights").
      departures: how its blocks differ from the post-LN blocks of the ladder of bounds ("pre-LN blocks"); where there
        are any, the threshold has no value, and of the bounds only `rungs` have one.
      rungs: the bounds that apply; for pre-LN blocks L1, which then is the rate of those blocks.
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

    @property
    def label(self) -> str:
        """How many sentences, and of what.

        >>> DataSummary("reviews.csv", 1, 9, 0).label, DataSummary("tiny", 1024, 9999, 0).label
        ('1 sentence of reviews.csv', '1,024 sentences of tiny')
        """
        return f"{self.sentences:,} sentence{'s' if self.sentences != 1 else ''} of {self.name}"
