import re

import pytest

from services.common.server import CommonSettings

GATE = "processor.tailsamplingprocessor.recordpolicy"
SECTIONS = ("receivers", "processors", "exporters")
PLACES = ("traces.yaml", "logs.yaml")


@pytest.fixture
def traces(load):
    return load("collector/traces.yaml")


@pytest.fixture
def sources(deploy_folder):
    return "\n".join(
        path.read_text() for path in sorted((deploy_folder.parent / "services").rglob("*.py"))
    )


def pipelines(configuration):
    return configuration["service"]["pipelines"]


def policies(traces):
    return {each["name"]: each for each in traces["processors"]["tail_sampling"]["policies"]}


@pytest.mark.parametrize("file", PLACES)
def test_pipelines_use_what_is_declared_and_nothing_is_declared_in_vain(load, file):
    configuration = load(f"collector/{file}")
    connectors = set(configuration.get("connectors", {}))
    for section in SECTIONS:
        used = {name for each in pipelines(configuration).values() for name in each[section]}
        assert used - connectors == set(configuration[section]), section
    assert set(configuration["service"]["extensions"]) == set(configuration["extensions"])


@pytest.mark.parametrize("file", PLACES)
def test_memory_is_limited_before_anything_else_and_below_the_containers(load, stack, file):
    configuration = load(f"collector/{file}")
    service = {"traces.yaml": "collector", "logs.yaml": "logs"}[file]
    limit = stack.services[service]["mem_limit"]
    whole = int(limit[:-1]) * {"m": 1, "g": 1024}[limit[-1]]
    assert configuration["processors"]["memory_limiter"]["limit_mib"] <= 0.8 * whole
    heap = int(stack.environment(service)["GOMEMLIMIT"].removesuffix("MiB"))
    assert heap <= 0.85 * whole
    receiving = [
        each for each in pipelines(configuration).values() if "forward" not in each["receivers"]
    ]
    assert receiving
    assert all(each["processors"][0] == "memory_limiter" for each in receiving)


def test_everything_that_arrives_passes_the_filters_before_a_trace_is_judged(traces):
    arrived, kept = pipelines(traces)["traces/arrived"], pipelines(traces)["traces/kept"]
    assert arrived["exporters"] == kept["receivers"] == ["forward"]
    assert arrived["processors"][1:] == ["filter/operations", "redaction/contents"]
    assert "tail_sampling" not in arrived["processors"]
    # What marks the sampled ones has to follow.
    assert kept["processors"] == ["tail_sampling", "transform/ratio"]


def test_failed_slow_degraded_and_web_traces_are_kept_and_a_tenth_of_the_rest(traces):
    found = policies(traces)
    assert list(found) == ["errors", "slow", "degraded", "web", "rest"]
    assert found["errors"]["status_code"] == {"status_codes": ["ERROR"]}
    assert found["slow"]["latency"] == {"threshold_ms": 5000}
    assert found["degraded"]["boolean_attribute"] == {"key": "app.rag.degraded", "value": True}
    assert found["rest"]["probabilistic"] == {"sampling_percentage": 10}


def test_policies_look_at_what_the_services_record(traces, sources):
    found = policies(traces)
    assert f'"{found["degraded"]["boolean_attribute"]["key"]}"' in sources
    (condition,) = found["web"]["ottl_condition"]["span"]
    attribute = re.fullmatch(r'span\.attributes\["([\w.]+)"\] != nil', condition)[1]
    assert f'"{attribute}"' in sources


def test_a_decision_waits_for_the_longest_answer(traces):
    sampling = traces["processors"]["tail_sampling"]
    longest = CommonSettings.__dataclass_fields__["default_deadline_seconds"].default
    assert float(sampling["decision_wait"].removesuffix("s")) > longest
    assert min(sampling["decision_cache"].values()) > sampling["num_traces"]


