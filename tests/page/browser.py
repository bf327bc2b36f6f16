"""A real browser, told what to do by the DevTools protocol through a pipe.

    with Browser() as browser:                      # one process, for all tests
        async with browser.page() as page:          # a profile of its own
            await page.open("http://127.0.0.1:8095/")
            await page.until("document.title === 'x'")
            assert await page.run("1 + 1") == 2

Source: https://chromedevtools.github.io/devtools-protocol/; with `--remote-debugging-pipe` the
browser reads commands from descriptor 3 and writes to 4, each message ended by a zero byte.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

from tests.peers.tool import require

PATIENCE = 20.0
"""Seconds for what happens in a fraction of one on an idle machine."""

FLAGS = (
    "--headless=new",
    "--no-sandbox",  # tests may run as root; it sees nothing but pages of this project
    "--remote-debugging-pipe",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--force-color-profile=srgb",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # it reaches nobody else
)
# Descriptors 3 and 4 are the browser's to choose; a process that is only started has others.
LAUNCH = (
    "import fcntl, os, sys; "
    "r, w = [fcntl.fcntl(int(each), fcntl.F_DUPFD_CLOEXEC, 10) for each in sys.argv[1:3]]; "
    "os.dup2(r, 3); os.dup2(w, 4); "
    "os.execvp(sys.argv[3], sys.argv[3:])"
)
UNTIL = """
new Promise((resolve) => {
  const look = () => {
    if (!(%s)) return false;
    observer.disconnect();
    resolve(true);
    return true;
  };
  const observer = new MutationObserver(look);
  const everything = {subtree: true, childList: true, characterData: true, attributes: true};
  if (!look()) observer.observe(document, everything);
})
"""


class Browser:
    """The process; it ends with the `with`."""

    def __enter__(self) -> Self:
        require("chromium")
        self._folder = tempfile.mkdtemp(prefix="konnectivity-browser-")
        self._numbers = itertools.count(1)
        theirs, self._out = os.pipe()
        self._in, answers = os.pipe()
        os.set_blocking(self._in, False)
        command = ["chromium", *FLAGS, f"--user-data-dir={self._folder}"]
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-c", LAUNCH, str(theirs), str(answers), *command],
            pass_fds=(theirs, answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs)
        os.close(answers)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)
        shutil.rmtree(self._folder, ignore_errors=True)

    @asynccontextmanager
    async def page(self) -> AsyncIterator[Page]:
        """An empty page that shares nothing with others; one at a time."""
        page = Page(self._in, self._out, self._numbers)
        loop = asyncio.get_running_loop()
        loop.add_reader(self._in, page.readable)
        try:
            await page.begin()
            yield page
            await page.end()
        finally:
            loop.remove_reader(self._in)


class Page:
    """A tab. `complaints` are errors of the page, `requests` all addresses that it asked for.

    `origin` is that of the page that was opened last.
    """

    def __init__(self, source: int, sink: int, numbers: itertools.count[int]) -> None:
        self._in, self._out, self._numbers = source, sink, numbers
        self._buffer = b""
        self._awaited: dict[int, asyncio.Future[Any]] = {}
        self._session = ""
        self.origin = ""
        self.complaints: list[str] = []
        self.requests: list[str] = []

    async def begin(self) -> None:
        self._context = (await self.call("Target.createBrowserContext"))["browserContextId"]
        target = await self.call(
            "Target.createTarget", url="about:blank", browserContextId=self._context
        )
        attached = await self.call(
            "Target.attachToTarget", targetId=target["targetId"], flatten=True
        )
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
            await self.call(f"{domain}.enable")

    async def end(self) -> None:
        self._session = ""
        await self.call("Target.disposeBrowserContext", browserContextId=self._context)

    # The protocol

    async def call(self, method: str, **params: Any) -> Any:
        """A command and its result."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        future = self._awaited[number] = asyncio.get_running_loop().create_future()
        os.write(self._out, json.dumps(message).encode() + b"\0")
        async with asyncio.timeout(PATIENCE):
            return await future

    def readable(self) -> None:
        try:
            data = os.read(self._in, 1 << 20)
        except BlockingIOError:
            return
        if not data:
            asyncio.get_running_loop().remove_reader(self._in)
            for future in self._awaited.values():
                future.set_exception(AssertionError("the browser is gone"))
            return
        *whole, self._buffer = (self._buffer + data).split(b"\0")
        for message in whole:
            self._received(json.loads(message))

    def _received(self, message: Any) -> None:
        future = self._awaited.pop(message.get("id", 0), None)
        if future is not None and not future.done():
            if "error" in message:
                future.set_exception(AssertionError(message["error"]["message"]))
            else:
                future.set_result(message["result"])
            return
        if not self._session or message.get("sessionId") != self._session:
            return
        params = message["params"]
        match message.get("method"):
            case "Runtime.exceptionThrown":
                detail = params["exceptionDetails"]
                cause = detail.get("exception", {}).get("description", detail["text"])
                self.complaints.append(cause)
            case "Runtime.consoleAPICalled":
                self.complaints.append(f"console: {params['args']}")
            case "Log.entryAdded":
                entry = params["entry"]
                self.complaints.append(f"{entry['level']}: {entry['text']} {entry.get('url', '')}")
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])

    # What a person does

    async def open(self, address: str) -> None:
        """Go there, and wait until all files of the page are in."""
        self.origin = "/".join(address.split("/")[:3])
        await self.call("Page.navigate", url=address)
        await self.run(
            "new Promise((done) => document.readyState === 'complete' ? done() "
            ": addEventListener('load', done))"
        )

    async def run(self, expression: str) -> Any:
        """The value of an expression of the page's language; a promise is awaited."""
        result = await self.call(
            "Runtime.evaluate",
            expression=expression,
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
        )
        detail = result.get("exceptionDetails")
        assert detail is None, detail.get("exception", {}).get("description", detail)
        return result["result"].get("value")

    async def until(self, condition: str) -> None:
        """Wait for a condition; it is looked at after every change of the document."""
        try:
            await self.run(UNTIL % condition)
        except TimeoutError:
            raise AssertionError(f"it never came to: {condition}") from None

    async def press(self, key: str, code: int, *, text: str = "") -> None:
        """A key: its name and Windows' number of it, as the protocol wants them."""
        common = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        await self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    async def type(self, text: str) -> None:
        """Text into what has the focus."""
        await self.call("Input.insertText", text=text)

    async def look(self, *, width: int, height: int, scheme: str = "light") -> None:
        """The size of the window, and whether it is day or night."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        feature = {"name": "prefers-color-scheme", "value": scheme}
        await self.call("Emulation.setEmulatedMedia", features=[feature])

    async def picture(self, *, whole: bool = False) -> bytes:
        """A PNG of what is in the window, or of all the page."""
        made = await self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        return base64.b64decode(made["data"])
