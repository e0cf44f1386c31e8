"""The shape of the code and of its documents: sizes, anatomy, names, and words in README.md that must be true."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "stages").rglob("*.py"))
STAGES = [module for module in MODULES if re.fullmatch(r"stages/[a-z]\w*\.py", module)]
DOCUMENTS = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"]
MAX_MODULE_LINES = 300
MAX_FUNCTION_LINES = 60
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "common", "lib", "misc"}
FILE_SUFFIXES = {".py", ".md", ".toml", ".txt", ".yaml", ".lock", ".json", ".jsonl", ".csv", ".wav", ".safetensors", ".onnx"}


# ---- code


def size_faults(source: str) -> list[str]:
    """Modules and functions that are too long to be read at once."""
    n_lines = len(source.splitlines())
    faults = [f"{n_lines} lines, at most {MAX_MODULE_LINES}: split it"] if n_lines > MAX_MODULE_LINES else []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            n_lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if n_lines > MAX_FUNCTION_LINES:
                faults.append(f"{node.name} has {n_lines} lines, at most {MAX_FUNCTION_LINES}: split it")
    return faults


def docstring_faults(source: str) -> list[str]:
    """Public modules, classes, functions and methods without a docstring."""
    tree = ast.parse(source)
    faults = [] if ast.get_docstring(tree) else ["the module has no docstring"]
    return faults + [f"{name} has no docstring" for name in _undocumented(tree, "")]


def _undocumented(parent: ast.Module | ast.ClassDef, prefix: str) -> Iterator[str]:
    for node in parent.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            if not ast.get_docstring(node):
                yield prefix + node.name
            if isinstance(node, ast.ClassDef):
                yield from _undocumented(node, f"{prefix}{node.name}.")


def catching_faults(source: str) -> list[str]:
    """Handlers that catch whatever comes."""
    faults = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ExceptHandler):
            kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            names = {ast.unparse(kind) if kind else "everything" for kind in kinds}
            wide = names & {"everything", "Exception", "BaseException"}
            faults += [f"line {node.lineno} catches {name}: name the errors that are meant" for name in wide]
    return faults


def anatomy_faults(source: str) -> list[str]:
    """What a stage lacks of the anatomy that all stages share."""
    tree = ast.parse(source)
    words = [word for word in ("Reads", "Writes", "Params") if f"{word}:" not in (ast.get_docstring(tree) or "")]
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    faults = [f"the docstring has no line '{word}: …'" for word in words]
    return faults + [f"there is no function {name}" for name in ("run", "main") if name not in functions]


def third_party_imports(source: str) -> set[str]:
    """The packages outside the standard library and this project that a module imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - {"stages"}


@pytest.mark.parametrize("module", MODULES)
def test_module_is_short_documented_and_catches_what_it_means(module: str) -> None:
    source = (ROOT / module).read_text(encoding="utf-8")
    faults = size_faults(source) + docstring_faults(source) + catching_faults(source)
    assert not faults, "\n".join(["", *(f"{module}: {fault}" for fault in faults)])


@pytest.mark.parametrize("module", STAGES)
def test_stage_has_the_anatomy_of_a_stage(module: str) -> None:
    faults = anatomy_faults((ROOT / module).read_text(encoding="utf-8"))
    assert not faults, "\n".join(["", *(f"{module}: {fault}" for fault in faults)])


def test_there_are_stages() -> None:
    assert STAGES


def test_no_module_has_an_empty_name() -> None:
    assert [module for module in MODULES if EMPTY_NAMES & set(Path(module).with_suffix("").parts)] == []


def test_everything_imported_is_a_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = {_normal(re.match(r"[\w.-]+", line)[0]) for line in project["dependencies"]}  # type: ignore[index]
    homes = packages_distributions()
    imported = set().union(*(third_party_imports((ROOT / module).read_text(encoding="utf-8")) for module in MODULES))
    absent = {name for name in imported if not named & {_normal(home) for home in homes.get(name, [name])}}
    optional = {"jaxtyping"} & {_normal(line) for line in project["optional-dependencies"]["test"]}
    assert absent - optional == set(), "add them to the dependencies in pyproject.toml, and to constraints.txt"


