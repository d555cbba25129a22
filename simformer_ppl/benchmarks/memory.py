"""Memory of this process."""

import resource


def peak_mib() -> float:
    """The most that was resident at once, so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
