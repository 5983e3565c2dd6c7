"""Asks the real programs whether they understand a command line."""

import pathlib
import re
import subprocess

from layout import Prefix

PROXY = "dysvr-proxy"
OURS = (PROXY, "dysvr-node", "dysvr-controller", "dysvrctl")


class Programs:
    """The programs in one folder."""

    def __init__(self, binaries: pathlib.Path, scratch: pathlib.Path):
        self.binaries = binaries
        self.scratch = scratch

    def _run(self, name: str, words: list[str]) -> subprocess.CompletedProcess:
        return subprocess.run(
            [self.binaries / name, *words], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False
        )

    def problems(self, where: str, words: list[str], prefix: Prefix):
        """Whether the program named by `words[0]` takes the rest. Programs of others are not asked."""
        name = pathlib.Path(words[0]).name
        if name not in OURS:
            return
        if any("$(" in word or "${" in word for word in words):
            yield f"{where}: a variable that nothing sets in {words}"
        elif name == PROXY:
            yield from self._proxy(where, [prefix.translate(word) for word in words[1:]])
        else:
            # clap reads from left to right: it stops at --help only if all before it is right.
            done = self._run(name, [*words[1:], "--help"])
            if done.returncode != 0:
                yield f"{where}: {' '.join(words)}: {_first_line(done)}"

    def _proxy(self, where: str, words: list[str]):
        # A signal needs a master; the rest is what `-t` is for.
        test = [*words, "--help"] if "-s" in words else words if "-t" in words else [*words, "-t"]
        done = self._run(PROXY, test)
        if done.returncode != 0:
            yield f"{where}: dysvr-proxy {' '.join(test)}: {_first_line(done)}"

    def environment_problems(self, where: str, programs: list[str], names: list[str]):
        """Whether one of the programs reads each of our variables that are set for them."""
        known = ""
        for name in (pathlib.Path(program).name for program in programs):
            if name in OURS and name != PROXY:
                text = self._run(name, ["run", "--help"] if name == "dysvr-node" else ["--help"]).stdout
                known += " ".join(text.split())  # lines are wrapped anywhere
        for variable in names:
            if variable.startswith("DYSVR_") and not re.search(rf"\[env: {variable}[=\]]", known):
                yield f"{where}: {' and '.join(programs)} read no {variable}"


def _first_line(done: subprocess.CompletedProcess) -> str:
    lines = (done.stderr or done.stdout).strip().splitlines()
    return f"exit {done.returncode}: {lines[0] if lines else 'no output'}"
