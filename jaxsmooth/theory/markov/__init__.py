"""Row-stochastic matrices: limits, rates and classes of Markov chains and of products of them."""