def test_tempo_is_told_what_share_of_traces_is_kept(traces, load, stack):
    found = policies(traces)
    share = found["rest"]["probabilistic"]["sampling_percentage"] / 100
    (group,) = traces["processors"]["transform/ratio"]["trace_statements"]
    (statement,) = group["statements"]
    key, ratio, policy = re.fullmatch(
        r'set\(span\.attributes\["([\w.]+)"\], ([\d.]+)\) where '
        r'instrumentation_scope\.attributes\["tailsampling\.policy"\] == "(\w+)"',
        statement,
    ).groups()
    assert (float(ratio), policy) == (share, "rest")
    # Were more than one policy looked at, the last of them would not be the only one.
    assert list(found)[-1] == policy
    assert traces["processors"]["tail_sampling"]["sample_on_first_match"]
    assert f"--feature-gates={GATE}" in stack.services["collector"]["command"]
    for processor in load("tempo/tempo.yaml")["metrics_generator"]["processor"].values():
        assert processor["span_multiplier_key"] == key


def test_contents_are_masked_and_what_the_services_record_is_not(traces, sources):
    redaction = traces["processors"]["redaction/contents"]
    blocked = [re.compile(each) for each in redaction["blocked_key_patterns"]]

    def is_blocked(key):
        return any(each.search(key) for each in blocked)

    for key in (
        *("gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions"),
        *("gen_ai.retrieval.query.text", "gen_ai.retrieval.documents", "gen_ai.prompt.0.content"),
        *("db.query.text", "url.query", "http.request.header.authorization", "app.api_key"),
        *("password", "user.password", "x-api-key"),
    ):
        assert is_blocked(key), key
    recorded = set(re.findall(r'"((?:app|gen_ai|db|rpc|server|http|error)\.[a-z_.]+)"', sources))
    assert {"gen_ai.usage.input_tokens", "app.rag.degraded", "app.tenant"} <= recorded
    assert [key for key in sorted(recorded) if is_blocked(key)] == []


@pytest.mark.parametrize(
    ("value", "left"),
    [
        ("postgresql://pannier:5e1f@postgres:5432/pannier", "postgresql****postgres:5432/pannier"),
        ("Bearer abcdefgh12345678", "****"),
        ("asked by anna.b@example.org", "asked by ****"),
        ("http://standin-1:11434/api/chat", "http://standin-1:11434/api/chat"),
        ("pannier.rag.v1.RagService/StreamQuery", "pannier.rag.v1.RagService/StreamQuery"),
        ("hf.co/bartowski/Llama-3.2-1B-Instruct-GGUF:Q4_K_M",) * 2,
        ("llama3.2@sha256:0a1b",) * 2,
    ],
)
def test_secrets_in_values_are_masked_and_names_are_not(traces, value, left):
    for pattern in traces["processors"]["redaction/contents"]["blocked_values"]:
        value = re.sub(pattern, "****", value)
    assert value == left


@pytest.mark.parametrize(
    ("name", "dropped"),
    [
        ("grpc.health.v1.Health/Check", True),
        ("grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", True),
        ("pannier.rag.v1.RagService/Query", False),
    ],
)
def test_checks_of_health_leave_no_traces(traces, name, dropped):
    conditions = traces["processors"]["filter/operations"]["trace_conditions"]
    patterns = [
        match[1].replace("\\\\", "\\")
        for each in conditions
        if (match := re.fullmatch(r'IsMatch\(span\.[\w."\[\]]+, "(.*)"\)', each))
    ]
    assert len(patterns) == 2
    assert all(bool(re.search(each, name)) is dropped for each in patterns)


def test_only_marked_containers_are_read_and_every_service_is_marked(load, stack):
    operators = load("collector/logs.yaml")["receivers"]["file_log/containers"]["operators"]
    (pattern,) = [each["regex"] for each in operators if each["type"] == "regex_parser"]
    expression = next(each["expr"] for each in operators if each["type"] == "filter")
    prefix = re.search(r'startsWith "([^"]+)"', expression)[1]
    tags = {
        name: each["logging"]["options"]["tag"]
        for name, each in stack.services.items()
        if "tag" in each["logging"]["options"]
    }
    assert set(tags) == {"rag", "cache", "balancer"}
    for name, tag in tags.items():
        assert tag.startswith(prefix)
        assert re.fullmatch(pattern, tag)["service"] == name
        assert stack.services[name]["logging"]["driver"] == "json-file"


def test_fields_of_a_line_are_those_that_the_services_write(load, sources):
    operators = load("collector/logs.yaml")["receivers"]["file_log/containers"]["operators"]
    fields = set(re.findall(r"attributes\.line\.(\w+)", str(operators)))
    assert fields == {"level", "trace_id", "span_id"}
    for field in fields:
        assert f'"{field}":' in sources or f'line["{field}"]' in sources
