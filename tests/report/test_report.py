"""Verdict, report.json, figures and terminal summary, on synthetic diagnoses."""

import dataclasses
import io
import json
import re

import matplotlib.image
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from support.report import blank, exemplar, rates, spread, synthetic, undefined

from jaxsmooth.report import ReportPaths, print_summary, render_page, to_json, verdict, write_figures, write_report
from jaxsmooth.report.format import digits, over_heads
from jaxsmooth.report.json import dumps
from jaxsmooth.results.spread import Spread
from jaxsmooth.results.summaries import RATES

HOSTILE = ("<img src=x onerror=alert(1)>", "</script><script>window.pwned=1</script>", "<!--", "$\\frac$", "漢\x00\n")


def with_rates(**rows):
    return synthetic(rates={**rates(6), **{name: spread(np.asarray(row, float), 0.0) for name, row in rows.items()}})


class TestVerdict:
    @pytest.mark.parametrize(
        ("cosine", "level"),
        [
            (np.linspace(0.1, 0.8, 7), "strong"),
            (np.linspace(0.1, 0.7999, 7), "moderate"),
            (np.linspace(0.06, 0.44, 7), "moderate"),
            (np.linspace(0.3, 0.49, 7), "little"),
            (np.linspace(0.5, 0.2, 7), "little"),
            ([np.nan] * 6 + [0.9], "strong"),
            ([np.nan] * 6 + [0.7], "little"),
            ([0.1] * 6 + [np.nan], "undefined"),
        ],
    )
    def test_level_follows_the_stated_rule(self, cosine, level):
        assert verdict(synthetic(cosine=cosine)).level == level

    def test_a_real_small_encoder_is_called_vacuous_with_its_numbers(self):
        found = verdict(synthetic())
        assert found.theory == "vacuous"
        ladder = rates(6)
        expected = np.median(ladder["L1"].mean / ladder["actual"].mean)
        assert found.findings.L1_over_actual == pytest.approx(expected, rel=1e-12)
        assert digits(expected) in found.explanation
        assert "none is below 1" in found.explanation
        assert found.findings.smallest_bound == pytest.approx(ladder["L4"].min[0])
        assert "0.060" in found.smoothing
        assert "0.440" in found.smoothing
        assert "too loose" in found.headline

    def test_where_names_the_steps_and_the_contracting_layers(self):
        diagnosis = dataclasses.replace(
            with_rates(actual=[0.9, 1.1, 0.7, 1.2, 1.3, 0.99]),
            cosine_similarity=spread([0.0, 0.0, 0.5, 0.45, 0.5, 0.55, 0.6]),
        )
        found = verdict(diagnosis)
        assert list(found.findings.rising_layers) == [2]
        assert found.findings.contracting_layers == (1, 3, 6)
        assert "layers 1, 3 and 6 only" in found.where

    @pytest.mark.parametrize(
        ("rows", "theory"),
        [
            ({"actual": [0.5] * 6, "L4": [0.9] * 6}, "explains"),
            ({"actual": [0.5] * 3 + [1.5] * 3, "L4": [0.9] * 3 + [2.0] * 3}, "explains"),
            ({"actual": [0.5] * 6, "L4": [0.9] + [2.0] * 5}, "partial"),
            ({"actual": [0.5] * 6, "L4": [1.0] * 6}, "vacuous"),
            ({"actual": [2.0] * 6, "L4": [1.9] * 6}, "contradicted"),
            ({"actual": [2.0] * 6, "L4": [1.9999] * 6}, "vacuous"),
            ({"actual": [np.nan] * 6}, "undefined"),
            ({"L0": [np.inf] * 6}, "vacuous"),
        ],
    )
    def test_theory_follows_the_stated_rule(self, rows, theory):
        assert verdict(with_rates(**rows)).theory == theory

    def test_a_bound_below_one_for_some_sentence_only_is_not_vacuous(self):
        low = Spread(np.full(6, 1.4), np.full(6, 0.2), np.full(6, 0.95), np.full(6, 2.0), np.full(6, 9))
        found = verdict(synthetic(rates={**rates(6), "L4": low}))
        assert found.theory == "partial"
        assert "for some sentence" in found.explanation

    def test_threshold_met(self):
        diagnosis = synthetic(std_product=spread(np.full(6, 9.0)), threshold=spread([10.0, 8.0, 10, 10, 10, 10]))
        assert verdict(diagnosis).findings.threshold_met_layers == (2,)
        assert "exceeds the theorem's threshold in layer 2." in verdict(diagnosis).explanation

    def test_disagreeing_measures_are_called_out(self):
        diagnosis = synthetic(relative_distance=spread(np.linspace(0.5, 0.9, 7)))
        assert "disagrees" in verdict(diagnosis).measures
        assert "agrees with the cosine in direction" in verdict(synthetic()).measures

    def test_similarity_from_the_embedding_is_not_blamed_on_the_layers(self):
        found = verdict(synthetic(cosine=np.linspace(0.85, 0.9, 7)))
        assert found.level == "strong"
        assert "layers add little" in found.smoothing

    def test_a_peak_in_the_middle_is_reported(self):
        assert "highest, 0.900, in layer 3" in verdict(synthetic(cosine=[0.1, 0.2, 0.5, 0.9, 0.8, 0.7, 0.6])).smoothing

    def test_nothing_defined(self):
        found = verdict(blank())
        assert (found.level, found.theory) == ("undefined", "undefined")
        assert "cannot be told" in found.headline

    def test_one_layer(self):
        assert "In the only layer" in verdict(synthetic(1, 1)).where


