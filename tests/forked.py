"""Programs forked from a process that has imported their libraries, which takes seconds each time.

Run as a script, this is that process: it reads one request a line and answers with the exit code.
"""

from __future__ import annotations

import json
import os
import runpy
import select
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from tests.sketches import sketch


def run_forked(
    arguments: list[str], cwd: Path, env: dict[str, str], timeout: float, sketching: bool
) -> subprocess.CompletedProcess[str]:
    """Run ``python <arguments>``, which are a script or ``-m`` and a module, and its own."""
    server = start_server()
    assert server.stdin is not None and server.stdout is not None
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        request = {"arguments": arguments, "cwd": str(cwd), "env": env, "sketching": sketching}
        server.stdin.write(json.dumps({**request, "out": str(out), "err": str(err)}) + "\n")
        server.stdin.flush()
        if not select.select([server.stdout], [], [], timeout)[0]:
            server.kill()
            start_server.cache_clear()
            raise subprocess.TimeoutExpired(arguments, timeout)
        code = int(server.stdout.readline())
        texts = [path.read_text(encoding="utf-8", errors="replace") for path in (out, err)]
    return subprocess.CompletedProcess(arguments, code, *texts)


@cache
def start_server() -> subprocess.Popen[str]:
    """The process of this test worker; it ends with it, when its input closes."""
    command = [sys.executable, "-m", "tests.forked"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def serve() -> None:
    """Fork a child for each request; only a child returns, or raises, what its program does."""
    import fer.tasks.evaluate
    import fer.tasks.study
    import fer.tasks.train  # noqa: F401

    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            become(**request)
            return
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def become(
    arguments: list[str], cwd: str, env: dict[str, str], sketching: bool, out: str, err: str
) -> None:
    """Run a program in this process."""
    if sketching:
        sketch(setattr)
    for number, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, out, os.O_WRONLY | os.O_CREAT),
        (2, err, os.O_WRONLY | os.O_CREAT),
    ):
        os.dup2(os.open(path, flags, 0o600), number)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        sys.path[0] = cwd
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path[0] = str(Path(arguments[0]).parent)
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    serve()
