"""`jaxsmooth compare`: every number against numpy with the remedy written out, its files, its refusals."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from support import ROOT, reference, reference_ladder, reference_remedies
from support.edits import edited_block
from support.models import CONFIG, hugging_face, random_model, with_factor
from support.parity import VOCABULARY
from support.report import comparison as support_comparison
from support.report import spread, synthetic

import jaxsmooth
from jaxsmooth import report
from jaxsmooth.cli.main import main
from jaxsmooth.errors import DivergedError, OptionError, TextError
from jaxsmooth.interventions import PARTS
from jaxsmooth.mitigations import METHODS, parse_remedies
from jaxsmooth.mitigations.parse import NamedRemedy
from jaxsmooth.report.sections import ranking
from jaxsmooth.report.sections.attribution import PART_NAMES
from jaxsmooth.results.comparison import COMPARED_RATES, attributions
from jaxsmooth.studies import compare
from jaxsmooth.types import Edits

ABOUT = synthetic(2, 2).model, synthetic(2, 2).data
LINES = ["bad cab", "ab abc abcd", "t"]
REMEDIES = "attnscale:0.5,contranorm:0.2,pairnorm:3"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    jaxsmooth.save(random_model(dataclasses.replace(CONFIG, vocab=len(VOCABULARY), max_length=16)), folder)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    return jaxsmooth.load(folder, dtype="float64")


@pytest.fixture(scope="module")
def found(small):
    return jaxsmooth.compare(*small, LINES, REMEDIES, name="small", tokens_per_batch=32, each_text=True)


def expected_edit(label: str, site: str, value: np.ndarray) -> np.ndarray:
    match label, site:
        case "attnscale:0.5", "attn":
            return np.stack([reference_remedies.attn_scale(head, 0.5) for head in value])
        case "contranorm:0.2", "pre_attn":
            return reference_remedies.contranorm(value, 0.2)
        case "pairnorm:3", "hidden":
            return reference_remedies.pair_norm(value, 3.0) if len(value) > 1 else 0 * value
    return value


def in_numpy(weights: reference.Weights, embedded: np.ndarray, label: str) -> reference.Run:
    """One sentence with the remedy of this label, every intermediate value."""
    x, kept = embedded, {"hidden": [embedded]}
    for layer in range(weights.layers):

        def edit(site, value):
            value = expected_edit(label, site, value)
            kept.setdefault(site, []).append(value)
            return value

        x = edited_block(weights, layer, x, edit)["hidden"]
    names = ("attn", "pre_attn", "pre_mlp")
    stds = {name: np.stack(kept[name])[..., 0] for name in ("std_attn", "std_mlp")}
    return reference.Run(np.stack(kept["hidden"]), *(np.stack(kept[name]) for name in names), **stds)


def rates_by_hand(layers: list, run: reference.Run) -> np.ndarray:
    """[K L] in the order of COMPARED_RATES."""
    rows = [reference_ladder.block_rungs(layer, run, k, 0.0, 0.0) for k, layer in enumerate(layers)]
    return np.array([[row[name] for row in rows] for name in COMPARED_RATES])


@pytest.mark.filterwarnings("ignore:invalid value encountered")
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_every_number_against_numpy(small, found):
    model, tokenizer = small
    weights = reference.Weights(*hugging_face(model))
    layers = [reference_ladder.Layer(weights, k) for k in range(weights.layers)]
    assert [entry.label for entry in found.entries] == ["none", *REMEDIES.split(",")]
    plain_runs, last = [], {}
    for entry in found.entries:
        runs = []
        for line in LINES:
            batch = tokenizer([line])
            embedded = np.asarray(jaxsmooth.embed(model, batch))[0, : int(batch.mask.sum())]
            runs.append(in_numpy(weights, embedded, entry.label))
        for name in ("cosine_similarity", "relative_distance"):
            measured = np.array(
                [[getattr(reference, "token_" * (name[0] == "c") + name)(x) for x in r.hidden] for r in runs]
            )
            spread = getattr(entry, name)
            np.testing.assert_allclose(spread.mean, measured.mean(axis=0), rtol=1e-9)
            np.testing.assert_allclose(spread.max, measured.max(axis=0), rtol=1e-9)
            last.setdefault(name, []).append(measured[:, -1])
            if entry.label != "none":
                own, none = last[name][-1], last[name][0]
                effect = entry.effects[name]
                np.testing.assert_allclose(effect.median, np.nanmedian(own - none), rtol=1e-9)
                assert (effect.lower, effect.higher) == (int(np.sum(own < none)), int(np.sum(own > none)))
                assert (effect.texts, effect.at_least, effect.at_most) == (len(LINES), -np.inf, np.inf)  # too few
        expected = np.array([rates_by_hand(layers, r) for r in runs])
        for k, name in enumerate(COMPARED_RATES):
            spread = entry.rates[name]
            defined = name == "actual" or not entry.label.startswith("pair")
            defined = defined and not (name == "L1" and entry.label.startswith("contra"))
            assert np.all(spread.count == (len(LINES) if defined else 0)), (entry.label, name)
            if defined:
                np.testing.assert_allclose(spread.mean, expected[:, k].mean(axis=0), rtol=1e-9)
                np.testing.assert_allclose(spread.min, expected[:, k].min(axis=0), rtol=1e-9)
        plain_runs = plain_runs or runs
        lasts = [(r.hidden[-1], p.hidden[-1]) for r, p in zip(runs, plain_runs, strict=True)]
        change = np.mean([np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in lasts])
        np.testing.assert_allclose(entry.change.mean, [change], rtol=1e-9, atol=1e-12)
        logs = np.log([[reference.relative_distance(x) for x in r.hidden] for r in runs])
        np.testing.assert_allclose(entry.attribution.mean.sum(axis=1), np.diff(logs.mean(axis=0)), rtol=0, atol=1e-9)
        fused = [np.max(r.hidden[1:], axis=0) for r in runs], [np.mean(r.hidden[1:], axis=0) for r in runs]
        for name, states in zip(compare.FUSIONS, fused, strict=True):
            measured = [reference.relative_distance(x) for x in states]
            np.testing.assert_allclose(entry.fused[name]["relative_distance"].mean, [np.mean(measured)], rtol=1e-9)


def test_the_numbers_of_each_text_are_those_of_the_means(found):
    each = found.each
    assert each.groups == tuple(entry.label for entry in found.entries)
    assert each.positions.tolist() == list(range(len(LINES)))
    for entry in found.entries:
        fused = {f"{name}/{key}": spread for name, of in entry.fused.items() for key, spread in of.items()}
        spreads = {key: getattr(entry, key) for key in ("cosine_similarity", "relative_distance", "change")}
        for name, own in {**spreads, **entry.rates, **fused}.items():
            values = np.where(np.isfinite(values := each.of(name, entry.label)), values, np.nan)
            np.testing.assert_array_equal(np.sum(~np.isnan(values), axis=-1), own.count)
            if own.count.all():
                np.testing.assert_allclose(np.nanmean(values, axis=-1), own.mean, rtol=1e-12)
        for place, name in enumerate(attributions(found.parts)):
            np.testing.assert_allclose(
                np.nanmean(each.of(name, entry.label), axis=-1), entry.attribution.mean[:, place], rtol=1e-9, atol=1e-12
            )


def test_the_order_of_sentences_does_not_matter(small, found):
    again = jaxsmooth.compare(*small, LINES[::-1], "contranorm:0.2", tokens_per_batch=32)
    for mine, theirs in zip(again.entries, (found.entries[0], found.entries[2]), strict=True):
        np.testing.assert_allclose(mine.cosine_similarity.mean, theirs.cosine_similarity.mean, rtol=1e-11)
        np.testing.assert_allclose(mine.rates["L4"].max, theirs.rates["L4"].max, rtol=1e-10)
        np.testing.assert_allclose(mine.attribution.std, theirs.attribution.std, rtol=1e-8, atol=1e-12)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("compare")
    (folder / "text.txt").write_text("Dull.\nso be it\n", encoding="utf-8")
    arguments = ["--data", str(folder / "text.txt"), "--out", str(folder / "out"), "--precision", "float64"]
    assert main(["compare", "tiny", "--with", "attention-dropout:0.3,initial-residual:0.2+gfsa", *arguments]) == 0
    return folder / "out"


def test_the_command_writes_numbers_and_a_figure(finished):
    assert {path.name for path in finished.iterdir()} == {
        "settings.json",
        *(f"compare.{suffix}" for suffix in ("json", "png", "svg", "pdf")),
    }
    assert (finished / "compare.png").read_bytes().startswith(b"\x89PNG")
    content = json.loads((finished / "compare.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert (content["schema"], content["data"]["sentences"]) == (1, 2)
    plain, dropped, remedied = content["remedies"]
    assert dropped["description"] == "attention-dropout(rate=0.3, seed=0)"
    assert remedied["description"].startswith("initial-residual(share=0.2) + gfsa(")
    # Dropped rows have different sums: L1 is not claimed, L4 is. After the first LayerNorm L4 is not either.
    assert [dropped["layers"][1]["rates"][rate]["count"] for rate in COMPARED_RATES] == [2, 2, 0]
    assert [remedied["layers"][1]["rates"][rate]["count"] for rate in COMPARED_RATES] == [2, 0, 0]
    assert [layer["layer"] for layer in plain["layers"]] == [0, 1, 2, 3, 4]
    assert set(plain["layers"][1]["attribution"]) == set(PARTS)
    assert set(plain["layers"][1]["rates"]) == set(COMPARED_RATES)
    assert plain["layers"][1]["rates"]["L1"]["count"] == 2
    assert remedied["layers"][1]["rates"]["L4"] == {"mean": None, "std": None, "min": None, "max": None, "count": 0}
    assert plain["change"]["mean"] == 0 < remedied["change"]["mean"]
    assert plain["layers"][0] == remedied["layers"][0]
    assert sorted(content["ranking"]) == sorted([dropped["label"], remedied["label"]])
    assert [line.partition(": ")[0] for line in content["sentences"]] == content["ranking"]
    assert plain["effects"] == {}
    assert remedied["effects"]["cosine_similarity"]["texts"] == 2
    assert remedied["cost"]["flops"] > 1


def test_the_command_prints_one_table_with_the_most_effective_remedy_first(found, capsys):
    report.print_comparison(found, Console(width=120))
    out = capsys.readouterr().out
    rows = re.findall(r"^(\S+) +-?\d\.\d+ ", out, flags=re.MULTILINE)
    medians = {entry.label: entry.effects["cosine_similarity"].median for entry in found.entries[1:]}
    assert rows == [*sorted(medians, key=medians.get), "none"]
    assert "It breaks the hypotheses of L4 and L1, so those bounds have no value with it." in " ".join(out.split())
    assert "No remedy clearly keeps tokens apart" in out  # three texts cannot show it


def test_what_a_remedy_costs_is_counted_by_the_compiler(found):
    """AttnScale works on attention, ContraNorm on all pairs of tokens besides; none of the three adds a parameter."""
    costs = {entry.label: entry.cost for entry in found.entries}
    assert costs.pop("none") is None
    assert all(cost.parameters == 0 and cost.counted for cost in costs.values())
    assert 1 < costs["attnscale:0.5"].flops < costs["contranorm:0.2"].flops < 3
    assert 1 < costs["pairnorm:3"].flops < 3


def made(label, change, lower, moved, **fields):
    """A remedy with a median change of the cosine, lower in so many of 20 texts."""
    entry = support_comparison(*ABOUT).entries[1]
    chance = 1e-6 if max(lower, 20 - lower) == 20 else 0.8
    effect = dataclasses.replace(
        entry.effects["cosine_similarity"], median=change, lower=lower, higher=20 - lower, texts=20, p_value=chance
    )
    fields = {"label": label, "change": spread([moved], 0), "effects": {"cosine_similarity": effect}, **fields}
    return dataclasses.replace(entry, **fields)


def ranked(*entries):
    none = support_comparison(*ABOUT)
    return dataclasses.replace(none, entries=(none.entries[0], *entries))


def test_the_answer_names_the_strongest_and_the_gentlest_of_those_that_clearly_help():
    several = ranked(made("weak", -0.02, 11, 0.01), made("gentle", -0.1, 20, 0.1), made("strong", -0.2, 20, 1.5))
    assert [several.entries[place].label for place in ranking.order(several)] == ["strong", "gentle", "weak"]
    words = ranking.answer(several)
    assert words.startswith("strong keeps tokens most apart")
    assert "gentle moves it least (10.0 %)" in words
    lines = list(ranking.sentences(several))
    assert lines[0].startswith("strong: keeps tokens apart: the cosine is lower in 20 of 20 texts (median −0.200)")
    assert lines[2].startswith("weak: no clear effect")
    assert "costs no parameters and at least 1.25 × the FLOPs." in lines[0]
    worse = ranking.sentences(ranked(made("worse", 0.1, 0, 0.1)))
    assert next(worse).startswith("worse: makes tokens more alike: the cosine is higher in 20 of 20 texts")


def test_a_sure_change_that_nobody_could_see_is_no_help():
    """Lower in all of 20 texts, by a thousandth: it is neither said to keep tokens apart nor named as the gentlest."""
    several = ranked(made("slight", -0.001, 20, 0.001), made("gentle", -0.1, 20, 0.1), made("strong", -0.2, 20, 1.5))
    assert "Of those that clearly help, gentle moves it least" in ranking.answer(several)
    assert list(ranking.sentences(several))[2].startswith("slight: hardly changes how alike tokens are: the cosine is")
    assert "No remedy clearly keeps tokens apart" in ranking.answer(ranked(made("slight", -0.001, 20, 0.001)))


def test_the_part_that_is_named_acts_in_the_direction_of_the_effect():
    """The first part drives tokens apart by 0.1 more, the third by 0.5 less: each names its own."""
    none = support_comparison(*ABOUT).entries[0]
    change = np.zeros_like(none.attribution.mean)
    change[0] = [0.1, 0.0, -0.5, 0.0]
    moved = dataclasses.replace(none.attribution, mean=none.attribution.mean + change)
    lines = {
        name: next(ranking.sentences(ranked(made(name, median, lower, 0.1, attribution=moved))))
        for name, median, lower in (("apart", -0.1, 20), ("alike", 0.1, 0), ("unsure", -0.1, 11))
    }
    first, third = (ranked().parts[place] for place in (0, 2))
    assert f"mostly through {PART_NAMES.get(first, first)} (+0.100 in ln(d_M/‖H‖))" in lines["apart"]
    assert f"mostly through {PART_NAMES.get(third, third)} (−0.500 in ln(d_M/‖H‖))" in lines["alike"]
    assert "mostly through" not in lines["unsure"]


def test_one_test_of_many_is_asked_for_more():
    """A p of 0.01 is clear for one remedy, and not for ten of them."""
    effect = made("a", -0.1, 20, 0.1).effects["cosine_similarity"]
    unsure = [made(str(k), -0.1, 20, 0.1, effects={"cosine_similarity": dataclasses.replace(effect, p_value=0.01)})
              for k in range(10)]  # fmt: skip
    assert "No remedy clearly" in ranking.answer(ranked(*unsure))
    assert "No remedy clearly" not in ranking.answer(ranked(unsure[0]))


@pytest.mark.parametrize(
    ("texts", "remedies", "error", "message"),
    [
        ("one string", "contranorm", TextError, "Wrap one string in a list"),
        ([], "contranorm", TextError, "texts is empty"),
        (LINES, "contra", OptionError, "there is no remedy 'contra'"),
    ],
)
def test_refusals(small, texts, remedies, error, message):
    with pytest.raises(error, match=message):
        jaxsmooth.compare(*small, texts, remedies)


def test_a_refusal_of_the_command_is_one_line_and_status_1(tmp_path, capfd):
    assert main(["compare", "minilm-l6", "--with", "nonsense", "--out", str(tmp_path / "out")]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert re.fullmatch(r"jaxsmooth: there is no remedy 'nonsense' .*\n", err)
    assert not (tmp_path / "out").exists()


def test_a_causal_model_is_warned_of_remedies_that_mix():
    causal = dataclasses.replace(CONFIG, causal=True)
    mixing, local = parse_remedies("featscale+neutreno,residual-scaling")
    assert "see later ones" in compare.warning(causal, mixing)
    assert compare.warning(causal, local) == compare.warning(causal, None) == ""
    assert compare.warning(CONFIG, mixing) == ""


def test_the_documentation_lists_every_method():
    text = (ROOT / "docs" / "compare.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in text for name in METHODS)


@pytest.mark.compatibility("long", "compare of a model that has diverged", "the first layer and array is named", was=2)
def test_a_diverged_model_is_refused_by_its_first_array(small, found):
    model, tokenizer = small
    bad = with_factor(model, "blocks.attn.key.kernel", 1, np.inf)
    with pytest.raises(DivergedError, match=r"^layer 2, key is not finite for sentence 1; .* blocks.attn.key.kernel"):
        jaxsmooth.compare(bad, tokenizer, LINES, "contranorm:0.2", tokens_per_batch=32)


def test_a_remedy_that_makes_a_model_diverge_is_named(small):
    class Far(NamedRemedy):
        def edits(self, model, batch):
            return Edits(mixed=lambda layer, value: value / 0)

    far = Far("far", parse_remedies("contranorm:0.2")[0].parts)
    with pytest.raises(DivergedError, match=r"^with far, layer 1, mixed is not finite for sentence 1; "):
        jaxsmooth.compare(*small, LINES, [far], tokens_per_batch=32)
