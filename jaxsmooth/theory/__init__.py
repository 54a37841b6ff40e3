"""The mathematics, on plain arrays: the subspace, the operators, the bounds. Proofs are in docs/theory.md."""

from .activations import LIPSCHITZ as LIPSCHITZ
from .activations import SLOPES as SLOPES
from .bounds import BlockState as BlockState
from .bounds import actual_rate as actual_rate
from .bounds import attention_stretch as attention_stretch
from .bounds import block_rate as block_rate
from .bounds import contraction_threshold as contraction_threshold
from .bounds import data_rate as data_rate
from .bounds import operator_rate as operator_rate
from .bounds import pairwise_rate as pairwise_rate
from .bounds import refined_rate as refined_rate
from .bounds import shi2022_rate as shi2022_rate
from .bounds import std_product as std_product
from .spectrum import Eigenvalue as Eigenvalue
from .spectrum import largest_eigenvalue as largest_eigenvalue
from .spectrum import mixing_rate as mixing_rate
from .spectrum import spectral_norm as spectral_norm
from .stochastic import ergodicity_coefficient as ergodicity_coefficient
from .subspace import centre_tokens as centre_tokens
from .subspace import relative_distance as relative_distance
from .subspace import subspace_distance as subspace_distance
from .subspace import token_mean as token_mean
from .weights import BlockNorms as BlockNorms
from .weights import BlockWeights as BlockWeights
from .weights import block_norms as block_norms
