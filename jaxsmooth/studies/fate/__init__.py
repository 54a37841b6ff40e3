"""A model's own maps, applied again and again to the tokens of real text."""
