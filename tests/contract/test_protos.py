"""The protos, the stubs, the servicers and the errors agree with each other."""

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

from pannier.common.v1 import error_reason_pb2
from services.common.errors import RelayedError, ServiceError

ROOT = Path(__file__).resolve().parents[2]
PROTOS = sorted((ROOT / "protos").rglob("*.proto"))
SERVICES = {
    "pannier.balancer.v1.balancer_service": {
        "BalancerService": "services.balancer.servicer",
        "BalancerAdminService": "services.balancer.admin_servicer",
    },
    "pannier.cache.v1.cache_service": {"CacheService": "services.cache.servicer"},
    "pannier.cache.v1.cache_admin_service": {"CacheAdminService": "services.cache.admin_servicer"},
    "pannier.rag.v1.rag_service": {"RagService": "services.rag.servicer"},
    "pannier.rag.v1.corpus_service": {"CorpusService": "services.rag.corpus_servicer"},
    "pannier.rag.v1.usage_service": {
        "UsageService": "services.rag.usage_servicer",
        "UsageAdminService": "services.rag.usage_servicer",
    },
    "pannier.rag.v1.evaluation_service": {"EvaluationService": "services.rag.evaluation_servicer"},
}

# Once is not the same as twice: they give or end a lease, count, or add to a conversation.
NOT_IDEMPOTENT = {
    *("LookupInference", "StreamInference", "FillInference", "ReleaseLease"),
    *("ReportOutcome", "RagService.Chat"),
}

METHODS = [
    (proto, service, module, method.name)
    for proto, services in SERVICES.items()
    for service, module in services.items()
    for method in importlib.import_module(f"{proto}_pb2")
    .DESCRIPTOR.services_by_name[service]
    .methods
]


def test_every_service_of_the_protos_is_known_here():
    declared = {
        name
        for proto in PROTOS
        for name in re.findall(r"^service (\w+)", proto.read_text(), re.MULTILINE)
    }
    assert declared == {name for services in SERVICES.values() for name in services}


@pytest.mark.parametrize(("proto", "service", "module", "method"), METHODS)
def test_every_declared_rpc_is_implemented(proto, service, module, method):
    base = getattr(importlib.import_module(f"{proto}_pb2_grpc"), f"{service}Servicer")
    implementations = [
        value
        for _, value in inspect.getmembers(importlib.import_module(module), inspect.isclass)
        if issubclass(value, base) and value is not base
    ]
    assert len(implementations) == 1
    assert method in vars(implementations[0])


@pytest.mark.parametrize(("proto", "service", "module", "method"), METHODS)
def test_only_what_deletes_leases_or_counts_is_without_an_idempotency_level(
    proto, service, module, method
):
    descriptor = (
        importlib.import_module(f"{proto}_pb2")
        .DESCRIPTOR.services_by_name[service]
        .methods_by_name[method]
    )
    known = not NOT_IDEMPOTENT.isdisjoint({method, f"{service}.{method}"})
    once_only = method.startswith("Delete") or known
    assert bool(descriptor.GetOptions().idempotency_level) != once_only


@pytest.mark.parametrize("proto", PROTOS, ids=lambda path: path.stem)
def test_no_service_imports_another_services_protos(proto):
    own = proto.parent.parent.name
    imported = set(re.findall(r'^import "pannier/(\w+)/', proto.read_text(), re.MULTILINE))
    assert imported <= {own, "common"}


@pytest.mark.parametrize("proto", PROTOS, ids=lambda path: path.stem)
def test_every_field_says_who_sets_it(proto):
    lines = proto.read_text().splitlines()
    inside = ""
    for number, line in enumerate(lines):
        opened = re.match(r"\s*(message|enum|oneof|service|rpc) ?(\w*)", line)
        if opened and line.rstrip().endswith("{"):
            inside = opened[1]
        if inside != "message" or not re.match(
            r"  (optional |repeated |map<)?[\w.<>, ]+ = \d+;", line
        ):
            continue
        start = number
        while lines[start - 1].strip().startswith("//"):
            start -= 1
        comment = lines[start].strip()
        assert re.match(r"// (REQUIRED|OPTIONAL|OUTPUT ONLY)\b", comment), f"{proto}:{number + 1}"


def error_classes():
    for package in ("common", "balancer", "cache", "rag"):
        root = importlib.import_module(f"services.{package}")
        for module in pkgutil.walk_packages(root.__path__, f"services.{package}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)

    def subclasses(parent):
        for child in parent.__subclasses__():
            yield child
            yield from subclasses(child)

    return {each for each in subclasses(ServiceError) if each.__module__.startswith("services.")}


def test_every_error_has_a_declared_reason_and_every_reason_an_error():
    declared = {
        name.removeprefix("ERROR_REASON_")
        for name in error_reason_pb2.ErrorReason.DESCRIPTOR.values_by_name
        if name != "ERROR_REASON_UNSPECIFIED"
    }
    # Those whose subclasses are raised in their stead, and what a peer said.
    abstract = {parent for each in error_classes() for parent in each.__mro__[1:]}
    raised = {each.reason for each in error_classes() - abstract - {RelayedError}}
    assert raised | {"INTERNAL"} == declared


def test_every_reason_has_a_worked_example_of_its_own():
    text = (ROOT / "protos/pannier/common/v1/error_reason.proto").read_text()
    for name in error_reason_pb2.ErrorReason.DESCRIPTOR.values_by_name:
        reason = name.removeprefix("ERROR_REASON_")
        if reason != "UNSPECIFIED":
            assert f'Example: {{"reason": "{reason}"' in text
