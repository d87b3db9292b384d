"""What is taken of scikit-learn, or an error that says how to get it."""

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, is_classifier
    from sklearn.model_selection import check_cv
    from sklearn.utils import check_array, check_random_state, check_X_y
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import _check_sample_weight as check_sample_weight
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(
        "rnnreg.estimators needs scikit-learn, 1.6 or later: pip install 'rnnreg[sklearn]'."
    ) from error

__all__ = [
    "BaseEstimator",
    "ClassifierMixin",
    "RegressorMixin",
    "check_X_y",
    "check_array",
    "check_classification_targets",
    "check_cv",
    "check_is_fitted",
    "check_random_state",
    "check_sample_weight",
    "is_classifier",
    "validate_data",
]
