"""A GRU program of Keras on rnnreg: trained, and beside Keras itself from the same weights and batches.

Embedding(num_tokens, H) → dropout → the *same* GRU layer (tanh gates, reset after, two biases,
Glorot-uniform recurrent weights, L2 on its input kernel) applied `num_layers` times, with dropout
after each → Dense; mean squared error, Adam. Inputs are tokens, targets a leaky sum of the tokens'
values which one token resets.

Without Keras (`pip install -e '.[peers]'`) the comparison is reported as not measured.
"""
