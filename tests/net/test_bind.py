"""Listening sockets, and every way in which an address can be refused."""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from konnectivity.errors import ConfigError
from konnectivity.net.bind import LONGEST_UNIX_PATH, tcp_socket, unix_socket

needs_ipv6 = pytest.mark.skipif(
    not Path("/proc/net/if_inet6").exists() or not Path("/proc/net/if_inet6").read_text(),
    reason="a machine without IPv6",
)


def reach(family: int, address: object) -> bool:
    with socket.socket(family) as client:
        client.settimeout(2)
        return client.connect_ex(address) == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost", ""])
def test_a_listener_is_reached_over_ipv4(host: str) -> None:
    with tcp_socket(host, 0) as listener:
        assert not listener.getblocking()
        assert reach(socket.AF_INET, ("127.0.0.1", listener.getsockname()[1]))


@needs_ipv6
@pytest.mark.parametrize("host", ["::1", "::", ""])
def test_a_listener_is_reached_over_ipv6(host: str) -> None:
    with tcp_socket(host, 0) as listener:
        assert reach(socket.AF_INET6, ("::1", listener.getsockname()[1]))


@needs_ipv6
@pytest.mark.parametrize(("host", "reached"), [("::", True), ("::1", False)])
def test_the_unspecified_ipv6_address_takes_ipv4_in_too(host: str, reached: bool) -> None:
    with tcp_socket(host, 0) as listener:
        assert reach(socket.AF_INET, ("127.0.0.1", listener.getsockname()[1])) is reached


def test_a_port_is_free_again_as_soon_as_its_listener_is_closed() -> None:
    with tcp_socket("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = listener.accept()
    accepted.close()  # our end closes first and waits in TIME_WAIT
    client.close()
    tcp_socket("127.0.0.1", port).close()


@pytest.mark.parametrize("host", ["127.0.0.1", "", "::1"])
def test_w32_a_taken_port_is_a_clear_error(host: str) -> None:
    with tcp_socket(host, 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ConfigError) as caught:
            tcp_socket(host, port)
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    assert str(caught.value) == (
        f"cannot listen on {where}: address already in use; "
        "stop the process that listens there or choose another"
    )


def test_an_address_of_another_machine_is_a_clear_error() -> None:
    with pytest.raises(ConfigError) as caught:
        tcp_socket("203.0.113.7", 8091)
    assert str(caught.value) == (
        "cannot listen on 203.0.113.7:8091: cannot assign requested address; "
        "it must be an address of this machine"
    )


@pytest.mark.parametrize("host", ["no such name", "a..b", "x" * 64, "999.1.1.1", "[::1]"])
def test_a_host_without_address_is_a_clear_error(host: str) -> None:
    with pytest.raises(ConfigError) as caught:
        tcp_socket(host, 8091)
    assert str(caught.value).endswith(f"8091: {host} has no address")


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_out_of_range_is_a_clear_error(port: int) -> None:
    with pytest.raises(ConfigError) as caught:
        tcp_socket("127.0.0.1", port)
    assert str(caught.value) == (
        f"cannot listen on 127.0.0.1:{port}: port {port} is not between 0 and 65535"
    )


@pytest.mark.skipif(
    int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) < 80,
    reason="this machine forbids nobody any port",
)
def test_a_reserved_port_is_a_clear_error(
    unprivileged: Callable[[], AbstractContextManager[None]],
) -> None:
    with unprivileged(), pytest.raises(ConfigError) as caught:
        tcp_socket("127.0.0.1", 79)
    assert str(caught.value) == (
        "cannot listen on 127.0.0.1:79: permission denied; "
        "choose a port from 1024 on, or grant CAP_NET_BIND_SERVICE"
    )


# Unix sockets


def test_owner_and_group_may_connect_to_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "frontend.sock"
    for umask in (0o022, 0o077, 0):
        before = os.umask(umask)
        try:
            with unix_socket(str(path), delete_existing=True):
                status = path.stat()
                assert stat.S_ISSOCK(status.st_mode)
                assert stat.S_IMODE(status.st_mode) == 0o770
                assert reach(socket.AF_UNIX, str(path))
        finally:
            assert os.umask(before) == umask


