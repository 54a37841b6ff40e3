"""The registry of theorems: `verify`'s rows, `diagnose`'s rungs and the table in docs/theorems.md are read off it.

A new theorem is one function with a decorator, and a test. The function takes the quantities that it `needs`, computed
by any `Calculus`, and returns a `Statement`; a rate returns a `Rate`, of which the statement is made.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Generic, Literal, TypeVar, get_args

from ...errors import OptionError, arguments_checked, takes
from ..statement import Statement
from .calculus import M, N
from .exact_block import ExactBlock
from .quantities import BlockQuantities

Needs = Literal["head", "scores", "block", "norm"]
"""One head's attention; the same where scores are X W_Q (X W_K)^T / H^(1/2); one post-LN block; one LayerNorm of it."""

SHI = "after Shi et al. (2022), arXiv 2202.08625"
OURS = "docs/theory.md"
StatementText = TypeVar("StatementText", bound=Callable[..., Statement])
RateText = TypeVar("RateText", bound="Callable[..., Rate]")


@dataclasses.dataclass(frozen=True)
class Rate(Generic[N]):
    """d_M(H') <= (product of `before` and `after`) / `divisor` (`stretch` d_M(X) + `defect_weight` defect).

    Attributes:
      stretch: how much attention and its residual stretch d_M at most; if not `relative`, what they make of d_M(X).
      before: factors multiplied in front of it: the order of multiplication decides the last bit.
      after: factors behind it.
      divisor: what the factors are divided by, or None.
      defect_weight: factor of what rows of attention that do not sum to exactly 1 add, or None for 1.
      relative: whether `stretch` is still to be multiplied by d_M(X).
    """

    stretch: N
    before: tuple[N, ...] = ()
    after: tuple[N, ...] = ()
    divisor: N | None = None
    defect_weight: N | None = None
    relative: bool = True

    @property
    def undivided(self) -> N:
        """What the divisor must exceed for the rate to be below 1."""
        return _product((*self.before, self.stretch, *self.after))

    def value(self, q: BlockQuantities[M, N]) -> N:
        """The bound of d_M(H') / d_M(X), for rows of attention that sum to 1."""
        found = self.undivided if self.divisor is None else self.undivided / self.divisor
        return found if self.relative else q.over_distance(found)

    def statement(self, q: ExactBlock[M, N]) -> Statement[N]:
        """The bound of d_M(H')."""
        factor = _product(self.before + self.after)
        factor = factor if self.divisor is None else factor / self.divisor
        if not self.relative:
            bound = factor * self.stretch
        else:
            defect = q.row_defect if self.defect_weight is None else self.defect_weight * q.row_defect
            bound = factor * (self.stretch * q.distance + defect)
        return q.c.zero_where(q.level, Statement(q.after, bound))


def _product(factors: tuple[N, ...]) -> N:
    found, *others = factors
    for factor in others:
        found = found * factor
    return found


@dataclasses.dataclass(frozen=True)
class Theorem:
    """One theorem that `verify` can certify.

    Attributes:
      name: as it stands in verify.json.
      source: who proved it, and where.
      needs: what it is about.
      says: the inequality, for the documentation.
      statement: quantities -> `Statement`; those of a head for "head" and "scores", else those of a block.
      rung: its name in the ladder of `diagnose`, or None.
    """

    name: str
    source: str
    needs: Needs
    says: str
    statement: Callable[..., Statement]
    rung: str | None = None

    @property
    def of_head(self) -> bool:
        """Whether it is about one head, not about a block."""
        return self.needs in ("head", "scores")


THEOREMS: dict[str, Theorem] = {}
"""All of them by name, in the order of `verify`'s rows."""

RUNGS: dict[str, Callable[[BlockQuantities], Rate]] = {}
"""The rates of the ladder that one block decides, by rung."""


HYPOTHESES: dict[str, Theorem] = {}
"""What theorems assume of a block, by name: each as its NEGATION, an inequality like a theorem's, see `hypothesis`."""


def text_of(name: str | Theorem) -> Theorem:
    """A theorem, or the negation of a hypothesis, by name; one of the user's own stands for itself."""
    if isinstance(name, Theorem):
        return name
    return THEOREMS[name] if name in THEOREMS else HYPOTHESES[name]


