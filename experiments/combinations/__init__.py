"""Regularisers alone and in pairs, each tuned by validation with the same budget, then compared on fresh seeds.

On digits of 8 × 8 pixels, read one by one, and on MNIST-1D. Every method has the same number of trials. A trial is a
learning rate and a strength for each part, a point of one Latin hypercube, so that all methods try the same learning
rates. The trial with the best mean validation accuracy over the search seeds is chosen. It is trained on all training
rows from fresh seeds, and scored on test rows that no choice has seen. Methods are compared with no regularisation,
and pairs with each of their parts, seed by seed, with Holm's correction.
"""
