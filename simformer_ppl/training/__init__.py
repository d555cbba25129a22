"""Simulate, optimise, checkpoint."""