def hypothesis(name: str, source: str) -> Callable[[StatementText], StatementText]:
    """Register a hypothesis about a block: a function of its quantities that returns its negation lhs <= rhs.

    A verdict CONFIRMED then says that the hypothesis fails, VIOLATED that it holds.
    """

    def register(text: StatementText) -> StatementText:
        HYPOTHESES[name] = Theorem(name, source, "block", (text.__doc__ or "").partition("\n")[0], text)
        return text

    return register


def theorem(name: str, source: str, needs: Needs) -> Callable[[StatementText], StatementText]:
    """Register a theorem: a function of the quantities it needs that returns a `Statement`.

    A theorem on a LayerNorm is registered for both of a block, with "_attn" and "_mlp" after its name.

    >>> from jaxsmooth.theory.theorems import THEOREMS
    >>> THEOREMS["dobrushin1956_diameter"].source
    'Dobrushin (1956); Seneta (2006), section 3.1'
    """

    def register(text: StatementText) -> StatementText:
        says = (text.__doc__ or "").partition("\n")[0]
        for one in at_sites(Theorem(name, source, needs, says, text)):
            _add(one)
        return text

    return register


@arguments_checked
def own_theorem(name: str, source: str, needs: Needs) -> Callable[[Callable[..., Statement | Rate]], Theorem]:
    """Make a theorem of the user's own, for `verify(theorems=[...])`: as `theorem` does, but nothing is registered.

    Args:
      name: as it is to stand in verify.json; none of the library's.
      source: who proved it, and where.
      needs: what it is about: "head", "scores", "block" or "norm"; see docs/extending.md.

    Returns:
      A decorator of a function of the quantities q that returns a `Statement`, or of a block a `Rate`. The first line
      of its docstring is the inequality. Its products and norms are those of the calculus q.c, so that every stage of
      `verify` can evaluate it. It becomes a `Theorem`.

    Raises:
      OptionError: a name that is taken, or needs that do not exist.

    >>> @own_theorem("my_diameter", "made up", needs="head")
    ... def mine(q):
    ...     \"\"\"D(A X) <= D(X).\"\"\"
    ...     return Statement(q.c.diameter(q.mixed), q.diameter)
    >>> mine.name, mine.says
    ('my_diameter', 'D(A X) <= D(X).')
    """
    if not isinstance(name, str) or not name or name in THEOREMS:
        raise OptionError(f"a theorem of your own needs a name that no other has; got {name!r}.")
    if needs not in get_args(Needs):
        raise OptionError(f"needs must be one of {', '.join(get_args(Needs))}; got {needs!r}.")

    def make(text: Callable[..., Statement | Rate]) -> Theorem:
        if not takes(text, 1):
            raise OptionError(f"theorem {name!r} must be a function of one argument, the quantities q.")

        def statement(q: Any) -> Statement:
            found = text(q)
            if isinstance(found, Rate):
                return found.statement(q)
            if not isinstance(found, Statement):
                raise OptionError(
                    f"theorem {name!r} must return a Statement(lhs, rhs) or a Rate; got {type(found).__name__}."
                )
            return found

        return Theorem(name, source, needs, (text.__doc__ or "").partition("\n")[0], statement)

    return make


def at_sites(one: Theorem) -> tuple[Theorem, ...]:
    """A theorem on a LayerNorm becomes two, of the block's two; any other is itself."""
    if one.needs != "norm":
        return (one,)
    return tuple(
        dataclasses.replace(one, name=f"{one.name}_{site}", statement=_at_norm(one.statement, site))
        for site in ("attn", "mlp")
    )


def rate(name: str, source: str, rung: str) -> Callable[[RateText], RateText]:
    """Register a rate of a block: a function of its quantities that returns a `Rate`."""

    def register(text: RateText) -> RateText:
        says = (text.__doc__ or "").partition("\n")[0]
        _add(Theorem(name, source, "block", says, lambda q: text(q).statement(q), rung))
        RUNGS[rung] = text
        return text

    return register


def _at_norm(text: Callable[..., Statement], site: str) -> Callable[[ExactBlock], Statement]:
    return lambda q: text(q.norm_at(site))


def _add(entry: Theorem) -> None:
    if entry.name in THEOREMS:
        raise ValueError(f"two theorems are called {entry.name!r}.")
    THEOREMS[entry.name] = entry
