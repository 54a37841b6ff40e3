"""The entries of the glossary."""

from typing import NamedTuple


class Entry(NamedTuple):
    """One word.

    Attributes:
      name: its anchor on a page.
      title: the word, with its symbol and other spellings between commas.
      short: a phrase for the legend under a table.
      meaning: one to three sentences.
      unit: of its values.
      range: of its values.
      source: who defined it, or where it is explained.
    """

    name: str
    title: str
    short: str
    meaning: str
    unit: str
    range: str
    source: str


STATES = (
    Entry(
        name="over-smoothing",
        title="Over-smoothing",
        short="tokens becoming alike from layer to layer",
        meaning=(
            "The tokens of a sentence become more and more alike from layer to layer, until they say the same thing. "
            "Seen as a graph effect of attention by the founding paper of this field."
        ),
        unit="none: a phenomenon",
        range="none",
        source="Shi et al. (2022), arXiv 2202.08625",
    ),
    Entry(
        name="consensus",
        title="Consensus, the subspace M",
        short="all tokens of a sentence equal",
        meaning="The state in which all token vectors of a sentence are equal; M is the set of all such states.",
        unit="none: a set",
        range="none",
        source="Shi et al. (2022), arXiv 2202.08625, Definition 1",
    ),
    Entry(
        name="layer",
        title="Layer",
        short="0 is the embedding output, l the output of block l",
        meaning=(
            "Layer 0 is the embedding output; layer l is what the l-th block hands out. A block is attention, an MLP "
            "and their norms."
        ),
        unit="a number",
        range="0 to the number of blocks",
        source="Devlin et al. (2019), arXiv 1810.04805",
    ),
    Entry(
        name="cosine",
        title="Cosine similarity, cosine",
        short="mean cosine of two tokens of a sentence (1: the same direction)",
        meaning=(
            "The cosine of the angle between the vectors of two different tokens, averaged over all pairs of a "
            "sentence: 1 if all point the same way, 0 if they are unrelated. It does not see lengths."
        ),
        unit="no unit",
        range="-1 to 1",
        source="common; of BERT's tokens in Shi et al. (2022)",
    ),
    Entry(
        name="distance",
        title="Distance to consensus, d_M(H), d_M",
        short="distance of the tokens from their mean",
        meaning=(
            "How far the token vectors H are from all being equal: the Frobenius norm of H less its mean token. It "
            "grows with the length of the vectors."
        ),
        unit="that of the hidden states",
        range="from 0",
        source="Shi et al. (2022), arXiv 2202.08625, Definition 1",
    ),
    Entry(
        name="relative-distance",
        title="Relative distance, d_M/‖H‖",
        short="the tokens' distance from their mean for their size (0: equal)",
        meaning=(
            "d_M(H) divided by the Frobenius norm of H, so that growing or shrinking vectors do not matter: 0 if all "
            "tokens are equal, 1 if their mean is 0. For tokens of one length it is about √(1 − cosine)."
        ),
        unit="no unit",
        range="0 to 1",
        source="after Shi et al. (2022), Definition 1",
    ),
    Entry(
        name="numerical-rank",
        title="Numerical rank, stable rank, rank num.",
        short="‖H‖²_F/‖H‖²₂ of the tokens",
        meaning=(
            "‖H‖²_F / ‖H‖²₂ of the token vectors: about how many directions they use, the strong ones counted most. 1 "
            "if all are multiples of one vector."
        ),
        unit="no unit",
        range="1 to the number of tokens",
        source="Rudelson and Vershynin (2007)",
    ),
    Entry(
        name="effective-rank",
        title="Effective rank, rank eff.",
        short="exp of the entropy of the singular values",
        meaning=(
            "The exponential of the entropy of the singular values, divided by their sum: about how many directions "
            "the tokens use."
        ),
        unit="no unit",
        range="1 to the number of tokens",
        source="Roy and Vetterli (2007)",
    ),
    Entry(
        name="token-norm",
        title="Token norm",
        short="mean length of a token's vector",
        meaning="The mean Euclidean length of a token's vector.",
        unit="that of the hidden states",
        range="from 0",
        source="common",
    ),
    Entry(
        name="anisotropy",
        title="Anisotropy, cosine across texts",
        short="mean cosine of two tokens of different texts",
        meaning=(
            "The mean cosine of two tokens of DIFFERENT texts, over all pairs of texts that were read: how alike "
            "tokens are whatever they say. What the cosine within a text has above it is the text's own. Special "
            "tokens count, as they do within a text. It needs two texts."
        ),
        unit="no unit",
        range="-1 to 1",
        source="Ethayarajh (2019), arXiv 1909.00512",
    ),
    Entry(
        name="random-initialisation",
        title="Random initialisation, untrained",
        short="the same architecture before any training",
        meaning=(
            "The same architecture with weights drawn as before training (one draw), on the texts of the "
            "first batch: what the architecture alone does to the tokens. `--no-baseline` leaves it out."
        ),
        unit="no unit",
        range="that of the cosine",
        source="Devlin et al. (2019) for the draw",
    ),
    Entry(
        name="attribution",
        title="Attribution, change of ln(d_M/‖H‖) by part",
        short="which part of a block brings tokens together",
        meaning=(
            "The change of ln(d_M/‖H‖) over a block, split exactly along the residual stream into four parts: "
            "attention, the LayerNorm after it, the MLP, the LayerNorm after the MLP. Negative: that part brings "
            "tokens together. The parts add up to the block's change, and blocks to the whole network's; −0.69 halves "
            "the relative distance. A norm that is not on the residual stream (pre-LN blocks) has 0."
        ),
        unit="natural logarithm of a ratio",
        range="any",
        source="this library, `interventions.attribution`",
    ),
    Entry(
        name="spread",
        title="Spread",
        short="mean, standard deviation, least and largest over sentences",
        meaning=(
            "How a number is spread over the sentences: its mean, standard deviation, least and largest value, and "
            "how many sentences have one."
        ),
        unit="that of the number",
        range="that of the number",
        source="this library",
    ),
    Entry(
        name="own-metric",
        title="Your own metric",
        short="a metric of your own",
        meaning="A function of hidden states handed to `diagnose(metrics=...)`: what it means is yours to say.",
        unit="its own",
        range="its own",
        source="docs/extending.md",
    ),
    Entry(
        name="fused",
        title="Fused layers, fused",
        short="several layers made into one hidden state",
        meaning=(
            "The outputs of several layers made into one hidden state: their weighted sum, maximum, or a mapped "
            "concatenation."
        ),
        unit="that of the hidden states",
        range="none",
        source="Shi et al. (2022), section 5",
    ),
)

