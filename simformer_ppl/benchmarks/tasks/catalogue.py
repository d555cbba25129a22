"""All tasks by name."""

from simformer_ppl.benchmarks.tasks import gaussians, lotka_volterra, slcp, trees, two_moons

TASKS = {
    task.name: task
    for task in (
        gaussians.LINEAR, gaussians.MIXTURE, two_moons.POSTERIOR, slcp.POSTERIOR,
        trees.TREE, trees.HMM, two_moons.ALL, slcp.ALL, lotka_volterra.LOTKA_VOLTERRA,
    )
}  # fmt: skip
