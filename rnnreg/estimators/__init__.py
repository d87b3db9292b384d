"""Recurrent networks as estimators of scikit-learn: λ by cross-validation, refitted on all rows.

This room is not imported by `import rnnreg`, since it needs scikit-learn (`pip install 'rnnreg[sklearn]'`):
`from rnnreg.estimators import RNNRegressorCV`.
"""

from rnnreg.estimators._classifier import RNNClassifierCV
from rnnreg.estimators._regressor import RNNRegressorCV

__all__ = ["RNNClassifierCV", "RNNRegressorCV"]
