"""deploy/compose.yaml, as far as it can be judged without containers."""

import importlib
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from operations.stack import leases
from operations.stack.networks import blocked_networks
from operations.stack.servers import EVENT_GATEWAY_MODULE
from tests.conftest import REPOSITORY
from trashnet.logs import VARIABLE as LOG_VARIABLE
from trashnet.settings import Settings, load_settings

DEPLOY = REPOSITORY / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
VARIABLE = re.compile(r"\$\{([A-Z_0-9]+)(:\?[^}]*|:-[^}]*)?\}")
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|_KEY|AUTH_STRING|CONNECTION_URL|LEDGER_URL")
ours = pytest.mark.parametrize("name", ["setup", "worker", "gateway"])
every = pytest.mark.parametrize("name", sorted(SERVICES))


def example() -> dict[str, str]:
    """The variables that .env.example has, with their values."""
    lines = (DEPLOY / ".env.example").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_every_part_of_the_loop_is_there() -> None:
    """What `trashnet up` starts on a laptop, and PostgreSQL."""
    assert set(SERVICES) == {"postgres", "s3", "label-studio", "prefect", "setup", "worker", "gateway"}


@every
def test_a_service_that_stays_says_whether_it_is_well(name: str) -> None:
    """Others wait for that; what runs once is waited for until it has ended."""
    service = SERVICES[name]
    assert ("healthcheck" in service) == (service["restart"] != "no")
    for other, how in service.get("depends_on", {}).items():
        assert how["condition"] == (
            "service_completed_successfully" if SERVICES[other]["restart"] == "no" else "service_healthy"
        )


@every
def test_an_image_is_pinned(name: str) -> None:
    """The same file starts the same programs next year."""
    assert re.search(r":\d+\.\d+[\w.-]*$", SERVICES[name]["image"])


@ours
def test_our_image_has_the_products_version(name: str) -> None:
    """An image of another version would be started without being built."""
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert SERVICES[name]["image"] == f"trashnet-flywheel:{version}"


@every
def test_no_secret_is_written_down(name: str) -> None:
    """Every one comes from the environment, and compose refuses to start without it."""
    for variable, value in SERVICES[name].get("environment", {}).items():
        if SECRET.search(variable) and variable != "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN":
            assert VARIABLE.search(value), variable
            assert all(found[1].startswith(":?") for found in VARIABLE.findall(value)), variable


def test_the_example_names_every_variable_and_no_secret() -> None:
    """Copy it, fill it in, and the file starts."""
    used = {found[0] for found in VARIABLE.findall((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))}
    assert used == set(example())
    assert not [
        name
        for name, value in example().items()
        if value and re.search("PASSWORD|SECRET|TOKEN|KEY|AUTH", name)
    ]


@ours
def test_our_services_are_given_settings_that_exist_and_are_complete(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names are those of `Settings`, and with the example filled in nothing is missing or malformed."""
    given = {
        key: value for key, value in SERVICES[name]["environment"].items() if key.startswith("TRASHNET_")
    }
    names = {key.removeprefix("TRASHNET_").lower() for key in given.keys() - {LOG_VARIABLE}}
    assert names <= set(Settings.model_fields)
    for key, value in given.items():
        monkeypatch.setenv(key, VARIABLE.sub(lambda found: example()[found[1]] or "a" * 40, value))
    assert load_settings(tmp_path / "none").ledger_url.startswith("postgresql+psycopg://ledger:")


@every
def test_ports_are_published_on_loopback_by_default(name: str) -> None:
    """In front of them belongs a proxy with TLS."""
    assert all(port.startswith("${BIND:-127.0.0.1}:") for port in SERVICES[name].get("ports", []))


@every
def test_volumes_and_networks_that_are_used_are_declared(name: str) -> None:
    """A name that is not is an error only when the file is started."""
    assert set(SERVICES[name].get("networks", [])) <= set(COMPOSE["networks"])
    for volume in SERVICES[name].get("volumes", []):
        source = volume.split(":")[0]
        assert (DEPLOY / source).exists() if source.startswith(".") else source in COMPOSE["volumes"]


def test_label_studio_may_call_the_event_gateways_network_and_nothing_else_that_is_private() -> None:
    """Annotators can make webhooks: those must not reach the database, Prefect or a cloud's metadata."""
    [network] = COMPOSE["networks"]["gateway"]["ipam"]["config"]
    banned = SERVICES["label-studio"]["environment"]["USER_ADDITIONAL_BANNED_SUBNETS"].split(",")
    assert banned == blocked_networks(network["subnet"])
    assert {name for name, service in SERVICES.items() if "gateway" in service["networks"]} == {
        "label-studio",
        "gateway",
    }
    assert SERVICES["gateway"]["networks"]["gateway"]["aliases"] == ["gateway.internal"]


def test_the_databases_script_is_one_that_a_shell_reads() -> None:
    """It makes those three databases that the addresses name."""
    subprocess.run(["sh", "-n", DEPLOY / "databases.sh"], check=True)
    assert "ledger prefect label_studio" in (DEPLOY / "databases.sh").read_text(encoding="utf-8")


def test_prefect_keeps_leases_on_a_volume_and_answers_no_other_origin() -> None:
    """In memory they would be lost with the container, and the runs that hold them would be stopped."""
    prefect = SERVICES["prefect"]
    assert prefect["environment"]["PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"] == leases.STORAGE
    mounts = dict(reversed(volume.split(":")[:2]) for volume in prefect["volumes"])  # type: ignore[misc]
    home = Path(prefect["environment"]["PREFECT_HOME"])
    assert mounts[str(home.parent)] in COMPOSE["volumes"]
    script = Path(prefect["working_dir"]) / "operations/stack/leases.py"
    assert (DEPLOY / mounts[str(script)]).resolve() == Path(leases.__file__)
    assert "python operations/stack/leases.py" in prefect["command"][-1]
    assert prefect["environment"]["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"].startswith("${PREFECT_PUBLIC_URL")


def test_the_event_gateway_is_started_by_a_module_that_exists() -> None:
    """The stack and the containers name the same module, and it has a program."""
    assert SERVICES["gateway"]["command"][:3] == ["python", "-m", EVENT_GATEWAY_MODULE]
    assert callable(importlib.import_module(EVENT_GATEWAY_MODULE).main)
