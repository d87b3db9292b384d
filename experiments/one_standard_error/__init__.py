"""How good is what is said about λ: the rules that choose it, their standard error, and the error of what is chosen.

Linear sequences with a known truth, so that the true error of every trained model is a closed form. First, what must be
equal: the readout of a linear network is scikit-learn's ridge path, and λ_min, λ_1se and nested cross-validation are
those of glmnet and scikit-learn. Then simulations by the thousand, whose fits are closed forms too: how often the mean
of a cross-validation ± its standard error holds the true error, how much too good its least value is, whether nested
cross-validation is not, and which rule chooses the better model. The same for small recurrent networks that are
trained, and for rows that overlap in time.
"""
