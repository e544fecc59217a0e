"""Hosts, ports, names and intervals that several files of deploy/ have to agree on."""

import json
import re

import pytest

STACK_UIDS = {"prometheus", "tempo", "loki", "alertmanager"}


@pytest.fixture
def sources(load):
    found = load("grafana/provisioning/datasources/pannier.yaml")["datasources"]
    return {each["uid"]: each for each in found}


@pytest.fixture
def scrapes(load):
    return load("prometheus/prometheus.yaml")


def addresses(text, hosts):
    """Finds `host:port` with a host of the stack."""
    found = re.findall(r"(?<![\w.@/-])(?:https?://|redis://|@)?([a-z][\w-]*):(\d{2,5})\b", text)
    found += re.findall(r"(?:://|@)([a-z][\w-]*):(\d{2,5})\b", text)
    return {(host, int(port)) for host, port in found if host in hosts}


def written_by(stack, deploy_folder):
    """Who connects where: what each container's environment and mounted files name."""
    texts = {
        name: " ".join([*stack.environment(name).values(), *service.get("command", [])])
        for name, service in stack.services.items()
    }
    texts["rag"] = texts["rag"].replace("postgresql://pannier:", "postgresql://pannier-")
    for name, file in (
        ("collector", "collector/traces.yaml"),
        ("logs", "collector/logs.yaml"),
        ("tempo", "tempo/tempo.yaml"),
        ("loki", "loki/loki.yaml"),
        ("prometheus", "prometheus/prometheus.yaml"),
        ("grafana", "grafana/provisioning/datasources/pannier.yaml"),
    ):
        texts[name] += " " + (deploy_folder / file).read_text()
    hosts = set(stack.services)
    return {name: addresses(text, hosts) for name, text in texts.items()}


def test_whoever_is_named_listens_there(stack, listening, deploy_folder):
    named = written_by(stack, deploy_folder)
    assert named["rag"] == {
        *(("postgres", 5432), ("cache", 50052), ("balancer", 50053), ("collector", 4317)),
    }
    assert len(named["balancer"]) == 9
    for name, targets in named.items():
        assert targets <= listening, f"{name}: {targets - listening}"


def test_whoever_connects_shares_a_network_with_the_other_side(stack, deploy_folder):
    for name, targets in written_by(stack, deploy_folder).items():
        for host, _ in targets:
            assert host == name or stack.networks(name) & stack.networks(host), f"{name} to {host}"


def test_stores_are_out_of_reach_for_those_that_have_no_business_with_them(stack):
    assert {name for name in stack.services if "data" in stack.networks(name)} == {
        *("rag", "cache", "postgres", "redis"),
    }
    for name in ("core", "data", "telemetry"):
        assert stack.document["networks"][name] == {"internal": True}


def test_prometheus_scrapes_each_service_where_it_shows_its_metrics(scrapes, stack, listening):
    targets = {
        job["job_name"]: [target for each in job["static_configs"] for target in each["targets"]]
        for job in scrapes["scrape_configs"]
    }
    for name in ("rag", "cache", "balancer"):
        port = stack.environment(name)[f"PANNIER_{name.upper()}_HTTP_ADDRESS"].rpartition(":")[2]
        assert targets[name] == [f"{name}:{port}"]
    for target in (each for several in targets.values() for each in several):
        host, _, port = target.rpartition(":")
        assert (host, int(port)) in listening | {("localhost", 9090)}, target


def test_grafana_counts_with_the_interval_of_scrapes(scrapes, sources):
    assert sources["prometheus"]["jsonData"]["timeInterval"] == scrapes["global"]["scrape_interval"]


def test_prometheus_takes_what_tempo_counts_and_keeps_exemplars(stack, load):
    command = stack.services["prometheus"]["command"]
    assert "--web.enable-remote-write-receiver" in command
    assert "--enable-feature=exemplar-storage" in command
    (write,) = load("tempo/tempo.yaml")["metrics_generator"]["storage"]["remote_write"]
    assert write == {"url": "http://prometheus:9090/api/v1/write", "send_exemplars": True}


def test_data_sources_have_the_uids_that_everything_names(sources, deploy_folder):
    assert set(sources) == STACK_UIDS
    text = (deploy_folder / "grafana/provisioning/datasources/pannier.yaml").read_text()
    named = re.findall(r"(?:datasourceUid|alertmanagerUid): (\w+)", text)
    assert len(named) == 6
    assert set(named) <= STACK_UIDS
    assert [uid for uid, each in sources.items() if each.get("isDefault")] == ["prometheus"]
    assert not any(each["editable"] for each in sources.values())


def test_dashboards_use_data_sources_that_there_are(sources, deploy_folder):
    files = sorted((deploy_folder.parent / "dashboards").glob("*.json"))
    assert files
    kinds = {each["type"] for each in sources.values()}
    for file in files:
        dashboard = json.loads(file.read_text())
        variables = {
            each["name"]: each["query"]
            for each in dashboard["templating"]["list"]
            if each["type"] == "datasource"
        }
        assert set(variables.values()) <= kinds, file.name
        used = set(re.findall(r'"uid": "(\$\{\w+\}|\w+)"', json.dumps(dashboard["panels"])))
        for uid in used:
            name = uid.strip("${}")
            assert name in (variables if uid.startswith("$") else sources), f"{file.name}: {uid}"


