"""Loss and gradient of many networks at once: rnnreg beside PyTorch, Keras, Flax and Equinox.

M networks of one size, each with weights of its own, look at one batch. Timed are `gradient` (every
network's loss and gradients) and `step` (those and an update by SGD, without a penalty). Contenders run in
turn, round by round, in one process. GFLOP/s count the products alone, 6·M·T·B·H·(G·H + G·D + O), beside
what the machine reaches in one large float32 product.
"""
