"""The warnings of this package, to be filtered by what they are about."""


class SimformerWarning(UserWarning):
    """All warnings of this package."""


class StructureWarning(SimformerWarning):
    """A model is not read as it is run, or its graph is denser than it could be."""


class SimulationWarning(SimformerWarning, RuntimeWarning):
    """Simulations are left out."""


class TrainingWarning(SimformerWarning, RuntimeWarning):
    """Training ended before its schedule."""


class NoveltyWarning(SimformerWarning, RuntimeWarning):
    """Given values lie far outside the simulations."""


class WeightsWarning(SimformerWarning, RuntimeWarning):
    """Weighted draws are not to be relied on."""


class DeviceWarning(SimformerWarning, RuntimeWarning):
    """A GPU is there, and JAX does not use it."""