class TestJson:
    def test_layers_pair_hidden_state_and_block(self):
        diagnosis = synthetic()
        report = json.loads(dumps(to_json(diagnosis)))
        assert report["schema"] == 1
        assert [layer["layer"] for layer in report["layers"]] == list(range(7))
        assert "rates" not in report["layers"][0]
        for block, layer in enumerate(report["layers"][1:]):
            assert layer["cosine_similarity"] == diagnosis.cosine_similarity.mean[block + 1]
            assert layer["subspace_distance"] == diagnosis.subspace_distance.mean[block + 1]
            assert layer["std_attn_min"] == diagnosis.std_attn.min[block]
            assert layer["std_mlp_min"] == diagnosis.std_mlp.min[block]
            assert layer["mixing_rate_max"] == diagnosis.mixing_rate.max[block].max()
            assert layer["mixing_rate"] == pytest.approx(diagnosis.mixing_rate.mean[block].mean(), rel=1e-14)
            assert layer["heads"]["mixing_rate"] == diagnosis.mixing_rate.mean[block].tolist()
            assert list(layer["rates"]) == list(RATES)
            assert layer["rates"] == {name: diagnosis.rates[name].mean[block] for name in RATES}
            assert layer["spread"]["rates"]["L4"]["max"] == diagnosis.rates["L4"].max[block]
            assert layer["spread"]["cosine_similarity"]["count"] == 256

    def test_undefined_values_are_null_and_the_text_is_strict(self):
        def refuse(constant):
            raise AssertionError(constant)

        report = json.loads(dumps(to_json(blank())), parse_constant=refuse)
        assert report["layers"][0]["cosine_similarity"] is None
        assert report["layers"][1]["rates"]["L0"] is None
        assert report["layers"][1]["mixing_rate_max"] is None
        infinite = to_json(synthetic(rates={**rates(6), "L0": spread(np.full(6, np.inf), 0.0)}))
        assert json.loads(dumps(infinite), parse_constant=refuse)["layers"][1]["rates"]["L0"] is None

    @given(st.floats(allow_nan=False, allow_infinity=False))
    def test_every_float_survives_to_the_last_bit(self, value):
        diagnosis = synthetic(1, 1, token_norm=spread([value, 1.0], 0.0), exemplar=None)
        assert json.loads(dumps(to_json(diagnosis)))["layers"][0]["token_norm"] == value

    def test_pooling_over_heads_is_pooling_the_samples(self):
        rng = np.random.default_rng(3)
        samples = [rng.normal(size=size) for size in (5, 9)]
        pooled = np.concatenate(samples)
        row = [np.array([[f(s) for s in samples] + [np.nan]]) for f in (np.mean, np.std, np.min, np.max)]
        got = over_heads(Spread(*row, np.array([[5, 9, 0]])))
        expected = (pooled.mean(), pooled.std(), pooled.min(), pooled.max(), 14)
        assert [x[0] for x in dataclasses.astuple(got)] == pytest.approx(expected, rel=1e-13)


class TestFigures:
    @pytest.mark.parametrize(
        "diagnosis",
        [
            synthetic(),
            synthetic(1, 1),
            synthetic(name=HOSTILE[3] + HOSTILE[4], exemplar=exemplar(6, 12, HOSTILE)),
            synthetic(rates={**rates(6), "actual": spread(np.zeros(6)), "L0": spread(np.full(6, np.inf), 0.0)}),
        ],
        ids=["usual", "one layer", "hostile text", "zero and infinite rates"],
    )
    def test_every_figure_is_drawn(self, diagnosis, tmp_path):
        figures = write_figures(diagnosis, tmp_path)
        assert set(figures) == {"overview", "similarity", "norms", "ladder", "mixing_rate", "exemplar_cosine"}
        for path in figures.values():
            image = matplotlib.image.imread(path)
            assert min(image.shape[:2]) >= 400
            assert image[..., :3].std() > 0.05, f"{path.name} is blank"
            colours = np.rint(image[..., :3] * 255).astype(np.int64) @ (1, 256, 65_536)
            assert len(np.unique(colours)) > 50

    def test_undefined_values_are_said_not_drawn(self, tmp_path):
        figures = write_figures(blank(), tmp_path)
        assert "exemplar_cosine" not in figures
        assert all(path.stat().st_size > 5_000 for path in figures.values())


