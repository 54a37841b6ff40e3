"""One Transformer block: lemmas on its parts, and the ladder of its contraction rates."""
