"""100,000 random cases of every kind of hypothesis, most of them next to the edge: no verdict is false.

JAXSMOOTH_VERDICTS names a file for the counts of the long run, kind by kind; docs/hypotheses.md quotes that of
experiments/results.
"""

import json
import os
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from flint import arb
from support.hypotheses import PATTERN, bare_block, checks, scaled_patterns
from support.hypothesis_cases import (
    edge_of_a_sink,
    exact_sink,
    known_matrix,
    planted,
    random_graph,
    searched_radius,
    vanishing,
)
from support.ladder_cases import (
    RUNGS,
    BlockLayer,
    asset_block,
    drawn_block,
    observed,
    reference_rates,
    verdicts,
    with_rate,
)

from jaxsmooth.files import atomic_write
from jaxsmooth.linalg.norm_ball import NormBall
from jaxsmooth.theory import has_sink, open_hemisphere, rooted_radius, spectral_radius
from jaxsmooth.theory.hypotheses.consensus_state import EqualTokenMap
from jaxsmooth.theory.theorems.exact_block import Architecture

# Kind -> how many cases `make long` draws; a few of them in the default suite.
CASES = {
    "sink": 57_000,
    "root": 20_000,
    "half-space": 20_000,
    "radius": 2_000,
    "rate": 700,
    "state": 300,
    "ladder": 1_000,
    "trained ladder": 18,
}
# Of L3 only what L2b and the data show is known, so between them verdicts stay open.
DECIDED = {"ladder": 0.5, "trained ladder": 0.5}
DEAR = {"trained ladder"}
TRAINED = [("minilm-l6", layer) for layer in range(6)] + [("minilm-l3", layer) for layer in range(3)]
# Numpy's rates are right to far less than the nearest edge.
NEAREST = 1e-9


def a_sink(rng) -> tuple[bool | None, bool]:
    case = edge_of_a_sink(rng)
    return has_sink(*case), exact_sink(*case)


def a_root(rng) -> tuple[bool | None, bool]:
    graph = random_graph(rng)
    found, exact = rooted_radius(graph), searched_radius(graph)
    assert (found >= 0) != (exact >= 0) or found == exact
    return found >= 0, exact >= 0


def a_half_space(rng) -> tuple[bool | None, bool]:
    exact = rng.uniform() < 0.5
    return open_hemisphere(planted(rng) if exact else vanishing(rng)).holds, exact


def a_radius(rng) -> tuple[bool | None, bool]:
    """Integers with a known spectrum, next to 1 after division by a number next to that radius; a ball around it."""
    matrix, radius = known_matrix(rng, int(rng.integers(1, 5)))
    if radius == 0:
        return None, True
    by = radius * (1 + float(rng.choice([-1, 1])) * 2.0 ** -int(rng.integers(1, 50)))
    # Rounding the quotient moves every entry by at most half a unit: the exact quotient is in the ball.
    quotient = matrix / by
    found = spectral_radius(NormBall(quotient, 1e-15 * float(np.linalg.norm(quotient)) + 1e-300))
    exact = Fraction(radius) < Fraction(by)
    return (True if found.upper < 1 else False if found.lower >= 1 else None), exact


def a_rate(rng) -> tuple[bool | None, bool]:
    """A bare block: L0 = L1 = gain / the smallest std, L2 = gain / (the two smallest)^(1/2), exactly."""
    stds = rng.uniform(0.5, 4, int(rng.integers(2, 5)))
    name = str(rng.choice(["stds_above_threshold", "rate_below_1_L0", "rate_below_1_L1", "rate_below_1_L2"]))
    low, second = sorted(stds.tolist())[:2]
    edge = low if name[-1] != "2" else float((arb(low) * arb(second)).sqrt())
    gain = edge * (1 + float(rng.integers(-3, 4)) * 2.0 ** -int(rng.integers(1, 53)))
    exact = Fraction(gain) ** 2 < (Fraction(low) * Fraction(second) if name[-1] == "2" else Fraction(low) ** 2)
    verdict = checks(bare_block(gain), scaled_patterns(stds), names=(name,))[name, 1, None].verdict
    return {"HOLDS": True, "FAILS": False, "UNDECIDED": None}[verdict], exact