BLOCKS = (
    Entry(
        name="rate",
        title="Actual rate, rate, contraction rate, actual",
        short="d_M after a block over d_M before it (below 1: tokens come closer)",
        meaning=(
            "d_M after a block divided by d_M before it, measured. Below 1 the block contracts: it brings tokens "
            "closer to their mean."
        ),
        unit="no unit",
        range="from 0",
        source="Shi et al. (2022), arXiv 2202.08625",
    ),
    Entry(
        name="rung",
        title="Rung, bound, the ladder L0 to L5",
        short="an upper bound of the rate",
        meaning=(
            "An upper bound of the actual rate. The rungs L0, L1, L2, L2b, L3, L4, L5 form a ladder: each knows more "
            "of the text and bounds more tightly. Only a bound below 1 promises that tokens become alike."
        ),
        unit="no unit",
        range="from 0",
        source="docs/theory.md",
    ),
    Entry(
        name="bound-over-actual",
        title="Bound over actual, × actual",
        short="how many times a bound is above the rate",
        meaning=(
            "How many times a bound is above the actual rate: in each layer the mean bound over sentences divided by "
            "the mean rate, and of these the median over layers. Text, figures and legends give this one number. The "
            "experiment `experiments/ladder.py` takes the median over sentences and layers together, which is another "
            "one."
        ),
        unit="no unit",
        range="from 1",
        source="this library",
    ),
    Entry(
        name="L0",
        title="L0",
        short="the theorem with the worst constants of all layers",
        meaning=(
            "The theorem of Shi et al. (2022), corrected for LayerNorm gains and the slope of GELU (which exceeds 1): "
            "one upper bound of the rate from the worst constants of all layers and heads."
        ),
        unit="no unit",
        range="from 0",
        source="Shi et al. (2022), arXiv 2202.08625; corrections in docs/theory.md",
    ),
    Entry(
        name="L1",
        title="L1",
        short="the theorem of Shi et al. with the layer's own constants",
        meaning=(
            "The same theorem with each layer's own constants. Of pre-LN blocks it is their own rate, (1 + attention "
            "/ √ of its two smallest standard deviations) × (1 + MLP / √ of its two smallest), which is never below 1 "
            "because such a block adds to what it reads and divides nothing."
        ),
        unit="no unit",
        range="from 0",
        source="Shi et al. (2022), arXiv 2202.08625; docs/theory.md",
    ),
    Entry(
        name="L2",
        title="L2",
        short="L1 with finer norms",
        meaning=(
            "L1 with finer norms: the attention heads taken together, the MLP as its linear part plus a remainder, "
            "and the two smallest standard deviations instead of the smallest one twice."
        ),
        unit="no unit",
        range="from 0",
        source="docs/theory.md",
    ),
    Entry(
        name="L2b",
        title="L2b",
        short="L2 with every pair of tokens weighted by its own stds",
        meaning="L2 with every pair of tokens weighted by its own standard deviations.",
        unit="no unit",
        range="from 0",
        source="docs/theory.md",
    ),
    Entry(
        name="L3",
        title="L3",
        short="the exact norm of residual and attention together",
        meaning=(
            "The exact norm of the linear map made of residual, attention and those weights, found by Lanczos "
            "iteration, times the bound for the MLP."
        ),
        unit="no unit",
        range="from 0",
        source="docs/theory.md",
    ),
    Entry(
        name="L4",
        title="L4",
        short="L3 told the token vectors (true of this text only)",
        meaning="L3 with the norm replaced by what that map does to the actual token vectors: valid for this text.",
        unit="no unit",
        range="from 0",
        source="docs/theory.md",
    ),
    Entry(
        name="L5",
        title="L5",
        short="L4 told the MLP's inputs too (true of this text only)",
        meaning=(
            "The MLP replaced by the lines that fit it best on this text, unit by unit; what its nonlinearity adds to "
            "them enters by its singular values alone, or L4 where that is less. Valid for this text only."
        ),
        unit="no unit",
        range="from 0",
        source="docs/rates.md, theorem 3",
    ),
    Entry(
        name="std",
        title="LayerNorm standard deviation, std, σ₁, σ₂",
        short="what a LayerNorm divides a token by",
        meaning=(
            "What a LayerNorm divides a token by: the standard deviation of that token's features. σ₁ (std attn min) "
            "is the smallest at the LayerNorm after attention, σ₂ (std MLP min) the smallest at the one after the "
            "MLP. Shi et al. argue that large ones make tokens alike."
        ),
        unit="that of the hidden states",
        range="from 0",
        source="Shi et al. (2022), arXiv 2202.08625, Theorem 2",
    ),
    Entry(
        name="std-product",
        title="σ₁σ₂, sigma1*sigma2, product of the smallest stds",
        short="the two smallest LayerNorm stds of a block multiplied",
        meaning=(
            "Of a sentence, the smallest standard deviation at a block's attention LayerNorm times the smallest at "
            "its MLP LayerNorm: what the theorem compares with its threshold."
        ),
        unit="the square of that of the hidden states",
        range="from 0",
        source="Shi et al. (2022), arXiv 2202.08625, Theorem 2",
    ),
    Entry(
        name="threshold",
        title="Threshold",
        short="what σ₁σ₂ must exceed for the theorem to promise contraction",
        meaning=(
            "The theorem (L1) promises contraction only where σ₁σ₂ of a block exceeds this number, made of the norms "
            "of its weights and its mixing rates."
        ),
        unit="the square of that of the hidden states",
        range="from 0",
        source="Shi et al. (2022), arXiv 2202.08625, Theorem 2; docs/theory.md",
    ),
    Entry(
        name="mixing-rate",
        title="Mixing rate, √λ",
        short="the most a head's attention can stretch d_M",
        meaning=(
            "The spectral norm of an attention matrix after removing the mean over tokens: the most that head's "
            "attention can stretch d_M. Below 1 it can only bring tokens together. √λ max is the largest of all heads "
            "and sentences."
        ),
        unit="no unit",
        range="0 to the square root of the number of tokens",
        source="after Shi et al. (2022), arXiv 2202.08625, Lemma 1",
    ),
    Entry(
        name="entropy",
        title="Attention entropy",
        short="mean entropy of a head's attention rows",
        meaning="The mean entropy of the rows of a head's attention: 0 if each token reads one, ln n if all alike.",
        unit="nats",
        range="0 to ln n, n tokens",
        source="common",
    ),
    Entry(
        name="sink",
        title="Attention sink, sink strength",
        short="attention that the strongest key receives",
        meaning=(
            "The attention that the strongest key of a head receives, averaged over queries. From 0.3 on the key is "
            "called a sink. Of n tokens one always gets at least 1/n."
        ),
        unit="share of attention",
        range="1/n to 1",
        source="Gu et al. (2024), arXiv 2410.10781; docs/sinks.md",
    ),
    Entry(
        name="attention-similarity",
        title="Attention similarity",
        short="cosine of a layer's attention with that of the layer before",
        meaning=(
            "The cosine of a layer's attention, averaged over heads, with that of the layer before: near 1 layers "
            "pass tokens along one graph."
        ),
        unit="no unit",
        range="0 to 1",
        source="after Shi et al. (2022), arXiv 2202.08625, figure 3",
    ),
    Entry(
        name="principal",
        title="Principal direction, principal alignment",
        short="share of a token's length along W_V W_O's strongest direction",
        meaning=(
            "Of a token that a layer hands out, the share of its length along the eigenvector of largest modulus of "
            "that layer's F = Σ W_V W_O over heads."
        ),
        unit="no unit",
        range="0 to 1",
        source="Li and Altafini (2026)",
    ),
    Entry(
        name="power-law",
        title="α, power law",
        short="exponent of the tail of the eigenvalues of W Wᵀ",
        meaning=(
            "The exponent of the power law fitted to the tail of the eigenvalues of W Wᵀ, with its standard error; "
            "distance is the Kolmogorov-Smirnov distance of the tail from the fit."
        ),
        unit="no unit",
        range="above 1",
        source="Clauset, Shalizi and Newman (2009); Martin, Peng and Mahoney (2021)",
    ),
    Entry(
        name="other-texts",
        title="Other texts, confidence",
        short="what holds for other texts of the same kind",
        meaning=(
            "What the texts that were read say of others of their kind, whatever the distribution: limits of a share, "
            "of 95 % of all texts, of the next text. It holds if they are random draws of that kind."
        ),
        unit="that of the number",
        range="none",
        source="docs/texts.md",
    ),
)

