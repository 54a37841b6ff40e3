"""What is proved of a model for every input: bounds of its LayerNorm stds over all texts."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from .brief import Brief


@dataclasses.dataclass(frozen=True, repr=False)
class EveryInput(Brief):
    """Bounds over all texts of any length, [L] each; all but `product_found` are certified.

    Attributes:
      product: no token of any text has a product of its two stds above this.
      product_found: the largest such product found among rows that a LayerNorm can put out.
      threshold: what the product must exceed for the theorem (rung L1) is at least this, whatever the attention.
      threshold_model: the same for rung L0.
      threshold_paper: the same as published, without gains and with slope 1.
    """

    product: NDArray[np.float64]
    product_found: NDArray[np.float64]
    threshold: NDArray[np.float64]
    threshold_model: NDArray[np.float64]
    threshold_paper: NDArray[np.float64]

    @property
    def never(self) -> NDArray[np.bool_]:
        """Layers in which the hypothesis of L1 fails for every text, [L]."""
        return self.product <= self.threshold

    @property
    def never_as_published(self) -> NDArray[np.bool_]:
        """Layers in which that of L0 and the published one fail for every text, [L]."""
        return self.product <= np.minimum(self.threshold_model, self.threshold_paper)
