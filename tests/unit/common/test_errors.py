"""The trees of errors in the docstrings, which are what a reader looks errors up in."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

import services
from services.common import errors as common

SERVICES = Path(services.__file__).parent
MODULES = (
    "services.common.errors",
    *(f"services.{path.parts[-3]}.core.{path.stem}" for path in SERVICES.glob("*/core/*errors.py")),
)
# An error of somebody else's, which has its code and reason from there.
RELAYED = "as the peer said"

_LINE = re.compile(r"^ *(?P<depth>(?:\|   )*)\+-- (?P<name>\w+) +(?P<rest>\S.*?) *$", re.MULTILINE)


def documented(module):
    tree, path = [], {0: "ServiceError"}
    for line in _LINE.finditer(module.__doc__):
        depth = len(line["depth"]) // 4
        path[depth + 1] = line["name"]
        tree.append((path[depth], line["name"], tuple(re.split(" {2,}", line["rest"]))))
    return tree


def defined(module):
    return [
        (
            error.__base__.__name__,
            name,
            (RELAYED,) if error is common.RelayedError else (error.code.name, error.reason),
        )
        for name, error in vars(module).items()
        if inspect.isclass(error)
        and error.__module__ == module.__name__
        and issubclass(error, common.ServiceError)
        and error is not common.ServiceError
    ]


@pytest.mark.parametrize("name", MODULES)
def test_the_docstring_shows_every_error_below_its_parent_with_its_code_and_reason(name):
    module = importlib.import_module(name)
    assert sorted(documented(module)) == sorted(defined(module))


def test_the_services_that_have_errors_of_their_own_are_looked_at():
    assert {"services.balancer.core.errors", "services.rag.core.errors"} < set(MODULES)