COMPARE = (
    Entry(
        name="remedy",
        title="Remedy",
        short="a published change of the model against over-smoothing",
        meaning=(
            "A published change of attention, features or weights against over-smoothing, applied here to trained "
            "weights that never met it. `jaxsmooth remedies` lists them."
        ),
        unit="none: a method",
        range="none",
        source="docs/compare.md",
    ),
    Entry(
        name="effect",
        title="Change, effect",
        short="median over texts of the cosine with the remedy less that without",
        meaning=(
            "For each text the last layer's cosine with the remedy less that without; of these the median over texts. "
            "Negative: the remedy keeps tokens apart. The table is in its order."
        ),
        unit="no unit",
        range="-2 to 2",
        source="this library",
    ),
    Entry(
        name="interval",
        title="95 % interval, interval",
        short="where the median change of all such texts lies, with 95 % confidence",
        meaning=(
            "With 95 % confidence the median change over all texts of this kind lies between these, if the texts are "
            "random draws of it; for each remedy by itself. Whole numbers of texts decide it, no distribution is "
            "assumed. Fewer than six texts give none."
        ),
        unit="no unit",
        range="-∞ to ∞",
        source="Thompson (1936)",
    ),
    Entry(
        name="lower-in",
        title="Lower in",
        short="in how many of the texts the cosine is lower with the remedy",
        meaning="In how many of the texts the last layer's cosine is lower with the remedy than without.",
        unit="texts",
        range="0 to their number",
        source="Dixon and Mood (1946)",
    ),
    Entry(
        name="p-value",
        title="p, sign test",
        short="how likely so uneven a count is if the remedy did nothing",
        meaning=(
            "The two-sided sign test of the same counts: how likely counts at least as uneven are if lower and higher "
            "were equally likely. For each remedy by itself: of twenty useless remedies one is expected below 0.05."
        ),
        unit="probability",
        range="0 to 1",
        source="Dixon and Mood (1946)",
    ),
    Entry(
        name="moved",
        title="Output moved, ‖ΔH‖/‖H‖",
        short="how far the output moved, for its size",
        meaning=(
            "How far the last hidden states are from those without the remedy, divided by their size. What reads the "
            "output was trained on the old one: near 0 it still fits, from about 1 on it reads something else."
        ),
        unit="no unit",
        range="from 0",
        source="this library",
    ),
    Entry(
        name="flops",
        title="FLOPs, cost",
        short="floating-point operations of a forward pass over those without the remedy",
        meaning=(
            "The floating-point operations of one forward pass with the remedy over those without, as the compiler "
            "counts them before it optimises; no time was taken. A decomposition of a matrix is not counted: then the "
            "number has ≥ before it."
        ),
        unit="× those without",
        range="from 0",
        source="this library",
    ),
    Entry(
        name="parameters",
        title="Parameters added",
        short="numbers the remedy adds to the model",
        meaning=(
            "How many numbers a remedy adds to the model. Here strengths are given, not learned, so it is 0; a "
            "published method that learns its strengths adds those in training."
        ),
        unit="numbers",
        range="a whole number from 0",
        source="this library",
    ),
    Entry(
        name="accuracy",
        title="Accuracy after training",
        short="score on the task after training with the remedy",
        meaning=(
            "`compare --finetune TASK` trains the model without and with each remedy, with several seeds, and gives "
            "the task's score on its validation split, mean and standard deviation over the seeds."
        ),
        unit="that of the task's score",
        range="that of the task's score",
        source="docs/tasks.md",
    ),
    Entry(
        name="seed-std",
        title="Standard deviation over seeds, std over seeds",
        short="standard deviation of the score over seeds",
        meaning="The standard deviation of the score over the seeds (divisor: their number).",
        unit="that of the task's score",
        range="from 0",
        source="this library",
    ),
    Entry(
        name="better-in",
        title="Better in",
        short="in how many seeds the score is above that without a remedy",
        meaning=(
            "In how many of the seeds the score with the remedy is above that without one, seed by seed: both runs "
            "have the same head, order of data and dropout. Fewer than six seeds cannot tell a difference from chance."
        ),
        unit="seeds",
        range="0 to their number",
        source="Dixon and Mood (1946)",
    ),
    Entry(
        name="trained-cosine",
        title="Cosine trained",
        short="cosine of the last layer after training",
        meaning=(
            "The cosine similarity of two tokens in the last layer of the trained model, at its best step, on the "
            "first 16 validation sentences; mean over seeds."
        ),
        unit="no unit",
        range="-1 to 1",
        source="this library",
    ),
)

