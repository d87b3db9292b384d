"""Figures of a recurrence as a map of states; public in `rnnreg.plotting`."""
