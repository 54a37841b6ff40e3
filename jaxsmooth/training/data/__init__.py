"""Labelled examples: tasks, corpora, official files, user tables, and the pipeline that batches them."""
