"""What holds for the repository as a whole. Each rule reads the source; a rule that is broken says where and how."""

import ast
import importlib
import inspect
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from artifact.errors import SlipwayError

ROOT = Path(__file__).parents[1]
PACKAGES = ("artifact", "inference", "training", "service", "cli")
# What each package may import: itself, other packages of ours, and these libraries besides the standard one.
MAY_IMPORT = {
    "artifact": {"artifact", "pydantic"},
    "inference": {"inference", "artifact", "numpy", "onnxruntime", "tokenizers"},
    "service": {"service", "inference", "artifact", "fastapi", "starlette", "uvicorn", "httptools", "uvloop"}
    | {"pydantic", "pydantic_settings", "onnxruntime", "orjson", "prometheus_client", "structlog"},
    "cli": {"cli", "artifact", "inference", "training", "service", "typer", "rich"},
}
NEVER = {"training": {"service", "cli"}}
# Low to high: a module imports only what stands before it. `tasks` and `api` are folders.
LAYERS = {
    "artifact": "errors manifest files repository publish",
    "inference": "errors layout cost policy tasks backends plan samples ticket flight waiting cache batcher model"
    " calibration engines",
    "service": "errors config heap logs link door drift metrics docs bridge schemas registry context responses"
    " telemetry exchange direct protocol api app front server supervisor",
    "cli": "errors output options remote train tune runs explore compress serve predict evaluate bench models app"
    " __main__",
}
HEAVY = ("torch", "transformers", "datasets", "sklearn", "onnx", "training")
# Text that people and machines read, besides Python. shared/ and run folders are not part of the repository.
TEXT = (".md", ".toml", ".yml", ".yaml", ".txt", ".cfg", ".ini", ".json", ".py", ".sh", ".html", "")
MADE = ("_cache", ".egg-info", "__pycache__")
NOT_OURS = {".git", ".venv", "models", "runs", "build", "wheelhouse", ".hypothesis"}
# Variables that are not settings of the service: read by the command line, by training and by compose.
OTHER_VARIABLES = {"SLIPWAY_DEBUG", "SLIPWAY_CACHE_DIR", "SLIPWAY_HOST_PORT", "SLIPWAY_MODELS"}
# Names that the metrics adapter of Kubernetes makes of ours.
ADAPTED = {"slipway_queue_seconds_per_second"}


# --- reading the source ------------------------------------------------------------------------------------------


@cache
def modules() -> dict[str, Path]:
    """Dotted name to file, of everything that is installed."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            found[path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")] = path
    return found


@cache
def tree(path: Path) -> ast.Module:
    """The parsed file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(module: str, *, lazy: bool = True) -> Iterator[str]:
    """Dotted names that `module` imports; without `lazy` only those its own import runs."""
    nodes = list(ast.walk(tree(modules()[module]))) if lazy else list(_at_import(tree(modules()[module]).body))
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} uses a relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in modules() else str(node.module)


def _at_import(body: Sequence[ast.stmt]) -> Iterator[ast.AST]:
    """Statements that run when a module is imported; what only a type checker sees does not."""
    for node in body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        for field in ("body", "orelse", "finalbody", "handlers"):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield from _at_import(getattr(node, field, []))


def top(name: str) -> str:
    """The first part of a dotted name."""
    return name.partition(".")[0]


@cache
def texts() -> dict[Path, str]:
    """Every text file of the repository."""
    found = {}
    for folder, folders, names in os.walk(ROOT):
        folders[:] = sorted(set(folders) - NOT_OURS - {name for name in folders if name.endswith(MADE)})
        for path in (Path(folder, name) for name in sorted(set(names) - NOT_OURS)):
            if path.suffix in TEXT and path.is_file() and path.stat().st_size < 1 << 20:
                found[path.relative_to(ROOT)] = path.read_text(encoding="utf-8")
    return found


# --- layers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_a_package_imports_only_what_it_may(package: str) -> None:
    allowed = MAY_IMPORT[package] | sys.stdlib_module_names
    for module in (name for name in modules() if top(name) == package):
        strangers = {name for name in imports(module) if top(name) not in allowed}
        assert not strangers, f"{module} imports {', '.join(sorted(strangers))}"


