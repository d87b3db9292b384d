"""Every regulariser on the same three tasks, each with the same search: what it does to error, memory and cost.

The tasks: a memory task and the yearly sunspots with tanh networks, MNIST-1D with a GRU, all read at the last step.
Every method has the same number of trials, each a learning rate and a strength (a point of one Latin hypercube, so that
all methods try the same learning rates). The trial with the least mean validation error over the search seeds is
trained again from fresh seeds, and scored on test rows that no choice has seen. Methods are
compared with no regularisation seed by seed, with Holm's correction within a task.

Of each trained network: how far its gradient reaches back (`rr.diagnostics.horizon`, on test rows; a horizon beyond
the sequence counts as its length), and ρ of its recurrent matrix (of a GRU, of the block of the candidate). On the
memory task each method is trained at the strong end of its range too, with the learning rate that was chosen for none:
that is where λ‖W‖² destroys memory, and the question is which of the others do not. What a training step costs is the
CPU time of the compiled update on that task over the one without a regulariser.
"""
