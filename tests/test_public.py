"""What users may rely on: every public name exists, says what it is, and shows by example how it is used.

`test_house.py` checks signatures and the fields of records; here are the lists of names and their examples.
"""

import doctest
import importlib
import inspect
import pkgutil
import types

import pytest

import rnnreg as rr

# Public functions that may go without an example of their own, and why. Records need none: what returns them shows
# them.
WITHOUT_EXAMPLE = {
    "data.check_batch": "for other rooms; it only raises",
    "training.check_data": "for sweep; it only raises",
}

MODULES = [
    importlib.import_module(found.name)
    for found in pkgutil.walk_packages(rr.__path__, prefix="rnnreg.")
]


def public_names(module):
    """`__all__`, or what a module without one defines itself."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__ == module.__name__
    ]


def public_objects():
    found = {}
    for name in rr.__all__:
        value = getattr(rr, name)
        if isinstance(value, types.ModuleType):
            found |= {f"{name}.{inner}": getattr(value, inner) for inner in public_names(value)}
        else:
            found[name] = value
    return found


def examples(value):
    return doctest.DocTestParser().get_examples(inspect.getdoc(value) or "")


PUBLIC = public_objects()
FUNCTIONS = {name: value for name, value in PUBLIC.items() if inspect.isfunction(value)}


def test_star_import_gives_every_name():
    namespace = {}
    exec("from rnnreg import *", namespace)
    assert set(rr.__all__) <= set(namespace)


@pytest.mark.parametrize("module", [rr, *MODULES], ids=lambda module: module.__name__)
def test_listed_names_exist_once(module):
    assert (module.__doc__ or "").strip(), f"{module.__name__} does not say what it is for"
    listed = getattr(module, "__all__", [])
    assert [name for name in listed if not hasattr(module, name)] == []
    assert len(set(listed)) == len(listed)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_have_an_example_or_a_reason(name):
    if name in WITHOUT_EXAMPLE:
        return
    shown = examples(FUNCTIONS[name])
    assert shown, f"{name} has no >>> example: write one, or say in WITHOUT_EXAMPLE why not"
    assert any(example.want for example in shown), f"the example of {name} shows no value"


def test_reasons_are_still_needed():
    needed = {name for name, function in FUNCTIONS.items() if not examples(function)}
    assert sorted(set(WITHOUT_EXAMPLE) - needed) == []
