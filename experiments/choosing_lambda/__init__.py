"""Ways to choose λ and the learning rate with the same budget: what each finds, with how many updates and seconds.

Four tasks with few rows: the yearly sunspots with a tanh network; digits of 8 × 8 pixels, MNIST-1D and the adding
problem with a GRU. Each way to choose has the updates of 32 full runs, λ and learning rate in the same box, and the
validation loss at the end of a run to choose by:

- grid: 8 λ × 4 learning rates;
- halved grid: the same trials by successive halving, which needs a quarter of the budget;
- random: log-uniform trials;
- halving: as many random trials, by successive halving, as the budget pays;
- TPE: Optuna's, in batches that train together;
- hypergradient: two descents on log λ and log learning rate, with derivatives through whole runs;
- online: λ moves while networks train from random trials; each is then trained again at the λ where it ended.

An update of which derivatives are taken is charged as four. What is chosen is trained from fresh seeds and scored on
test rows. Regret is what that loses against the best point of a dense grid, which is found with other seeds on the
test rows and then scored with the same fresh seeds; "λ = 0" is the best learning rate without a penalty, found
likewise. The relative regret is in shares of what λ can gain: the loss at λ = 0 less the best. Every repeat has its
own seeds, which all ways to choose share. So they are compared in pairs, with Holm's correction within a task. The
test rows of the sunspots come decades after the validation rows: there even a perfect search has a regret.

Peers have the same number of trials, networks, rows and updates, one network at a time in PyTorch: Optuna's TPE, trial
after trial, and RandomizedSearchCV of scikit-learn, in as many processes as there are cores.
"""
