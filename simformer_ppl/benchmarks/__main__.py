"""The runner: one JSON line for every measurement."""

import argparse
import json
from collections.abc import Sequence

from simformer_ppl.benchmarks.masks import measure_masks
from simformer_ppl.benchmarks.models import SIZED
from simformer_ppl.benchmarks.tracing import measure_tracing


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and print what it measured."""
    parser = argparse.ArgumentParser(prog="python -m simformer_ppl.benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    tracing = commands.add_parser("tracing", help="seconds and memory to read models of several sizes")
    tracing.add_argument("--models", nargs="+", choices=SIZED, default=["plate", "scan", "loop", "regression"])
    tracing.add_argument("--tokens", nargs="+", type=int, default=[200, 1000, 3000, 10_000])
    masks = commands.add_parser("masks", help="cost of attention masks beside a training step")
    masks.add_argument("--models", nargs="+", choices=SIZED, default=["plate", "mixture"])
    masks.add_argument("--attention", choices=["moral", "contextual"], default="moral")
    masks.add_argument("--tokens", type=int, default=100)
    masks.add_argument("--batch", type=int, default=128)
    options = parser.parse_args(arguments)
    if options.command == "tracing":
        rows = measure_tracing(options.models, options.tokens)
    else:
        rows = (measure_masks(kind, options.tokens, options.batch, options.attention) for kind in options.models)
    for row in rows:
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
