"""Listening sockets: bound to a TCP address or a path, or refused with one clear line."""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path
from typing import Protocol

from konnectivity.errors import ConfigError
from konnectivity.net.address import join_host_port

BACKLOG = 1024  # connections that the kernel keeps for us; it may lower this (somaxconn)
UNIX_MODE = 0o770  # owner and group, as upstream
LONGEST_UNIX_PATH = 107  # bytes, Linux: sockaddr_un less the final NUL


def tcp_socket(host: str, port: int, *, flag: str = "") -> socket.socket:
    """A listening TCP socket; empty `host` means all interfaces, IPv6 too where there is any.

    `flag` is what gave the port, for the error.

    Raises:
        ConfigError: the address is taken, forbidden, or not one of this machine.
    """
    what = f"{f'{flag}: ' if flag else ''}cannot listen on {join_host_port(host, port)}"
    if not 0 <= port <= 65535:
        raise ConfigError(f"{what}: port {port} is not between 0 and 65535")
    try:
        if not host:
            return _any_socket(port)
        found = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
        )
        family, _, _, _, address = found[0]
        return _bound(family, address)
    except (socket.gaierror, UnicodeError) as error:
        raise ConfigError(f"{what}: {host} has no address") from error
    except OSError as error:
        raise ConfigError(f"{what}: {_advice(error, port)}") from error


def unix_socket(path: str, *, delete_existing: bool) -> socket.socket:
    """A listening Unix socket with mode 0770.

    A socket that an earlier process left at `path` is deleted when `delete_existing`.

    Raises:
        ConfigError: the path is too long, cannot be made, or is taken: by another kind of file,
            by a process that listens, or by a left-over socket that must not be deleted.

    Source: upstream's cmd/server/app/server.go; differs: upstream deletes whatever is there, in
    use or not, and changes the umask of the whole process.
    """
    if not path or len(os.fsencode(path)) > LONGEST_UNIX_PATH:
        size = f"1 to {LONGEST_UNIX_PATH} bytes"
        raise ConfigError(f'cannot listen on "{path}": the path of a Unix socket has {size}')
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        _clear_way(Path(path), delete_existing=delete_existing)
        sock.bind(path)
        # No window for others in between: before listen() nobody can connect.
        Path(path).chmod(UNIX_MODE)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise ConfigError(f"cannot listen on {path}: {_advice(error)}") from error
    except BaseException:
        sock.close()
        raise
    return sock


class Named(Protocol):
    """A socket, as far as its name is concerned."""

    @property
    def family(self) -> int: ...
    def getsockname(self) -> object: ...


def file_of(sock: Named) -> tuple[int, int] | None:
    """Device and inode of the file behind a bound Unix socket."""
    if sock.family != socket.AF_UNIX:
        return None
    try:
        status = Path(str(sock.getsockname())).lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def remove_file(sock: Named, file: tuple[int, int] | None) -> None:
    """Delete a Unix socket's file, unless another process has put its own in that place."""
    if file is not None and file_of(sock) == file:
        Path(str(sock.getsockname())).unlink(missing_ok=True)


def _any_socket(port: int) -> socket.socket:
    try:
        return _bound(socket.AF_INET6, ("::", port))
    except OSError as error:
        if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            raise
        return _bound(socket.AF_INET, ("0.0.0.0", port))  # noqa: S104 - a machine without IPv6


def _bound(family: int, address: tuple[object, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:  # "::" takes IPv4 in too, whatever the system's default
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(address)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _clear_way(path: Path, *, delete_existing: bool) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"cannot listen on {path}: it exists and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        result = probe.connect_ex(str(path))
    if result not in (errno.ECONNREFUSED, errno.ENOENT):
        raise ConfigError(f"cannot listen on {path}: another process listens there; stop it first")
    if not delete_existing:
        raise ConfigError(
            f"cannot listen on {path}: a socket of an earlier run is left there; "
            "delete it or set --delete-existing-uds-file"
        )
    path.unlink(missing_ok=True)


def _advice(error: OSError, port: int = 0) -> str:
    cause = os.strerror(error.errno or 0).lower()
    if error.errno == errno.EADDRINUSE:
        return f"{cause}; stop the process that listens there or choose another"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{cause}; it must be an address of this machine"
    if error.errno == errno.ENOENT:
        return f"{cause}; the directory must exist"
    if error.errno == errno.EACCES and port:
        return f"{cause}; choose a port from 1024 on, or grant CAP_NET_BIND_SERVICE"
    return cause
