"""What is measured: run ``python -m simformer_ppl.benchmarks --help``."""
