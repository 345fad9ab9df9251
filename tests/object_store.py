"""A real object storage for tests: Ceph's radosgw, with one monitor and one OSD.

    with ObjectStore() as store:
        url = store.url("bucket-1")      s3://bucket-1?endpoint=http://127.0.0.1:PORT

All of it in a directory of its own, on ports of its own of the loopback interface, its
data in memory; it takes about 14 s to start. The Debian packages ceph-mon, ceph-osd and
radosgw are in tests/packages.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
import uuid
from pathlib import Path
from typing import Any

import botocore.config
import botocore.session

from private_postfix import free_ports

ACCESS_KEY, SECRET_KEY = "archive-key", "archive-secret"
REGION = "default"
START_SECONDS = 120  # at most
CONFIGURATION = """\
[global]
fsid = {fsid}
mon host = v1:127.0.0.1:{monitor_port}
mon initial members = a
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
ms bind msgr2 = false
ms bind port min = {osd_port}
ms bind port max = {last_port}
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 1000
mon data avail crit = 0
# An OSD that starts may send these commands before it knows the cluster (a race in
# Ceph 16), and then ends.
osd class update on start = false
osd crush update on start = false
osd objectstore = memstore
memstore device bytes = 1073741824
osd data = {directory}/osd
mon data = {directory}/mon
rgw data = {directory}/rgw
run dir = {directory}/run
admin socket = {directory}/run/$cluster-$name.$pid.asok
log file = {directory}/log/$name.log
pid file = {directory}/run/$name.pid
rgw frontends = beast endpoint=127.0.0.1:{port}
rgw thread pool size = 32
rgw relaxed s3 bucket names = false
"""


class ObjectStore:
    """A running radosgw, with one user. A context manager."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="pfa-ceph-"))
        self._configuration = self._directory / "ceph.conf"
        self.port = 0

    def __enter__(self) -> ObjectStore:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for path in (self._directory / "run").glob("*.pid"):
            _kill(int(path.read_text()))
        shutil.rmtree(self._directory)

    @property
    def endpoint(self) -> str:
        """The URL of the server."""
        return f"http://127.0.0.1:{self.port}"

    def url(self, bucket: str, endpoint: str = "") -> str:
        """Return the value of archive_object_store for a bucket."""
        return f"s3://{bucket}?endpoint={endpoint or self.endpoint}&region={REGION}"

    def client(self) -> Any:
        """Return a client of botocore."""
        return client(self.endpoint)

    def make_bucket(self, name: str, *, has_lock: bool = True) -> str:
        """Make a bucket; return its URL."""
        self.client().create_bucket(Bucket=name, ObjectLockEnabledForBucket=has_lock)
        return self.url(name)

    def admin(self, *arguments: str) -> None:
        """Run radosgw-admin(8)."""
        self._run("radosgw-admin", *arguments)

    def _start(self) -> None:
        fsid = str(uuid.uuid4())
        monitor_port, self.port, osd_port = free_ports(3)
        for name in ("mon", "osd", "rgw", "run", "log"):
            (self._directory / name).mkdir()
        self._configuration.write_text(
            CONFIGURATION.format(
                fsid=fsid,
                monitor_port=monitor_port,
                port=self.port,
                osd_port=osd_port,
                last_port=osd_port + 40,
                directory=self._directory,
            )
        )
        monitors = str(self._directory / "monmap")
        address = f"v1:127.0.0.1:{monitor_port}"
        command = ["monmaptool", "--create", "--addv", "a", address, "--fsid", fsid]
        subprocess.run([*command, monitors], check=True, capture_output=True)
        self._run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monitors)
        self._run("ceph-mon", "-i", "a")
        osd = str(uuid.uuid4())
        self._ask_monitor("osd", "new", osd)
        self._ask_monitor("osd", "crush", "add", "osd.0", "1", "root=default")
        self._run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        self._run("ceph-osd", "-i", "0")
        keys = ("--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY)
        self.admin("user", "create", "--uid=archive", "--display-name=archive", *keys)
        self._run("radosgw", "--name", "client.rgw")
        deadline = time.monotonic() + START_SECONDS
        while not _answers(self.endpoint):
            if time.monotonic() > deadline:
                raise TimeoutError(f"radosgw does not answer on {self.endpoint}")
            time.sleep(0.1)

    def _ask_monitor(self, *arguments: str) -> None:
        """Run ceph(8), again where it had not known the cluster: the same race."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                return self._run("ceph", *arguments)
            except RuntimeError as error:
                if "EPERM" not in str(error) or time.monotonic() > deadline:
                    raise

    def _run(self, *command: str) -> None:
        arguments = [command[0], "-c", str(self._configuration), *command[1:]]
        result = subprocess.run(
            arguments,
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
        )
        if result.returncode:
            raise RuntimeError(f"{' '.join(arguments)}: {result.stderr}")


def client(endpoint: str) -> Any:
    """Return a client of botocore for the user of a server."""
    return botocore.session.get_session().create_client(
        "s3",
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        config=botocore.config.Config(
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


def _answers(endpoint: str) -> bool:
    try:
        with urllib.request.urlopen(endpoint, timeout=5):
            return True
    except OSError:
        return False


def _kill(process_id: int) -> None:
    """Kill a daemon, and wait until it is gone: it is no child of ours."""
    descriptor = os.pidfd_open(process_id)
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        select.select([descriptor], [], [], START_SECONDS)
    except ProcessLookupError:
        pass
    finally:
        os.close(descriptor)