@pytest.mark.parametrize("package", sorted(NEVER))
def test_training_and_service_never_see_each_other(package: str) -> None:
    for module in (name for name in modules() if top(name) == package):
        assert not {name for name in imports(module) if top(name) in NEVER[package]}, module


@pytest.mark.parametrize("package", sorted(LAYERS))
def test_modules_import_only_downwards(package: str) -> None:
    ranks = {f"{package}.{name}": rank for rank, name in enumerate(LAYERS[package].split())}

    def rank(module: str) -> int:
        own = ".".join(module.split(".")[:2])
        assert own in ranks, f"{own} has no place in LAYERS: say where it belongs"
        return ranks[own]

    for module in (name for name in modules() if top(name) == package and name != package):
        assert rank(module) >= 0
        for name in imports(module):
            if top(name) == package and name != package:
                inside = name.split(".")[:2] == module.split(".")[:2]
                assert inside or rank(name) < rank(module), f"{module} imports {name}, which is not below it"


def test_no_two_modules_need_each_other() -> None:
    graph = {module: {name for name in imports(module, lazy=False) if name in modules()} for module in modules()}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"imports go in a circle: {' -> '.join(error.args[1])}")


def test_the_command_imports_its_halves_only_when_asked() -> None:
    commands = [module for module in modules() if top(module) == "cli"]
    early = {top(name) for module in commands for name in imports(module, lazy=False)} - sys.stdlib_module_names
    assert early == {"typer", "artifact", "cli"}


@pytest.mark.parametrize(
    "module",
    ["cli.app", "artifact.publish", "inference.model", "service.server", "service.supervisor", "training.errors"],
)
def test_nothing_that_serves_loads_a_training_library(module: str) -> None:
    heavy = [name for name in HEAVY if name != top(module)]
    probe = f"import {module}, sys; print(*sorted(set({heavy}) & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


# --- errors ------------------------------------------------------------------------------------------------------

DRAWN = re.compile(r"^(?P<lead>[ │]*[├└]── )(?P<name>[A-Z]\w+)(?: +(?:(?P<status>\d{3})|exit (?P<exit>\d+))\b)?")
PLAIN = re.compile(r"^(?P<lead> *)(?P<name>[A-Z]\w+)(?: {2,}.*)?$")


@dataclass(frozen=True)
class Drawn:
    """One class in a drawing."""

    name: str
    parent: str | None
    status: int | None
    exit_status: int | None


def drawing(text: str) -> list[Drawn]:
    """The classes of a tree drawn with box characters; a root is a plain line right above its branches."""
    found: list[Drawn] = []
    stack: list[tuple[int, str]] = []
    previous = ""
    for line in text.splitlines():
        if match := DRAWN.match(line):
            column = line.index("── ")
            if (root := PLAIN.match(previous)) and not DRAWN.match(previous):
                stack = [(len(root["lead"]) - 1, root["name"])]
            stack = [entry for entry in stack if entry[0] < column]
            numbers = [int(match[key]) if match[key] else None for key in ("status", "exit")]
            found.append(Drawn(match["name"], stack[-1][1] if stack else None, *numbers))
            stack.append((column, match["name"]))
        previous = line
    return found


@cache
def error_modules() -> tuple[str, ...]:
    """Where errors are defined."""
    return tuple(f"{package}.errors" for package in PACKAGES)


@cache
def errors() -> dict[str, type[SlipwayError]]:
    """Every public error class of ours by name."""
    for module in error_modules():
        importlib.import_module(module)
    found, waiting = {}, [SlipwayError]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if not kind.__name__.startswith("_") and kind.__module__ in error_modules():
            assert kind.__name__ not in found, f"two errors are called {kind.__name__}"
            found[kind.__name__] = kind
    return found


def parent(kind: type[SlipwayError]) -> str | None:
    """The nearest public base."""
    return next((base.__name__ for base in kind.__mro__[1:] if base.__name__ in errors()), None)


def check_drawn(drawn: Drawn) -> None:
    """One line of a drawing says what the class does."""
    kind = errors().get(drawn.name)
    assert kind, f"{drawn.name} is drawn and does not exist"
    assert drawn.parent == parent(kind), f"{drawn.name} is drawn under {drawn.parent}, not {parent(kind)}"
    assert drawn.status in (None, kind.status), f"{drawn.name} has status {kind.status}"
    assert drawn.exit_status in (None, kind.exit_status), f"{drawn.name} has exit status {kind.exit_status}"


