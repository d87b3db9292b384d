"""What λ‖W‖² does to memory on tasks that people know: where it helps, and from which λ on it destroys.

Adding and temporal order, tanh (orthogonal start) and GRU: data loss, test error, horizon of the gradient and ρ(W_hh)
against λ, from cold starts and from trained networks on which λ is switched on. A pilot with other seeds at small λ
predicts, before anything else is run, λ_c = (L₀ − L*) / min‖W‖²: above it, forgetting has a better objective than the
smallest network that was seen to remember. Beside them two places where λ‖W‖² should help: the yearly sunspots
(overfitting; test errors are looked at after the fact and choose nothing) and one-step forecasts of the Lorenz system
from a recurrence that starts chaotic (exploding gradients; plain gradient descent, no clipping).
"""
