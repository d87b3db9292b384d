"""The house rules that a machine can keep: who imports whom, what an import costs, signatures."""

import ast
import dataclasses
import importlib.resources
import inspect
import json
import subprocess
import sys
import types
from pathlib import Path

import pytest

import rnnreg

PACKAGE = Path(rnnreg.__file__).parent

# Each room imports only rooms above it.
ROOMS = [
    "_checks",
    "_arrays",
    "_signatures",
    "_tree",
    "_linalg",
    "runtime",
    "_memory",
    "data",
    "cells",
    "parametrizations",
    "recurrence",
    "networks",
    "bridges",
    "losses",
    "metrics",
    "penalties",
    "constraints",
    "objective",
    "training",
    "lanes",
    "sweeps",
    "selection",
    "diagnostics",
    "tasks",
    "datasets",
    "plotting",
    "convert",
    "estimators",
    "__main__",
]

# Imported inside the function that uses them: together they cost more than jax itself.
HEAVY = ["flax", "optax", "sklearn", "scipy.stats", "matplotlib", "xarray", "pandas", "h5netcdf"]
HEAVY += ["orbax", "tyro", "jax.extend", "optuna"]
PEERS = ["torch", "keras", "tensorflow", "equinox", "statsmodels"]

FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(module):
    """The room of a dotted name inside rnnreg: "rnnreg.cells._gru" is in "cells"."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else None


def for_types_alone(node):
    """Whether a statement is `if TYPE_CHECKING:`, whose imports never run."""
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def statements(node, *, types):
    """A node and all that stands in it, without `if TYPE_CHECKING:` unless `types`."""
    yield node
    for child in ast.iter_child_nodes(node):
        if types or not for_types_alone(child):
            yield from statements(child, types=types)


def imported(path, *, types=True):
    """Every absolute dotted name that a file imports, at its top or inside a function."""
    package = ["rnnreg", *path.relative_to(PACKAGE).parent.parts]
    for node in statements(ast.parse(path.read_text(encoding="utf-8")), types=types):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_rooms_import_only_rooms_above(path):
    if path == PACKAGE / "__init__.py":
        return
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert room in ROOMS, f"{room} is a new room: give it its place in ROOMS and in CONTRIBUTING.md"
    above = ROOMS[: ROOMS.index(room) + 1]
    for name in imported(path):
        if name.split(".")[0] == "rnnreg":
            assert room_of(name) in above, f"{room} imports {name}, which is not above it"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_takes_of_another_only_what_that_hands_out(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == "rnnreg" and len(parts) > 2 and parts[1] != own:
            assert not parts[2].startswith("_"), f"{name}: import it in {parts[1]}/__init__.py"


# The floors of the diagnostics: each folder imports only what stands before it.
FLOORS = ["dynamics", "gradients", "states", "memory", "surface"]


def module_of(path):
    """The dotted name of a file inside rnnreg; a folder's is that of its `__init__.py`."""
    parts = ("rnnreg", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def needed(path):
    """The modules of rnnreg whose code a file imports; of a name that a module defines, that module."""
    for name in imported(path, types=False):
        while name and name not in MODULES:
            name = name.rpartition(".")[0]
        if name and name != module_of(path):
            yield name


def circle(graph):
    """A circle in {name: names}, first name repeated at the end, or []."""
    done = set()

    def visit(name, way):
        if name in way:
            return [*way[way.index(name) :], name]
        if name in done:
            return []
        for other in sorted(graph.get(name, ())):
            if found := visit(other, [*way, name]):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(graph) if (found := visit(name, []))), [])


@pytest.mark.parametrize("room", ROOMS)
def test_modules_of_a_room_import_each_other_in_one_direction(room):
    own = {name: path for name, path in MODULES.items() if room_of(name) == room}
    graph = {name: set(needed(path)) & set(own) for name, path in own.items()}
    assert circle(graph) == []


def test_a_circle_is_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}}) == []


@pytest.mark.parametrize("floor", FLOORS)
def test_diagnostics_stand_in_floors(floor):
    below = FLOORS[FLOORS.index(floor) + 1 :]
    for name, path in MODULES.items():
        if name.startswith(f"rnnreg.diagnostics.{floor}"):
            wrong = [
                one for one in needed(path) if one.split(".")[2:3] and one.split(".")[2] in below
            ]
            assert not wrong, f"{name} imports {wrong}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_private_jax(path):
    assert not [name for name in imported(path) if name.startswith(("jax._src", "jaxlib"))]


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if path.name == "__init__.py"],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_init_files_export_and_define_nothing(path):
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign):
            names = {target.id for target in node.targets if isinstance(target, ast.Name)}
            assert names <= {"__all__", "__version__"}
        else:
            assert isinstance(node, (ast.Expr, ast.Import, ast.ImportFrom)), ast.unparse(node)


