"""A disk without space left, under the real process."""

import time
from pathlib import Path

import httpx
import pytest

from tests.support.ledger_file import sqlite_url
from tests.support.process import ServiceProcess
from tests.support.strace import works


def post(client: httpx.Client) -> httpx.Response:
    body = {"amount": 1, "timestamp": time.time_ns() // 1_000_000}
    return client.post("/transactions", json=body)


RECOVERY_SECONDS_MAX = 5.0

MOUNT = "mount -t tmpfs -o size=3m tmpfs {} && "


@pytest.fixture
def small_disk(tmp_path: Path) -> tuple[Path, tuple[str, ...]]:
    """A directory, and a command under which it is a disk of three megabytes."""
    directory = tmp_path / "disk"
    directory.mkdir()
    script = f'{MOUNT.format(directory)} head -c 1m /dev/zero > {directory}/ballast && exec "$@"'
    return directory, ("unshare", "-rm", "sh", "-c", script, "sh")


@pytest.mark.skipif(
    not works("unshare", "-rm", "sh", "-c", MOUNT.format("/mnt") + "true"),
    reason="no private mounts here",
)
def test_a_full_disk_refuses_and_recovers_by_itself_when_space_returns(
    small_disk: tuple[Path, tuple[str, ...]],
) -> None:
    directory, command = small_disk
    environment = {"DATABASE_URL": sqlite_url(directory / "ledger.db"), "WINDOW_SECONDS": "3600"}
    with ServiceProcess(environment, command) as service, service.client() as client:
        acknowledged = 0
        while (answer := post(client)).status_code == 201:
            acknowledged += 1
            assert acknowledged < 10_000
        assert answer.status_code == 503
        assert answer.json()["code"] == "store_refused"
        assert answer.headers["retry-after"] == "1"
        unready = client.get("/readyz")
        assert unready.status_code == 503
        assert "disk is full" in unready.json()["detail"]
        assert client.get("/stats").json()["count"] == acknowledged
        # As the process sees its own disk.
        Path(f"/proc/{service.pid}/root{directory}/ballast").unlink()
        freed_at = time.monotonic()
        service.wait_for("store_accepts_again")
        assert client.get("/readyz").status_code == 200
        assert post(client).status_code == 201
        assert time.monotonic() - freed_at <= RECOVERY_SECONDS_MAX
        assert client.get("/stats").json()["count"] == acknowledged + 1
        service.terminate()
        assert service.exit_status() == 0
