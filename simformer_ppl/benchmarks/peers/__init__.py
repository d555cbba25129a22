"""Scripts that run other libraries; each needs nothing of this package, and runs in an environment of its own."""