def test_w49_the_umask_of_other_threads_is_left_alone(tmp_path: Path) -> None:
    made = set()
    stop = threading.Event()

    def make_files() -> None:
        for number in range(100_000):
            if stop.is_set():
                return
            file = tmp_path / f"{number}"
            file.touch()
            made.add(stat.S_IMODE(file.stat().st_mode))

    before = os.umask(0o022)
    worker = threading.Thread(target=make_files)
    worker.start()
    try:
        for _ in range(200):
            unix_socket(str(tmp_path / "frontend.sock"), delete_existing=True).close()
    finally:
        stop.set()
        worker.join()
        os.umask(before)
    assert made == {0o644}


def test_a_left_over_socket_is_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "frontend.sock")
    unix_socket(path, delete_existing=False).close()  # leaves its file, as a killed process does
    with unix_socket(path, delete_existing=True):
        assert reach(socket.AF_UNIX, path)


def test_a_left_over_socket_is_kept_when_it_must_not_be_deleted(tmp_path: Path) -> None:
    path = tmp_path / "frontend.sock"
    unix_socket(str(path), delete_existing=False).close()
    with pytest.raises(ConfigError) as caught:
        unix_socket(str(path), delete_existing=False)
    assert str(caught.value) == (
        f"cannot listen on {path}: a socket of an earlier run is left there; "
        "delete it or set --delete-existing-uds-file"
    )
    assert path.is_socket()


@pytest.mark.parametrize("delete_existing", [False, True])
def test_w31_a_socket_in_use_is_a_clear_error_and_stays(
    tmp_path: Path, delete_existing: bool
) -> None:
    path = str(tmp_path / "frontend.sock")
    with unix_socket(path, delete_existing=True):
        with pytest.raises(ConfigError) as caught:
            unix_socket(path, delete_existing=delete_existing)
        assert reach(socket.AF_UNIX, path)
    assert str(caught.value) == (
        f"cannot listen on {path}: another process listens there; stop it first"
    )


def test_a_socket_whose_owner_is_too_busy_to_accept_counts_as_in_use(tmp_path: Path) -> None:
    path = str(tmp_path / "frontend.sock")
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as client:
        busy.bind(path)
        busy.listen(0)
        client.connect(path)
        with pytest.raises(ConfigError, match="another process listens there"):
            unix_socket(path, delete_existing=True)


@pytest.mark.parametrize("kind", ["file", "directory", "link", "pipe"])
def test_w49_what_is_not_a_socket_is_never_deleted(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "frontend.sock"
    match kind:
        case "file":
            path.write_text("precious")
        case "directory":
            path.mkdir()
        case "link":
            path.symlink_to(tmp_path / "elsewhere")
        case "pipe":
            os.mkfifo(path)
    before = path.lstat()
    with pytest.raises(ConfigError) as caught:
        unix_socket(str(path), delete_existing=True)
    assert str(caught.value) == f"cannot listen on {path}: it exists and is not a socket"
    assert path.lstat() == before


def test_the_longest_path_works_and_a_longer_one_is_a_clear_error(tmp_path: Path) -> None:
    room = LONGEST_UNIX_PATH - len(os.fsencode(tmp_path)) - 1
    unix_socket(str(tmp_path / ("x" * room)), delete_existing=True).close()
    longer = str(tmp_path / ("x" * (room + 1)))
    with pytest.raises(ConfigError) as caught:
        unix_socket(longer, delete_existing=True)
    assert str(caught.value) == (
        f'cannot listen on "{longer}": the path of a Unix socket has 1 to 107 bytes'
    )


def test_an_empty_path_is_a_clear_error() -> None:
    with pytest.raises(ConfigError, match="1 to 107 bytes"):
        unix_socket("", delete_existing=True)


def test_a_missing_directory_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "frontend.sock"
    with pytest.raises(ConfigError) as caught:
        unix_socket(str(path), delete_existing=True)
    assert str(caught.value) == (
        f"cannot listen on {path}: no such file or directory; the directory must exist"
    )


def test_a_forbidden_directory_is_a_clear_error(
    tmp_path: Path, unprivileged: Callable[[], AbstractContextManager[None]]
) -> None:
    tmp_path.chmod(0o500)
    path = tmp_path / "frontend.sock"
    with unprivileged(), pytest.raises(ConfigError) as caught:
        unix_socket(str(path), delete_existing=True)
    assert str(caught.value) == f"cannot listen on {path}: permission denied"