CONVERGE = (
    Entry(
        name="operator",
        title="Operator",
        short="the matrix that is applied again and again",
        meaning=(
            "A head's attention as it is (full), under a causal mask, in a sliding window, or normalised on both "
            "sides as in a graph convolution (symmetric)."
        ),
        unit="none: a matrix",
        range="none",
        source="docs/theory.md",
    ),
    Entry(
        name="predicted-rate",
        title="|λ₂|, predicted rate",
        short="second eigenvalue: the predicted factor per step",
        meaning=(
            "The modulus of the second eigenvalue of the matrix (an upper bound of it): the factor per step by which "
            "the distance to the limit must shrink in the end."
        ),
        unit="per step",
        range="0 to 1",
        source="Perron and Frobenius; Seneta (2006)",
    ),
    Entry(
        name="observed_rate",
        title="Rate seen, observed rate",
        short="factor per step by which the distance to the limit shrank in the end",
        meaning=(
            "The factor per step by which the distance to the limit shrank, geometric mean over the last half of the "
            "steps."
        ),
        unit="per step",
        range="from 0",
        source="this library",
    ),
    Entry(
        name="tau",
        title="τ, ergodicity coefficient",
        short="Dobrushin's coefficient: bounds each step's factor",
        meaning=(
            "Dobrushin's ergodicity coefficient: in every step the range of each feature over the tokens becomes at "
            "most so many times what it was. 1 promises nothing."
        ),
        unit="per step",
        range="0 to 1",
        source="Dobrushin (1956)",
    ),
    Entry(
        name="birkhoff",
        title="Birkhoff",
        short="Birkhoff's coefficient: bounds it too, never better than τ",
        meaning=(
            "Birkhoff's contraction coefficient, tanh(Δ/4), which bounds each step too and is never below τ. 1 where "
            "an entry of the matrix is 0."
        ),
        unit="per step",
        range="0 to 1",
        source="Birkhoff (1957)",
    ),
    Entry(
        name="steps-said",
        title="Steps said, predicted steps",
        short="steps to arrive, by |λ₂|",
        meaning="How many steps |λ₂| says it takes until the distance to the limit is small (0.001 of the first).",
        unit="steps",
        range="1 to one more than were made",
        source="this library",
    ),
    Entry(
        name="steps-taken",
        title="Steps taken, observed steps",
        short="steps it took to arrive",
        meaning="The first step from which on the distance to the limit stays that small.",
        unit="steps",
        range="1 to one more than were made",
        source="this library",
    ),
    Entry(
        name="limit-held",
        title="Limit held%",
        short="share of heads and sentences whose limit was the predicted one, %",
        meaning=(
            "Of all heads and sentences, the share in which the iteration arrived at the limit that theory predicts, "
            "or came nearer to it fast enough."
        ),
        unit="%",
        range="0 to 100",
        source="this library",
    ),
    Entry(
        name="rate-held",
        title="Rate held%",
        short="share in which the rate seen was as |λ₂| says, %",
        meaning=(
            "The share of heads and sentences in which the observed time scale, 1/|ln rate|, is within a tenth of the "
            "predicted one."
        ),
        unit="%",
        range="0 to 100",
        source="this library",
    ),
    Entry(
        name="steps-held",
        title="Steps held%",
        short="share that arrived within twice the steps said, %",
        meaning="The share of heads and sentences that needed at most twice the predicted number of steps (and one).",
        unit="%",
        range="0 to 100",
        source="this library",
    ),
    Entry(
        name="transient",
        title="Transient",
        short="steps before the rate is what the eigenvalue says",
        meaning=(
            "Observed steps less predicted ones, those that the eigenvalue does not see: a matrix far from normal "
            "first stretches what it will shrink."
        ),
        unit="steps",
        range="any",
        source="Trefethen and Embree (2005)",
    ),
    Entry(
        name="map",
        title="Map",
        short="what is applied again and again, everything recomputed",
        meaning=(
            "What `converge --map` applies again and again: attention, the attention sub-layer, a whole layer, or the "
            "stack of all layers, with attention and LayerNorms computed anew each time."
        ),
        unit="none: a function",
        range="none",
        source="docs/fate.md",
    ),
    Entry(
        name="fate",
        title="Fate, consensus, clusters, cycle, moving, diverged",
        short="how many sentences end so",
        meaning=(
            "What becomes of a sentence's tokens: all equal (consensus), at rest in groups of equal tokens "
            "(clusters), going round (cycle), not decided when the steps ended (moving), or beyond all bounds "
            "(diverged)."
        ),
        unit="sentences",
        range="a whole number from 0",
        source="docs/fate.md",
    ),
    Entry(
        name="fate-steps",
        title="Steps",
        short="median number of steps until that was decided",
        meaning="How often the map was applied until the fate was decided; median over sentences.",
        unit="steps",
        range="from 1",
        source="docs/fate.md",
    ),
    Entry(
        name="end-distance",
        title="d_M/‖X‖ at end",
        short="relative distance of the tokens at the end",
        meaning="The relative distance of the tokens from their mean when the iteration ended; median over sentences.",
        unit="no unit",
        range="0 to 1",
        source="docs/fate.md",
    ),
    Entry(
        name="end-rank",
        title="Rank of JX",
        short="effective rank of what differs between tokens at the end",
        meaning=(
            "The effective rank of the tokens less their mean when the iteration ended, in how many directions they "
            "differ; 0 at consensus."
        ),
        unit="no unit",
        range="from 0",
        source="docs/fate.md",
    ),
    Entry(
        name="consensus-rate",
        title="Rate near consensus",
        short="factor per step next to equal tokens, observed",
        meaning="The factor by which the distance to consensus changed in each of the last steps, where it was small.",
        unit="per step",
        range="from 0",
        source="docs/fate.md",
    ),
    Entry(
        name="rho",
        title="ρ(M), ρ(M) there",
        short="local law next to equal tokens (below 1: consensus attracts)",
        meaning=(
            "The spectral radius of the map that deviations from equal tokens follow: below 1 nearly equal tokens "
            "become equal, above 1 they part."
        ),
        unit="per step",
        range="from 0",
        source="docs/lemmas.md",
    ),
    Entry(
        name="rest-rho",
        title="ρ at rest",
        short="local law where tokens came to rest apart (below 1: it attracts)",
        meaning="The spectral radius of the map's derivative at the state in which tokens came to rest apart.",
        unit="per step",
        range="from 0",
        source="docs/fate.md",
    ),
)

