"""What others published, to stand beside our figures."""

from typing import NamedTuple


class Published(NamedTuple):
    """A row of the paper: random-forest C2ST at 1,000, 10,000 and 100,000 simulations, one seed, by task.

    Attributes
    ----------
    method
        As the paper has it.
    c2st
        By task.
    """

    method: str
    c2st: dict[str, tuple[float, float, float]]


SIMULATIONS = (1_000, 10_000, 100_000)

POSTERIORS = ("gaussian_linear", "gaussian_mixture", "two_moons", "slcp")
CONDITIONALS = ("tree", "hmm", "two_moons_all", "slcp_all")

SOURCE = "Gloeckler et al. 2024 (arXiv 2404.09636), random forest, one seed, GPU, 500 network evaluations a draw"


def _posteriors(*figures: str) -> dict[str, tuple[float, float, float]]:
    return dict(zip(POSTERIORS, (_read(cell) for cell in figures), strict=True))


def _conditionals(*figures: str) -> dict[str, tuple[float, float, float]]:
    return dict(zip(CONDITIONALS, (_read(cell) for cell in figures), strict=True))


def _read(cell: str) -> tuple[float, float, float]:
    first, second, third = (float(figure) for figure in cell.split("/"))
    return first, second, third


PUBLISHED = (
    Published("NPE (spline flow)", _posteriors(".770/.600/.533", ".691/.557/.519", ".761/.576/.530", ".972/.872/.745")),
    Published(
        "NPSE (MLP score network)",
        _posteriors(".705/.572/.507", ".613/.528/.502", ".570/.513/.502", ".988/.831/.630"),
    ),
    Published(
        "Simformer, dense, VE",
        _posteriors(".732/.635/.505", ".574/.515/.506", ".611/.525/.506", ".924/.784/.703")
        | _conditionals(".659/.563/.528", ".653/.566/.526", ".601/.526/.511", ".818/.739/.548"),
    ),
    Published(
        "Simformer, moral mask, VE",
        _posteriors(".540/.507/.503", ".572/.515/.504", ".611/.525/.505", ".831/.646/.569")
        | _conditionals(".590/.541/.527", ".601/.541/.526", ".601/.526/.510", ".729/.600/.555"),
    ),
    Published(
        "Simformer, directed, VE",
        _posteriors(".539/.510/.505", ".592/.524/.505", ".685/.521/.505", ".881/.649/.565")
        | _conditionals(".597/.572/.564", ".693/.649/.638", ".665/.569/.562", ".825/.700/.672"),
    ),
    Published(
        "Simformer, moral mask, VP",
        _posteriors(".538/.505/.501", ".547/.529/.503", ".804/.648/.565", ".886/.638/.554"),
    ),
)

EVALUATIONS_SOURCE = "Simformer, VE (Gloeckler et al. 2024)"
EVALUATIONS = {5: 1.0, 10: 0.987, 50: 0.508, 500: 0.506}
"""C2ST by network evaluations a draw."""
