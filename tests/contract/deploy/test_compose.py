import re
from pathlib import Path

import pytest

from services.balancer.settings import BalancerSettings
from services.cache.settings import CacheSettings
from services.common import settings
from services.rag.adapters.postgres_vector_indexes import BUILD_MEMORY_BYTES
from services.rag.settings import RagSettings
from tests.kit.postgres import deployed_settings

ANSWERING = {"rag", "cache", "balancer", "postgres", "redis"}
PUBLISHED = {"rag", "grafana"}
SETTINGS = {"rag": RagSettings, "cache": CacheSettings, "balancer": BalancerSettings}
# A tag that says which release it is: a number with at least two parts.
RELEASE = re.compile(r"v?\d+\.\d+(\.\d+)?([.-][a-z0-9.]+)*")


def bytes_of(text):
    number, unit = re.fullmatch(r"(\d+)([kmg])b?", text).groups()
    return int(number) * 1024 ** (" kmg".index(unit))


def binds(service):
    return [each for each in service.get("volumes", []) if each.startswith((".", "/", "${"))]


def test_images_are_pinned_to_a_release(stack):
    for name, service in stack.services.items():
        _, separator, tag = stack.resolve(service["image"]).rpartition(":")
        assert separator, name
        assert RELEASE.fullmatch(tag), f"{name}: {service['image']}"


def test_images_that_are_built_name_a_target_of_the_dockerfile(stack, deploy_folder):
    dockerfile = (deploy_folder / "Dockerfile").read_text()
    targets = set(re.findall(r"^FROM \S+ AS (\S+)$", dockerfile, re.MULTILINE))
    built = {name: each["build"] for name, each in stack.services.items() if "build" in each}
    assert {"rag", "cache", "balancer", "standin-1", "collector", "logs"} <= set(built)
    for name, build in built.items():
        assert build["target"] in targets, name
        assert (deploy_folder / build["context"] / build["dockerfile"]).is_file()


def test_the_dockerfile_starts_from_releases_and_runs_as_nobody_special(deploy_folder):
    dockerfile = (deploy_folder / "Dockerfile").read_text()
    images = dict(re.findall(r"^ARG (\w+_IMAGE)=\S+:(\S+)$", dockerfile, re.MULTILINE))
    stages = re.findall(r"^FROM (\S+) AS (\S+)$", dockerfile, re.MULTILINE)
    names = {name for _, name in stages}
    assert {base for base, _ in stages} - names == {f"${{{each}}}" for each in images}
    assert all(RELEASE.fullmatch(tag) for tag in images.values())
    base = dockerfile[dockerfile.index(" AS base") : dockerfile.index("FROM base AS standin")]
    assert "\nUSER 10001:10001\n" in base
    assert ("base", "services") in stages


def test_what_the_images_are_made_of_reaches_their_build(deploy_folder):
    dockerfile = (deploy_folder / "Dockerfile").read_text()
    sent = (deploy_folder / "Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in sent
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, re.MULTILINE)
    assert copied
    for source in (each for line in copied for each in line.split()):
        assert f"!{source}" in sent, source
        assert (deploy_folder.parent / source).exists(), source


def test_containers_have_no_more_rights_than_they_need(stack):
    for name, service in stack.services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert not {"network_mode", "pid", "ipc", "privileged", "devices"} & set(service), name
        assert not any("docker.sock" in each for each in service.get("volumes", [])), name
        assert all(each.endswith(":ro") for each in binds(service)), name
        assert service["read_only"] or name == "postgres", name
        assert ("cap_add" in service) == (name == "postgres"), name
        assert ("user" in service) == (name in ("redis", "logs")), name


def test_only_rag_and_grafana_are_published_and_on_loopback(stack):
    published = {name: each["ports"] for name, each in stack.services.items() if "ports" in each}
    assert set(published) == PUBLISHED
    for ports in published.values():
        assert all(stack.resolve(each).startswith("127.0.0.1:") for each in ports)