@pytest.mark.parametrize("module", error_modules())
def test_each_branch_of_errors_is_drawn_where_it_grows(module: str) -> None:
    drawn = drawing(importlib.import_module(module).__doc__ or "")
    for line in drawn:
        check_drawn(line)
    own = {name for name, kind in errors().items() if kind.__module__ == module and kind is not SlipwayError}
    assert own - {line.name for line in drawn} == set(), f"{module} does not draw these"


def test_the_whole_tree_of_errors_is_drawn_for_readers() -> None:
    drawn = drawing((ROOT / "docs" / "errors.md").read_text(encoding="utf-8"))
    for line in drawn:
        check_drawn(line)
    assert {line.name for line in drawn} == errors().keys() - {"SlipwayError"}


def test_every_error_is_explained_with_its_code_and_statuses() -> None:
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| (\d+) \| (\d+) \| \S.*\|$", page, flags=re.MULTILINE)
    assert len({name for name, *_ in rows}) == len(rows)
    explained = {name: (code, int(status), int(exit_status)) for name, code, status, exit_status in rows}
    assert explained == {name: (kind.code, kind.status, kind.exit_status) for name, kind in errors().items()}


def test_no_two_errors_share_a_code() -> None:
    codes = [kind.code for kind in errors().values()]
    own = [kind.code for kind in errors().values() if "code" in vars(kind)]
    assert len(own) == len(set(own)), sorted(code for code in codes if own.count(code) > 1)


def test_errors_are_defined_where_they_are_looked_for() -> None:
    for module, path in modules().items():
        if module in error_modules():
            continue
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ClassDef):
                bases = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
                assert not bases & errors().keys(), f"{module}.{node.name} belongs into {top(module)}/errors.py"


def test_every_exit_status_is_one_of_the_documented() -> None:
    assert {kind.exit_status for kind in errors().values()} <= {1, 2, 3}


# --- settings and metrics ----------------------------------------------------------------------------------------


def settings() -> set[str]:
    """The environment variables of the service."""
    from service.config import PREFIX, Settings

    return {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}


def test_every_setting_is_documented() -> None:
    from service.config import PREFIX, Settings

    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    for name, field in Settings.model_fields.items():
        assert f"`{PREFIX}{name.upper()}`" in page, f"{name} is missing from docs/settings.md"
        assert field.description, f"{name} has no description"
        assert field.description in page, f"{name} is described otherwise in docs/settings.md"


def test_every_variable_that_is_mentioned_exists() -> None:
    known = settings() | OTHER_VARIABLES
    for path, content in texts().items():
        if path.parts[0] == "tests":
            continue
        mentioned = set(re.findall(r"\bSLIPWAY_[A-Z][A-Z_]*[A-Z]\b", content))
        assert mentioned <= known, f"{path} names {', '.join(sorted(mentioned - known))}, which nothing reads"


def test_every_flag_of_serve_is_a_setting() -> None:
    from cli.serve import serve
    from service.config import Settings

    assert inspect.signature(serve).parameters.keys() <= Settings.model_fields.keys()


def metrics() -> set[str]:
    """Names a scraper sees."""
    from service.metrics import Metrics

    return {family.name for family in Metrics(process=False).families()}


def test_every_metric_is_documented() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert metrics() - set(re.findall(r"`(slipway_\w+)`", page)) == set()


def test_every_metric_that_is_mentioned_exists() -> None:
    folders = ("monitoring", "docs", "k8s")
    recorded = {
        name
        for path, content in texts().items()
        for name in re.findall(r"^\s*-? *record: *(\S+)", content, re.MULTILINE)
    }
    for path, content in texts().items():
        if path.parts[0] in folders or path.name == "README.md":
            for name in set(re.findall(r"\bslipway_[a-z_]*[a-z]\b", content)) - recorded - ADAPTED:
                base = re.sub(r"_(bucket|sum|count)$", "", name)
                assert {name, base} & metrics(), f"{path} names {name}, which is not exported"


