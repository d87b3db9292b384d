"""Figures of gradients on their way back through time; public in `rnnreg.plotting`."""
