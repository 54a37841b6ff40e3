"""Each experiment's page and figure of made-up runs, and that its verdicts are those of its rules."""

import dataclasses
import json
import zlib

import numpy as np
import pytest

from experiments.neighbours import remedies
from experiments.paper import figure_1b, figure_1c, figure_5_6, skips, table_1, tables_2_3
from experiments.paper.grid import fill, fill_at_rates
from experiments.paper.reading import Scores
from experiments.paper.settings import COUNTED, MODELS, TASKS
from experiments.paper.store import Store
from experiments.paper.verdicts import CONTRADICTED, OPEN, REPRODUCED, paired


def made_up(gains):
    """Stands for training: every variant's score is .6 plus its gain, with noise of a hundredth of a point."""

    def run(cell, folder):
        noise = np.random.default_rng(zlib.crc32(cell.key.encode()))
        value = 0.6 + gains.get(cell.variant, 0.0) + 1e-4 * noise.standard_normal()
        names = ("accuracy", "matthews", "f1", "pearson", "spearman", "log_likelihood")
        layers = np.linspace(0.2, 0.8, 7)
        place = list(TASKS).index(cell.task)
        state = {
            **{name: layers.tolist() for name in ("cosine_similarity", "relative_distance", "effective_rank")},
            "std_product": layers[1:].tolist(),
            "std_product_texts": (0.1 + 0.2 * place + 0.01 * noise.random(9)).tolist(),
            "fused": {"cosine_similarity": 0.7 - 0.1 * place + 1e-3 * noise.random()},
        }
        return {
            "seed": cell.config.seed, "validation": dict.fromkeys(names, value), "test": dict.fromkeys(names, value),
            "pretraining": {"log_likelihood": -6.0}, "before": state, "after": state, "processor_seconds": 60.0,
            "machine": "none", "date": "2000-01-01",
        }  # fmt: skip

    return run


def page(tmp_path, module, gains, **chosen):
    args = module.Args(runs=tmp_path / "runs", out=tmp_path, seeds=(0, 1, 2), **chosen)
    name = module.__name__.rpartition(".")[2]
    store = Store(tmp_path / f"{name}.json", command="none")
    (fill if module is figure_1c else fill_at_rates)(module.cells(args), store, args, made_up(gains))
    scores = Scores(store.entries(), splits=COUNTED)
    module.report(scores, tmp_path)
    assert (tmp_path / f"{name}.png").stat().st_size > 10_000
    return scores, (tmp_path / f"{name}.md").read_text()


def verdicts(text: str, words: str) -> list[str]:
    """The last cells of the lines that hold the words."""
    return [line.rstrip(" |").rpartition("| ")[2] for line in text.splitlines() if words in line]


@pytest.mark.long
def test_tables_2_3_and_figures_5_6(tmp_path):
    gains = {"weights": 0.0, "gate": 0.02, "max": -0.01}
    _, text = page(tmp_path, tables_2_3, gains, models=("minilm-l3",))
    assert verdicts(text, "minilm-l3: gate is better than none") == [REPRODUCED]
    assert verdicts(text, "minilm-l3: max is better than none") == [CONTRADICTED]
    assert verdicts(text, "minilm-l3: gate is better than weights") == [REPRODUCED]
    figure_5_6.main(figure_5_6.Args(out=tmp_path))
    text = (tmp_path / "figure_5_6.md").read_text()
    # the last task has the largest product and the largest drop
    assert verdicts(text, f"the drop is largest where sigma1 sigma2 is ({[*TASKS][-1]})") == [REPRODUCED]
    assert verdicts(text, "the gates' output is less similar") == [REPRODUCED]


@pytest.mark.long
def test_table_1(tmp_path):
    _, text = page(tmp_path, table_1, {"1-6": -0.05, "5-6": -0.005})
    assert verdicts(text, "sharing everything costs") == [REPRODUCED]
    assert verdicts(text, "5-6 costs nothing") == [REPRODUCED]
    assert verdicts(text, "1-6 costs nothing") == [CONTRADICTED]


def test_flops_of_table_1():
    # by hand: 128 tokens, 6 layers of four projections of 384 x 384, and the scores and the mixing with 128 tokens
    assert table_1.attention_flops("") == 2 * 128 * 6 * (4 * 384**2 + 2 * 128 * 384)
    assert table_1.attention_flops("") - table_1.attention_flops("3-6") == 2 * 128 * 3 * (2 * 384**2 + 128 * 384)
    # what the page says of the paper's column
    found = [128 * (36 - 2 * saved) * 768**2 / 1e9 for saved in (0, 2, 4, 6, 8, 10, 11)]
    assert [f"{x:.1f}" for x in found] == ["2.7", "2.4", "2.1", "1.8", "1.5", "1.2", "1.1"]


@pytest.mark.long
def test_figure_1b(tmp_path):
    scores, text = page(tmp_path, figure_1b, {"exit 4": 0.03, "exit 6 frozen": 0.02})
    assert verdicts(text, "(layer 4)") == [f"{REPRODUCED} (layer 4)"] * len(figure_1b.CHOSEN)
    assert figure_1b.over_thinking(figure_1b.exits(scores, figure_1b.CHOSEN[0], True)) == CONTRADICTED
    one = paired([0.1, 0.2, 0.15])
    assert figure_1b.over_thinking({1: (one, 0.5, OPEN), 2: (one, 0.01, CONTRADICTED)}) == OPEN
    assert figure_1b.over_thinking({}) == OPEN


@pytest.mark.long
def test_skips(tmp_path):
    """A skip that gains what it is less alike, as all other fusions do here."""
    gains = {"weights": 0.01, "concat": 0.02, "max": 0.03, "gate": 0.04, "skip 1": 0.05, "skip 2": 0.06}
    page(tmp_path, tables_2_3, gains, models=MODELS)
    args = skips.Args(runs=tmp_path / "runs", out=tmp_path, seeds=(0, 1, 2))
    store = Store(tmp_path / "skips_runs.json", command="none")
    fill_at_rates(skips.cells(args), store, args, made_up(gains))
    skips.main(dataclasses.replace(args, draw=True))
    found = json.loads((tmp_path / "skips.json").read_text())
    assert len(found["cases"]) == 2 * len(TASKS) * 4 + 2 * len(skips.CHOSEN)
    assert [np.mean(found["less_gate"][skip]) for skip in skips.SKIPS] == pytest.approx([0.01, 0.02], abs=5e-3)
    assert (tmp_path / "skips.png").stat().st_size > 10_000


@pytest.mark.long
def test_figure_1c(tmp_path):
    _, text = page(tmp_path, figure_1c, {"gate": 0.03}, depths=(6, 12))
    assert verdicts(text, "gate is better than none at 12 layers and more") == [REPRODUCED]


@pytest.mark.long
def test_remedies(tmp_path):
    _, text = page(tmp_path, remedies, {"contranorm": 0.03})
    cells = next(line for line in text.splitlines() if line.startswith("| contranorm |")).split("|")
    assert cells[6].strip() == REPRODUCED
    assert "contranorm(s=0.1, temperature=1)" in cells[2]
