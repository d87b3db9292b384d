"""Decay beside the loss and λ‖W‖² are two methods under Adam: closed forms, and where each ends the memory of a GRU.

Under SGD the penalty λ‖W‖² and a decay of rate 2λ are one method. Adam divides the gradient of the penalty by its own
size, and leaves the decay alone. First one weight: what each method does without data, and where it ends on a parabola.
Then adding at T = 50 over a map of learning rates and strengths: Adam with the penalty, AdamW, AdamW whose decay is not
multiplied by the learning rate (as in the code of its authors), cautious decay, and a fixed norm of W_hh.
"""
