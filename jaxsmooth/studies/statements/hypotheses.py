"""The hypotheses of `verify`: what theorems assume of a model, decided for every layer, head and sentence."""

import collections
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...bert.config import EncoderConfig
from ...errors import OptionError, did_you_mean
from ...linalg.intervals import Interval, quiet
from ...results.verification import TRUTHS, HypothesisCheck, HypothesisSummary
from ...theory.hypotheses.asked import ASKED, CONSENSUS, HEMISPHERE, ROOTED, SINK, Truth
from ...theory.hypotheses.attention_pattern import SINK_LEVEL, has_sink, rooted_radius
from ...theory.hypotheses.consensus_state import ConsensusState, EqualTokenMap
from ...theory.hypotheses.hemisphere import open_hemisphere
from ...theory.theorems.exact_block import Observation
from ...theory.theorems.hypotheses import ABOVE_THRESHOLD, RATE_BELOW_1
from ..verify_stages import Escalation, Evaluated, Parameters, at_layer, crop
from ..verify_tally import BatchVerdicts

SVD_ATTEMPTS, ARB_ATTEMPTS = 24, 4  # of the later stages: only a rate next to its limit needs one
STATES = 4  # fixed states of one map that are looked for and proved; a layer has one, or a few
SAME_STATE = 1e-6
UNNARROWED = RATE_BELOW_1 + "L3"  # whose enclosure no stage makes narrower
OPPOSITE = np.array([Truth.FAILS, Truth.HOLDS, Truth.UNDECIDED, Truth.NOT_APPLICABLE], np.int8)
"""The verdict on a negation -> that on the hypothesis."""


class Found(NamedTuple):
    """One hypothesis on a batch: verdicts, and ends of the number it is about, NaN for none; [B]."""

    truths: NDArray[np.int8]
    least: NDArray[np.float64]
    largest: NDArray[np.float64]

    @staticmethod
    def of(truths: Sequence[Truth], values: Sequence[tuple[float, float]]) -> "Found":
        least, largest = np.array(values, np.float64).reshape(-1, 2).T
        return Found(np.array(truths, np.int8), least, largest)

    @staticmethod
    def nothing(sentences: int) -> "Found":
        return Found.of([Truth.NOT_APPLICABLE] * sentences, [(np.nan, np.nan)] * sentences)


ByHead = list[tuple[int | None, Found]]
"""Of one layer: (head or None, what was found)."""


def by_layer(layers: list[ByHead]) -> dict[str, NDArray]:
    """The ends of the number and the verdict of every text, [L B] or, of heads, [L B N]; NaN where nothing is asked."""
    sides: dict[str, list[NDArray]] = {"least": [], "largest": [], "verdict": []}
    for own in layers:
        truths, least, largest = (np.stack(parts, axis=-1) for parts in zip(*(found for _, found in own), strict=True))
        none = truths == Truth.NOT_APPLICABLE
        for name, part in (("least", np.where(none, np.nan, least)), ("largest", np.where(none, np.nan, largest))):
            sides[name].append(part)
        sides["verdict"].append(truths)
    one = layers[0][0][0] is None
    return {name: np.stack(parts)[..., 0] if one else np.stack(parts) for name, parts in sides.items()}


class HypothesisTally:
    """Verdicts and extreme numbers by hypothesis, layer and head."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self._counts: dict[tuple, NDArray[np.int64]] = {}
        self._ends: dict[tuple, tuple[float, float]] = {}
        self._first: dict[tuple, list[int | None]] = collections.defaultdict(lambda: [None] * len(TRUTHS))

    def add(self, name: str, layer: int | None, head: int | None, found: Found, indices: NDArray[np.int64]) -> None:
        """Count one batch; `indices` are the sentences' positions in the text."""
        key = (name, layer, head)
        counts = self._counts.setdefault(key, np.zeros(len(TRUTHS), np.int64))
        counts += np.bincount(found.truths, minlength=len(TRUTHS))
        low, high = self._ends.get(key, (np.inf, -np.inf))
        asked = found.truths != Truth.NOT_APPLICABLE
        self._ends[key] = (
            float(np.fmin.reduce(found.least[asked], initial=low)),
            float(np.fmax.reduce(found.largest[asked], initial=high)),
        )
        for truth in np.unique(found.truths).tolist():
            earliest = int(indices[found.truths == truth].min())
            before = self._first[key][truth]
            self._first[key][truth] = earliest if before is None else min(before, earliest)

    def checks(self) -> tuple[HypothesisCheck, ...]:
        """One per hypothesis, layer and head; the whole stack after the layers."""
        order = {name: place for place, name in enumerate(self.names)}
        keys = sorted(self._counts, key=lambda key: (order[key[0]], np.inf if key[1] is None else key[1], key[2] or 0))
        return tuple(self._check(key) for key in keys)

    def _check(self, key: tuple) -> HypothesisCheck:
        truth = _verdict(self._counts[key])
        counts = dict(zip(TRUTHS, self._counts[key].tolist(), strict=True))
        sentence = None if truth == Truth.NOT_APPLICABLE else self._first[key][truth]
        (name, layer, head), (least, largest) = key, _ends(self._ends[key])
        return HypothesisCheck(name, layer, head, TRUTHS[truth], least, largest, sentence, counts)

    def summaries(self) -> tuple[HypothesisSummary, ...]:
        """One per hypothesis."""
        return tuple(self._summary(name) for name in self.names)

    def _summary(self, name: str) -> HypothesisSummary:
        own = [key for key in self._counts if key[0] == name]
        by_layer: dict[int, NDArray[np.int64]] = {}
        for _, layer, head in own:
            if layer is not None:
                by_layer[layer] = by_layer.get(layer, 0) + self._counts[name, layer, head]
        counts = sum((self._counts[key] for key in own), np.zeros(len(TRUTHS), np.int64))
        low = min((self._ends[key][0] for key in own), default=np.inf)
        high = max((self._ends[key][1] for key in own), default=-np.inf)
        (least, largest), asked = _ends((low, high)), ASKED[name]
        return HypothesisSummary(
            hypothesis=name,
            asks=asked.asks,
            shown=asked.shown,
            limit=asked.limit,
            source=asked.source,
            counts=dict(zip(TRUTHS, counts.tolist(), strict=True)),
            least=least,
            largest=largest,
            holds_in=tuple(layer for layer, found in sorted(by_layer.items()) if _verdict(found) == Truth.HOLDS),
        )