def fresh(code):
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=PACKAGE.parent,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_import_leaves_heavy_packages_alone():
    loaded = fresh(
        "import sys, json, rnnreg; "
        f"print(json.dumps([name for name in {HEAVY + PEERS} if name in sys.modules]))"
    )
    assert loaded == []


def test_import_makes_no_array():
    # An array at import would fix the number of devices before `use_all_cores` can.
    assert fresh("import rnnreg.runtime; print(rnnreg.runtime.use_all_cores(3))") == 3


def test_import_brings_its_own_modules_and_the_standard_library_beside_jax():
    # What an import costs is what it loads.
    loaded = fresh(
        "import sys, json, jax, jax.numpy; before = set(sys.modules); import rnnreg; "
        "print(json.dumps(sorted({name.split('.')[0] for name in set(sys.modules) - before})))"
    )
    assert set(loaded) <= {"rnnreg", "jax"} | sys.stdlib_module_names


def test_types_and_data_ship():
    files = importlib.resources.files("rnnreg")
    assert (files / "py.typed").is_file()
    assert (files / "datasets" / "sunspots.csv").is_file()
    assert (files / "recurrence" / "native" / "kernel.cc").is_file()


def public_objects():
    """{dotted name: object} of everything in `rnnreg.__all__` and in the `__all__` of its rooms."""
    seen = {}
    for name in rnnreg.__all__:
        value = getattr(rnnreg, name)
        if isinstance(value, types.ModuleType):
            for inner in getattr(value, "__all__", []):
                seen[f"{name}.{inner}"] = getattr(value, inner)
        else:
            seen[name] = value
    return seen


PUBLIC = public_objects()
FUNCTIONS = {name: f for name, f in PUBLIC.items() if inspect.isfunction(f)}
RECORDS = {
    name: record
    for name, record in PUBLIC.items()
    if inspect.isclass(record) and (hasattr(record, "_fields") or dataclasses.is_dataclass(record))
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_optional_arguments_are_keyword_only(name):
    # The first argument is what the function is about; it may have a default: `l2()`, `l2("W_hh")`.
    parameters = list(inspect.signature(FUNCTIONS[name]).parameters.values())
    for parameter in parameters[1:]:
        if parameter.default is not parameter.empty:
            assert parameter.kind is parameter.KEYWORD_ONLY, f"{name}: {parameter.name}"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_key_is_never_made_up(name):
    for parameter in inspect.signature(FUNCTIONS[name]).parameters.values():
        if parameter.name == "key":
            assert parameter.default in (parameter.empty, None), f"{name} has a default key"


@pytest.mark.parametrize("name", PUBLIC)
def test_everything_public_has_a_docstring(name):
    if not (inspect.isfunction(PUBLIC[name]) or inspect.isclass(PUBLIC[name])):
        return
    doc = PUBLIC[name].__doc__ or ""
    assert doc.strip(), f"{name} has no docstring"
    assert not doc.startswith(f"{PUBLIC[name].__name__}("), f"{name} has no docstring of its own"


@pytest.mark.parametrize("name", RECORDS)
def test_every_field_of_a_record_is_documented(name):
    record = RECORDS[name]
    fields = getattr(record, "_fields", None) or [f.name for f in dataclasses.fields(record)]
    missing = [field for field in fields if field not in (record.__doc__ or "")]
    assert not missing, f"{name} does not say what {missing} are"


def test_the_top_level_holds_what_it_should():
    """And no build output or binary that was committed by mistake."""
    root = PACKAGE.parent
    if not (root / ".git").exists():
        pytest.skip("no checkout")
    listed = subprocess.run(
        ["git", "ls-files"], cwd=root, capture_output=True, text=True, check=True
    )
    found = {line.split("/")[0] for line in listed.stdout.splitlines()}
    files = {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md"}
    folders = {"rnnreg", "experiments", "tests", "notebooks"}
    assert {name for name in found if not name.startswith(".")} == files | folders
