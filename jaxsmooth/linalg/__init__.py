"""Numerical linear algebra that knows no theorem: products, norms, singular values, eigenvalues, enclosures.

Every product of the library is one of `precision`, every norm and quotient that may be 0 one of `norms`, and singular
values are those of `singular`, small ones beside large ones included.

The largest eigenvalue of a positive semidefinite operator is found in one of four ways, each the fastest where it is
used:

- `largest_eigenvalue`: one operator of any shape; thick-restarted Lanczos, fully reorthogonalised, with a residual.
- `largest_eigenvalues_of_batch`: many small matrices at once; three-term Lanczos, two vectors of memory each.
  `spectral_norm` and `root_of_largest_eigenvalue` are built on it.
- `largest_eigenvalues_of_queue`: many large operators, a few at a time; block Lanczos, where the next operator
  takes the slot of a finished one at once.
- `norm_ball`: an upper bound that is certain, of a matrix known to within an error; on the host.

Lanczos gives lower estimates. Enclosures from both sides are in `enclosed_norms`, on the arithmetic of `intervals`.
"""

from .batched_lanczos import largest_eigenvalues_of_batch as largest_eigenvalues_of_batch
from .block_lanczos import largest_eigenvalues_of_queue as largest_eigenvalues_of_queue
from .eigh import batched_eigh as batched_eigh
from .eigh import jacobi_eigh as jacobi_eigh
from .lanczos import Eigenvalue as Eigenvalue
from .lanczos import largest_eigenvalue as largest_eigenvalue
from .lanczos import root_of_largest_eigenvalue as root_of_largest_eigenvalue
from .lanczos import spectral_norm as spectral_norm
from .rows import masked_softmax as masked_softmax
from .rows import standardise_rows as standardise_rows
