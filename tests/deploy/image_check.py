"""`make image-check`: the Dockerfile's image, built and run without a container engine, as root.

buildah builds it on a base that debootstrap makes (`BASE=name` takes another). It runs as its files
in a mount namespace: read-only, as a user id that nobody has, with /models, /cache and /tmp to
write to. What was promised of it is tried, its size, start and speed are printed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import httpx2
import openai

from server.catalog import ModelStore, load_catalog
from server.settings import DEFAULT_MODEL, default_models_dir
from tests.e2e.conftest import free_port, until

ROOT = Path(__file__).parents[2]
BASE = "localhost/ingle-base"
IMAGE = "localhost/ingle-check"
USER = 54_321
ROUNDS = 3
SHAPE = ("--slots", "8", "--ctx", "2048", "--threads", "2")
SECRETS = {"pip": "/etc/pip.conf", "certificates": "/etc/ssl/certs/ca-certificates.crt"}
NEEDED = {"buildah": "buildah", "debootstrap": "debootstrap", "unshare": "util-linux"}


def main() -> None:
    _check_tools()
    os.environ |= {"STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"}
    base = os.environ.get("BASE") or _base()
    started = time.monotonic()
    _build(base)
    print(f"built in {time.monotonic() - started:.0f} s (layers that were there are used again)")
    container = _told("buildah", "from", IMAGE)
    try:
        root = Path(_told("buildah", "mount", container))
        _sizes(root, base)
        _try(root)
    finally:
        _told("buildah", "rm", container)
    print("image-check: all of it holds")


def _check_tools() -> None:
    if os.geteuid() != 0:
        sys.exit("image-check mounts file systems: run it as root")
    missing = [package for name, package in NEEDED.items() if shutil.which(name) is None]
    if missing:
        subprocess.run(
            ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing, "crun"],
            check=True,
            stdout=subprocess.DEVNULL,
        )


def _told(*command: str) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip()


def _base() -> str:
    """Debian's smallest system, once."""
    if subprocess.run(["buildah", "inspect", BASE], capture_output=True).returncode == 0:
        return BASE
    print("debootstrap makes the base …", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        tree, archive = f"{directory}/tree", f"{directory}/base.tar"
        with open(f"{directory}/log", "w") as log:
            made = ["debootstrap", "--variant=minbase", "bookworm", tree]
            subprocess.run(made, check=True, stdout=log)
        _told("tar", "-C", tree, "-cf", archive, ".")
        container = _told("buildah", "from", "scratch")
        _told("buildah", "add", "-q", container, archive, "/")
        _told("buildah", "config", "--cmd", "/bin/sh", container)
        _told("buildah", "commit", "-q", "--rm", container, BASE)
    return BASE


def _build(base: str) -> None:
    print(
        "buildah builds; the engine compiles for a quarter of an hour the first time …", flush=True
    )
    secrets = [
        f"--secret=id={name},src={path}" for name, path in SECRETS.items() if Path(path).exists()
    ]
    log = Path(tempfile.gettempdir()) / "image-check.log"
    with log.open("w") as output:
        done = subprocess.run(
            [
                "buildah",
                "bud",
                "--format",
                "docker",
                "--layers",
                f"--build-arg=BASE={base}",
                *secrets,
                "-t",
                IMAGE,
                ".",
            ],
            cwd=ROOT,
            stdout=output,
            stderr=output,
        )
    if done.returncode != 0:
        sys.exit(f"the build failed:\n{log.read_text()[-3000:]}")


def _sizes(root: Path, base: str) -> None:
    whole = int(_told("du", "-sm", str(root)).split()[0])
    container = _told("buildah", "from", base)
    below = int(_told("du", "-sm", _told("buildah", "mount", container)).split()[0])
    _told("buildah", "rm", container)
    print(f"size {whole} MiB, {whole - below} of it on the base")


class Running:
    """The image's command in its files, as a container engine would start it."""

    def __init__(self, root: Path, directory: Path, *flags: str, **variables: str) -> None:
        self.config = _config()
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        environment = dict(entry.split("=", 1) for entry in self.config["Env"])
        environment |= {"INGLE_PORT": str(self.port), "TINI_SUBREAPER": "1", **variables}
        self._environment = [f"{name}={value}" for name, value in environment.items()]
        for name in ("models", "cache"):
            (directory / name).mkdir(exist_ok=True)
            os.chown(directory / name, USER, USER)
        mounts = f"""
            mount --bind {root} {root} && mount -o remount,bind,ro {root}
            mount -t tmpfs tmpfs {root}/tmp && mount -t proc proc {root}/proc
            mount --bind {directory}/models {root}/models
            mount --bind {directory}/cache {root}/cache
            mount --rbind /dev {root}/dev
        """
        command = [*self.config["Entrypoint"], *self.config["Cmd"], *flags]
        self._prefix = ["unshare", "--mount", "--propagation", "private"]
        entered = ["chroot", f"--userspec={USER}:{USER}", "--groups=", str(root), "env", "-i"]
        script = f'set -e\n{mounts}\nexec "$@"'
        self._log = (directory / "log").open("w+")
        self.process = subprocess.Popen(
            [*self._prefix, "sh", "-c", script, "sh", *entered, *self._environment, *command],
            stdout=self._log,
            stderr=self._log,
        )

    def ready(self) -> bool:
        assert self.process.poll() is None, self.log()
        with contextlib.suppress(httpx2.TransportError):
            return httpx2.get(f"{self.url}/readyz", timeout=2).status_code == 200
        return False

    def log(self) -> str:
        self._log.seek(0)
        return self._log.read()[-4000:]

    def inside(self, *command: str) -> subprocess.CompletedProcess[str]:
        """In the same mounts and as the same user."""
        enter = ["nsenter", f"--mount=/proc/{self.process.pid}/ns/mnt"]
        enter += [f"--root=/proc/{self.process.pid}/root", f"--setuid={USER}", f"--setgid={USER}"]
        return subprocess.run(
            [*enter, "env", "-i", *self._environment, *command], capture_output=True, text=True
        )


def _config() -> dict[str, Any]:
    told = json.loads(_told("buildah", "inspect", "--type", "image", IMAGE))
    config: dict[str, Any] = told["Docker"]["config"]
    return config


@contextlib.contextmanager
def _started(root: Path, directory: Path, *flags: str, **variables: str) -> Iterator[Running]:
    running = Running(root, directory, *flags, **variables)
    try:
        until(running.ready, 120)
        yield running
    finally:
        running.process.kill()
        running.process.wait()


def _model(directory: Path) -> str:
    """The default one, where the image looks for models."""
    spec = load_catalog().find(DEFAULT_MODEL)
    assert spec is not None
    subprocess.run([sys.executable, "-m", "server", "pull", DEFAULT_MODEL], check=True, cwd=ROOT)
    path = ModelStore(Path(os.environ.get("INGLE_MODELS_DIR") or default_models_dir())).path(spec)
    (directory / "models").mkdir()
    shutil.copy(path, directory / "models" / path.name)
    return str(path)


def _try(root: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        model = _model(directory)
        _refuses_to_be_open(root, directory)
        started = time.monotonic()
        with _started(root, directory, *SHAPE, INGLE_API_KEY="sk-check") as running:
            print(f"ready after {time.monotonic() - started:.1f} s, its model at hand")
            _is_confined(running)
            _is_healthy(running)
            _streams(running)
            _drains(running)
        _compare(root, directory, model)


def _refuses_to_be_open(root: Path, directory: Path) -> None:
    """On the network without a key, unless that is said."""
    running = Running(root, directory)
    assert running.process.wait(30) == 2, running.log()
    assert "--api-key" in running.log(), running.log()


def _is_confined(running: Running) -> None:
    status = Path(f"/proc/{running.process.pid}/status").read_text()
    assert re.search(rf"Uid:\s+{USER}\s+{USER}", status), status
    for path in ("/opt/ingle/x", "/x", "/etc/x"):
        refused = running.inside("touch", path)
        assert "Read-only file system" in refused.stderr, refused.stderr
    assert running.inside("touch", "/models/x", "/cache/x", "/tmp/x").returncode == 0
    assert running.config["User"] not in ("", "0", "root"), "by default it is nobody's either"
    print(f"read-only, as user {USER}")


def _is_healthy(running: Running) -> None:
    check = running.config["Healthcheck"]["Test"]
    assert check[0] == "CMD"
    assert running.inside(*check[1:]).returncode == 0
    wrong = ["env", f"INGLE_PORT={free_port()}", *check[1:]]
    assert running.inside(*wrong).returncode == 1, "it is healthy whatever answers"


def _streams(running: Running) -> None:
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="sk-check") as client:
        stream = client.chat.completions.create(
            model=DEFAULT_MODEL,
            messages=[{"role": "user", "content": "Say hello in one short sentence."}],
            temperature=0,
            stream=True,
        )
        chunks = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    assert len([chunk for chunk in chunks if chunk]) > 3, chunks
    print(f"streamed: {''.join(chunks)}")


def _drains(running: Running) -> None:
    """Told to stop in the middle of an answer: that ends whole, and then the container."""
    stop = getattr(signal, running.config.get("StopSignal") or "SIGTERM")
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="sk-check") as client:
        stream = client.chat.completions.create(
            model=DEFAULT_MODEL,
            messages=[{"role": "user", "content": "Count."}],
            max_tokens=200,
            extra_body={"ignore_eos": True},
            stream=True,
        )
        events = iter(stream)
        next(events)
        running.process.send_signal(stop)
        ends = [chunk.choices[0].finish_reason for chunk in events if chunk.choices]
    assert ends[-1] == "length"
    assert running.process.wait(40) == 0, running.log()
    print("drained on SIGTERM, exit code 0")