class TestFiles:
    def test_the_folder_holds_the_report_and_nothing_else(self, tmp_path):
        write_report(synthetic(1, 1), tmp_path / "new" / "out")
        paths = write_report(blank(), tmp_path / "new" / "out")
        names = sorted(str(p.relative_to(paths.html.parent)) for p in paths.html.parent.rglob("*"))
        pictures = [f"figures/{name}.png" for name in ("ladder", "mixing_rate", "norms", "overview", "similarity")]
        assert names == ["figures", *pictures, "report.html", "report.json"]

    def test_a_failed_write_leaves_the_old_report(self, tmp_path, monkeypatch):
        paths = write_report(synthetic(1, 1), tmp_path)
        before = paths.json.read_bytes()

        def full(*_):
            raise OSError("disk full")

        monkeypatch.setattr("os.replace", full)
        with pytest.raises(OSError, match="disk full"):
            write_report(blank(), tmp_path)
        assert paths.json.read_bytes() == before
        assert not [p for p in tmp_path.rglob("*") if p.name.startswith(".")]


class TestPageText:
    def own_markup(self, page):
        """The page without its scripts and styles."""
        return re.sub(r"<(script|style)\b.*?</\1>", "", page, flags=re.S)

    def test_no_reference_leaves_the_page(self):
        page = render_page(synthetic())
        assert len(page.encode()) < 10_000_000
        markup = self.own_markup(page)
        loads = re.findall(r"""(?:src|srcset|href|action|data|poster)\s*=\s*["']?([^"'\s>]+)""", markup)
        assert sorted(loads) == ["data:,", "https://arxiv.org/abs/2202.08625"]
        assert "<script src" not in page
        assert not re.search(r"@import|url\(", re.search(r"<style>(.*?)</style>", page, re.S)[1])

    @pytest.mark.parametrize("text", HOSTILE)
    def test_text_stays_text(self, text):
        data = dataclasses.replace(synthetic().data, name=text)
        sentence = dataclasses.replace(exemplar(6, 12, ("[CLS]", text, "[SEP]")), text=text)
        page = render_page(synthetic(name=text, data=data, exemplar=sentence, versions={text: text}))
        assert "<img" not in self.own_markup(page)
        # Scripts: the data, Plotly, ours. A fourth one would be the text's.
        assert len(re.findall(r"</script>", page)) == 3
        payload = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1]
        assert "<" not in payload
        assert json.loads(payload)["exemplar"]["tokens"][1] == text

    def test_without_an_exemplar_the_page_says_so(self):
        assert "No sentence of this text is short enough" in render_page(synthetic(exemplar=None))

    def test_a_sentence_too_long_for_the_page_is_left_out(self):
        page = render_page(synthetic(exemplar=exemplar(6, 12, tuple("abcde" * 40))))
        assert "too long to be shown" in page
        assert len(page.encode()) < 10_000_000


class TestSummary:
    def shown(self, diagnosis, tmp_path, width):
        stream = io.StringIO()
        out = tmp_path / ("long" * 20)
        paths = ReportPaths(out / "report.html", out / "report.json", out / "figures", {})
        print_summary(diagnosis, paths, Console(file=stream, width=width))
        return stream.getvalue(), paths

    @pytest.mark.parametrize("width", [30, 80, 200])
    def test_paths_are_whole_whatever_the_width(self, tmp_path, width):
        text, paths = self.shown(synthetic(name="[red]x[/red] [/bold]"), tmp_path, width)
        lines = text.splitlines()
        assert [line.split(maxsplit=1)[1] for line in lines[-3:]] == [
            str(paths.html),
            str(paths.json),
            str(paths.figures_dir),
        ]
        assert "…" not in text
        assert "0.440" in text

    def test_eighty_columns_hold_every_column(self, tmp_path):
        text, _ = self.shown(synthetic(), tmp_path, 80)
        assert "120,000" in text
        assert "over-smooths moderately" in text.replace("\n", " ")

    def test_undefined_values(self, tmp_path):
        assert "n/a" in self.shown(blank(), tmp_path, 80)[0]


def test_undefined_spread_pools_to_undefined():
    pooled = over_heads(undefined((2, 3)))
    assert np.isnan(pooled.mean).all()
    assert (pooled.count == 0).all()