def _verdict(counts: NDArray[np.int64]) -> Truth:
    """On all sentences together: one that fails decides, then one that is open."""
    ranked = (Truth.FAILS, Truth.UNDECIDED, Truth.HOLDS)
    return next((truth for truth in ranked if counts[truth]), Truth.NOT_APPLICABLE)


def _ends(found: tuple[float, float]) -> tuple[float | None, float | None]:
    return (None, None) if found[0] > found[1] else found


class HypothesisStage:
    """Decides hypotheses on batches."""

    def __init__(self, parameters: Parameters, config: EncoderConfig, names: tuple[str, ...]) -> None:
        """`names` are those wanted."""
        self.parameters, self.names, self.tally = parameters, names, HypothesisTally(names)
        plain = {"block": config.is_plain, "state": config.is_plain and config.has_plain_scores}
        self.applicable = tuple(name for name in names if plain.get(ASKED[name].about, True))
        self.of_blocks = tuple(name for name in self.applicable if ASKED[name].about == "block")
        self._escalation = Escalation(parameters)
        self._escalation.host_left, self._escalation.arb_left = SVD_ATTEMPTS, ARB_ATTEMPTS
        self._maps: dict[int, _States] = {}

    def check(
        self, seen: Observation, lengths: list[int], first: Evaluated, indices: NDArray[np.int64]
    ) -> dict[str, list[ByHead]]:
        """All hypotheses on one batch: what blocks computed, [L B ...], and what the first stage of `verify` found.

        Returns what was found, by hypothesis, of every layer; of the whole stack under a name that ends in "/stack".
        """
        every: dict[str, list[ByHead]] = {name: [] for name in self.names}
        for layer in range(len(self.parameters.blocks)):
            sentences = [crop(seen, layer, row, tokens) for row, tokens in enumerate(lengths)]
            for name in self.names:
                every[name].append(list(self._decide(name, layer, sentences, seen, first)))
                for head, found in every[name][-1]:
                    self.tally.add(name, layer + 1, head, found, indices)
        if CONSENSUS in self.applicable:
            sentences = [crop(seen, 0, row, tokens) for row, tokens in enumerate(lengths)]
            whole = self._states(None).decide(sentences)
            self.tally.add(CONSENSUS, None, None, whole, indices)
            every[f"{CONSENSUS}/stack"] = [[(None, whole)]]
        return every

    def _decide(
        self, name: str, layer: int, sentences: list[Observation], seen: Observation, first: Evaluated
    ) -> Iterator[tuple[int | None, Found]]:
        """One hypothesis in one layer: (head or None, what was found)."""
        if name == SINK:
            yield from ((head, _sinks(sentences, head)) for head in range(seen.attn.shape[2]))
        elif name not in self.applicable:
            yield None, Found.nothing(len(sentences))
        elif name == ROOTED:
            yield None, _rooted(sentences)
        elif name == HEMISPHERE:
            yield None, _hemispheres(sentences)
        elif name == CONSENSUS:
            yield None, self._states(layer).decide(sentences)
        else:
            yield None, self._of_block(name, layer, sentences, seen, first)

    def _states(self, layer: int | None) -> "_States":
        """Of one block, shared by layers that share it; of the whole stack where `layer` is None."""
        blocks = self.parameters.blocks if layer is None else [self.parameters.blocks[layer]]
        key = 0 if layer is None else id(blocks[0])
        if key not in self._maps:
            self._maps[key] = _States(EqualTokenMap(blocks, self.parameters.architecture))
        return self._maps[key]

    @quiet
    def _of_block(
        self, name: str, layer: int, sentences: list[Observation], seen: Observation, first: Evaluated
    ) -> Found:
        lengths = [len(own.input) for own in sentences]
        found = BatchVerdicts.of(at_layer(first.statements[name], layer), lengths)
        if name == RATE_BELOW_1 + "L4":
            # From consensus there is no distance to stretch.
            found.verdicts[[bool(np.all(own.input == own.input[:1])) for own in sentences]] = Truth.NOT_APPLICABLE
        if name != UNNARROWED:
            self._escalation.settle(name, layer, found, seen, lengths, first)
        over, under = (found.lhs, found.rhs) if name == ABOVE_THRESHOLD else (found.rhs, found.lhs)
        return Found(OPPOSITE[found.verdicts], over.lower / under.upper, over.upper / under.lower)


