"""Every argument of every public function with values that are none of it: an error in our words, and nothing compiles.

The cases come from the signatures. What in `POOL` a stated type takes is in `TAKES`; all else must be refused with a
`ValueError` of the package that names the argument. A function, an argument or a type that is new and in none of the
tables fails.
"""

import inspect
import re
import sys
import traceback
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
import pytest
from good_calls import good_call
from test_contract import CALLABLES

import rnnreg as rr
from rnnreg._signatures import MAKERS, _alternatives, _parts

PACKAGE = Path(rr.__file__).parent
NAN = float("nan")
POOL = {
    "None": None,
    "True": True,
    "2.5": 2.5,
    "-3": -3,
    "NaN": NAN,
    "1e30": 10**30,
    "1j": 1j,
    "a text": "nonsense",
    "texts": np.array(["a", "b"]),
    "a list": [1.5, 2.0],
    "a dict": {"a": 1},
    "a function": lambda: None,
    "an object": object(),
}
# What a stated type takes: it is no case, or one of the function's own range.
NUMBERS = {
    "2.5",
    "-3",
    "True",
    "NaN",
    "a list",
    "1e30",
}  # as_array takes them; shapes are for each function
LISTS = {"a list", "texts"}
TAKES = {
    "None": {"None"},
    "int": set(),
    "bool": {"True"},
    "float": {"2.5", "-3"},
    "Number": {"2.5", "-3"},
    "Array": NUMBERS,
    "Numbers": NUMBERS,
    "str": set(),
    "Path": set(),
    "np.ndarray": {"texts"},
    "Params": {"a dict"},
    "Mapping": {"a dict"},
    "dict": {"a dict"},
    "Sequence": LISTS,
    "Iterable": LISTS,
    "Collection": LISTS,
    "tuple": LISTS,
    "Callable": {"a function"},
    "Loss": {"a function"},
    "Metric": {"a function"},
    "DrawFunction": set(),
    "GateFunction": set(),
    "InitFunction": set(),
    "InitialStateFunction": set(),
    "LossOf": set(),
    "NetworkFunction": set(),
    "OptimizerFunction": set(),
    "StepFunction": set(),
    "TrackFunction": set(),
    "optax.GradientTransformation": set(),
}
# Arguments of type Any, and why nothing can be said of them here: `test_wrong_calls.py` and others have their cases.
ANYTHING = {
    "axes": "what matplotlib takes",
    "color": "what matplotlib takes",
    "first": "handles of a legend",
    "dtype": "what NumPy takes",
    "embargo": "a number or a length of time, by the split's times",
    "times": "numbers or dates",
    "folds": "a splitter, a function or pairs",
    "outer": "a splitter, a function or pairs",
    "inner": "a splitter or a function",
    "splitter": "what splits, of another library",
    "groups": "labels of any kind",
    "horizon": "a number or a length of time, by the split's times",
    "initial": "a number or a length of time, by the split's times",
    "gap": "a number or a length of time, by the split's times",
    "selection.rolling_origin.window": "a number or a length of time, by the split's times",
    "options": "those of rr.sweep, which checks them",
    "given": "a record or a function",
    "device": "a device",
    "devices": "devices",
    "directions": "a tree of arrays",
    "labels": "labels of a sweep",
    "static": "labels of a sweep",
    "lanes": "a tree of arrays",
    "shared": "a tree of arrays",
    "module": "of another library",
    "outputs": "what a network returns",
    "params": "of any system, or one for each lane",
    "state": "of any system",
    "starts": "states of any system",
    "tree": "any",
    "xs": "a tree of arrays",
    "series": "what becomes an array",
    "batch": "a batch, or its inputs alone",
    "log_norms": "an array; a dict of several layers is told to take one",
    "sweeps.zipped.values": "lists of numbers by name",
}
# Texts that are free, or that are looked up in what comes later.
FREE = {"xlabel", "ylabel", "label", "name", "prefix", "path", "paths", "layers", "recurrent"}
FREE |= {"result", "layer", "bias", "over", "readout", "keep", "decayed", "carry"}
# Whole numbers that may be negative: they count from the end.
FROM_THE_END = {"step", "first", "last", "row"}
# What messages say in place of the name of an argument.
SAID = {
    "from_": "from_|convention",
    "to": "to|convention",
    "axis": "axis|metric",  # a result without the metric is named first
    "gate_activation": "gate_activation|activation",
}
WITHOUT = {"lanes.calibrate", "runtime.use_all_cores"}  # they would measure, or change the process


