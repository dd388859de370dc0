"""A real HAProxy in front of the pods: one port relays connections (as kube-proxy does), one relays requests.

Nothing is retried and nothing is sent elsewhere a second time. Which pods there are is told over the runtime socket.
"""

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

SLOTS: Final = 16
_CONFIGURATION: Final = """
global
  stats socket {socket} mode 600 level admin
  nbthread 1
  log stdout format raw local0
defaults
  log global
  option dontlog-normal
  retries 0
  timeout connect 5s
  timeout client 120s
  timeout server 120s
frontend connections
  mode tcp
  option tcplog
  bind 127.0.0.1:{l4}
  default_backend pods_l4
frontend requests
  mode http
  option httplog
  bind 127.0.0.1:{l7}
  default_backend pods_l7
backend pods_l4
  mode tcp
  balance roundrobin
  server-template pod 1-{slots} 127.0.0.1:1 disabled
backend pods_l7
  mode http
  balance roundrobin
  http-reuse always
  server-template pod 1-{slots} 127.0.0.1:1 disabled
"""


def installed() -> str:
    """The path of haproxy. Raises FileNotFoundError."""
    found = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise FileNotFoundError("haproxy is not installed (Debian: apt install haproxy)")
    return found


class Proxy:
    """HAProxy and its table of endpoints."""

    def __init__(self, folder: Path, ports: Sequence[int]) -> None:
        self._folder = folder
        self._socket = folder / "haproxy.sock"
        self.ports = tuple(ports)
        self._slots: dict[str, int] = {}
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        configuration = self._folder / "haproxy.cfg"
        l4, l7 = self.ports
        text = _CONFIGURATION.format(socket=self._socket, l4=l4, l7=l7, slots=SLOTS)
        configuration.write_text(text, encoding="utf-8")
        with (self._folder / "haproxy.log").open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                installed(), "-db", "-f", str(configuration), stdout=log, stderr=log
            )
        async with asyncio.timeout(10):
            while not self._socket.exists():  # noqa: ASYNC110 - another process makes it
                await asyncio.sleep(0.05)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def add(self, address: str, port: int) -> None:
        """New connections and requests may go there from now on."""
        slot = next(number for number in range(1, SLOTS + 1) if number not in self._slots.values())
        self._slots[address] = slot
        for backend in ("pods_l4", "pods_l7"):
            await self._tell(f"set server {backend}/pod{slot} addr {address} port {port}")
            await self._tell(f"set server {backend}/pod{slot} state ready")

    async def withdraw(self, address: str) -> None:
        """No new connection or request goes there; what is open stays open."""
        slot = self._slots.pop(address, None)
        if slot is None:
            return
        for backend in ("pods_l4", "pods_l7"):
            await self._tell(f"set server {backend}/pod{slot} state maint")

    async def _tell(self, command: str) -> None:
        reader, writer = await asyncio.open_unix_connection(str(self._socket))
        writer.write(f"{command}\n".encode())
        answer = (await reader.read()).decode().strip()
        writer.close()
        await writer.wait_closed()
        if answer and not answer.startswith(("IP changed", "no need", "port changed", "nothing changed")):
            raise RuntimeError(f"haproxy answered {answer!r} to {command!r}")

    def complaints(self) -> list[str]:
        """What HAProxy logged: connections and requests that did not go well."""
        lines = (self._folder / "haproxy.log").read_text(encoding="utf-8").splitlines()
        return [line for line in lines if "connections" in line or "requests" in line]