def test_who_opens_grafana_to_others_closes_it_to_the_anonymous(stack, deploy_folder):
    ini = (deploy_folder / "grafana/grafana.ini").read_text()
    assert re.search(r"\[auth\.anonymous\]\nenabled = true\norg_role = Viewer\n", ini)
    # Grafana takes no notice of a variable that is empty.
    assert stack.environment("grafana")["GF_AUTH_ANONYMOUS_ENABLED"] == ""
    opened = type(stack)(stack.document, {**stack.variables, "GRAFANA_ADDRESS": "0.0.0.0"})
    assert opened.environment("grafana")["GF_AUTH_ANONYMOUS_ENABLED"] == "false"
    assert opened.resolve(stack.services["grafana"]["ports"][0]).startswith("0.0.0.0:")


def test_passwords_are_made_by_whoever_installs(stack, env_example, deploy_folder):
    text = (deploy_folder / "compose.yaml").read_text()
    given = env_example(commented=False)
    for name in ("POSTGRES_PASSWORD", "PANNIER_CACHE_KEY_PEPPER"):
        assert given[name] == ""
        assert f"${{{name}:?" in text
        assert f"${{{name}:-" not in text
    grafana = stack.environment("grafana")
    assert grafana["GF_SECURITY_ADMIN_PASSWORD__FILE"] == "/run/secrets/grafana_admin_password"
    assert "admin_password" not in (deploy_folder / "grafana/grafana.ini").read_text()


def test_each_container_is_watched_bounded_and_restarted(stack):
    for name, service in stack.services.items():
        check = service["healthcheck"]
        assert check["test"][0] in ("CMD", "CMD-SHELL"), name
        assert {"interval", "timeout", "retries", "start_period"} <= set(check), name
        assert bytes_of(service["mem_limit"]) >= 256 * 1024**2, name
        assert service["restart"] == "unless-stopped", name
        assert {"max-size", "max-file"} <= set(service["logging"]["options"]), name


def test_a_service_is_asked_on_the_port_it_listens_on(stack):
    for name in SETTINGS:
        port = stack.environment(name)[f"PANNIER_{name.upper()}_GRPC_ADDRESS"].rpartition(":")[2]
        test = stack.services[name]["healthcheck"]["test"]
        assert test[-2:] == ["deploy.probe", f"127.0.0.1:{port}"]


@pytest.mark.parametrize("name", SETTINGS)
def test_a_service_accepts_its_environment(stack, name):
    environment = stack.environment(name)
    prefix = f"PANNIER_{name.upper()}_"
    known = {each.variable for each in settings.describe(SETTINGS[name], prefix=prefix)}
    assert {each for each in environment if each.startswith("PANNIER_")} <= known
    loaded = settings.load(SETTINGS[name], environment, prefix=prefix)
    assert loaded.allow_insecure
    assert loaded.otlp_endpoint


def test_no_setting_is_given_to_a_container_that_is_no_service(stack):
    for name, service in stack.services.items():
        named = {each for each in service.get("environment", {}) if each.startswith("PANNIER_")}
        assert not named or name in SETTINGS


def test_memory_limits_leave_room_for_what_is_allowed_inside(stack):
    rag = settings.load(RagSettings, stack.environment("rag"), prefix="PANNIER_RAG_")
    assert bytes_of(stack.services["rag"]["mem_limit"]) >= 1.5 * rag.document_memory_limit_bytes
    cache = settings.load(CacheSettings, stack.environment("cache"), prefix="PANNIER_CACHE_")
    inside = (
        cache.local_embedding_limit_bytes
        + cache.local_inference_limit_bytes
        + cache.local_chunk_limit_bytes
        + cache.semantic_memory_limit_bytes
        + cache.local_semantic_limit_bytes
    )
    assert bytes_of(stack.services["cache"]["mem_limit"]) >= 2 * inside


def test_postgres_has_the_memory_that_is_asked_of_it(stack):
    postgres = stack.services["postgres"]
    buffers_bytes = bytes_of(deployed_settings()["shared_buffers"].lower())
    # Where several processes build an index, all that they may use is shared memory.
    assert bytes_of(postgres["shm_size"]) > BUILD_MEMORY_BYTES
    assert bytes_of(postgres["mem_limit"]) >= 1.5 * (buffers_bytes + BUILD_MEMORY_BYTES)


