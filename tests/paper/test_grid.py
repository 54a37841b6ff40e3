"""A grid goes on where it was, runs nothing twice, and loses nothing of a damaged file."""

import dataclasses
import json
from pathlib import Path

import pytest

from experiments.paper import benchmarks, tables_2_3
from experiments.paper.cost import FUSIONS
from experiments.paper.figure_1c import pretrain_and_train
from experiments.paper.grid import Cell, GridArgs, at_rates, fill, train
from experiments.paper.reading import Scores, each_by_itself
from experiments.paper.settings import BENCHMARKS, TASKS, run_settings
from experiments.paper.store import Store, StoreError
from experiments.paper.tables_2_3 import scores_table
from jaxsmooth.training.evaluate import evaluate


def grid(seeds=(0, 1), variants=("none", "gate")) -> list[Cell]:
    return [
        Cell("tweets-score", "tiny", variant, run_settings("tweets-score", "tiny", seed, fusion=variant))
        for seed in seeds
        for variant in variants
    ]


class Runner:
    """Stands for training; counts, and is killed at the n-th run."""

    def __init__(self, killed_at: int = 0) -> None:
        self.keys: list[str] = []
        self.killed_at = killed_at

    def __call__(self, cell: Cell, folder: Path) -> dict:
        self.keys.append(cell.key)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "begun").touch()
        if len(self.keys) == self.killed_at:
            raise KeyboardInterrupt
        score = {"spearman": 0.5 + 0.1 * (cell.variant == "gate") + 0.01 * cell.config.seed}
        return {"seed": cell.config.seed, "validation": score, "test": score, "processor_seconds": 1.0}


@pytest.fixture
def place(tmp_path):
    return Store(tmp_path / "results" / "some.json", command="none"), GridArgs(runs=tmp_path / "runs")


def test_an_interrupted_grid_goes_on(place, tmp_path):
    store, args = place
    cells, first = grid(), Runner(killed_at=3)
    with pytest.raises(KeyboardInterrupt):
        fill(cells, store, args, first)
    assert list(store.entries()) == [cell.key for cell in cells[:2]]
    left = list((tmp_path / "runs" / "some").iterdir())
    assert [(path / "begun").exists() for path in left] == [True]  # the third one's, to go on from
    second = Runner()
    assert fill(cells, store, args, second) == 0
    assert second.keys == [cell.key for cell in cells[2:]]
    assert list(store.entries()) == [cell.key for cell in cells]
    assert not any((tmp_path / "runs" / "some").iterdir())
    third = Runner()
    assert fill(cells, store, args, third) == 0
    assert third.keys == []


def test_no_further_run_when_time_is_over(place):
    store, args = place
    runner = Runner()
    assert fill(grid(), store, GridArgs(runs=args.runs, minutes=1e-9), runner) == 4
    assert runner.keys == []
    assert store.entries() == {}