class _States:
    """The fixed states of one map of equal tokens, as far as sentences lead to them."""

    def __init__(self, token_map: EqualTokenMap) -> None:
        self.map = token_map
        self._known: list[tuple[NDArray[np.float64], ConsensusState | None]] = []

    def decide(self, sentences: list[Observation]) -> Found:
        """Whether the state that each sentence's mean token is led to attracts."""
        ends = self.map.orbit(np.stack([own.input.mean(axis=0) for own in sentences]))
        radii = [self._radius(end) for end in ends]
        truths = [_several(own, _below_1(radius)) for own, radius in zip(sentences, radii, strict=True)]
        return Found.of(truths, [(float(radius.lower), float(radius.upper)) for radius in radii])

    def _radius(self, end: NDArray[np.float64]) -> Interval:
        """rho(M) at a fixed state; nothing where none is proved."""
        unknown = Interval(np.float64(np.nan), np.float64(np.nan))
        if not np.all(np.isfinite(end)):
            return unknown
        for row, state in self._known:
            if np.linalg.norm(end - row) <= SAME_STATE * np.linalg.norm(row):
                return unknown if state is None else state.radius
        if len(self._known) >= STATES:
            return unknown
        state = self.map.fixed_state(end)
        self._known.append((end if state is None else state.row, state))
        return unknown if state is None else state.radius


def _below_1(value: Interval) -> Truth:
    if value.upper < 1:
        return Truth.HOLDS
    return Truth.FAILS if value.lower >= 1 else Truth.UNDECIDED


def _several(own: Observation, truth: Truth) -> Truth:
    """One token alone is in consensus: nothing is asked of it."""
    return truth if len(own.input) > 1 else Truth.NOT_APPLICABLE


def _rooted(sentences: list[Observation]) -> Found:
    """The graph: the keys to which some head of the layer gives weight."""
    radii = [rooted_radius(np.any(own.attn > 0, axis=0)) for own in sentences]
    truths = [Truth.FAILS if radius < 0 else Truth.HOLDS for radius in radii]
    values = [(np.nan, np.nan) if radius < 0 else (radius, radius) for radius in radii]
    return Found.of([_several(own, truth) for own, truth in zip(sentences, truths, strict=True)], values)


def _hemispheres(sentences: list[Observation]) -> Found:
    verdict = {True: Truth.HOLDS, False: Truth.FAILS, None: Truth.UNDECIDED}
    truths = [_several(own, verdict[open_hemisphere(np.asarray(own.input)).holds]) for own in sentences]
    return Found.of(truths, [(np.nan, np.nan)] * len(sentences))


def _sinks(sentences: list[Observation], head: int) -> Found:
    truths, values = [], []
    for own in sentences:
        attn = np.asarray(own.attn[head])
        # Of n tokens one always gets 1/n: nothing is asked where that is more than the level.
        asked = len(attn) * SINK_LEVEL > 1
        found = has_sink(attn) if asked else False
        truths.append((Truth.HOLDS if found else Truth.FAILS) if asked else Truth.NOT_APPLICABLE)
        most = float(attn.mean(axis=0).max())
        values.append((most, most))
    return Found.of(truths, values)


def chosen_hypotheses(names: Sequence[str], *, everything: bool) -> tuple[str, ...]:
    """In the order in which they are shown; where none is named, all of them or none.

    Raises:
      OptionError: a name that does not exist.
    """
    if isinstance(names, str):
        raise OptionError(f"hypotheses must be a list of names; got {names!r:.80}.")
    for name in names:
        if name not in ASKED:
            near = did_you_mean(name, ASKED)
            raise OptionError(f"there is no hypothesis {name!r}; there are {', '.join(ASKED)}.{near}")
    return tuple(name for name in ASKED if name in names or (everything and not names))
