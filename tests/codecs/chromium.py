"""Headless Chromium as an independent reader: pixel values at any display headroom, and screenshots.

Speaks the DevTools protocol over a pipe, so it needs no port and no Python package.
"""

from __future__ import annotations

import base64
import fcntl
import io
import json
import os
import shutil
import subprocess
import tempfile
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image

_FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--hide-scrollbars"),
    *("--enable-experimental-web-platform-features", "--force-color-profile=srgb", "--no-first-run"),
    *("--disable-extensions", "--disable-background-networking"),
)
# globalHDRHeadroom is the log2 of the display's headroom and must be set before anything is drawn.
_READ = """
(async () => {
  const image = new Image(); image.src = %s; await image.decode();
  const [w, h] = [image.naturalWidth, image.naturalHeight];
  const canvas = new OffscreenCanvas(w, h);
  const kind = {colorSpace: 'srgb-linear', colorType: 'float16', willReadFrequently: true};
  const c = canvas.getContext('2d', kind);
  c.globalHDRHeadroom = %f;
  c.drawImage(image, 0, 0);
  const d = c.getImageData(0, 0, w, h, {colorSpace: 'srgb-linear', pixelFormat: 'rgba-float16'}).data;
  const bytes = new Uint8Array(d.buffer, d.byteOffset, d.byteLength);
  let text = '';
  for (let i = 0; i < bytes.length; i += 32768) text += String.fromCharCode(...bytes.subarray(i, i + 32768));
  return JSON.stringify([w, h, d.constructor.name, btoa(text)]);
})()
"""
_KINDS = {"Float16Array": np.float16, "Float32Array": np.float32}


def find_chromium() -> str | None:
    """Path of the browser, or None."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def _url(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


class Chromium:
    """A browser for the length of a `with` block."""

    def __enter__(self) -> Chromium:
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()
        # Chromium expects the pipe at descriptors 3 and 4; the shell moves it there from above both.
        moved = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 10) for descriptor in (to_read, to_write)]
        command = [str(find_chromium()), *_FLAGS, f"--user-data-dir={self._profile.name}", "about:blank"]
        shell = ["bash", "-c", f'exec 3<&{moved[0]} 4>&{moved[1]}; exec "$@"', "bash", *command]
        self._process = subprocess.Popen(
            shell, pass_fds=moved, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for descriptor in (to_read, to_write, *moved):
            os.close(descriptor)
        self._buffer, self._number = b"", 0
        (target,) = [t for t in self._call("Target.getTargets")["targetInfos"] if t["type"] == "page"]
        attached = self._call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        self._evaluate("document.body.style = 'margin:0;background:black'; ''")
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._write)
        os.close(self._read)
        self._profile.cleanup()

    def pixels(self, data: bytes, *, stops: float, kind: str = "jpeg") -> np.ndarray:
        """float32 [H,W,3] linear sRGB, 1.0 = SDR white, as shown with `stops` of display headroom."""
        script = _READ % (json.dumps(_url(data, kind)), stops)
        width, height, array, text = json.loads(self._evaluate(script))
        values = np.frombuffer(base64.b64decode(text), _KINDS[array]).reshape(height, width, 4)
        return values[..., :3].astype(np.float32)

    def screenshot(self, data: bytes, width: int, height: int, kind: str = "jpeg") -> np.ndarray:
        """uint8 [H,W,3] of the picture as a page on an SDR display shows it."""
        source = json.dumps(_url(data, kind))
        self._evaluate(
            f"(async () => {{ const i = new Image(); i.src = {source}; await i.decode();"
            " i.style.display = 'block'; document.body.replaceChildren(i);"
            " await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));"
            " return ''; })()"
        )
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._page_call("Emulation.setDeviceMetricsOverride", **size)
        shot = self._page_call("Page.captureScreenshot", format="png")["data"]
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(shot))).convert("RGB"))[:height, :width]

    def _evaluate(self, script: str) -> str:
        options = {"expression": script, "awaitPromise": True, "returnByValue": True}
        answer = self._page_call("Runtime.evaluate", **options)
        if "exceptionDetails" in answer:
            raise RuntimeError(json.dumps(answer["exceptionDetails"])[:500])
        return answer["result"]["value"]

    def _page_call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._call(method, session=self._session, **parameters)

    def _call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        self._send(json.dumps(message).encode() + b"\0")
        while True:
            answer = json.loads(self._next_message())
            if answer.get("id") == message["id"]:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def _send(self, message: bytes) -> None:
        while message:
            message = message[os.write(self._write, message) :]

    def _next_message(self) -> bytes:
        while b"\0" not in self._buffer:
            chunk = os.read(self._read, 1 << 20)
            if not chunk:
                raise RuntimeError("Chromium ended")
            self._buffer += chunk
        message, self._buffer = self._buffer.split(b"\0", 1)
        return message
