"""The tasks of these experiments, and how much each run trains: small, equal for all variants, chosen before the grids.

The corpora are substitutes for GLUE, SQuAD and SWAG, read by `jaxsmooth.training.data` (docs/tasks.md): no score on
them is one on a benchmark. Each is one that minilm-l3 without fusion learns in a hundred steps (seed 0, validation and
test): `movie-reviews` accuracy .730 and .744 (125 steps on 2,000 examples), `tweets-score` Spearman .836 and .841,
`reuters-r8` accuracy .894 and .897, `wikihow-goals` accuracy .445 and .383 (chance .25). Tried and left out, because it
learned nothing there: `agreement` for CoLA (150 steps: Matthews -.01 and -.05), `vitaminc` for MNLI (the most frequent
class alone, accuracy .50), `squad-dev` for SQuAD (100 steps of 8 windows of 128 tokens: F1 .08 and .08). So table 3's
reading comprehension has no substitute here.
"""

import dataclasses
from pathlib import Path

from jaxsmooth.training.config import FinetuneConfig

RESULTS = Path(__file__).parents[1] / "results" / "paper"
RUNS = Path("runs/paper")
GRIDS = ("tables_2_3", "figure_1b", "table_1")
"""Whose runs may be the same: one that the one has made is copied by the others."""


@dataclasses.dataclass(frozen=True)
class TaskSettings:
    """What a task needs to be trained on in about a minute of processor time.

    Attributes:
      stands_for: what it is a substitute for in the paper.
      score: the one that the tables show.
      max_length: longest row in tokens.
      steps: of `batch_size` records.
      batch_size: records.
      limit: at most so many examples of each split.
    """

    stands_for: str
    score: str
    max_length: int
    steps: int
    batch_size: int = 16
    limit: int = 1000


TASKS = {
    "movie-reviews": TaskSettings("SST-2", "accuracy", 32, 100),
    "tweets-score": TaskSettings("STS-B", "spearman", 32, 100),
    "reuters-r8": TaskSettings("a topic task, none in the paper", "accuracy", 32, 100),
    "wikihow-goals": TaskSettings("SWAG", "accuracy", 32, 100, batch_size=8),
}
MODELS = ("minilm-l3", "minilm-l6")
LEARNING_RATE = 1e-4
ONCE = 10**9


def run_settings(task: str, model: str, seed: int, **variant: object) -> FinetuneConfig:
    """The settings of one run; only the last step is evaluated, so that no best step is chosen.

    Args:
      task: a key of `TASKS`.
      model: asset or folder.
      seed: of head, order and dropout.
      variant: fields of `FinetuneConfig`.
    """
    own = TASKS[task]
    common = FinetuneConfig(
        task=task, model=model, seed=seed, steps=own.steps, batch_size=own.batch_size, max_length=own.max_length,
        limit=own.limit, learning_rate=LEARNING_RATE, eval_every=ONCE, checkpoint_every=60, keep=1, log_every=25,
        probe=0,
    )  # fmt: skip
    return dataclasses.replace(common, **variant)