def _compare(root: Path, directory: Path, model: str) -> None:
    """Tokens a second of 8 clients, the image's kernels and those compiled for this machine."""
    speeds: dict[str, list[float]] = {"image": [], "native": []}
    for _ in range(ROUNDS):
        with _started(root, directory, *SHAPE, INGLE_INSECURE="true") as running:
            speeds["image"].append(_speed(running.url))
        port = free_port()
        command = [sys.executable, "-m", "server", "serve", model, "--port", str(port), *SHAPE]
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            url = f"http://127.0.0.1:{port}"
            until(lambda url=url: _answers(url), 60)
            speeds["native"].append(_speed(url))
        finally:
            process.terminate()
            process.wait()
    image, native = median(speeds["image"]), median(speeds["native"])
    print(f"8 clients: {image:.0f} tokens/s, native {native:.0f}: {image / native:.2f} x")


def _answers(url: str) -> bool:
    with contextlib.suppress(httpx2.TransportError):
        return httpx2.get(f"{url}/readyz", timeout=2).status_code == 200
    return False


def _speed(url: str) -> float:
    bench = [sys.executable, "-m", "server", "bench", f"{url}/v1", "--concurrency", "8"]
    told = json.loads(_told(*bench, "--json", "--seed", "1"))
    (row,) = told["rows"]
    assert row["errors"] == 0, row
    return float(row["output_rate"])


if __name__ == "__main__":
    main()
