"""Where the tokens go when a map of token vectors is applied again and again."""