def kinds(parameter):
    """The types that a signature states for an argument."""
    if parameter.kind is parameter.VAR_KEYWORD or parameter.annotation is parameter.empty:
        return ["Any"]
    return _alternatives(str(parameter.annotation))


def is_known(kind):
    """Whether a type has its entry, or is a record of the package or of matplotlib."""
    head = _parts(kind)[0].rpartition(".")[2]
    records = {
        *MAKERS,
        "Axes",
        "Figure",
        "Dataset",
        "Plan",
        "Activation",
        "Gate",
        "Step",
        "Fold",
        "Drops",
    }
    records |= {"Parametrization", "Calibration", "Settings", "Scaling", "Track", "Study"}
    return kind == "Any" or _parts(kind)[0] in TAKES or head in records


def refused(name, parameter):
    """The values of the pool that an argument must refuse, by their names."""
    stated = kinds(parameter)
    if "Any" in stated:
        return []
    taken = set().union(*(TAKES.get(_parts(kind)[0], set()) for kind in stated))
    for kind in stated:  # what a list holds
        if TAKES.get(_parts(kind)[0]) == LISTS and _parts(kind)[1] in ("int", "float", "str"):
            taken = (
                taken - LISTS
                | {"int": set(), "float": {"a list"}, "str": {"texts"}}[_parts(kind)[1]]
            )
    if "str" in stated and name in FREE:
        taken |= {"a text"}
    if "int" in stated and name in FROM_THE_END:
        taken |= {"-3"}
    return [
        label
        for label, value in POOL.items()
        if label not in taken and value is not parameter.default
    ]


CASES = {
    f"{function}.{name}": (function, name)
    for function, value in CALLABLES.items()
    if inspect.isfunction(value) and function not in WITHOUT
    for name, parameter in inspect.signature(value).parameters.items()
    if name != "self"
}


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


def fail(*arguments, **options):
    pytest.fail("something was compiled")


@pytest.mark.parametrize("case", CASES)
def test_a_value_that_is_none_of_an_argument_is_refused(case, monkeypatch, tmp_path):
    function, name = CASES[case]
    parameters = inspect.signature(CALLABLES[function]).parameters
    unknown = [kind for kind in kinds(parameters[name]) if not is_known(kind)]
    assert not unknown, f"say in TAKES what the type {unknown} takes"
    if "Any" in kinds(parameters[name]):
        assert name in ANYTHING or case in ANYTHING, (
            f"state the type of {case}, or say in ANYTHING why it has none"
        )
        return
    arguments = good_call(function, name, parameters)
    monkeypatch.setattr(sys.modules["rnnreg.sweeps._compute"], "Program", fail)
    monkeypatch.setattr(jax.stages.Lowered, "compile", fail)
    monkeypatch.chdir(tmp_path)
    for label in refused(name, parameters[name]):
        said, file = error_of(CALLABLES[function], arguments | {name: POOL[label]})
        assert re.search(rf"\b({SAID.get(name, name)})\b", said), f"{label}: {said}"
        assert PACKAGE in file.parents, f"{label} is refused by {file}: {said}"


def error_of(function, arguments):
    """What a call is refused with, and the file that raised it; another error than a `ValueError` is a failure."""
    try:
        function(**arguments)
    except ValueError as error:
        return str(error), Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    return "nothing", Path()


def test_reasons_are_still_needed():
    free = {
        name for function, name in CASES.values() if "Any" in kinds(parameters_of(function)[name])
    }
    assert sorted(name for name in ANYTHING if name not in free and name not in CASES) == []


def test_the_cases_are_many():
    assert (
        sum(len(refused(name, parameters_of(function)[name])) for function, name in CASES.values())
        > 5000
    )


def parameters_of(function):
    return inspect.signature(CALLABLES[function]).parameters
