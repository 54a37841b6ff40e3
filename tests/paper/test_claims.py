"""Every rule on made-up results, on both sides of its boundary; and the page's tables."""

import json

import numpy as np
import pytest
from support import ROOT

from experiments import keeping, pages
from experiments.paper import claims, figure_1b, rules

R, N, C = rules.REPRODUCED, rules.NOT_REPRODUCED, rules.CONTRADICTED


def figure_1a(*cases: tuple[float, float, float]) -> dict:
    """Trained models, one a case: (rank correlation, rise, last layer's mean), errors of .01."""
    random = {"weights": "random", "mean": [1.0, 0.0], "rank_correlation": -1}
    one = {}
    for k, (rank, rise, last) in enumerate(cases):
        case = {"weights": "trained", "mean": [0.1, last], "rank_correlation": rank, "rise": rise, "rise_error": 0.01}
        one[f"model {k}, trained, tweets"] = case
    return {"cases": one | {"model 0, random, tweets": random}}


@pytest.mark.parametrize(
    ("cases", "word"),
    [
        ([(0.9, 0.021, 0.5), (1.0, 0.5, 0.5)], R),
        ([(0.9, 0.019, 0.5), (1.0, 0.5, 0.5)], N),
        ([(0.89, 0.5, 0.5)], N),
        ([(1.0, 0.5, 0.5), (-1.0, -0.5, 0.5)], N),
        ([(1.0, 0.5, 0.5), (-1.0, -0.5, 0.5), (0.0, -0.1, 0.5)], C),
    ],
)
def test_rising(cases, word):
    assert rules.rising(figure_1a(*cases)).word == word


@pytest.mark.parametrize(("lasts", "word"), [((0.8, 0.9), R), ((0.79, 0.9), N), ((0.49, 0.4), C)])
def test_high(lasts, word):
    found = rules.high(figure_1a(*((1.0, 0.5, last) for last in lasts)))
    assert found.word == word
    assert f"model 0 {lasts[0]:.2f}" in found.measured


def figure_3(upper: float, step: float, trained: float, random: float, layers: int = 6) -> dict:
    def one(weights: str, mean: float) -> dict:
        similarity = {
            "mean": (layers - 1) * [mean],
            "upper": upper,
            "all": [mean, 0.01],
            "upper_less_lower": [step, 0.01],
        }
        return {"weights": weights, "model": "m", "corpus": "c", "similarity": similarity}

    small = one("trained", 0.0)
    small["similarity"] = {"mean": [0.0], "upper": 0.0}
    return {"cases": {"m, trained, c": one("trained", trained), "m, random, c": one("random", random),
                      "small, trained, c": small}}  # fmt: skip


def test_figure_3():
    """A model of two layers does not count."""
    assert [rules.alike(figure_3(upper, 0, 0, 0)).word for upper in (0.8, 0.79, 0.49)] == [R, N, C]
    assert [rules.growing(figure_3(1, step, 0, 0)).word for step in (0.021, 0.019, -0.021)] == [R, N, C]
    words = [rules.takes_training(figure_3(1, 0, trained, 0.5)).word for trained in (0.53, 0.52, 0.47)]
    assert words == [rules.UPHELD, rules.MIXED, rules.REJECTED]


def std(distance: float, cosine: float, least_v: float = 100.0, last: float = 0.5) -> dict:
    own = {"least_v": least_v, "share_v_below_1": float(least_v < 1), "cosine": last}
    one = {"own": own, "imposed_distance": distance, "imposed_cosine": cosine, "factor_distance": distance,
           "factor_cosine": cosine}  # fmt: skip
    return {"caused": {"m": one}, "tally": {"layers": 9, "as_claimed": 0, "opposite": 0}}


def test_the_std():
    caused = [rules.std_caused(std(*pair)).word for pair in ((-0.9, 0.9), (-0.9, 0.8), (0.9, -0.9))]
    assert caused == [R, N, C]
    observed = [rules.std_observed({"tally": {"layers": 9, "as_claimed": a, "opposite": b}}).word
                for a, b in ((6, 3), (5, 4), (3, 6))]  # fmt: skip
    assert observed == [R, N, C]
    assert rules.converges(std(-1, 1)).word == rules.NOT_TESTABLE
    assert rules.converges(std(-1, 1, least_v=0.5)).word == N
    assert [rules.although(std(-1, 1, v, last)).word for v, last in ((2, 0.8), (2, 0.7), (0.5, 0.9))] == [R, N, N]


