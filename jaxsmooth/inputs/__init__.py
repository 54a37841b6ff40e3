"""What a model reads: text, ids and images, in batches of few shapes."""
