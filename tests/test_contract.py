"""One contract for everything public: what it takes and returns is said, options are keywords, nothing is very long."""

import ast
import dataclasses
import inspect
import re
import types
from pathlib import Path

import pytest

import rnnreg as rr

PACKAGE = Path(rr.__file__).parent
MOST_LINES = (
    80  # of one function, docstring left out; longer ones say why in their comment "# long: …"
)


def public_callables():
    """Every function, class and method that a user can reach by a public name, once each."""
    found = {}

    def add(name, value):
        if inspect.isfunction(value) or inspect.isclass(value):
            found.setdefault(value, name)
            for method, function in vars(value).items() if inspect.isclass(value) else ():
                own = inspect.isfunction(function) and value.__module__.startswith("rnnreg")
                if own and not method.startswith("_"):
                    found.setdefault(function, f"{name}.{method}")

    for name in rr.__all__:
        value = getattr(rr, name)
        if isinstance(value, types.ModuleType):
            for inner in getattr(value, "__all__", ()):
                add(f"{name}.{inner}", getattr(value, inner))
        else:
            add(name, value)
    return {name: value for value, name in found.items()}


CALLABLES = public_callables()
FUNCTIONS = {name: value for name, value in CALLABLES.items() if inspect.isfunction(value)}


def section(doc, title):
    """The lines of a section of a Google-style docstring, or None."""
    match = re.search(rf"^{title}:.*?\n((?:[ \t]+.*\n|\n)+)", doc + "\n", re.MULTILINE)
    return match and match.group(1)


def parameters(function):
    return [
        name
        for name in inspect.signature(function).parameters
        if name not in ("self", "args", "kwargs")
    ]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_arguments_are_documented_by_name(name):
    wanted = parameters(FUNCTIONS[name])
    described = section(inspect.getdoc(FUNCTIONS[name]) or "", "Args") or ""
    missing = [
        one for one in wanted if not re.search(rf"^\s+\**{one}\b.*:", described, re.MULTILINE)
    ]
    assert not missing, f"{name}: Args says nothing of {missing}"
    named = re.findall(r"^  \**(\w+)(?: \([^)]*\))?:", described, re.MULTILINE)
    assert set(named) <= set(wanted), (
        f"{name}: Args names {set(named) - set(wanted)}, which it does not take"
    )


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_returned_is_said(name):
    function = FUNCTIONS[name]
    if inspect.signature(function).return_annotation in (None, "None"):
        return
    doc = inspect.getdoc(function) or ""
    assert section(doc, "Returns") or section(doc, "Yields"), f"{name} has no section Returns"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_type_of_what_is_returned_does_not_depend_on_a_flag(name):
    assert not hasattr(FUNCTIONS[name], "__overloads__")
    annotation = str(inspect.signature(FUNCTIONS[name]).return_annotation)
    alternatives = [one.strip() for one in annotation.split("|") if "[" not in annotation]
    assert len([one for one in alternatives if one != "None"]) <= 1, f"{name} returns {annotation}"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_options_are_keywords(name):
    for parameter in list(inspect.signature(FUNCTIONS[name]).parameters.values())[1:]:
        if parameter.default is not parameter.empty:
            assert parameter.kind is parameter.KEYWORD_ONLY, f"{name}: {parameter.name}"


@pytest.mark.parametrize("name", [name for name in CALLABLES if inspect.isclass(CALLABLES[name])])
def test_fields_are_documented_and_none_is_made_up(name):
    record = CALLABLES[name]
    fields = getattr(record, "_fields", None)
    if fields is None and dataclasses.is_dataclass(record):
        fields = [field.name for field in dataclasses.fields(record)]
    if fields is None:
        return
    described = section(inspect.getdoc(record) or "", "Attributes") or ""
    named = re.findall(r"^  (\w+)(?: and (\w+))?:", described, re.MULTILINE)
    named = [one for pair in named for one in pair if one]
    assert [f for f in fields if f not in named] == [], f"{name} does not say what a field is"
    extra = [one for one in named if one not in fields and not hasattr(record, one)]
    assert extra == [], f"{name} documents {extra}, which it does not have"


def test_no_function_hides_a_module():
    hidden = []
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        place = rr
        for part in parts:
            place = getattr(place, part, None)
            if place is not None and not isinstance(place, types.ModuleType):
                hidden.append(".".join(parts))
            if not isinstance(place, types.ModuleType):
                break
    assert hidden == []


def functions_of(path):
    source = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            body = node.body
            text = bool(ast.get_docstring(node))
            first = body[1].lineno if text and len(body) > 1 else body[0].lineno
            lines = source.splitlines()[node.lineno - 1 : node.end_lineno]
            signature = body[0].lineno - node.lineno
            yield node.name, node.end_lineno - first + 1 + signature, "\n".join(lines)


@pytest.mark.parametrize("room", ["rnnreg", "experiments"])
def test_no_function_is_very_long(room):
    long = {}
    for path in sorted((PACKAGE.parent / room).rglob("*.py")):
        for name, length, text in functions_of(path):
            if length > MOST_LINES and "# long: " not in text:
                long[f"{path.relative_to(PACKAGE.parent)}:{name}"] = length
    assert long == {}
