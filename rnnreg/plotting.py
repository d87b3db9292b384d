"""Figures: takes results, computes nothing, accepts ax, returns it."""
