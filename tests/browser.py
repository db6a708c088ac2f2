"""A headless Chromium, driven through its own pipe: no package, no port."""

from __future__ import annotations

import base64
import json
import os
import select
import subprocess
import time
from pathlib import Path
from typing import Any

START = ("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run")
"""Without its sandbox, which needs rights that containers do not have."""
PATIENCE = 300.0
"""Seconds that the page may take for anything."""


class Browser:
    """One page of one browser, by the DevTools protocol.

    Args:
        program: Chromium.
        profile: an empty folder.
        flags: more of its command line.
    """

    def __init__(self, program: str, profile: Path, *flags: str) -> None:
        theirs, self._out = os.pipe()
        self._in, answers = os.pipe()

        def place() -> None:  # the browser reads from 3 and writes to 4
            spare = [os.dup(end) for end in (theirs, answers)]
            for end, number in zip(spare, (3, 4), strict=True):
                os.dup2(end, number)

        self._process = subprocess.Popen(
            [program, *START, f"--user-data-dir={profile}", *flags],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, close_fds=False, preexec_fn=place,
        )  # fmt: skip
        os.close(theirs)
        os.close(answers)
        self._number, self._read = 0, b""
        self.log: list[str] = []
        """What the page wrote to its console, and its errors."""
        self._session: str | None = None
        page = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=page, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "DOM", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol; returns its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result
            self._note(answer)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._read:
            ready, _, _ = select.select([self._in], [], [], PATIENCE)
            part = os.read(self._in, 1 << 16) if ready else b""
            assert part, "the browser does not answer"
            self._read += part
        one, _, self._read = self._read.partition(b"\0")
        message: dict[str, Any] = json.loads(one)
        return message

    def _note(self, event: dict[str, Any]) -> None:
        content = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            self.log.append(str(content["exceptionDetails"].get("exception", content)))
        elif event.get("method") == "Log.entryAdded":
            self.log.append(f"{content['entry']['level']}: {content['entry']['text']}")
        elif event.get("method") == "Network.requestWillBeSent":
            self.log.append(f"request: {content['request']['method']} {content['request']['url']}")

    def run(self, code: str) -> Any:
        """The value of an expression in the page, once its promise is kept."""
        done = self.call(
            "Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True,
            userGesture=True,
        )  # fmt: skip
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def wait(self, condition: str) -> None:
        """Wait until an expression in the page is true."""
        end = time.monotonic() + PATIENCE
        while not self.run(condition):
            assert time.monotonic() < end, f"never {condition}\n" + "\n".join(self.log)
            time.sleep(0.1)

    def give_file(self, selector: str, path: Path) -> None:
        """Choose a file, as a person would in the dialogue."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def screenshot(self, path: Path, width: int, *, dark: bool = False) -> None:
        """A picture of the whole page at a window's width in pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1,
            mobile=width < 600,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        time.sleep(0.8)  # for what follows the new width
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))

    def close(self) -> None:
        """End it."""
        os.close(self._out)  # the browser ends with its pipe
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)
