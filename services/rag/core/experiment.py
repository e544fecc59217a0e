"""Experiments: which share of the queries is answered by which settings of the pipeline.

Who gets which variant is a matter of a hash, so every replica decides alike, and the same user or
question gets the same variant for as long as the experiment has its name and shares.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from hashlib import blake2b
from types import MappingProxyType
from typing import Any

from services.rag.core.conversation import Sampling
from services.rag.core.fusion import FusionMethod
from services.rag.core.options import (
    AnswerPolicy,
    ExpansionPolicy,
    Question,
    RerankPolicy,
    RetrievalOptions,
    SearchArms,
    WebPolicy,
)

__all__ = ["Experiment", "ExperimentUnit", "Variant", "applied_to", "parse_experiments"]

_MOST_EXPERIMENTS = 16
_MOST_VARIANTS = 8
_LONGEST_NAME = 64
_HASH_BYTES = 8
_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789._-")
_SLACK = 1e-9


class ExperimentUnit(Enum):
    """What has the same variant each time."""

    TENANT = "tenant"
    USER = "user"
    QUERY = "query"


def _whole(low: int, high: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return value

    return read


def _number(low: float, high: float) -> Callable[[Any], float]:
    def read(value: Any) -> float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not low <= value <= high:
            raise ValueError(f"must be a number from {low:g} to {high:g}")
        return float(value)

    return read


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")  # noqa: TRY004 - told as a value's fault
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value.strip()) <= _LONGEST_NAME:
        raise ValueError(f"must be a text of up to {_LONGEST_NAME} characters")
    return value.strip()


def _one_of(kind: type[Enum]) -> Callable[[Any], Enum]:
    def read(value: Any) -> Enum:
        try:
            return kind(value)
        except ValueError:
            known = ", ".join(str(each.value) for each in kind)
            raise ValueError(f"must be one of {known}") from None

    return read


_RETRIEVAL: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {
        "passage_count": _whole(1, 50),
        "candidate_count": _whole(1, 500),
        "fusion": _one_of(FusionMethod),
        "vector_weight_ratio": _number(0, 1),
        "arms": _one_of(SearchArms),
        "rerank": _one_of(RerankPolicy),
        "expansion": _one_of(ExpansionPolicy),
        "relevance_weight_ratio": _number(0, 1),
        "merge_neighbors": _flag,
        "prefer_recent": _flag,
    }
)
_ANSWER: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {"model": _text, "answer_policy": _one_of(AnswerPolicy), "web": _one_of(WebPolicy)}
)
_SAMPLING: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {"temperature": _number(0, 2), "max_output_token_count": _whole(1, 65_536)}
)
_READERS = {**_RETRIEVAL, **_SAMPLING, **_ANSWER}
_PLAIN_QUESTION = Question(collection="", text="")


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to answer.

    Attributes:
        name: Its name, once in the experiment.
        share: Share of the units that get it, above 0 to 1.
        overrides: Values by name of option; none for the pipeline as it is.
    """

    name: str
    share: float
    overrides: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Experiment:
    """A comparison of ways to answer.

    Attributes:
        name: Its name.
        unit: What has the same variant each time.
        variants: The variants; units beyond their shares have no part in it.
    """

    name: str
    unit: ExperimentUnit
    variants: tuple[Variant, ...]

    def variant_for(self, *, tenant_id: str, user_id: str, query_id: str) -> Variant | None:
        """Returns the variant of a query; None where it has no part.

        Args:
            tenant_id: Who asks.
            user_id: Who of the tenant; where that is not known, each query is a unit of its own.
            query_id: The query.
        """
        unit = [tenant_id]
        if self.unit is ExperimentUnit.QUERY or (self.unit is ExperimentUnit.USER and not user_id):
            unit += ["", query_id]
        elif self.unit is ExperimentUnit.USER:
            unit.append(user_id)
        key = "\0".join((self.name, *unit)).encode()
        place = int.from_bytes(blake2b(key, digest_size=_HASH_BYTES).digest()) / 2 ** (
            8 * _HASH_BYTES
        )
        for variant in self.variants:
            place -= variant.share
            if place < 0:
                return variant
        return None


def applied_to(question: Question, overrides: Mapping[str, Any]) -> Question:
    """Returns a question with a variant's options; what its caller has chosen stays.

    An option counts as chosen where it is not at its default.
    """
    retrieval = _changed(question.retrieval, RetrievalOptions(), _RETRIEVAL, overrides)
    sampling = _changed(question.sampling, Sampling(), _SAMPLING, overrides)
    answer = _changed(question, _PLAIN_QUESTION, _ANSWER, overrides)
    if not (retrieval or sampling or answer):
        return question
    return replace(
        question,
        **answer,
        retrieval=replace(question.retrieval, **retrieval),
        sampling=replace(question.sampling, **sampling),
    )


