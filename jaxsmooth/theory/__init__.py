"""The mathematics, on plain arrays: the subspace, the operators, the bounds. Proofs are in docs/theory.md.

===============  =====================================================================================================
``consensus``    the distance d_M to equal tokens, and to the span of given patterns
``operators``    attention as a linear operator: dense, masked, centred, with residual; ``mixing``: its norm
``markov``       products of stochastic matrices: limits, rates, closed classes, eigenvalues
``block``        one Transformer block: the ladder of rates, the lemmas, LayerNorm, the law next to consensus
``rates``        rates that hold for whole sets of inputs
``fate``         a map of token vectors applied again and again: where the tokens go, and whether they stay there
``every_input``  bounds over all texts: can the theorem's hypothesis ever hold in this model?
``basin``        inputs of any length that provably converge to consensus when the block is repeated
``literature``   one function a published statement, named by its source; docs/catalogue.md
``hypotheses``   what theorems assume, decided with rounding accounted for; docs/hypotheses.md
``theorems``     the registry: one text per theorem, for every calculus; docs/theorems.md
``certify``      the calculi that account for rounding, and what `verify` evaluates with them; docs/certify.md
===============  =====================================================================================================

``distribution_free`` leads from some texts to all of their kind; docs/texts.md.
"""

from ..activations import LIPSCHITZ as LIPSCHITZ
from ..activations import SLOPES as SLOPES
from ..linalg.gelfand import log_spectral_radius as log_spectral_radius
from ..linalg.lanczos import Eigenvalue as Eigenvalue
from ..linalg.lanczos import largest_eigenvalue as largest_eigenvalue
from ..linalg.lanczos import spectral_norm as spectral_norm
from .basin.certificate import Basin as Basin
from .basin.certificate import certified_basin as certified_basin
from .block.apriori import apriori_mixing_rate as apriori_mixing_rate
from .block.apriori import collapse_coefficient as collapse_coefficient
from .block.apriori import coupling_norms as coupling_norms
from .block.apriori import cubic_collapse as cubic_collapse
from .block.apriori import cubic_collapse_depth as cubic_collapse_depth
from .block.apriori import mixer_norms as mixer_norms
from .block.apriori import oscillation_ergodicity as oscillation_ergodicity
from .block.apriori import shi2022_rate_floor as shi2022_rate_floor
from .block.apriori import tanh_collapse as tanh_collapse
from .block.apriori import weight_oscillation as weight_oscillation
from .block.invariant_subspaces import invariant_activation as invariant_activation
from .block.invariant_subspaces import invariant_linear as invariant_linear
from .block.invariant_subspaces import invariant_mixing as invariant_mixing
from .block.invariant_subspaces import invariant_sum as invariant_sum
from .block.invariant_subspaces import spanned_by_indicators as spanned_by_indicators
from .block.ladder import BlockState as BlockState
from .block.ladder import actual_rate as actual_rate
from .block.ladder import attention_stretch as attention_stretch
from .block.ladder import block_rate as block_rate
from .block.ladder import contraction_threshold as contraction_threshold
from .block.ladder import data_rate as data_rate
from .block.ladder import operator_rate as operator_rate
from .block.ladder import pairwise_rate as pairwise_rate
from .block.ladder import pre_norm_block_rate as pre_norm_block_rate
from .block.ladder import refined_rate as refined_rate
from .block.ladder import shi2022_rate as shi2022_rate
from .block.ladder import std_product as std_product
from .block.layernorm import LayerNormChain as LayerNormChain
from .block.layernorm import layer_norm_chain as layer_norm_chain
from .block.layernorm import layer_norm_pair_distances as layer_norm_pair_distances
from .block.layernorm import pre_norm_attention_rate as pre_norm_attention_rate
from .block.layernorm import shi2022_layer_norm as shi2022_layer_norm
from .block.lemmas import largest_mixing_rate as largest_mixing_rate
from .block.lemmas import mixing_rate_by_columns as mixing_rate_by_columns
from .block.lemmas import mixing_rate_by_entries as mixing_rate_by_entries
from .block.lemmas import mixing_rate_by_ergodicity as mixing_rate_by_ergodicity
from .block.lemmas import mixing_with_defect as mixing_with_defect
from .block.lemmas import shi2022_activation as shi2022_activation
from .block.lemmas import shi2022_linear as shi2022_linear
from .block.lemmas import shi2022_mixing as shi2022_mixing
from .block.lemmas import shi2022_sum as shi2022_sum
from .block.linearisation import LocalLaw as LocalLaw
from .block.linearisation import local_exponent as local_exponent
from .block.linearisation import local_growth as local_growth
from .block.linearisation import local_law as local_law
from .block.linearisation import local_laws as local_laws
from .block.linearisation import local_step as local_step
from .block.parameter_norms import block_norms as block_norms
from .block.plain_calculus import pair_weight as pair_weight
from .blocked_attention import Blocked as Blocked
from .blocked_attention import blocked_attention as blocked_attention
from .consensus import centre_tokens as centre_tokens
from .consensus import diameter as diameter
from .consensus import orthonormal_basis as orthonormal_basis
from .consensus import project_away as project_away
from .consensus import relative_distance as relative_distance
from .consensus import span_distance as span_distance
from .consensus import subspace_distance as subspace_distance
from .consensus import symmetric_basis as symmetric_basis
from .consensus import token_mean as token_mean
from .distribution_free import ShareLimits as ShareLimits
from .distribution_free import clopper_pearson1934_limits as clopper_pearson1934_limits
from .distribution_free import vovk2005_limit as vovk2005_limit
from .distribution_free import wilks1941_limit as wilks1941_limit
from .every_input.hypothesis import LayerForEveryInput as LayerForEveryInput
from .every_input.hypothesis import hypothesis_for_every_input as hypothesis_for_every_input
from .every_input.stored import stored_for_every_input as stored_for_every_input
from .fate.clusters import token_clusters as token_clusters
from .fate.orbit import Fate as Fate
from .fate.orbit import Orbit as Orbit
from .fate.orbit import consensus_basin as consensus_basin
from .fate.orbit import follow as follow
from .fate.orbit import towards_mean as towards_mean
from .fate.stability import Approach as Approach
from .fate.stability import Krylov as Krylov
from .fate.stability import approach_consensus as approach_consensus
from .fate.stability import jacobian_krylov as jacobian_krylov
from .fate.stability import krylov_radius as krylov_radius
from .hypotheses.attention_pattern import has_sink as has_sink
from .hypotheses.attention_pattern import rooted_radius as rooted_radius
from .hypotheses.hemisphere import Hemisphere as Hemisphere
from .hypotheses.hemisphere import open_hemisphere as open_hemisphere
from .hypotheses.spectral_radius import spectral_radius as spectral_radius
from .literature.axioms import rusch2023_decay as rusch2023_decay
from .literature.axioms import rusch2023_subadditivity as rusch2023_subadditivity
from .literature.axioms import rusch2023_vanishes_at_consensus as rusch2023_vanishes_at_consensus
from .literature.cosine import cosine_bridge as cosine_bridge
from .literature.cosine import cosine_distance as cosine_distance
from .literature.cosine import cosine_distance_bound as cosine_distance_bound
from .literature.fusion import fusion_concat as fusion_concat
from .literature.fusion import fusion_gate as fusion_gate
from .literature.fusion import fusion_max as fusion_max
from .literature.fusion import layers_distance as layers_distance
from .literature.initialisation import ali2023_centred_attention as ali2023_centred_attention
from .literature.initialisation import ali2023_centring_keeps_distance as ali2023_centring_keeps_distance
from .literature.initialisation import saada2025_second_eigenvalue as saada2025_second_eigenvalue
from .literature.initialisation import saada2025_second_singular_value as saada2025_second_singular_value
from .literature.lipschitz import castin2024_bound as castin2024_bound
from .literature.lipschitz import castin2024_local_lipschitz as castin2024_local_lipschitz
from .literature.lipschitz import kim2021_witness as kim2021_witness
from .literature.low_pass import choi2024_filter_response as choi2024_filter_response
from .literature.low_pass import dovonon2024_unification_rate as dovonon2024_unification_rate
from .literature.low_pass import wang2022_attn_scale as wang2022_attn_scale
from .literature.low_pass import wang2022_feat_scale as wang2022_feat_scale
from .literature.low_pass import wang2022_high_frequency as wang2022_high_frequency
from .literature.low_pass import wang2022_low_pass_rate as wang2022_low_pass_rate
from .literature.low_pass import wang2022_tanh_rate as wang2022_tanh_rate
from .literature.masked_attention import wu2023_gat_collapse as wu2023_gat_collapse
from .literature.masked_attention import wu2024_antipodal as wu2024_antipodal
from .literature.masked_attention import wu2024_collapse_rate as wu2024_collapse_rate
from .literature.masked_attention import wu2024_equilibrium as wu2024_equilibrium
from .literature.masked_attention import wu2024_layer as wu2024_layer
from .literature.masked_attention import wu2024_masked_attention as wu2024_masked_attention
from .literature.masked_attention import wu2024_radius as wu2024_radius
from .literature.power_method import li2026_alignment as li2026_alignment
from .literature.power_method import li2026_layer_norm_matrix as li2026_layer_norm_matrix
from .literature.power_method import li2026_rate as li2026_rate
from .literature.power_method import li2026_steered_weight as li2026_steered_weight
from .literature.power_method import li2026_step as li2026_step
from .literature.power_method import li2026_tangent as li2026_tangent
from .literature.rank_collapse import dong2021_composite_norm as dong2021_composite_norm
from .literature.rank_collapse import dong2021_cubic_rate as dong2021_cubic_rate
from .literature.rank_collapse import dong2021_gamma as dong2021_gamma
from .literature.rank_collapse import dong2021_log_residual as dong2021_log_residual
from .literature.rank_collapse import dong2021_next_centre as dong2021_next_centre
from .literature.rank_collapse import dong2021_one_layer as dong2021_one_layer
from .literature.rank_collapse import noci2022_mean_growth as noci2022_mean_growth
from .literature.rank_collapse import noci2022_relative_distance as noci2022_relative_distance
from .literature.rank_collapse import noci2022_step as noci2022_step
from .literature.remedies import guo2023_contranorm as guo2023_contranorm
from .literature.remedies import guo2023_smallest_eigenvalue as guo2023_smallest_eigenvalue
from .literature.remedies import nguyen2023_neutreno_distance as nguyen2023_neutreno_distance
from .literature.remedies import nguyen2023_neutreno_fixed_point as nguyen2023_neutreno_fixed_point
from .literature.remedies import scholkemper2024_batch_norm as scholkemper2024_batch_norm
from .literature.remedies import scholkemper2024_initial_residual as scholkemper2024_initial_residual
from .literature.remedies import zhao2020_pair_norm as zhao2020_pair_norm
from .literature.residual_attention import ResidualFate as ResidualFate
from .literature.residual_attention import residual_eigenvalues as residual_eigenvalues
from .literature.residual_attention import residual_fate as residual_fate
from .literature.token_particles import geshkovski2023_clustering as geshkovski2023_clustering
from .literature.token_particles import geshkovski2023_discrete_step as geshkovski2023_discrete_step
from .literature.token_particles import geshkovski2023_flow as geshkovski2023_flow
from .literature.token_particles import geshkovski2023_velocity as geshkovski2023_velocity
from .markov.arnoldi import Hessenberg as Hessenberg
from .markov.arnoldi import arnoldi as arnoldi
from .markov.arnoldi import ritz_values as ritz_values
from .markov.closed_classes import Classes as Classes
from .markov.closed_classes import closed_classes as closed_classes
from .markov.closed_classes import group_inverse as group_inverse
from .markov.closed_classes import meyer1994_lower as meyer1994_lower
from .markov.closed_classes import meyer1994_upper as meyer1994_upper
from .markov.convergence import Convergence as Convergence
from .markov.convergence import converge as converge
from .markov.convergence import converge_symmetric as converge_symmetric
from .markov.iteration import Settled as Settled
from .markov.iteration import iterate as iterate
from .markov.iteration import iterate_until as iterate_until
from .markov.limits import ChainLimit as ChainLimit
from .markov.limits import chain_limit as chain_limit
from .markov.limits import detailed_balance_defect as detailed_balance_defect
from .markov.limits import reversible_contraction as reversible_contraction
from .markov.limits import stationary_law as stationary_law
from .markov.second_eigenvalue import Modulus as Modulus
from .markov.second_eigenvalue import slem as slem
from .markov.second_eigenvalue import subdominant as subdominant
from .markov.sinks import attention_dilution as attention_dilution
from .markov.sinks import first_token_attention as first_token_attention
from .markov.sinks import sink_distance as sink_distance
from .markov.sinks import sink_ergodicity as sink_ergodicity
from .markov.sinks import sink_strength as sink_strength
from .markov.sinks import sink_update as sink_update
from .markov.stochastic import birkhoff1957_contraction as birkhoff1957_contraction
from .markov.stochastic import causal_second_eigenvalue as causal_second_eigenvalue
from .markov.stochastic import dobrushin1956_spread as dobrushin1956_spread
from .markov.stochastic import ergodicity_coefficient as ergodicity_coefficient
from .markov.stochastic import hajnal1958_sum as hajnal1958_sum
from .markov.stochastic import logit_spread as logit_spread
from .markov.stochastic import token_spread as token_spread
from .markov.stochastic import weak_ergodicity_bound as weak_ergodicity_bound
from .markov.stochastic import wolfowitz1963_products as wolfowitz1963_products
from .markov.stochastic import wolfowitz1963_word_contraction as wolfowitz1963_word_contraction
from .markov.verdicts import Held as Held
from .mixing import SingularValue as SingularValue
from .mixing import mixing_rate as mixing_rate
from .mixing import operator_norm as operator_norm
from .operators import Centred as Centred
from .operators import Dense as Dense
from .operators import MultiHead as MultiHead
from .operators import Operator as Operator
from .operators import Residual as Residual
from .operators import allowed_pairs as allowed_pairs
from .operators import masked_attention as masked_attention
from .operators import symmetric_normalised as symmetric_normalised
from .rates.activation_slopes import secant_range as secant_range
from .rates.activation_slopes import secant_slope as secant_slope
from .rates.activation_slopes import slope_range as slope_range
from .rates.ball import BallRate as BallRate
from .rates.ball import ball_rate as ball_rate
from .rates.ball import inner_radius as inner_radius
from .rates.neighbourhood import Neighbourhood as Neighbourhood
from .rates.neighbourhood import NeighbourhoodRate as NeighbourhoodRate
from .rates.neighbourhood import neighbourhood_rate as neighbourhood_rate
from .rates.region import Region as Region
from .rates.region import RegionRate as RegionRate
from .rates.region import inside as inside
from .rates.region import layer_norm_half_linear as layer_norm_half_linear
from .rates.region import secant_box_rate as secant_box_rate
from .rates.region import slope_box_rate as slope_box_rate
from .rates.residual_spectrum import residual_spectrum_rate as residual_spectrum_rate
from .statement import Statement as Statement
from .theorems.parameters import BlockNorms as BlockNorms
from .theorems.parameters import block_of as block_of

# Earlier names of the two pre-LN rates.
pre_ln_rate = pre_norm_attention_rate
pre_norm_rate = pre_norm_block_rate