def criticisms(kept: float, broken: int, ratio: float, correlation: float, printed: int = 1) -> dict:
    row = {"comparisons": 10, "broken": 0, "L0": 50.0, "actual": 1.0, "v": 10.0}
    rows = {"own": row, "random": row | {"v": 10 * ratio, "broken": broken}}
    smoothed = [{"gap": 0.5, "float32": [0.8]}, {"gap": 0.1, "float32": [0.8 * kept]}, {"gap": 1e-3, "float32": [0.0]}]
    return {
        "probe": {"m": {"id": {"smoothed": smoothed}}},
        "rows": {"m": {"rows": rows, "lemma": {"heads": 9, "printed_broken": printed, "normalised_broken": 0}}},
        "bridge": {"m": {"correlation": correlation, "agree": 0.7}},
    }


def test_objections():
    yes, no, part = rules.UPHELD, rules.REJECTED, rules.MIXED
    assert [rules.tells_apart(criticisms(k, 0, 1, -1)).word for k in (0.91, 0.6, 0.4)] == [yes, part, no]
    asked = [rules.specific(criticisms(1, b, ratio, -1)).word for b, ratio in ((0, 1.9), (0, 2.1), (1, 1.0))]
    assert asked == [no, part, yes]
    assert [rules.same_smoothing(criticisms(1, 0, 1, c)).word for c in (-0.96, -0.9, -0.4)] == [yes, part, no]


def convolution(cosines: tuple[float, ...], nearer: tuple[float, ...]) -> dict:
    """Models whose last cosine is .5 with attention; errors of .01."""

    def one(k: int, form: str, cosine: float, by: float) -> dict:
        return {"model": f"m{k}", "form": form, "cosine": [0.1, cosine], "equal": [0.5], "own": [0.4],
                "nearer_to_own": by, "nearer_error": 0.01}  # fmt: skip

    pairs = enumerate(zip(cosines, nearer, strict=True))
    cases = [(one(k, "attention", 0.5, 9), one(k, "ResGCN", c, by)) for k, (c, by) in pairs]
    return {"cases": {f"{k}": each for k, each in enumerate(one for pair in cases for one in pair)}}


def test_the_graph_convolution():
    yes, no, part = rules.UPHELD, rules.REJECTED, rules.MIXED
    alike = [rules.is_convolution(convolution(c, (0, 0))).word for c in ((0.54, 0.46), (0.54, 0.44), (0.56, 0.44))]
    assert alike == [yes, part, no]
    nearer = [rules.own_subspace(convolution((0, 0), n)).word for n in ((0.021, 1), (0.019, 1), (-0.001, 0), (-1, -1))]
    assert nearer == [yes, part, part, no]


def around(*middles: float) -> dict:
    """Skips of five seeds whose interval reaches .0025 to both sides."""
    return {"less_gate": {f"skip {k}": [m + 0.002 * z for z in (-1, -0.5, 0, 0.5, 1)] for k, m in enumerate(middles)}}


def test_fusion_against_a_skip():
    yes, no, part = rules.UPHELD, rules.REJECTED, rules.MIXED
    asked = [rules.skip_does_as_much(around(*m)).word for m in ((0.007, -0.007), (0.0, -0.009), (-0.009, -0.02))]
    assert asked == [yes, part, no]
    correlations = [{"correlations": [m - 0.1, m, m + 0.1], "cases": {}} for m in (0.8, 0.6, 0.1)]
    assert [rules.less_alike_is_better(one).word for one in correlations] == [yes, part, no]
    assert rules.less_alike_is_better({"correlations": [0.9, 0.91], "cases": {}}).word == rules.NOT_RUN
    assert rules.skip_does_as_much({"less_gate": {"skip 1": [0.001, 0.002]}}).word == rules.NOT_RUN
    better = around(0.03, 0.03)
    assert rules.skip_does_as_much(better).word == part  # as much and more: the rule asked for as much


def test_the_theorem_and_its_lemma():
    assert rules.bound_holds(criticisms(1, 5, 1, -1)).word == R  # what breaks with other matrices does not count
    assert [rules.printed_lemma(criticisms(1, 0, 1, -1, printed)).word for printed in (0, 1)] == [R, C]


def test_neighbours():
    def tally(**counts: int) -> dict:
        return {
            "tally": {"cases": 4, "grow": 0, "fall": 0, "repeated": 8, "above_own_last": 0, "better": 0, "worse": 0}
            | counts
        }

    assert [rules.projection_grows(tally(grow=g, fall=f)).word for g, f in ((4, 0), (3, 1), (1, 3))] == [R, N, C]
    assert [rules.most_when_shared(tally(above_own_last=k)).word for k in (5, 4, 1)] == [R, N, C]
    assert [rules.softdecay_better(tally(better=b, worse=w)).word for b, w in ((2, 0), (2, 1), (1, 3))] == [R, N, C]
    runs = [rules.steers({"steer": {"alignment": np.array(ends)[:, None, None].tolist()}}).word
            for ends in ((0.1, 0.3, 0.8), (0.1, 0.9, 0.8), (0.1, 0.3, 0.7), (0.3, 0.2, 0.1))]  # fmt: skip
    assert runs == [R, N, N, C]


