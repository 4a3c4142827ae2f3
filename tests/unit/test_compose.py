"""The compose file: what its services rely on of each other, and of the service."""

import ipaddress
import re
from pathlib import Path

import msgspec
import pytest
import yaml

from app.settings import Settings

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
SERVICES = COMPOSE["services"]
NODES = ["millrace-1", "millrace-2", "millrace-3"]
PROXY = (ROOT / "deploy" / "nginx-scale.conf").read_text("utf-8")
SCALE = {name for name, service in SERVICES.items() if "scale" in service.get("profiles", ())}


def address(name: str) -> str:
    found: str = SERVICES[name]["networks"]["scale"]["ipv4_address"]
    return found


def test_every_setting_can_be_given_that_is_not_the_images_own() -> None:
    settings = {field.encode_name for field in msgspec.structs.fields(Settings)}
    own = {"HOST", "PORT", "DATABASE_URL", "WORKERS"}
    given = SERVICES["millrace"]["environment"].keys()
    assert settings - own <= given <= settings


@pytest.mark.parametrize("name", SERVICES)
def test_nothing_is_open_to_the_network_and_nobody_has_more_rights_than_needed(name: str) -> None:
    service = SERVICES[name]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    assert "no-new-privileges:true" in service["security_opt"]
    if name != "postgres":
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]


def test_the_profile_is_three_nodes_of_different_names_on_one_postgresql_and_redis() -> None:
    assert {"nginx", "redis", "postgres", "migrate", *NODES} == SCALE
    environments = [SERVICES[name]["environment"] for name in NODES]
    assert [each["NODE_ID"] for each in environments] == NODES
    for name, environment in zip(NODES, environments, strict=True):
        assert environment["DATABASE_URL"] == SERVICES["migrate"]["environment"]["DATABASE_URL"]
        assert environment["REDIS_URL"] == "redis://redis:6379/0"
        # Each keeps what it has beside it.
        assert environment | {"NODE_ID": ""} == environments[0] | {"NODE_ID": ""}
        assert SERVICES[name]["depends_on"] == {
            "migrate": {"condition": "service_completed_successfully"},
            "redis": {"condition": "service_healthy"},
        }
    assert SERVICES["nginx"]["depends_on"] == {name: {"condition": "service_healthy"} for name in NODES}


def test_the_proxy_knows_the_nodes_and_they_know_it() -> None:
    assert re.findall(r"server (\S+):8000 ", PROXY) == NODES
    addresses = [address(name) for name in ("nginx", *NODES)]
    assert len(set(addresses)) == len(addresses)
    (pool,) = COMPOSE["networks"]["scale"]["ipam"]["config"]
    for each in map(ipaddress.ip_address, addresses):
        assert each in ipaddress.ip_network(pool["subnet"])
        # Nobody who is given any address gets one of these.
        assert each not in ipaddress.ip_network(pool["ip_range"])
    (idle,) = re.findall(r"^ +keepalive_timeout (\d+)s;", PROXY, re.MULTILINE)
    for name in NODES:
        assert SERVICES[name]["environment"]["TRUSTED_PROXIES"] == address("nginx")
        assert SERVICES[name]["environment"]["KEEP_ALIVE_SECONDS"] > int(idle)
    assert "listen 8080;" in PROXY
    assert SERVICES["nginx"]["ports"] == ["127.0.0.1:8002:8080"]
    # As its health check looks for it.
    assert f":{8080:04X} .* 0A " in SERVICES["nginx"]["healthcheck"]["test"]


def test_redis_keeps_nothing_on_a_disk_and_throws_nothing_away() -> None:
    words = SERVICES["redis"]["command"].split()
    options = dict(zip(words[1::2], words[2::2], strict=True))
    assert options["--save"] == '""'
    assert options["--appendonly"] == "no"
    assert options["--maxmemory-policy"] == "noeviction"
    assert "volumes" not in SERVICES["redis"]
