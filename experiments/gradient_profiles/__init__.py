"""‖∂C/∂h_t‖ against t on copy memory, at the start and after 100 updates, for eight kinds of recurrent network.

After Arjovsky, Shah & Bengio 2016, Fig. 4, with gated cells at three forget biases, and two things that can be
computed exactly: what the forget gates alone let through, and a bit that one unit holds while λ‖W‖² pulls at it.

The gradient is that of h (for an LSTM not of the cell memory c; the path through the forget gates alone is shown by
itself). C is either the loss of the whole sequence, as in the paper (every step adds to it, so early steps keep a
floor), or that of the last recalled symbol alone, r(ℓ). All in float64: profiles reach 1e-31. Departures from the
paper: the same hidden size for all, and initial states of zero.
"""