def _changed(
    given: object,
    default: object,
    known: Mapping[str, Callable[[Any], Any]],
    overrides: Mapping[str, Any],
) -> dict[str, Any]:
    """Returns the overrides that apply to a part of a question."""
    return {
        name: value
        for name, value in overrides.items()
        if name in known and getattr(given, name) == getattr(default, name)
    }


def parse_experiments(text: str) -> tuple[Experiment, ...]:
    """Reads experiments, a JSON list; empty for none.

    An experiment is `{"name", "unit", "variants"}`, a variant `{"name", "share", "overrides"}`.

    Raises:
        ValueError: The text breaks the rules; all places are named.
    """
    if not text.strip():
        return ()
    try:
        listed = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("must be JSON") from None
    if not isinstance(listed, list) or len(listed) > _MOST_EXPERIMENTS:
        raise ValueError(f"must be a JSON list of at most {_MOST_EXPERIMENTS} experiments")
    problems: list[str] = []
    experiments = [_experiment(each, f"[{index}]", problems) for index, each in enumerate(listed)]
    _check_names([each.name for each in experiments], "experiment", problems)
    options = [
        {name for variant in each.variants for name in variant.overrides} for each in experiments
    ]
    for index, names in enumerate(options):
        for other in options[:index]:
            problems += [f"{name} is changed by two experiments" for name in sorted(names & other)]
    if problems:
        raise ValueError("; ".join(problems))
    return tuple(experiments)


def _experiment(value: Any, place: str, problems: list[str]) -> Experiment:
    value = _object(value, {"name", "unit", "variants"}, place, problems)
    unit = ExperimentUnit.USER
    try:
        unit = ExperimentUnit(value.get("unit", unit.value))
    except ValueError:
        problems.append(f"{place}.unit must be tenant, user or query")
    listed = value.get("variants")
    if not isinstance(listed, list) or not 0 < len(listed) <= _MOST_VARIANTS:
        problems.append(f"{place}.variants must be a list of 1 to {_MOST_VARIANTS}")
        listed = []
    variants = tuple(
        _variant(each, f"{place}.variants[{index}]", problems) for index, each in enumerate(listed)
    )
    _check_names([each.name for each in variants], f"{place} variant", problems)
    if sum(each.share for each in variants) > 1 + _SLACK:
        problems.append(f"{place}: the shares are more than 1 together")
    return Experiment(_name(value, place, problems), unit, variants)


def _variant(value: Any, place: str, problems: list[str]) -> Variant:
    value = _object(value, {"name", "share", "overrides"}, place, problems)
    share = value.get("share")
    is_number = isinstance(share, int | float) and not isinstance(share, bool)
    if not is_number or not 0 < share <= 1:
        problems.append(f"{place}.share must be a number above 0 to 1")
        share = 0.0
    given = value.get("overrides", {})
    overrides: dict[str, Any] = {}
    if not isinstance(given, dict):
        problems.append(f"{place}.overrides must be an object")
        given = {}
    for name, setting in given.items():
        read = _READERS.get(name)
        if read is None:
            problems.append(f"{place}.overrides.{name} is none of {', '.join(_READERS)}")
            continue
        try:
            overrides[name] = read(setting)
        except ValueError as error:
            problems.append(f"{place}.overrides.{name} {error}")
    return Variant(_name(value, place, problems), float(share), MappingProxyType(overrides))


def _object(value: Any, known: set[str], place: str, problems: list[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        problems.append(f"{place} must be an object")
        return {}
    problems += [f"{place}.{name} is not known" for name in value if name not in known]
    return value


def _name(value: Mapping[str, Any], place: str, problems: list[str]) -> str:
    name = value.get("name")
    if (
        not isinstance(name, str)
        or not 0 < len(name) <= _LONGEST_NAME
        or not _NAME_CHARACTERS.issuperset(name)
    ):
        problems.append(
            f"{place}.name must have 1 to {_LONGEST_NAME} characters of a-z, 0-9, '.', '_', '-'"
        )
        return ""
    return name


def _check_names(names: list[str], what: str, problems: list[str]) -> None:
    problems += [f"{what} {name!r} is there twice" for name in {*names} if names.count(name) > 1]