@pytest.mark.parametrize(
    "damage", [lambda text: text[: len(text) // 2], lambda text: "", lambda text: '{"entries": 3}']
)
def test_a_damaged_file_is_refused_and_kept(place, damage):
    store, args = place
    fill(grid(seeds=(0,)), store, args, Runner())
    damaged = damage(store.path.read_text())
    store.path.write_text(damaged)
    runner = Runner()
    with pytest.raises(StoreError, match=r"some\.json is no whole file"):
        fill(grid(), store, args, runner)
    with pytest.raises(StoreError):
        store.add("new", {"settings": {}})
    assert runner.keys == []
    assert store.path.read_text() == damaged


def test_a_failed_write_loses_nothing(place, monkeypatch):
    store, args = place
    fill(grid(seeds=(0,)), store, args, Runner())
    before = store.path.read_text()
    with pytest.raises(TypeError):
        store.add("new", {"settings": {}, "score": object()})
    assert store.path.read_text() == before
    assert [path.name for path in store.path.parent.iterdir() if path.suffix == ".json"] == ["some.json"]


def test_other_settings_under_a_key_are_refused(place):
    store, args = place
    fill(grid(seeds=(0,), variants=("none",)), store, args, Runner())
    other = Cell("tweets-score", "tiny", "none", run_settings("tweets-score", "tiny", 0, steps=7))
    with pytest.raises(StoreError, match="steps=100, wanted 7"):
        fill([other], store, args, Runner())


def test_an_entry_is_added_once(place):
    store, _ = place
    store.add("a", {"settings": {}})
    with pytest.raises(StoreError, match="already"):
        store.add("a", {"settings": {}})


def test_a_run_that_another_grid_has_made_is_taken_over(place, tmp_path):
    store, args = place
    fill(grid(), store, args, Runner())
    other = Store(tmp_path / "results" / "other.json", command="none", also=(store.path,))
    renamed = Cell("tweets-score", "tiny", "exit 6", run_settings("tweets-score", "tiny", 1, fusion="gate"))
    fresh = Cell("tweets-score", "tiny", "exit 1", run_settings("tweets-score", "tiny", 1, exit_layer=1))
    runner = Runner()
    fill([renamed, fresh], other, args, runner)
    assert runner.keys == [fresh.key]
    assert other.entries()[renamed.key]["variant"] == "exit 6"
    assert other.entries()[renamed.key]["taken_from"] == "some: tweets-score, tiny, gate, seed 1"


def test_a_task_that_is_not_in_the_grid_is_refused():
    assert GridArgs(only=("reuters-r8",)).tasks(tuple(TASKS)) == ("reuters-r8",)
    with pytest.raises(SystemExit, match="reuters"):
        GridArgs(only=("reuters",)).tasks(tuple(TASKS))


def test_scores_and_differences(place):
    store, args = place
    fill(grid(seeds=(0, 1, 2)), store, args, Runner())
    scores = Scores(json.loads(store.path.read_text())["entries"])
    assert scores.by_seed("tweets-score", "tiny", "none") == pytest.approx({0: 0.5, 1: 0.51, 2: 0.52})
    assert scores.pooled([("tweets-score", "tiny")], "gate", "none") == pytest.approx([0.1] * 3)
    assert scores.pooled([], "gate", "none") == []
    assert scores.pooled([("tweets-score", "tiny"), ("reuters-r8", "tiny")], "gate", "none") == []
    assert each_by_itself({"empty": []}) == {}


def test_the_validation_split_of_the_first_seed_chooses_the_learning_rate():
    """And only the rate that it chose counts, by the test split, whatever other seeds or the test split say."""

    def entry(seed, rate, validation, test):
        scores = {"validation": {"accuracy": validation}, "test": {"accuracy": test}}
        about = {"task": "reuters-r8", "model": "tiny", "variant": "gate", "seed": seed}
        return {**about, **scores, "settings": {"learning_rate": rate}}

    runs = [entry(0, 1e-4, 0.6, 0.9), entry(0, 3e-4, 0.7, 0.5), entry(1, 1e-4, 0.9, 0.9), entry(1, 3e-4, 0.5, 0.4)]
    scores = Scores(dict(enumerate(reversed(runs))), splits=("test",))
    assert scores.rates("reuters-r8", "tiny", "gate") == {1e-4: 0.6, 3e-4: 0.7}
    assert scores.rate("reuters-r8", "tiny", "gate") == 3e-4
    assert scores.by_seed("reuters-r8", "tiny", "gate") == pytest.approx({0: 0.5, 1: 0.4})
    assert scores.rate("reuters-r8", "tiny", "none") is None
    assert scores.by_seed("reuters-r8", "tiny", "none") == {}
    known = {f"{fusion}{key}": one | {"variant": fusion} for fusion in FUSIONS for key, one in enumerate(runs)}
    args = tables_2_3.Args(models=("tiny",), only=("reuters-r8",), seeds=(0, 1))
    found = [(cell.config.seed, cell.config.learning_rate) for cell in at_rates(tables_2_3.cells(args), known, 0)]
    assert sorted(found) == [(0, 1e-4)] * 5 + [(0, 3e-4)] * 5 + [(1, 3e-4)] * 5


def test_a_grid_that_has_just_begun_is_left_out_of_what_is_said_of_all():
    """One seed of another model, which pulls the other way, changes nothing; as a row of its own it is there."""

    def entry(model, fusion, seed, score):
        about = {"task": "reuters-r8", "model": model, "variant": fusion, "seed": seed}
        return {**about, "validation": {"accuracy": score}, "test": {"accuracy": score}}

    done = [entry("minilm-l3", "none", seed, 0.5) for seed in range(3)]
    done += [entry("minilm-l3", "gate", seed, 0.6 + 0.01 * seed) for seed in range(3)]
    begun = [entry("minilm-l6", "none", 0, 0.5), entry("minilm-l6", "gate", 0, 0.1)]

    def rows(entries, start):
        found = tables_2_3.claims(Scores(dict(enumerate(entries))), ["minilm-l3", "minilm-l6"])
        return [row for row in found if row[0].startswith(f"{start}: gate is better than none")]

    assert rows(done + begun, "all but the shared") == rows(done, "all but the shared")
    assert [row[1] for row in rows(done + begun, "all but the shared")] == ["3"]
    assert [row[1] for row in rows(done + begun, "minilm-l6")] == ["1"]


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_run_of_two_steps(place, monkeypatch):
    store, args = place
    settings = run_settings("movie-reviews", "tiny", 0, steps=2, limit=24, max_length=16, fusion="gate")
    scored = []

    def counted(trainer, model, data, *arguments, **options):
        scored.append(len(data))
        return evaluate(trainer, model, data, *arguments, **options)

    monkeypatch.setattr("experiments.paper.grid.evaluate", counted)
    assert fill([Cell("movie-reviews", "tiny", "gate", settings)], store, args, train) == 0
    entry = store.entries()["movie-reviews, tiny, gate, seed 0"]
    layers = len(entry["after"]["std_product"])
    assert len(entry["after"]["cosine_similarity"]) == layers + 1
    assert sum(entry["after"]["importance"]) == pytest.approx(1, abs=1e-3)
    assert len(entry["after"]["std_product_texts"]) == 24
    assert entry["after"] != entry["before"]
    assert entry["steps"] == 2
    assert 0 <= entry["test"]["accuracy"] <= 1
    assert scored == [24]  # the test split; the validation split's is the run's own last score
    assert set(entry["validation"]) == set(entry["test"])


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_pre_training_and_tuning_of_two_steps(place):
    store, args = place
    settings = run_settings("movie-reviews", "random-1, 2 steps of 32 x 32", 0, steps=2, limit=24, max_length=16)
    cell = Cell("movie-reviews", "random-1", "none", settings)
    assert fill([cell], store, args, pretrain_and_train) == 0
    entry = store.entries()[cell.key]
    assert len(entry["after"]["std_product"]) == 1
    assert -12 < entry["pretraining"]["log_likelihood"] < -8  # near that of chance, -log 30522
    assert entry["steps"] == 2
    assert entry["settings"]["model"] == settings.model


RTE = "index\tsentence1\tsentence2\tlabel\n" + "".join(
    f"{row}\tOil fell {row}.\tOil prices drop.\t{'not_' * (row % 2)}entailment\n" for row in range(8)
)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_papers_own_tables_from_official_files(tmp_path, capsys):
    """One run of gates on a few rows of RTE in GLUE's format, its score in the table beside the paper's numbers."""
    (tmp_path / "RTE").mkdir()
    for split in ("train", "dev"):
        (tmp_path / "RTE" / f"{split}.tsv").write_text(RTE)
    args = benchmarks.Args(
        only=("glue/rte",), seeds=(0,), models=("tiny",), fusions=("gate",), data_dir=str(tmp_path),
        runs=tmp_path / "runs", out=tmp_path,
    )  # fmt: skip
    benchmarks.main(args)
    entry = json.loads((tmp_path / "benchmarks.json").read_text())["entries"]["glue/rte, tiny, gate, seed 0"]
    assert entry["steps"] == 3  # three epochs of one batch
    score = entry["validation"]["accuracy"]
    assert "test" not in entry
    table = (tmp_path / "benchmarks.md").read_text()
    assert f"| gate | {100 * score:.1f} | {100 * score:.1f} |" in table
    assert "| gate | 85.4 / 85.7 | 88.4 |" in table
    with pytest.raises(SystemExit, match="glue/cola"):
        benchmarks.main(dataclasses.replace(args, only=("rte",)))


def test_a_mean_of_both_dev_sets_and_two_scores():
    entry = {"task": "glue/mnli", "model": "m", "variant": "none", "seed": 0, "processor_seconds": 1.0}
    both = {"validation": {"accuracy": 0.8}, "mismatched": {"accuracy": 0.9}}
    span = {"task": "squad", "validation": {"exact_match": 0.5, "f1": 0.75}}
    scores = Scores({"a": {**entry, **both}, "b": {**entry, **span}}, BENCHMARKS)
    assert scores.by_seed("glue/mnli", "m", "none") == pytest.approx({0: 0.85})
    row = scores_table(scores, "m").splitlines()[2]
    assert row == "| none | 85.0 | 50.0 / 75.0 | 80.0 |"
