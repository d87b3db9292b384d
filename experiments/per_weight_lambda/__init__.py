"""A λ for each matrix against one λ for all: W_xh, W_hh and W_hy, found by hypergradient, by grid and by random points.

Three tasks with small tanh networks: sunspots, digits read row by row, and adding. A repeat draws training and
validation rows and a start. Validation rows choose λ, test rows judge. Grid, random points and hypergradient spend
the same number of training runs, where a derivative counts by the forwards that it costs.
"""
