"""Published remedies of over-smoothing: their formulas on arrays, and as edits of a run.

The formulas are pure functions of arrays and a mask. `mitigations.remedies` holds, under the same names, functions that
return `(model, batch) -> Edits`; `combine` makes one of several.
"""

from . import remedies as remedies
from .attention import attention_dropout as attention_dropout
from .attention import attn_scale as attn_scale
from .attention import centred_attention as centred_attention
from .attention import graph_filter as graph_filter
from .attention import length_scale as length_scale
from .attention import symmetric_attention as symmetric_attention
from .attention import symmetric_scores as symmetric_scores
from .attention import temp_scale as temp_scale
from .features import contranorm as contranorm
from .features import contranorm_similarity as contranorm_similarity
from .features import feat_scale as feat_scale
from .features import initial_residual as initial_residual
from .features import neutreno as neutreno
from .features import pair_norm as pair_norm
from .features import scale_branch as scale_branch
from .features import soft_decay as soft_decay
from .own import OwnRemedy as OwnRemedy
from .own import chosen_remedies as chosen_remedies
from .own import own_remedy as own_remedy
from .parse import METHODS as METHODS
from .parse import NamedRemedy as NamedRemedy
from .parse import describe_methods as describe_methods
from .parse import parse_remedies as parse_remedies
from .remedies import Remedy as Remedy
from .remedies import combine as combine
from .weights import definite_kernels as definite_kernels
from .weights import definite_matrix as definite_matrix
from .weights import make_definite as make_definite
