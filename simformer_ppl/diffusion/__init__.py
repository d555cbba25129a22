"""The generative process: pure functions of arrays, masks and a denoiser."""
