"""What dvc.yaml says of each stage is what its code does: its own modules, its own sections of params.yaml.

DVC believes dvc.yaml: a module that is missing from `deps` leaves stale results behind, and one too many reruns hours
of work.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML

from stages.core.parameter_file import read_parameters
from stages.core.parameters import Parameters

# Modules that no stage has to name, because they cannot change a result, with the reason. Nor does what they import.
EXEMPT = {
    "stages/core/parameters.py": "no field has a default (tested below), so all that it yields is in params.yaml",
    "stages/core/training_parameters.py": "a part of it",
    "stages/core/parameter_file.py": "reads those values and words what is wrong with them",
    "stages/core/runtime.py": "steers the machine only: processes, device, locks",
    "stages/__init__.py": "steers the machine only: Ctrl-C while modules are imported, and a switch of ONNX Runtime",
}
EXEMPT_SECTIONS = {"runtime"}  # steers the machine only
STAGE_COMMAND = re.compile(r"\bpython3? -m stages\.(\w+)")
SECTIONS = set(Parameters.model_fields)


# ---- what the code says


def imported(root: Path, file: str) -> set[str]:
    """The first-party modules that one file imports itself, wherever in it, as paths below `root`."""
    package = Path(file).parent.parts
    names = set()
    for node in ast.walk(ast.parse((root / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return {found for name in names for found in _files(root, name)} - {file}


def _files(root: Path, name: str) -> Iterator[str]:
    """The file of a module, and those of the packages above it that hold code."""
    path = Path(*name.split("."))
    if path.parts[0] != "stages":
        return
    if (root / path).with_suffix(".py").is_file():
        yield path.with_suffix(".py").as_posix()
    for folder in [path, *path.parents]:
        init = folder / "__init__.py"
        if folder.parts and (root / init).is_file() and _has_code(root / init):
            yield init.as_posix()


def _has_code(file: Path) -> bool:
    body = ast.parse(file.read_text(encoding="utf-8")).body
    return any(not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)) for node in body)


def all_imported(root: Path, file: str) -> set[str]:
    """The file and every first-party module that it imports, directly or not; those that are exempt are not entered."""
    found, waiting = set(), [file]
    while waiting:
        module = waiting.pop()
        if module not in found and module not in EXEMPT:
            found.add(module)
            waiting += imported(root, module)
    return found


def sections_read(root: Path, file: str) -> set[str]:
    """The sections of params.yaml that a stage reads: attributes of what it calls `parameters`."""
    return {key.split(".")[0] for key in keys_read(root, file)}


def keys_read(root: Path, file: str) -> set[str]:
    """As above, but single keys, such as `mix.seed`, where a stage reads no more of a section than these."""
    nodes = list(ast.walk(ast.parse((root / file).read_text(encoding="utf-8"))))
    inner = {id(node.value) for node in nodes if isinstance(node, ast.Attribute)}
    texts = [ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute) and id(node) not in inner]
    words = {".".join(text.split(".")[1:3]) for text in texts if text.startswith("parameters.")}
    words = {word for word in words if word.split(".")[0] in SECTIONS - EXEMPT_SECTIONS}
    return {word for word in words if word.split(".")[0] not in words} | {word for word in words if "." not in word}


# ---- what dvc.yaml says


def stage_definitions(pipeline: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], int]]:
    """Name, definition and indent of the lists of each stage that runs a module of `stages`; templates count too."""
    for name, definition in pipeline["stages"].items():
        body = definition.get("do", definition)
        if STAGE_COMMAND.search(str(body["cmd"])):
            yield name, body, 6 if body is definition else 8


def _keys(entries: list[Any]) -> list[str]:
    """Entries of deps or params, which are strings, or mappings of a name to its options."""
    keys = []
    for entry in entries:
        for key, value in entry.items() if isinstance(entry, dict) else [(entry, None)]:
            keys += value if key == "params.yaml" and isinstance(value, list) else [key]
    return keys


# ---- faults


def _difference(place: str, named: dict[str, str], needed: list[str], indent: int) -> Iterator[str]:
    """The fault where `named` (what each entry stands for, and the entry) is not what is `needed`."""
    changes = {"missing": [key for key in needed if key not in named], "not needed": [*named.keys() - set(needed)]}
    if any(changes.values()):
        lines = "\n".join(" " * indent + f"- {named.get(key, key)}" for key in needed)
        faults = "; ".join(f"{change} {', '.join(sorted(keys))}" for change, keys in changes.items() if keys)
        yield f"dvc.yaml, {place}: {faults}. Put there:\n{lines}"


def definition_faults(root: Path) -> list[str]:
    """What is wrong with `deps` and `params` in the dvc.yaml of a repository, each with the lines to paste."""
    assert (root / "dvc.yaml").is_file(), "dvc.yaml is missing"
    faults: list[str] = []
    definitions = list(stage_definitions(YAML(typ="safe", pure=True).load(root / "dvc.yaml")))
    for name, body, indent in definitions:
        modules = sorted({f"stages/{module}.py" for module in STAGE_COMMAND.findall(str(body["cmd"]))})
        absent = [module for module in modules if not (root / module).is_file()]
        if absent:
            faults.append(f"dvc.yaml, stage '{name}': {', '.join(absent)} does not exist.")
            continue
        others = set().union(*(all_imported(root, module) for module in modules)) - set(modules)
        dependencies = {key: key for key in _keys(body.get("deps", [])) if key.endswith(".py")}
        faults += _difference(f"stage '{name}', modules in deps", dependencies, modules + sorted(others), indent)
        listed = _keys(body.get("params", []))
        read = set().union(*(sections_read(root, module) for module in modules))
        keys = set().union(*(keys_read(root, module) for module in modules))
        # A section, or just those of its keys that are read.
        needed = {key for key in keys if key in listed}
        needed |= {section for section in read if not any(key.split(".")[0] == section for key in needed)}
        sections = {key.split(".")[0] if "${" in key else key: key for key in listed}
        faults += _difference(f"stage '{name}', params", sections, sorted(needed), indent)
    return faults or ([] if definitions else ["dvc.yaml has no stage that runs a module of stages."])


def import_faults(root: Path) -> list[str]:
    """Imports of a stage by a stage or by core, imports that are not seen, and parameters that are handed on whole."""
    faults = []
    stages = {path.relative_to(root).as_posix() for path in (root / "stages").glob("*.py")} - {"stages/__init__.py"}
    for path in sorted((root / "stages").rglob("*.py")):
        file = path.relative_to(root).as_posix()
        faults += [f"{file} imports the stage {stage}." for stage in sorted(imported(root, file) & stages)]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Name | ast.Attribute) and ast.unparse(node).endswith(("import_module", "__import__")):
                faults.append(f"{file}, line {node.lineno}: an import by name is not seen by the test of deps.")
            if isinstance(node, ast.FunctionDef) and "= read_parameters(" in ast.unparse(node):
                calls = [call for call in ast.walk(node) if isinstance(call, ast.Call)]
                values = [value for call in calls for value in [*call.args, *(word.value for word in call.keywords)]]
                whole = [value.lineno for value in values if isinstance(value, ast.Name) and value.id == "parameters"]
                faults += [f"{file}, line {line}: hands on all parameters; name the sections." for line in whole]
    return faults


def comment_faults(lines: list[str]) -> list[str]:
    """Keys with a value for which neither they nor their section have a comment, behind them or on the line above."""
    faults = []
    sections: list[tuple[int, bool]] = []  # indent, and whether there is a comment
    for number, line in enumerate(lines):
        key = re.match(r"( *)([\w-]+):(.*)$", line)
        if not key:
            continue
        indent = len(key[1])
        above = re.match(r"( *)#", lines[number - 1]) if number else None
        has_comment = " #" in key[3] or (above is not None and len(above[1]) == indent)
        sections = [section for section in sections if section[0] < indent]
        if key[3].split(" #")[0].strip() and not has_comment and not (sections and sections[-1][1]):
            faults.append(f"params.yaml, line {number + 1}: '{key[2]}' has no comment with its meaning, unit and range.")
        sections.append((indent, has_comment))
    return faults


def fields_with_default(model: type[BaseModel], prefix: str = "") -> list[str]:
    """The fields below a parameter class that may be left out of params.yaml."""
    found = []
    for name, field in model.model_fields.items():
        found += [prefix + name] if not field.is_required() else []
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found += fields_with_default(field.annotation, f"{prefix}{name}.")
    return found


# ---- the repository


def test_deps_and_params_of_every_stage_are_exact(repository: Path) -> None:
    faults = definition_faults(repository)
    assert not faults, "\n\n".join(["", *faults])


def test_stages_and_core_import_no_stage(repository: Path) -> None:
    faults = import_faults(repository)
    assert not faults, "\n".join(["", *faults])


def test_no_parameter_has_a_default() -> None:
    assert fields_with_default(Parameters) == []


def test_every_parameter_is_in_params_yaml(repository: Path) -> None:
    assert set(read_parameters(repository / "params.yaml").model_dump()) == SECTIONS


def test_every_key_of_params_yaml_has_a_comment(repository: Path) -> None:
    faults = comment_faults((repository / "params.yaml").read_text(encoding="utf-8").splitlines())
    assert not faults, "\n".join(["", *faults])


@pytest.mark.parametrize("module", EXEMPT)
def test_exempt_modules_exist(repository: Path, module: str) -> None:
    assert (repository / module).is_file()


# ---- the checks themselves, on a small repository whose faults are known

MODULES = {
    "stages/__init__.py": '"""Only words."""\n',
    "stages/core/__init__.py": '"""Only words."""\n',
    "stages/core/parameters.py": "from stages.core.errors import E\n",
    "stages/core/errors.py": "class E(Exception): ...\n",
    "stages/core/files.py": "def written():\n    from stages.core import deep\n",
    "stages/core/deep.py": "import numpy\n",
    "stages/core/unused.py": "",
    "stages/core/kinds/__init__.py": "KINDS = ['hum']\n",
    "stages/core/kinds/hum.py": "from ..seeds import seed\n",
    "stages/core/seeds.py": "seed = 1\n",
    "stages/mix.py": (
        "import stages.core.files\n"
        "from stages.core.kinds.hum import seed\n"
        "from stages.core.parameters import read_parameters\n"
        "def main():\n"
        "    parameters = read_parameters('params.yaml')\n"
        "    run(parameters.mix.seed, parameters.audio, parameters.runtime.n_jobs)\n"
    ),
    "stages/download.py": "def main():\n    use(parameters.download, parameters.corpora.noise)\n",
}
MIX_DEPS = ["mix.py", "core/deep.py", "core/files.py", "core/kinds/__init__.py", "core/kinds/hum.py", "core/seeds.py"]
DOWNLOAD = {
    "foreach": "${download}",
    "do": {
        "cmd": "python -m stages.download ${key}",
        "deps": ["stages/download.py"],
        "params": ["corpora.${key}", "download.${key}"],
    },
}


def _repository(folder: Path, *, deps: list[str] | None = None, params: list[Any] | None = None, **files: str) -> Path:
    for name, text in (MODULES | files).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    mix = {
        "cmd": "python -m stages.mix",
        "deps": ["data/corpora", *(f"stages/{name}" for name in deps or MIX_DEPS)],
        "params": params or ["audio", "mix"],
    }
    YAML(typ="safe", pure=True).dump({"stages": {"download": DOWNLOAD, "mix": mix}}, folder / "dvc.yaml")
    return folder


@pytest.mark.parametrize("section", ["mix", "mix.seed"])
def test_right_definitions_have_no_faults(tmp_path: Path, section: str) -> None:
    assert definition_faults(_repository(tmp_path, params=[{"params.yaml": [section, "audio"]}])) == []
    assert import_faults(tmp_path) == []


@pytest.mark.parametrize("module", MIX_DEPS)
def test_each_missing_module_is_named_with_the_lines_to_paste(tmp_path: Path, module: str) -> None:
    (fault,) = definition_faults(_repository(tmp_path, deps=[name for name in MIX_DEPS if name != module]))
    assert f"stage 'mix', modules in deps: missing stages/{module}." in fault
    assert fault.endswith("\n" + "\n".join(f"      - stages/{name}" for name in MIX_DEPS))


@pytest.mark.parametrize("module", ["core/unused.py", "core/parameters.py", "core/errors.py", "core/__init__.py"])
def test_each_module_that_is_not_needed_is_named(tmp_path: Path, module: str) -> None:
    (fault,) = definition_faults(_repository(tmp_path, deps=[*MIX_DEPS, module]))
    assert f"not needed stages/{module}." in fault


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        (["mix"], "params: missing audio."),
        (["mix", "audio", "stft"], "params: not needed stft."),
        (["mix", "audio", "runtime"], "params: not needed runtime."),
        (["mix.seeds", "audio"], "params: missing mix; not needed mix.seeds."),
        (["mix", "mix.seed", "audio"], "params: not needed mix."),
    ],
)
def test_wrong_params_are_named(tmp_path: Path, params: list[str], expected: str) -> None:
    (fault,) = definition_faults(_repository(tmp_path, params=params))
    assert expected in fault


def test_a_template_is_checked_too(tmp_path: Path) -> None:
    text = {"stages/download.py": "from stages.core.seeds import seed\nprint(parameters.audio)\n"}
    deps, params = definition_faults(_repository(tmp_path, **text))
    assert deps.endswith("\n        - stages/download.py\n        - stages/core/seeds.py")
    assert "missing audio; not needed corpora, download." in params


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("stages/download.py", "from stages import mix\n", "stages/download.py imports the stage stages/mix.py."),
        ("stages/core/seeds.py", "def f():\n    import stages.mix\n", "stages/core/seeds.py imports the stage"),
        (
            "stages/core/seeds.py",
            "from importlib import import_module\nimport_module('stages.mix')\n",
            "line 2: an import by",
        ),
        (
            "stages/mix.py",
            "def main():\n    parameters = read_parameters(1)\n    run(parameters)\n",
            "line 3: hands on all",
        ),
    ],
)
def test_hidden_and_forbidden_imports_are_found(tmp_path: Path, file: str, text: str, expected: str) -> None:
    (fault,) = import_faults(_repository(tmp_path, **{file: text}))
    assert expected in fault


def test_a_stage_without_a_module_is_found(tmp_path: Path) -> None:
    (_repository(tmp_path) / "stages/mix.py").unlink()
    assert definition_faults(tmp_path) == ["dvc.yaml, stage 'mix': stages/mix.py does not exist."]


def test_a_default_is_found() -> None:
    class Inner(BaseModel):
        seed: int = 1

    class Outer(BaseModel):
        mix: Inner

    assert fields_with_default(Outer) == ["mix.seed"]


def test_a_key_without_comment_is_found() -> None:
    lines = ["mix:", "  seed: 1 # any", "  n: 2", "  # above", "  m: 3", "  low: # why", "    p: 0.1", "  q: [1]"]
    assert [fault.split("'")[1] for fault in comment_faults(lines)] == ["n", "q"]
