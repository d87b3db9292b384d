"""What λ‖W‖² does, in closed form and measured: shrinkage, ridge, AR(1), and the one-weight chain that jumps to zero.

1. Without data, gradient descent gives ρ(W(t)) = ρ₀ (1 − 2ηλ)^t.
2. A linear network of one step is ridge regression; in one dimension ŵ = âσ²/(σ² + λ), so an estimate â > 1 becomes a
   contracting model iff λ > σ²(â − 1).
3. The chain (1 − w^T)² + λ w² does not forget gradually. Its memory is the global optimum up to λ_c, a local one up to
   λ_s, and then w jumps to 0; on the way back w = 0 is a local minimum for every λ > 0, so the memory never returns.

Everything is trained by `rr.make_train` with optax.sgd in float64, hundreds of λ under one vmap.
"""
