"""Disks that fail under the real process: an error of a sync, and no space left."""

import shutil
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from tests.integration.test_process import rows_in, sqlite_url
from tests.support.process import WAIT_SECONDS, ServiceProcess


def works(*command: str) -> bool:
    """Whether this machine lets us run such a command at all."""
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run(command, capture_output=True, timeout=WAIT_SECONDS).returncode == 0


def post(client: httpx.Client) -> httpx.Response:
    body = {"amount": 1, "timestamp": time.time_ns() // 1_000_000}
    return client.post("/transactions", json=body)


@pytest.mark.skipif(
    not works("strace", "-f", "-e", "trace=fdatasync", "true"), reason="strace cannot trace here"
)
@pytest.mark.parametrize("sync", [1, 2, 7])
def test_an_error_of_a_sync_is_never_acknowledged_and_ends_the_process(
    tmp_path: Path, sync: int
) -> None:
    path, trace = tmp_path / "disk" / "ledger.db", tmp_path / "trace"
    environment = {"DATABASE_URL": sqlite_url(path)}

    def strace(what: str) -> tuple[str, ...]:
        return ("strace", "-f", "-qq", "-o", str(trace), "-e", what)

    # Without faults, once to make the schema and once, on a copy, to see what a start syncs.
    with ServiceProcess(environment) as service:
        service.serving()
        service.terminate()
        assert service.exit_status() == 0
    shutil.copytree(path.parent, tmp_path / "copy")
    copy = {"DATABASE_URL": sqlite_url(tmp_path / "copy" / path.name)}
    with ServiceProcess(copy, strace("trace=fdatasync")) as service:
        service.serving()
        syncs_at_start = trace.read_text().count("sync(")

    fault = f"inject=fdatasync:error=EIO:when={syncs_at_start + sync}"
    acknowledged = 0
    with ServiceProcess(environment, strace(fault)) as service:
        with service.client() as client:
            while (answer := post(client)).status_code == 201:
                acknowledged += 1
                assert acknowledged <= sync
            assert answer.status_code == 503
            assert answer.json()["code"] == "store_failed"
            assert answer.headers["retry-after"] == "1"
        assert service.wait_for("store_failed")["level"] == "critical"
        assert service.exit_status() == 1
    assert len(rows_in(path)) - acknowledged in (0, 1)
    with ServiceProcess(environment) as service, service.client() as client:
        assert client.get("/stats").json()["count"] >= acknowledged


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
        service.wait_for("store_accepts_again")
        assert client.get("/readyz").status_code == 200
        assert post(client).status_code == 201
        assert client.get("/stats").json()["count"] == acknowledged + 1
        service.terminate()
        assert service.exit_status() == 0
