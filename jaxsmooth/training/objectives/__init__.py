"""What a run minimises and what it is judged by: losses of a batch, scores of a split."""
