"""Calibration and two-sample tests."""