@pytest.mark.parametrize(
    ("unit", "kinds"), [("_total", {"counter"}), ("_seconds", {"histogram", "gauge"}), ("_info", {"gauge"})]
)
def test_metric_names_carry_their_unit(unit: str, kinds: set[str]) -> None:
    from service.metrics import Metrics

    families = Metrics(process=False).families()
    assert all(family.kind in kinds for family in families if family.name.endswith(unit))
    assert all(family.name.endswith("_total") for family in families if family.kind == "counter")
    assert all(family.name.startswith("slipway_") for family in families)


# --- the shape of the code ---------------------------------------------------------------------------------------


def lengths() -> dict[str, int]:
    """Lines of each function, its docstring not counted."""
    found = {}
    for module, path in modules().items():
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = node.body[0]
                documented = ast.get_docstring(node) is not None
                docstring = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
                found[f"{module}:{node.name}:{node.lineno}"] = (node.end_lineno or 0) - node.lineno + 1 - docstring
    return found


def test_functions_are_short() -> None:
    found = lengths()
    measured = sorted(found.values())
    p90 = statistics.quantiles(measured, n=10)[-1]
    longest = max(found, key=lambda name: found[name])
    print(f"{len(measured)} functions, median {statistics.median(measured):g}, p90 {p90:g}, longest {longest}")
    assert p90 <= 30
    assert found[longest] <= 60, longest


def test_each_test_file_mirrors_a_source_file() -> None:
    # About the repository, not about one file.
    names = "rules end_to_end packaging monitoring k8s readme service/stress"
    whole = {Path(name).with_name(f"test_{Path(name).name}.py").as_posix() for name in names.split()}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        inside = path.relative_to(ROOT / "tests")
        source = ROOT / inside.with_name(inside.name.removeprefix("test_"))
        assert inside.as_posix() in whole or source.exists(), f"{inside} tests no file of that place"


def test_every_source_file_has_its_test_file() -> None:
    missing = []
    for path in modules().values():
        inside = path.relative_to(ROOT)
        expected = inside.with_name(f"test_{inside.name}")
        does_something = any(isinstance(node, ast.FunctionDef) and len(node.body) > 1 for node in ast.walk(tree(path)))
        if does_something and path.name != "base.py" and not (ROOT / "tests" / expected).exists():
            missing.append(f"tests/{expected}")
    assert not missing


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    # Written in halves so that this file does not accuse itself.
    places = ["/wo" + "rk/", "/ro" + "ot/", "/tmp" + "/w/", "/home" + "/"]
    for path, content in texts().items():
        for place in places:
            assert place not in content, f"{path} names {place}"


def test_no_file_names_a_package_index_but_pytorchs() -> None:
    for path, content in texts().items():
        for url in re.findall(r"https?://[^\s\"'`)]*/(?:simple|whl)\b\S*", content):
            assert url.startswith("https://download.pytorch.org/"), f"{path} names {url}"


def test_links_between_pages_lead_somewhere() -> None:
    for path, content in texts().items():
        if path.suffix == ".md":
            for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", content):
                assert (ROOT / path.parent / target).exists(), f"{path} links to {target}"


USERS_OF_ONNXRUNTIME = (
    "inference.backends.onnx",
    "service.metrics",
    "training.export",
    "training.lowering",
    "benchmarks.machine",
)
SHOW_TELEMETRY = """
import importlib, os, sys
importlib.import_module(sys.argv[1])
import onnxruntime
onnxruntime.get_available_providers()
print(os.environ["ORT_DISABLE_TELEMETRY"])
"""


def _telemetry_after(module: str, home: Path, **environ: str) -> str:
    """What the variable is after `module` was imported in a process whose home is `home`."""
    kept = {
        name: value for name, value in os.environ.items() if name not in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    }
    done = subprocess.run(
        [sys.executable, "-c", SHOW_TELEMETRY, module],
        env={**kept, "HOME": str(home), **environ},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.parametrize("module", USERS_OF_ONNXRUNTIME)
def test_onnxruntime_reports_nothing_and_leaves_no_files(module: str, tmp_path: Path) -> None:
    assert _telemetry_after(module, tmp_path) == "1"
    assert not list(tmp_path.rglob("onnxruntime.db"))


def test_who_wants_to_report_may(tmp_path: Path) -> None:
    assert _telemetry_after("inference.backends.onnx", tmp_path, ORT_DISABLE_TELEMETRY="0") == "0"
