"""What deploy/ says, read as the programs read it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "deploy"

_VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::(?P<kind>[-+?])(?P<word>[^}]*))?\}")


@dataclass(frozen=True)
class Stack:
    """The compose file, with variables in place and without."""

    document: dict[str, Any]
    variables: Mapping[str, str]

    @property
    def services(self) -> dict[str, Any]:
        return self.document["services"]

    def resolve(self, text: str) -> str:
        """Puts variables in place, as compose does."""

        def value(match: re.Match[str]) -> str:
            given = self.variables.get(match["name"], "")
            if match["kind"] == "+":
                return match["word"] if given else ""
            if match["kind"] == "-":
                return given or match["word"]
            assert given, f"{match['name']} has no value"
            return given

        return _VARIABLE.sub(value, text)

    def environment(self, service: str) -> dict[str, str]:
        environment = self.services[service].get("environment", {})
        return {name: self.resolve(str(value)) for name, value in environment.items()}

    def networks(self, service: str) -> set[str]:
        return set(self.services[service]["networks"])


def read_yaml(path: str) -> Any:
    return yaml.safe_load((DEPLOY / path).read_text())


def read_variables(*, commented: bool) -> dict[str, str]:
    """Variables of .env.example: those in force, or those shown as comments."""
    pattern = r"^# ([A-Z_]+)=(.*)$" if commented else r"^([A-Z_]+)=(.*)$"
    return dict(re.findall(pattern, (DEPLOY / ".env.example").read_text(), re.MULTILINE))


@pytest.fixture(scope="session")
def stack() -> Stack:
    filled = {"POSTGRES_PASSWORD": "5e1f" * 12, "PANNIER_CACHE_KEY_PEPPER": "a7c3" * 12}
    return Stack(read_yaml("compose.yaml"), read_variables(commented=False) | filled)


@pytest.fixture(scope="session")
def load():
    return read_yaml


@pytest.fixture(scope="session")
def env_example():
    return read_variables


@pytest.fixture(scope="session")
def deploy_folder() -> Path:
    return DEPLOY


@pytest.fixture(scope="session")
def listening(stack: Stack, load, deploy_folder: Path) -> set[tuple[str, int]]:
    """Every host and port in the stack that something listens on."""

    def port(address: str) -> int:
        return int(address.rpartition(":")[2])

    traces, logs = load("collector/traces.yaml"), load("collector/logs.yaml")
    tempo, loki = load("tempo/tempo.yaml"), load("loki/loki.yaml")
    # Those of programs that nothing here tells a port.
    found = {("postgres", 5432), ("redis", 6379), ("prometheus", 9090), ("alertmanager", 9093)}
    for service in ("rag", "cache", "balancer"):
        environment = stack.environment(service)
        for kind in ("GRPC", "HTTP"):
            found.add((service, port(environment[f"PANNIER_{service.upper()}_{kind}_ADDRESS"])))
    for name, configuration in (("collector", traces), ("logs", logs)):
        reader = configuration["service"]["telemetry"]["metrics"]["readers"][0]
        found.add((name, reader["pull"]["exporter"]["prometheus"]["port"]))
    found.add(("collector", port(traces["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"])))
    found.add(("tempo", tempo["server"]["http_listen_port"]))
    receiver = tempo["distributor"]["receivers"]["otlp"]["protocols"]["grpc"]
    found.add(("tempo", port(receiver["endpoint"])))
    found.add(("loki", loki["server"]["http_listen_port"]))
    grafana = re.search(
        r"^http_port = (\d+)$", (deploy_folder / "grafana/grafana.ini").read_text(), 8
    )
    found.add(("grafana", int(grafana[1])))
    standin = re.search(r'"--port", "(\d+)"', (deploy_folder / "Dockerfile").read_text())
    found |= {(each, int(standin[1])) for each in stack.services if each.startswith("standin-")}
    return found