VERIFY = (
    Entry(
        name="hypothesis",
        title="Hypothesis",
        short="what a theorem assumes of the model and the text",
        meaning=(
            "What a theorem assumes of the model and the text. It may hold or fail; where it fails, the theorem "
            "promises nothing."
        ),
        unit="none: a statement",
        range="none",
        source="docs/hypotheses.md",
    ),
    Entry(
        name="holds",
        title="Holds, HOLDS",
        short="checks in which it is proved for these numbers",
        meaning="The hypothesis is proved for these numbers, rounding accounted for.",
        unit="checks",
        range="a whole number from 0",
        source="docs/hypotheses.md",
    ),
    Entry(
        name="fails",
        title="Fails, FAILS",
        short="checks in which it is disproved",
        meaning="The hypothesis is disproved for these numbers.",
        unit="checks",
        range="a whole number from 0",
        source="docs/hypotheses.md",
    ),
    Entry(
        name="open",
        title="Open, UNDECIDED",
        short="checks that the arithmetic leaves open",
        meaning="Neither proved nor disproved: the enclosures overlap, as at an exact equality.",
        unit="checks",
        range="a whole number from 0",
        source="docs/certify.md",
    ),
    Entry(
        name="not-applicable",
        title="n/a, NOT_APPLICABLE",
        short="checks in which it is not asked",
        meaning="Not asked of such a model, sentence or head.",
        unit="checks",
        range="a whole number from 0",
        source="docs/certify.md",
    ),
    Entry(
        name="holding-layers",
        title="Layers",
        short="layers in which it holds for every sentence",
        meaning="The layers in which the hypothesis holds for every sentence (and head) it is asked of.",
        unit="layers",
        range="none to all",
        source="docs/hypotheses.md",
    ),
    Entry(
        name="least",
        title="Least",
        short="least value of the number that decides, rounded outwards",
        meaning=(
            "The least value of the number that decides the hypothesis, over all checks, rounded outwards. Which "
            "number that is stands with the hypothesis."
        ),
        unit="that of the number",
        range="that of the number",
        source="docs/hypotheses.md",
    ),
    Entry(
        name="largest",
        title="Largest",
        short="its largest value, rounded outwards",
        meaning="The largest value of the same number.",
        unit="that of the number",
        range="that of the number",
        source="docs/hypotheses.md",
    ),
    Entry(
        name="theorem",
        title="Theorem",
        short="an inequality lhs <= rhs",
        meaning="An inequality lhs <= rhs. Those of the library are proved; one of your own is evaluated only.",
        unit="none: a statement",
        range="none",
        source="docs/theorems.md",
    ),
    Entry(
        name="confirmed",
        title="yes, CONFIRMED",
        short="checks in which lhs <= rhs is certain for these numbers",
        meaning=(
            "lhs <= rhs is certain for these numbers, rounding accounted for. Of a theorem that is proved this says "
            "that the implementation and its arithmetic agree with it; of your own that it held on these texts, and "
            "no more."
        ),
        unit="checks",
        range="a whole number from 0",
        source="docs/certify.md",
    ),
    Entry(
        name="violated",
        title="no, VIOLATED",
        short="checks in which lhs > rhs is certain",
        meaning=(
            "lhs > rhs is certain for these numbers. Of a theorem that is proved it means a defect of the "
            "implementation; of your own, that it is false."
        ),
        unit="checks",
        range="a whole number from 0",
        source="docs/certify.md",
    ),
    Entry(
        name="tightness",
        title="rhs/lhs, tightness",
        short="least, median and largest bound over what it bounds (1: equality)",
        meaning=(
            "The right side over the left, where both are positive: least, median and largest over all checks. 1 is "
            "an equality, 1,000 a bound a thousand times too large."
        ),
        unit="no unit",
        range="from 1 where it holds",
        source="docs/theorems.md",
    ),
    Entry(
        name="stages",
        title="Decided by, products, svd, arb, measured",
        short="the method that decided a check",
        meaning=(
            "What decided a check: enclosures by matrix products, norms from a checked singular value decomposition, "
            "300-bit arithmetic (arb), or a float64 evaluation with a margin instead of enclosures (measured)."
        ),
        unit="checks",
        range="a whole number from 0",
        source="docs/certify.md",
    ),
)

ENTRIES = (*STATES, *BLOCKS, *COMPARE, *CONVERGE, *VERIFY)
