"""Scores that know whether more of them is better, and the scores of given parameters on given rows."""

from rnnreg.metrics._base import Score
from rnnreg.metrics._base import UserFunction as UserFunction
from rnnreg.metrics._base import as_function as as_function
from rnnreg.metrics._base import function_name as function_name
from rnnreg.metrics._evaluate import evaluate
from rnnreg.metrics._scores import accuracy, perplexity, r2

__all__ = ["Score", "accuracy", "evaluate", "perplexity", "r2"]
