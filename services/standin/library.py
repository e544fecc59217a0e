"""The models of one server: those it has, and those it could pull."""

from collections.abc import Iterable

from services.standin.core.catalogue import Model
from services.standin.core.names import ModelName, parse_name
from services.standin.faults import FaultPlan
from services.standin.wire import ApiError


class Library:
    """Models by name.

    Args:
        models: What is installed.
        remote: What can be pulled.
        faults: Which of them are missing at times.
    """

    def __init__(self, models: Iterable[Model], remote: Iterable[Model], faults: FaultPlan) -> None:
        self._models = {model.name.key: model for model in models}
        self._remote = {model.name.key: model for model in remote}
        self._faults = faults

    def find(self, text: str) -> Model | None:
        """The model that a client means by a name; None where it is not here.

        Raises:
            ApiError: The text is not a model name.
        """
        name = read_name(text)
        if self._faults.is_absent(name.key):
            return None
        return self._models.get(name.key)

    def find_remote(self, name: ModelName) -> Model | None:
        """The model of that name that can be pulled, whether it is here or not."""
        return self._remote.get(name.key)

    def newest_first(self) -> list[Model]:
        """The installed models."""
        present = [model for key, model in self._models.items() if not self._faults.is_absent(key)]
        return sorted(present, key=lambda model: model.modified_epoch_seconds, reverse=True)

    def add(self, model: Model) -> None:
        """Install a model, in the place of one of the same name."""
        self._models[model.name.key] = model

    def remove(self, model: Model) -> None:
        """Delete a model; what is loaded stays loaded."""
        self._models.pop(model.name.key, None)


def read_name(text: str) -> ModelName:
    """Complete a model name.

    Raises:
        ApiError: The text is none.
    """
    name = parse_name(text)
    if name is None:
        raise ApiError(400, "invalid model name")
    return name
