"""The runner: one JSON line for every measurement."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from simformer_ppl.benchmarks.asking import Asking, ask
from simformer_ppl.benchmarks.comparison import PEERS, compare
from simformer_ppl.benchmarks.costs import COSTS, measure_costs
from simformer_ppl.benchmarks.figures import plot
from simformer_ppl.benchmarks.functions import FUNCTIONS, measure_functions
from simformer_ppl.benchmarks.masks import measure_masks
from simformer_ppl.benchmarks.models import SIZED
from simformer_ppl.benchmarks.questions import QUESTIONS, measure_questions
from simformer_ppl.benchmarks.report import read, report
from simformer_ppl.benchmarks.runner import run
from simformer_ppl.benchmarks.sampling import compare_samplers
from simformer_ppl.benchmarks.tasks.catalogue import TASKS
from simformer_ppl.benchmarks.throughput import measure_device
from simformer_ppl.benchmarks.tracing import measure_tracing
from simformer_ppl.benchmarks.training import Settings, Trained, train
from simformer_ppl.diffusion.process import PROCESSES
from simformer_ppl.network import NetworkConfig
from simformer_ppl.persistence import refuse_other_files


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and print what it measured: JSON lines, or what is made of them."""
    options = _parser().parse_args(arguments)
    if options.command == "report":
        print(report(read(options.files)), end="")
    elif options.command == "plot":
        plot(read(options.files)).savefig(options.output, dpi=150)
        print(options.output)
    else:
        for row in _measure(options):
            print(json.dumps(row), flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m simformer_ppl.benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for add in (_add_reading, _add_runs, _add_comparisons):
        add(commands)
    speed = commands.add_parser("device", help="speed of training and sampling on the device at hand")
    speed.add_argument("task", nargs="?", choices=TASKS, default="slcp")
    speed.add_argument("--batches", nargs="+", type=int, default=[64, 500])
    questions = commands.add_parser("questions", help="missing data, intervals, new priors: beside exact answers")
    questions.add_argument("kinds", nargs="*", choices=QUESTIONS, help="all by default")
    questions.add_argument("--seed", type=int, default=0)
    questions.add_argument("--pictures", type=Path, default=Path("."), help="folder of pictures")
    functions = commands.add_parser("functions", help="an epidemic's coverage, a neuron's energy below a bound")
    functions.add_argument("kinds", nargs="*", choices=FUNCTIONS, help="all by default")
    functions.add_argument("--simulations", type=int, default=10_000)
    functions.add_argument("--seed", type=int, default=0)
    functions.add_argument("--pictures", type=Path, default=Path("."), help="folder of pictures")
    costs = commands.add_parser("costs", help="seconds and memory by grid, points and tokens")
    costs.add_argument("kinds", nargs="*", choices=COSTS, help="all by default")
    tables = commands.add_parser("report", help="print the table of runs, beside the published figures")
    tables.add_argument("files", nargs="+", type=Path, help="JSON lines")
    pictures = commands.add_parser("plot", help="draw C2ST against simulations and evaluations")
    pictures.add_argument("files", nargs="+", type=Path, help="JSON lines")
    pictures.add_argument("--output", type=Path, default=Path("benchmarks.png"))
    return parser


def _add_reading(commands: Any) -> None:
    tracing = commands.add_parser("tracing", help="seconds and memory to read models of several sizes")
    tracing.add_argument("--models", nargs="+", choices=SIZED, default=["plate", "scan", "loop", "regression"])
    tracing.add_argument("--tokens", nargs="+", type=int, default=[200, 1000, 3000, 10_000])
    masks = commands.add_parser("masks", help="cost of attention masks beside a training step")
    masks.add_argument("--models", nargs="+", choices=SIZED, default=["plate", "mixture"])
    masks.add_argument("--attention", choices=["moral", "contextual"], default="moral")
    masks.add_argument("--tokens", type=int, default=100)
    masks.add_argument("--batch", type=int, default=128)


def _add_comparisons(commands: Any) -> None:
    posteriors = [name for name, task in TASKS.items() if task.draw_conditional and not task.all_conditionals]
    samplers = commands.add_parser("samplers", help="C2ST against network evaluations, for every sampler")
    samplers.add_argument("task", choices=posteriors)
    samplers.add_argument("--simulations", type=int, default=10_000)
    samplers.add_argument("--seed", type=int, default=0)
    samplers.add_argument("--evaluations", nargs="+", type=int, default=[4, 8, 16, 20, 32, 64])
    samplers.add_argument("--question-seed", type=int, help="ask about other observations than the reference ones")
    rivals = commands.add_parser("compare", help="other libraries on the same simulations")
    rivals.add_argument("task", choices=posteriors)
    rivals.add_argument("--simulations", type=int, default=10_000)
    rivals.add_argument("--seed", type=int, default=0)
    rivals.add_argument(
        "--budget", type=float, default=600, help="seconds of training of peers without a stopping rule"
    )
    for package in sorted({peer.package for peer in PEERS.values()}):
        here = sys.executable if find_spec(package) else None
        rivals.add_argument(f"--{package}", default=here, help=f"the Python that has {package}; this one, if it has")


def _measure(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    match options.command:
        case "run":
            yield from run(
                options.task,
                options.simulations,
                options.seed,
                _settings(options),
                _asking(options),
                options.save_draws,
            )
        case "train":
            refuse_other_files(options.folder)  # before training: what cannot be saved is told at once
            trained = train(options.task, options.simulations, options.seed, _settings(options))
            trained.save(options.folder)
            yield trained.row
        case "ask":
            yield from ask(Trained.load(options.folder), _asking(options), options.save_draws)
        case "samplers":
            yield from compare_samplers(
                options.task, options.simulations, options.seed, options.evaluations, options.question_seed
            )
        case "compare":
            pythons = {peer.package: getattr(options, peer.package) for peer in PEERS.values()}
            installed = {package: python for package, python in pythons.items() if python}
            yield from compare(options.task, options.simulations, options.seed, options.budget, installed)
        case "device":
            yield from measure_device(options.task, options.batches)
        case "questions":
            yield from measure_questions(options.kinds or list(QUESTIONS), options.seed, options.pictures)
        case "functions":
            kinds = options.kinds or list(FUNCTIONS)
            yield from measure_functions(kinds, options.simulations, options.seed, options.pictures)
        case "costs":
            yield from measure_costs(options.kinds or list(COSTS))
        case "tracing":
            yield from measure_tracing(options.models, options.tokens)
        case "masks":
            for kind in options.models:
                yield measure_masks(kind, options.tokens, options.batch, options.attention)


def _add_runs(commands: Any) -> None:
    whole = commands.add_parser("run", help="train on a task, and score its answers against references")
    first = commands.add_parser("train", help="the first half of run: on a GPU, say")
    second = commands.add_parser("ask", help="the second half of run: score what was trained")
    for parser in (whole, first):
        parser.add_argument("task", choices=TASKS)
        _add_training(parser)
    first.add_argument("folder", type=Path, help="for the network")
    second.add_argument("folder", type=Path, help="written by train")
    for parser in (whole, second):
        _add_asking(parser)


def _add_training(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--simulations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--attention", choices=["moral", "contextual", "dense", "directed"], default="moral")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--budget", type=float, help="seconds of training, in place of the default number of steps")
    length.add_argument("--steps", type=int, help="of training")
    parser.add_argument("--simulations-only", action="store_true", help="train without the model's own density")
    parser.add_argument("--no-sharing", action="store_true", help="exchangeable plates do not share weights")
    parser.add_argument("--posterior-only", action="store_true", help="train for the posterior alone")
    parser.add_argument("--process", choices=PROCESSES, help="the diffusion process")
    parser.add_argument("--batch", type=int, help="examples a step")
    parser.add_argument("--learning-rate", type=float)
    for name in NetworkConfig._fields:
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, help="of the network")


def _add_asking(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--save-draws", type=Path, help="an .npz of observations, draws and references")
    parser.add_argument("--corrected", action="store_true", help="ask once more, draws weighted by the model's density")
    parser.add_argument("--evaluations", type=int, help="of the network, for a draw")
    parser.add_argument("--question-seed", type=int, help="ask about other observations than the reference ones")


def _settings(options: argparse.Namespace) -> Settings:
    """What differs from the defaults."""
    given = {name: value for name, value in vars(options).items() if value is not None}
    network = {name: given[name] for name in NetworkConfig._fields if name in given}
    model = {"attention": given["attention"]} | {name: given[name] for name in ("process",) if name in given}
    model |= {"use_density": False} if options.simulations_only else {}
    model |= {"share_exchangeable": False} if options.no_sharing else {}
    model |= {"network": NetworkConfig(**network)} if network else {}
    names = {"steps": "num_steps", "batch": "batch_size", "learning_rate": "learning_rate"}
    fit = {argument: given[name] for name, argument in names.items() if name in given}
    return Settings(model, fit, options.budget, options.posterior_only)


def _asking(options: argparse.Namespace) -> Asking:
    """How a trained network is asked."""
    return Asking(options.evaluations, options.question_seed, options.corrected)


if __name__ == "__main__":
    main()