def test_grafana_finds_its_dashboards_and_its_first_page(load, stack, deploy_folder):
    (provider,) = load("grafana/provisioning/dashboards/pannier.yaml")["providers"]
    folder = provider["options"]["path"]
    assert f"../dashboards:{folder}:ro" in stack.services["grafana"]["volumes"]
    assert not provider["allowUiUpdates"]
    ini = (deploy_folder / "grafana/grafana.ini").read_text()
    first = re.search(rf"^default_home_dashboard_path = {folder}/(\S+)$", ini, re.MULTILINE)[1]
    assert (deploy_folder.parent / "dashboards" / first).is_file()


def test_traces_logs_and_metrics_lead_to_each_other(sources, load):
    (exemplars,) = sources["prometheus"]["jsonData"]["exemplarTraceIdDestinations"]
    generator = load("tempo/tempo.yaml")["overrides"]["defaults"]["metrics_generator"]
    assert exemplars["name"] == generator["trace_id_label_name"] == "trace_id"
    assert exemplars["datasourceUid"] == "tempo"
    tempo = sources["tempo"]["jsonData"]
    assert tempo["tracesToLogsV2"]["datasourceUid"] == "loki"
    assert 'trace_id = "$${__trace.traceId}"' in tempo["tracesToLogsV2"]["query"]
    assert tempo["serviceMap"]["datasourceUid"] == "prometheus"
    assert tempo["nodeGraph"]["enabled"]
    for each in tempo["tracesToMetrics"]["queries"]:
        assert "{$$__tags}" in each["query"]
    (derived,) = sources["loki"]["jsonData"]["derivedFields"]
    assert (derived["matcherType"], derived["matcherRegex"]) == ("label", "trace_id")
    assert derived["datasourceUid"] == "tempo"


def test_span_metrics_are_named_as_tempo_names_them(sources, load, deploy_folder):
    enabled = load("tempo/tempo.yaml")["overrides"]["defaults"]["metrics_generator"]["processors"]
    assert set(enabled) == {"service-graphs", "span-metrics"}
    text = str(sources) + (deploy_folder.parent / "dashboards/traces.json").read_text()
    names = set(re.findall(r"traces_\w+", text))
    assert names
    assert names <= {
        *("traces_spanmetrics_calls_total", "traces_spanmetrics_latency_bucket"),
        *("traces_service_graph_request_total", "traces_service_graph_request_failed_total"),
        *("traces_service_graph_request_client_seconds_bucket",),
        *("traces_service_graph_request_server_seconds_bucket",),
    }


def test_histograms_of_spans_reach_past_the_longest_answer(load):
    processors = load("tempo/tempo.yaml")["metrics_generator"]["processor"]
    for each in processors.values():
        edges = each["histogram_buckets"]
        assert edges == sorted(set(edges))
        assert edges[-1] >= 120
    peers = processors["service_graphs"]["peer_attributes"]
    assert {"db.system.name", "server.address"} <= set(peers)
    # A store is called by its kind, not by the machine it happens to be on.
    assert peers.index("db.system.name") < peers.index("server.address")


def test_alerts_shown_in_grafana_are_those_of_prometheus(sources):
    alerts = sources["alertmanager"]["jsonData"]
    assert alerts["implementation"] == "prometheus"
    assert not alerts["handleGrafanaManagedAlerts"]
    assert sources["prometheus"]["jsonData"]["manageAlerts"]


def test_alertmanager_is_given_the_secrets_it_reads(load, stack):
    text = str(load("alertmanager/alertmanager.yaml"))
    read = set(re.findall(r"_file': '([^']+)'", text))
    given = {f"/run/secrets/{name}" for name in stack.services["alertmanager"]["secrets"]}
    assert read == given


def test_loki_labels_lines_by_service_and_level_only(load):
    limits = load("loki/loki.yaml")["limits_config"]
    assert limits["otlp_config"]["resource_attributes"] == {
        "ignore_defaults": True,
        "attributes_config": [
            {"action": "index_label", "attributes": ["service.name", "level"]},
        ],
    }
    assert limits["discover_service_name"] == []
    assert limits["allow_structured_metadata"]
    operators = load("collector/logs.yaml")["receivers"]["file_log/containers"]["operators"]
    targets = {each.get("to") or each.get("field") for each in operators}
    resource = {each for each in targets if each and each.startswith("resource")}
    assert resource == {'resource["service.name"]', "resource.level"}


def test_what_is_kept_is_bounded_everywhere(load, stack):
    assert load("loki/loki.yaml")["compactor"]["retention_enabled"]
    assert load("loki/loki.yaml")["limits_config"]["retention_period"] == "168h"
    tempo = load("tempo/tempo.yaml")
    scheduler = tempo["backend_scheduler"]["provider"]["compaction"]["compaction"]
    assert scheduler == tempo["backend_worker"]["compaction"] == {"block_retention": "168h"}
    command = " ".join(stack.resolve(each) for each in stack.services["prometheus"]["command"])
    assert "retention.time=30d" in command
    assert "retention.size=10GB" in command


def test_exemplars_point_only_at_traces_that_are_all_kept(load, stack):
    policies = load("collector/traces.yaml")["processors"]["tail_sampling"]["policies"]
    (slow,) = [each["latency"]["threshold_ms"] for each in policies if each["type"] == "latency"]
    for service in ("rag", "cache", "balancer"):
        variable = f"PANNIER_{service.upper()}_EXEMPLAR_MINIMUM_SECONDS"
        assert stack.services[service]["environment"][variable] == f"{slow / 1000:g}s"
