"""All tasks by name."""

from simformer_ppl.benchmarks.tasks import gaussians, hodgkin_huxley, lotka_volterra, sird, slcp, trees, two_moons

TASKS = {
    task.name: task
    for task in (
        gaussians.LINEAR, gaussians.MIXTURE, two_moons.POSTERIOR, slcp.POSTERIOR,
        trees.TREE, trees.HMM, two_moons.ALL, slcp.ALL,
        lotka_volterra.LOTKA_VOLTERRA, sird.SIRD, hodgkin_huxley.HODGKIN_HUXLEY,
    )
}  # fmt: skip
