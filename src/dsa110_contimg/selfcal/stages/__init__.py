"""Stages of self-calibration, one a file: each takes a state and returns a state."""
