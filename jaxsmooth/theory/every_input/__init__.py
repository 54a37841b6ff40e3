"""What holds of a post-LN block for every input, of any text of any length: docs/every-input.md."""
