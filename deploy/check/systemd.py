"""The units: systemd's own verdict on them, their commands, and their paths."""

import pathlib
import re
import shlex
import subprocess

import layout

# Units of the system that ours name, which a scratch root does not have.
TARGETS = ("sysinit", "basic", "shutdown", "multi-user", "network-online", "nss-lookup")


def problems(machine: pathlib.Path, ask, prefix):
    """What systemd-analyze says, then what it does not look at."""
    units = sorted((machine / "usr/lib/systemd/system").glob("dysvr-*.service"))
    for target in TARGETS:
        (units[0].parent / f"{target}.target").write_text(f"[Unit]\nDescription={target}\n")
    words = ["systemd-analyze", "verify", "--man=no", f"--root={machine}", *(f"/{unit.relative_to(machine)}" for unit in units)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    for line in (done.stderr + done.stdout).splitlines():
        if "dysvr" in line:
            yield f"systemd: {line.removeprefix(str(machine))}"
    if done.returncode != 0:
        yield f"systemd-analyze verify: exit {done.returncode}"

    tmpfiles = [line.split()[1] for line in (machine / "usr/lib/tmpfiles.d/dysvr.conf").read_text().splitlines() if line[0] == "d"]
    for unit in units:
        yield from _unit(unit, machine, tmpfiles, ask, prefix)
    rotate = (machine / "etc/logrotate.d/dysvr").read_text()
    yield from ask.problems("logrotate", shlex.split(re.search(r"\|\| (/.*)", rotate)[1]), prefix)


def _unit(unit: pathlib.Path, machine: pathlib.Path, tmpfiles: list[str], ask, prefix):
    settings = [tuple(line.split("=", 1)) for line in unit.read_text().splitlines() if re.match(r"\w+=", line)]
    values = dict(settings)
    environment = dict(word.split("=", 1) for word in values.get("Environment", "").split())
    commented = {}
    for file in re.findall(r"^EnvironmentFile=-?(.*)", unit.read_text(), re.M):
        text = (machine / file.lstrip("/")).read_text()
        environment |= dict(re.findall(r"^(\w+)=(.*)", text, re.M))
        commented |= dict(re.findall(r"^#(\w+)=(.*)", text, re.M))

    writable = values.get("ReadWritePaths", "").split() + [f"/var/lib/{name}" for name in values.get("StateDirectory", "").split()]
    for name, value in environment.items():
        if value.startswith("file:") and not any(value.startswith(f"file:{top}/") for top in writable):
            yield f"{unit.name}: {name} {value} is not writable for it"
    for key, line in settings:
        if not key.startswith("Exec"):
            continue
        words = [_expand(word, environment) for word in shlex.split(line)]
        for path in re.findall(r"(?:^|file:)(/[\w./-]+)", "\n".join(words), re.M):
            if not layout.exists(machine, path) and not any(path == top or path.startswith(f"{top}/") for top in writable):
                yield f"{unit.name}: {path} is neither installed nor writable for it"
        yield from ask.problems(unit.name, words, prefix)
    yield from ask.environment_problems(unit.name, shlex.split(values["ExecStart"])[:1], list(environment | commented))

    if "dysvr-proxy" in unit.name or "dysvr-node" in unit.name:
        for path in [*prefix.absolute_paths(), values.get("PIDFile", layout.RUN)]:
            if not any(path == top or path.startswith(f"{top}/") for top in tmpfiles):
                yield f"{unit.name}: nobody makes the folder of {path}"
        if "PIDFile" in values and values["PIDFile"] not in prefix.absolute_paths():
            yield f"{unit.name}: the default configuration has another pid file than {values['PIDFile']}"
    if "dysvr-proxy" in unit.name and int(values["TimeoutStopSec"].removesuffix("s")) <= prefix.seconds("worker_shutdown_timeout"):
        yield f"{unit.name}: TimeoutStopSec cuts requests that worker_shutdown_timeout allows"


def _expand(word: str, environment: dict[str, str]) -> str:
    """systemd's `${NAME}` and `%H`."""
    word = re.sub(r"\$\{(\w+)\}", lambda name: environment.get(name[1], name[0]), word)
    return word.replace("%H", "host")