def test_redis_drives_out_only_what_has_a_time_to_live(stack):
    redis = stack.services["redis"]
    options = dict(zip(redis["command"][1::2], redis["command"][2::2], strict=True))
    assert options["--maxmemory-policy"].startswith("volatile-")
    assert bytes_of(options["--maxmemory"]) <= 0.75 * bytes_of(redis["mem_limit"])


def test_what_is_declared_is_used_and_what_is_used_is_declared(stack):
    services = stack.services.values()
    named = {
        each.partition(":")[0]
        for service in services
        for each in service.get("volumes", [])
        if each not in binds(service)
    }
    assert named == set(stack.document["volumes"])
    networks = {each for service in services for each in service["networks"]}
    assert networks == set(stack.document["networks"])
    secrets = {each for service in services for each in service.get("secrets", [])}
    assert secrets == set(stack.document["secrets"])


def test_mounted_files_and_folders_exist(stack, deploy_folder):
    for name, service in stack.services.items():
        for each in binds(service):
            source = Path(stack.resolve(each).split(":")[0])
            if not source.is_absolute():
                assert (deploy_folder / source).exists(), f"{name}: {each}"


def test_files_named_on_command_lines_are_mounted(stack, deploy_folder):
    for name, service in stack.services.items():
        targets = {
            parts[1]: parts[0]
            for each in binds(service)
            if len(parts := stack.resolve(each).split(":")) > 1
        }
        for argument in service.get("command", []):
            match = re.match(r"--?config(?:\.file)?=(/\S+)", argument)
            if match:
                file = Path(match[1])
                assert (deploy_folder / targets[str(file.parent)] / file.name).is_file(), name


def test_secrets_are_files_that_git_does_not_see(stack, deploy_folder):
    ignored = (deploy_folder.parent / ".gitignore").read_text().splitlines()
    assert "deploy/secrets/" in ignored
    assert "deploy/.env" in ignored
    readme = (deploy_folder / "README.md").read_text()
    for name, secret in stack.document["secrets"].items():
        assert secret == {"file": f"./secrets/{name}"}
        assert name in readme


def test_what_answers_questions_waits_for_its_stores_and_for_nothing_that_watches(stack):
    waits = {
        name: {each: how["condition"] for each, how in service.get("depends_on", {}).items()}
        for name, service in stack.services.items()
    }
    assert waits["rag"] == dict.fromkeys(("postgres", "cache", "balancer"), "service_healthy")
    assert waits["cache"] == {"redis": "service_healthy"}
    for name, needs in waits.items():
        assert set(needs) <= set(stack.services), name
        if name in ANSWERING:
            assert set(needs) <= ANSWERING, name
        else:
            assert set(needs.values()) <= {"service_started"}, name


def test_nothing_waits_for_itself(stack):
    needs = {name: set(each.get("depends_on", {})) for name, each in stack.services.items()}
    while needs:
        free = {name for name, each in needs.items() if not each & set(needs)}
        assert free, f"these wait for each other: {sorted(needs)}"
        needs = {name: each for name, each in needs.items() if name not in free}


def test_stand_ins_are_a_choice_and_the_example_makes_it(stack, env_example):
    standins = {name for name in stack.services if name.startswith("standin-")}
    assert len(standins) == 8
    for name, service in stack.services.items():
        assert service.get("profiles", []) == (["standin"] if name in standins else [])
    example = env_example(commented=False)
    assert example["COMPOSE_PROFILES"] == "standin"
    backends = example["PANNIER_BALANCER_BACKENDS"].split(",")
    assert backends == [f"http://{name}:11434" for name in sorted(standins)]


def test_the_example_shows_every_variable_and_the_defaults_of_those_that_have_one(
    stack, env_example, deploy_folder
):
    text = (deploy_folder / "compose.yaml").read_text()
    used = set(re.findall(r"\$\{(\w+)", text))
    in_force, shown = env_example(commented=False), env_example(commented=True)
    assert used == (set(in_force) | set(shown)) - {"COMPOSE_PROFILES"}
    assert {name for name in used if f"${{{name}:?" in text} == set(in_force) - {"COMPOSE_PROFILES"}
    for name, default in re.findall(r"\$\{(\w+):-([^}]*)\}", text):
        assert shown[name] == default, name