def test_rows_of_the_other_experiments():
    rows = [["m: gate is better than none (paper: +1.3)", "5", "+0.4 [-0.1, +0.9]", "0.1", "+0.5", "not decided"],
            ["m: max is better than none", "5", "+0.4 [+0.1, +0.7]", "0.1", "+0.5", "reproduced"]]  # fmt: skip
    found = rules._rows(rows, "m: gate is better than none")
    assert found == (N, "+0.4 [-0.1, +0.9] points, 5 seeds (not decided)")
    assert rules._rows(rows, "m: max").word == R
    assert rules._rows([[*rows[1][:1], "2", *rows[1][2:]]], "m: max").word == rules.NOT_RUN
    assert rules._rows(rows, "m: concat").word == rules.NOT_RUN


def test_tables_of_made_up_results(tmp_path):
    """Verdicts first, of the results that are there; what has none was not run."""
    (tmp_path / "paper").mkdir()
    (tmp_path / "paper" / "figure_1a.json").write_text(json.dumps(figure_1a((1.0, 0.5, 0.4))))
    head = "before\n" + "".join(
        f"<!-- results: {name} -->\n\nSTALE\n\n<!-- end -->\nafter {name}\n" for name in claims.TABLES
    )
    made = pages.filled(head, pages.PAGES["paper.md"], tmp_path)
    assert made.startswith("before\n")
    assert "STALE" not in made
    assert made == pages.filled(made, pages.PAGES["paper.md"], tmp_path)
    lines = made.splitlines()
    first = claims.PAPER[0]
    cells = [
        f"**{R}**",
        first.says,
        "figure 1a",
        first.number,
        "1 of 1 cases rise, 0 fall",
        first.rule,
        "`paper/figure_1a`",
    ]
    assert f"| {' | '.join(cells)} |" in lines
    assert sum(line.startswith(f"| **{C}**") for line in lines) == 1
    assert sum(line.startswith(f"| **{rules.NOT_TESTABLE}**") for line in lines) == 2
    all_ = [claim for each in claims.TABLES.values() for claim in each]
    assert sum(line.startswith(f"| **{rules.NOT_RUN}**") for line in lines) == len(all_) - 4
    assert all(f"after {name}" in lines for name in claims.TABLES)
    with pytest.raises(ValueError, match="neighbours"):
        pages.filled("<!-- results: paper -->\n<!-- results: objections -->\n", pages.PAGES["paper.md"], tmp_path)


@pytest.mark.parametrize("name", pages.PAGES)
def test_the_page_says_what_the_results_say(name):
    """If this fails, `python -m experiments.pages` has not been run after an experiment."""
    found = (pages.DOCS / name).read_text(encoding="utf-8")
    assert found == pages.filled(found, pages.PAGES[name], keeping.RESULTS)


def test_every_experiment_of_a_claim_is_there_or_to_come():
    """Those that train are written apart; the measurements are here."""
    trained = {"paper/figure_1b", "paper/figure_1c", "paper/figure_5_6", "paper/tables_2_3", "paper/table_1"}
    for claim in (claim for each in claims.TABLES.values() for claim in each):
        if claim.experiment and claim.experiment not in trained:
            assert (ROOT / "experiments" / f"{claim.experiment}.py").exists(), claim
        assert claim.rule
        assert claim.says


def over_thinking_of(seeds: int) -> str:
    """The verdict where layer 4 of six is a tenth better than the last."""
    entries = {}
    for seed in range(seeds):
        for layer in range(1, figure_1b.LAYERS + 1):
            score = {"spearman": 0.6 + 0.1 * (layer == 4) + 0.001 * (seed * layer % 5)}
            names = {"task": "tweets-score", "model": figure_1b.MODEL, "variant": figure_1b.variant(layer, False)}
            entries[f"{seed} {layer}"] = {**names, "seed": seed, "validation": score, "test": score}
    return rules.over_thinking({"entries": entries}).word


def test_fewer_than_three_seeds_decide_nothing():
    """Not even that over-thinking was not found."""
    assert [over_thinking_of(seeds) for seeds in (1, 2, 3)] == [rules.NOT_RUN, rules.NOT_RUN, rules.REPRODUCED]
