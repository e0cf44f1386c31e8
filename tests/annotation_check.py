"""The check that conftest.py puts around every function of stages.core; jaxtyping imports it by name."""

from typing import Self

from beartype import BeartypeConf, FrozenDict, beartype

# A whole number will do for a float, as for every type checker (PEP 484). `Self` is not looked into: beartype takes it
# in decorated classes only, and what is decorated here are functions.
checked = beartype(conf=BeartypeConf(is_pep484_tower=True, hint_overrides=FrozenDict({Self: object})))
