"""When a run has stopped getting better."""

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class EarlyStopping:
    """The best evaluation so far, and for how long there has been no better one.

    Attributes:
      best: its score.
      best_step: its step, 0 before the first evaluation.
      worse: evaluations since then, all of them worse.
      scores: all scores of the best evaluation.
    """

    best: float = -math.inf
    best_step: int = 0
    worse: int = 0
    scores: dict[str, float] = dataclasses.field(default_factory=dict)

    def after(self, step: int, score: float, scores: dict[str, float]) -> "EarlyStopping":
        """With one more evaluation; of equal ones the later is the best.

        Args:
          step: how many steps were done.
          score: the one that chooses the best checkpoint, the higher the better.
          scores: all of them.

        >>> EarlyStopping().after(10, 0.9, {}).after(20, 0.8, {}).worse
        1
        """
        if score >= self.best:
            return EarlyStopping(score, step, 0, scores)
        return dataclasses.replace(self, worse=self.worse + 1)
