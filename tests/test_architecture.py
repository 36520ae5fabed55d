"""The floors of the house: who may import whom, and which outside libraries stay where."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import llamacast

SOURCE = Path(llamacast.__file__).parent

# Room -> the rooms it may import from, besides itself. What is not listed is not allowed.
FLOORS: dict[str, set[str]] = {
    "forecast": set(),
    "anomalies": {"forecast"},
    "attention": set(),
    "data.calendar": {"forecast"},
    "data": {"forecast", "data.calendar"},
    "model": {"forecast"},
    "sampling": {"forecast", "model"},
    "evaluation": {"forecast", "data", "data.calendar", "evaluation.neural"},
    "evaluation.neural": {"forecast", "data", "data.calendar", "evaluation"},
    "training": {"forecast", "data", "data.calendar", "model", "sampling"},
    "applied": {
        "forecast",
        "anomalies",
        "attention",
        "data",
        "data.calendar",
        "model",
        "sampling",
    },
    "adapting": {"forecast", "applied", "data", "model", "sampling", "training"},
    "forecaster": {
        "forecast",
        "anomalies",
        "attention",
        "data",
        "model",
        "sampling",
        "training",
        "applied",
        "adapting",
    },
    "text": {"forecast", "data", "data.calendar", "sampling", "training"},
    "exporting": {"forecast", "data.calendar", "model", "sampling"},
    "scaleout": {"forecast", "data", "forecaster", "sampling"},
    "interfaces": {
        "forecast",
        "anomalies",
        "data",
        "data.calendar",
        "evaluation",
        "training",
        "forecaster",
        "exporting",
        "scaleout",
        "text",
    },
    "__main__": {"interfaces"},
    "__init__": {"forecast", "forecaster", "evaluation", "text"},
}

# Libraries that a room must not know.
STRANGERS: dict[str, set[str]] = {
    "data": {"torch", "matplotlib", "typer"},
    "data.calendar": {"torch", "pandas"},
    "model": {"pandas", "pyarrow", "matplotlib", "typer"},
    "sampling": {"pandas", "pyarrow", "matplotlib", "typer"},
    "evaluation": {"torch", "typer"},
    "evaluation.neural": {"typer"},  # its networks are torch's
    "forecast": {"torch", "typer"},
    "anomalies": {"torch", "typer"},
    "attention": {"torch", "typer"},
}

# Each extra is imported in one file only.
ONE_PLACE_ONLY = {
    "lightning_fabric": {
        "training.loop",
        "training.log",
        "training.pretrain",
        "training.finetune",
        "training.search",
        "adapting.finetuning",
        "text.pretraining",
        "text.finetune",
        "text.search",
        "text.tuning",
    },
    "peft": {"training.lora"},
    "sklearn": {"adapting.features", "applied.regression"},
    "holidays": {"data.covariates"},
    "tensorboardX": set(),
    "transformers": {
        "text.language",
        "text.generation",
        "text.likelihood",
        "text.objective",
        "text.pretraining",
        "text.flops",
    },
    "typer": {"interfaces.cli", "interfaces.text_cli", "interfaces.terminal"},
    "fastapi": {
        "interfaces.service.app",
        "interfaces.service.state",
        "interfaces.service.finetunes",
    },
    "starlette": {"interfaces.service.app"},
    "prometheus_client": {"interfaces.service.app", "interfaces.service.state"},
    "pydantic": {
        "interfaces.service.schema",
        "interfaces.service.tables",
        "interfaces.service.jobs",
        "interfaces.mcp",
    },
    "uvicorn": {"interfaces.service.run"},
    "mcp": {"interfaces.mcp"},
    "sktime": {"interfaces.sktime"},
    "darts": {"interfaces.darts"},
    "fev": {"interfaces.fev"},
    "onnxruntime": {"exporting.export"},
    "onnxscript": {"exporting.export"},
    "ray": {"scaleout.on_ray"},
    "pyspark": {"scaleout.on_spark"},
    "statsforecast": {"evaluation.statistical"},
    "joblib": {"evaluation.statistical"},
    "neuralforecast": {"evaluation.neural"},
}


def modules() -> dict[str, ast.Module]:
    return {
        ".".join(path.relative_to(SOURCE).with_suffix("").parts): ast.parse(path.read_text())
        for path in sorted(SOURCE.rglob("*.py"))
    }


def imports(tree: ast.Module) -> set[str]:
    """Full names of all modules imported anywhere in a file, also under TYPE_CHECKING."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room_of(module: str) -> str:
    if module in FLOORS:
        return module
    return module.split(".")[0]


def own(name: str, known: set[str]) -> str | None:
    """The module of ours that an imported name is, or lies in."""
    if not name.startswith("llamacast."):
        return None
    inner = name.removeprefix("llamacast.")
    return inner if inner in known else None


@pytest.fixture(scope="module")
def edges() -> dict[str, set[str]]:
    trees = modules()
    known = set(trees)
    return {
        module: {target for name in imports(tree) if (target := own(name, known))}
        for module, tree in trees.items()
    }


def test_every_module_has_a_floor():
    assert {room_of(module) for module in modules()} <= set(FLOORS)


def test_imports_go_down_only(edges):
    wrong = [
        f"{module} imports {target}"
        for module, targets in edges.items()
        for target in targets
        if room_of(target) not in FLOORS[room_of(module)] | {room_of(module)}
    ]
    assert not wrong


def test_there_is_no_cycle(edges):
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path, module])
        if module not in done:
            for target in edges[module]:
                visit(target, (*path, module))
            done.add(module)

    for module in edges:
        visit(module, ())


def test_libraries_stay_in_their_rooms():
    for module, tree in modules().items():
        roots = {name.split(".")[0] for name in imports(tree)}
        assert not roots & STRANGERS.get(room_of(module), set()), module
        for library, places in ONE_PLACE_ONLY.items():
            assert library not in roots or module in places, module
        if not module.startswith("interfaces"):
            assert "print" not in {
                node.func.id
                for node in ast.walk(tree)
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            }, module


def test_the_checks_can_fail():
    tree = ast.parse("import torch\nfrom llamacast.forecaster import load")
    assert {"torch", "llamacast.forecaster", "llamacast.forecaster.load"} == imports(tree)
    assert own("llamacast.forecaster.load", {"forecaster"}) is None
    assert own("llamacast.forecaster", {"forecaster"}) == "forecaster"
    assert room_of("data.calendar") == "data.calendar"
    assert room_of("data.frame") == "data"


def test_no_junk_drawers():
    names = {Path(module.replace(".", "/")).name for module in modules()}
    assert not names & {"utils", "common", "helpers", "base", "types", "constants", "misc"}