def test_every_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = project["dependencies"] + [line for extra in project["optional-dependencies"].values() for line in extra]
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pinned = {_normal(line.split("==")[0]): line.split("==")[1] for line in text.splitlines() if re.match(r"\w", line)}
    assert {_normal(re.match(r"[\w.-]+", line)[0]) for line in lines} <= set(pinned)  # type: ignore[index]
    assert [name for name, version in pinned.items() if "+" in version or name.startswith("nvidia-")] == []


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


# ---- documents


def read(document: str) -> str:
    """The text of a document at the root; it must be there."""
    path = ROOT / document
    assert path.is_file(), f"{document} is missing"
    return path.read_text(encoding="utf-8")


def section(text: str, heading: str) -> str:
    """What stands under a heading of the second level, up to the next."""
    found = re.search(rf"^## {re.escape(heading)}\s*$(.*?)(?=^## |\Z)", text, flags=re.MULTILINE | re.DOTALL)
    return found[1] if found else ""


def file_map_faults(text: str, modules: list[str], exists: Callable[[str], bool]) -> list[str]:
    """Modules that the file map leaves out, and files that it names but that are not there."""
    files = re.findall(r"[\w./-]*\w\.(?:py|md|toml|txt)\b", section(text, "File map"))
    if not files:
        return ["there is no section '## File map' that names files"]
    homes = ["", "stages/", "stages/core/", "stages/core/corpora/", "tests/"]
    named = {home + file.removeprefix("./") for file in files for home in homes}
    faults = [f"the file map leaves out {module}" for module in modules if module not in named]
    gone = [file for file in files if not any(exists(home + file.removeprefix("./")) for home in homes)]
    return faults + [f"the file map names {file}, which does not exist" for file in gone]