def a_state(rng) -> tuple[bool | None, bool]:
    """A bare block: rho(M) = 1 / ((1 + mixer)(1 + shift)), in numbers of few bits, so that it is exact."""
    mixer, shift = -float(rng.integers(0, 13)) / 16, float(rng.integers(1, 64)) / 16
    token_map = EqualTokenMap([bare_block(shift=shift, mixer=mixer)], Architecture(0.0, "relu"))
    state = token_map.fixed_state(token_map.orbit(PATTERN[None])[0])
    exact = (1 + Fraction(mixer)) * (1 + Fraction(shift)) > 1
    if state is None:
        return None, exact
    return (True if state.radius.upper < 1 else False if state.radius.lower >= 1 else None), exact


def a_rung(rng, block, activation, eps, layer) -> tuple[bool | None, bool]:
    """One of L2b, L3 and L4 at 1 + or - 10^-k, k up to 9, by the gains of the second norm; a random block's own run."""
    seen = observed(rng, block, activation, eps)
    rung = str(rng.choice(RUNGS))
    rate = reference_rates(layer, seen, eps)[rung]
    wanted = 1 + float(rng.choice([-1, 1])) * 10 ** rng.uniform(np.log10(NEAREST), -0.5)
    if not 1e-100 < rate < 1e100:
        return None, True
    found = verdicts(with_rate(block, rate, wanted), seen, activation, eps, (f"rate_below_1_{rung}",))
    verdict = {"HOLDS": True, "FAILS": False, "UNDECIDED": None}[found[f"rate_below_1_{rung}"]]
    return verdict, wanted < 1


def a_drawn_rung(rng) -> tuple[bool | None, bool]:
    block, activation, eps = drawn_block(rng)
    return a_rung(rng, block, activation, eps, BlockLayer(block, activation))


def a_trained_rung(rng) -> tuple[bool | None, bool]:
    return a_rung(rng, *asset_block(*TRAINED[rng.integers(len(TRAINED))]))


KINDS = {
    "sink": a_sink, "root": a_root, "half-space": a_half_space, "radius": a_radius, "rate": a_rate, "state": a_state,
    "ladder": a_drawn_rung, "trained ladder": a_trained_rung,
}  # fmt: skip


def tried(kind: str, cases: int) -> dict[bool | None, int]:
    """How often each verdict came; a false one ends it."""
    rng, counts = np.random.default_rng(list(kind.encode())), {True: 0, False: 0, None: 0}
    for case in range(cases):
        found, exact = KINDS[kind](rng)
        assert found in (None, exact), (kind, case)
        counts[found] += 1
    return counts


def write(path: Path, kind: str, counts: dict[bool | None, int], seconds: float) -> None:
    """The counts of one kind, beside those of the others that the file has."""
    named = {word: counts[verdict] for word, verdict in (("HOLDS", True), ("FAILS", False), ("UNDECIDED", None))}
    known = json.loads(path.read_text()) if path.exists() else {}
    known[kind] = {"cases": CASES[kind], **named, "processor_seconds": round(seconds, 1)}
    ordered = {kind: known[kind] for kind in CASES if kind in known}
    atomic_write(path, json.dumps(ordered, indent=1) + "\n")


@pytest.mark.parametrize("kind", [kind for kind in CASES if kind not in DEAR])
def test_some_cases(kind):
    counts = tried(kind, max(CASES[kind] // 200, 6))
    assert counts[True] > 0
    assert counts[False] > 0


def test_the_page_says_how_many_cases_are_of_which_kind():
    root = Path(__file__).parents[3]
    page = (root / "docs" / "hypotheses.md").read_text()
    written = json.loads((root / "experiments" / "results" / "no_false_verdict.json").read_text())
    for kind, one in written.items():
        assert one["cases"] == CASES[kind] == sum(one[word] for word in ("HOLDS", "FAILS", "UNDECIDED"))
    assert sum(CASES[kind] for kind in ("sink", "root", "half-space")) == 97_000
    assert sum(CASES[kind] for kind in CASES if "ladder" not in kind) == 100_000
    for text in (
        "97,000 are sinks (57,000) and roots (20,000)",
        "half-spaces (20,000)",
        "700 rates",
        "300 fixed states",
    ):
        assert text in page


@pytest.mark.long
@pytest.mark.parametrize("kind", CASES)
def test_many_cases(kind):
    began = time.process_time()
    counts = tried(kind, CASES[kind])
    if path := os.environ.get("JAXSMOOTH_VERDICTS"):
        write(Path(path), kind, counts, time.process_time() - began)
    decided = counts[True] + counts[False]
    assert decided > DECIDED.get(kind, 0.7) * CASES[kind]
    assert min(counts[True], counts[False]) > 0.01 * CASES[kind]
