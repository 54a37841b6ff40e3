"""How results show themselves: figures in two styles, and HTML for notebooks. `results.shown` asks `html` here."""