def goals_named(text: str) -> set[str]:
    """The goals of the lines in fenced blocks that call make."""
    goals: set[str] = set()
    for block in re.findall(r"^```[^\n]*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
        for line in re.findall(r"^\s*(?:\$ )?make\b([^#\n]*)", block, flags=re.MULTILINE):
            goals |= {word for word in line.split() if re.fullmatch(r"[a-z][a-z-]*", word)}
    return goals


def keys_named(text: str, sections: set[str]) -> set[str]:
    """The keys of params.yaml in backticks, and those that a command sets with -S."""
    words = re.findall(r"`([a-z_]\w*(?:\.\w+)+)(?:=[^`]*)?`", text) + re.findall(r"-S '?\"?([a-z_][\w.]*)=", text)
    return {word for word in words if word.split(".")[0] in sections and Path(word).suffix not in FILE_SUFFIXES}


def links(text: str) -> set[str]:
    """The files that a document links to, without anchors and addresses on the net."""
    targets = re.findall(r"\]\(<?([^)\s>]+)>?[^)]*\)", text)
    return {target.split("#")[0] for target in targets if not re.match(r"[a-z]+:", target)} - {""}


def has_key(params: dict[str, Any], key: str) -> bool:
    """Whether a dotted key is in the parameters."""
    value: Any = params
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            return False
        value = value[part]
    return True


def test_file_map_of_readme_is_complete_and_true() -> None:
    modules = [module for module in MODULES if not module.endswith("__init__.py")]
    faults = file_map_faults(read("README.md"), modules, lambda file: (ROOT / file).is_file())
    assert not faults, "\n".join(["", *faults])


@pytest.mark.parametrize("document", DOCUMENTS)
def test_goals_of_make_exist(document: str) -> None:
    goals = set(re.findall(r"^([a-z][\w-]*):(?!=)", read("Makefile"), flags=re.MULTILINE))
    assert goals_named(read(document)) <= goals


@pytest.mark.parametrize("document", DOCUMENTS)
def test_named_parameters_exist(document: str) -> None:
    params = YAML(typ="safe", pure=True).load(ROOT / "params.yaml")
    assert [key for key in sorted(keys_named(read(document), set(params))) if not has_key(params, key)] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_linked_files_exist(document: str) -> None:
    assert [link for link in sorted(links(read(document))) if not (ROOT / link).exists()] == []


# ---- the checks themselves


def test_long_code_is_found() -> None:
    assert size_faults("x = 1\n" * 300) == []
    assert size_faults("x = 1\n" * 301) == ["301 lines, at most 300: split it"]
    assert size_faults("def f():\n" + "    x = 1\n" * 59) == []
    assert size_faults("def f():\n" + "    x = 1\n" * 60) == ["f has 61 lines, at most 60: split it"]


def test_missing_docstrings_are_found() -> None:
    source = "class A:\n    '''Yes.'''\n    def b(self): ...\n    def _c(self): ...\ndef _d(): ...\ndef e(): ...\n"
    faults = ["the module has no docstring", "A.b has no docstring", "e has no docstring"]
    assert docstring_faults(source) == faults


@pytest.mark.parametrize(
    ("clause", "n_faults"), [("", 1), ("Exception", 1), ("(OSError, BaseException)", 1), ("(OSError, ValueError)", 0)]
)
def test_wide_handlers_are_found(clause: str, n_faults: int) -> None:
    assert len(catching_faults(f"try:\n    pass\nexcept {clause}:\n    pass\n")) == n_faults


def test_missing_anatomy_is_found() -> None:
    assert anatomy_faults("'''Mixes.\n\nReads: a.\nWrites: b.\nParams: c.\n'''\ndef run(): ...\ndef main(): ...\n") == []
    assert anatomy_faults("'''Reads: a. Writes: b.'''\ndef run(): ...\n") == [
        "the docstring has no line 'Params: …'",
        "there is no function main",
    ]


def test_undeclared_imports_are_found() -> None:
    assert third_party_imports("import os, numpy.fft\ndef f():\n    from torch import nn\nfrom stages.core import x\n") == {
        "numpy",
        "torch",
    }


def test_faults_of_documents_are_found() -> None:
    text = "## File map\n\n| `stages/mix.py` | `gone.py` |\n\n## Use\n\n```\nmake test -j PYTHON=x # why\n$ make\n```\n"
    faults = file_map_faults(text, ["stages/mix.py", "stages/core/files.py"], lambda file: file == "stages/mix.py")
    assert faults == [
        "the file map leaves out stages/core/files.py",
        "the file map names gone.py, which does not exist",
    ]
    assert file_map_faults("## Files\n", [], lambda _: True) == ["there is no section '## File map' that names files"]
    assert goals_named(text) == {"test"}
    assert keys_named("`mix.n` `mix.low.p=1` `mix.py` `np.pi` -S 'mix.x=1,2'", {"mix"}) == {
        "mix.n",
        "mix.low.p",
        "mix.x",
    }
    assert links("[a](b.md#c) [d](https://e.f) [g](#h) ![i](j.png 'k')") == {"b.md", "j.png"}
    assert has_key({"a": {"b": 0}}, "a.b")
    assert not has_key({"a": {"b": 0}}, "a.b.c")


def test_results_in_readme_are_those_of_the_last_run() -> None:
    """Another processor rounds differently, and training amplifies that, so figures may differ a little."""
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "params.yaml"], cwd=ROOT, check=False).returncode
    metrics = ROOT / "metrics" / "evaluate.json"
    if changed or not metrics.is_file():
        pytest.skip("the last run had parameters of its own, or there was none")
    sets = json.loads(metrics.read_text(encoding="utf-8"))["sets"]
    block = re.search(r"<!-- results: .*? -->\n```text\n(.*?)```", read("README.md"), re.DOTALL)
    assert block
    header, *rows = block[1].splitlines()
    tolerance = {"snr_db": 0.5, "si_sdr_db": 0.7, "pesq_wb": 0.15, "stoi": 0.03, "estoi": 0.03}
    assert header.split() == ["items", *tolerance]
    assert len(rows) == 4
    for row in rows:
        name, system, n_items, *values = row.split()
        assert sets[name][system]["n_items"] == int(n_items)
        for (metric, most), value in zip(tolerance.items(), values, strict=True):
            assert float(value) == pytest.approx(sets[name][system][metric], abs=most), f"{name} {system} {metric}"
