"""The tasks of the Simformer paper as NumPyro models, each with draws of its conditionals that need no network."""
