"""Reading params.yaml, and saying in one sentence what is wrong with it."""

import difflib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.core.errors import DenoisingError, sentence
from stages.core.parameters import Parameters


class ParameterError(DenoisingError):
    """A parameter file that cannot be read, or a value in it that cannot be used."""


def read_parameters(path: Path) -> Parameters:
    """The parameters in the YAML 1.2 file `path`.

    Raises:
        ParameterError: the file is absent or no YAML, or a value is unknown, of the wrong type or out of range; the
            message names each such key, what was expected and what was found.
    """
    try:
        values = YAML(typ="safe", pure=True).load(path)
    except FileNotFoundError:
        raise ParameterError(f"{path} is missing: run from the root of the repository.") from None
    except (YAMLError, ValueError, RecursionError) as error:
        raise ParameterError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(values, dict):
        raise ParameterError(f"{path}: expected sections such as 'mix:' and 'model:', found {type(values).__name__}.")
    try:
        return Parameters.model_validate(values)
    except ValidationError as error:
        problems = [_sentence(detail["type"], detail["loc"], detail["msg"], detail["input"]) for detail in error.errors()]
        raise ParameterError(sentence(f"{path}: {'; '.join(problems)}")) from None


def _sentence(kind: str, location: tuple[int | str, ...], message: str, found: Any) -> str:
    key = ".".join(str(part) for part in location)
    if kind == "extra_forbidden":
        known = _keys(location[:-1])
        near = difflib.get_close_matches(str(location[-1]), known, n=1)
        return f"{key} is not a parameter; " + (f"did you mean '{near[0]}'?" if near else f"known are {', '.join(known)}")
    if kind == "missing":
        return f"{key} is missing"
    message = message.removeprefix("Value error, ")
    if kind == "value_error":
        return f"{key}: {message}" if key else message
    return f"{key}: {message[0].lower()}{message[1:]}, found {found!r}"


def _keys(location: tuple[int | str, ...]) -> list[str]:
    section: type[BaseModel] = Parameters
    for part in location:
        inner = section.model_fields[str(part)].annotation
        assert isinstance(inner, type)
        assert issubclass(inner, BaseModel)
        section = inner
    return sorted(section.model_fields)
