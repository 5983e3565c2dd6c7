"""What lies where on a machine and in the images: the Makefile's install targets say, and so we run them."""

import pathlib
import re
import socket
import subprocess

PREFIX = "/var/lib/dysvr"
RUN = "/run/dysvr"

# Programs of debian:bookworm-slim that our command lines may use.
BASE_IMAGE = {"/bin/sh", "/bin/sleep"}


def install(top: pathlib.Path, binaries: pathlib.Path, root: pathlib.Path, parts: list[str]) -> pathlib.Path:
    """Installs below `root` and returns it."""
    targets = [f"install-{part}" for part in parts]
    # What is checked here may have been built together with the tests, bugs on demand and all: it is not shipped.
    make = ["make", "--silent", "--assume-old=shippable", "--directory", top]
    subprocess.run([*make, *targets, f"DESTDIR={root}", f"BIN={binaries}"], check=True)
    return root


def exists(root: pathlib.Path, path: str) -> bool:
    """Whether `path` is installed below `root` or comes with the base image."""
    return path in BASE_IMAGE or (root / path.lstrip("/")).exists()


def version(top: pathlib.Path) -> str:
    """The version of the workspace, which images carry as their tag."""
    return re.search(r'^version = "(.*)"', (top / "Cargo.toml").read_text(), re.M)[1]


class Prefix:
    """A prefix that seed-prefix made from the default configuration, in a scratch folder that stands for the root."""

    def __init__(self, machine: pathlib.Path, scratch: pathlib.Path):
        self.root = scratch / "root"
        self.path = self.root / PREFIX.lstrip("/")
        (self.root / RUN.lstrip("/")).mkdir(parents=True)
        # The script as installed, but for the one absolute path in it.
        self.script = scratch / "seed-prefix"
        text = (machine / "usr/libexec/dysvr/seed-prefix").read_text()
        self.script.write_text(text.replace("/usr/share/dysvr", str(machine / "usr/share/dysvr")))
        self.shipped = (machine / "usr/share/dysvr/conf/nginx.conf").read_text()
        self._seed("container")
        # Written as the first start would find it, but for the folder and for ports that need no root.
        self.conf = self.path / "conf/nginx.conf"
        self.conf.write_text(self.translate(self._free_ports(self.shipped)))
        self._seed()
        self._seed("container")

    def _seed(self, *words: str):
        subprocess.run(["sh", self.script, self.path, *words], check=True)

    @staticmethod
    def _free_ports(text: str) -> str:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return re.sub(r"(listen\s+(?:\[::\]:)?)80\b", rf"\g<1>{probe.getsockname()[1]}", text)

    def translate(self, word: str) -> str:
        """A word of a command line or a text with the prefix and /run/dysvr moved below the scratch root."""
        for path in (PREFIX, RUN):
            word = re.sub(rf"(?<![\w/.-]){re.escape(path)}(?![\w-])", str(self.root / path.lstrip("/")), word)
        return word

    def absolute_paths(self) -> list[str]:
        """The absolute paths in the default configuration: what proxy and agent write outside the prefix."""
        code = re.sub(r"#.*", "", self.shipped)
        return [word for word in re.findall(r"(?<=\s)/[\w./-]+(?=;)", code)]

    def seconds(self, directive: str) -> int:
        """The value of a directive with a time in seconds."""
        return int(re.search(rf"^{directive}\s+(\d+)s;", self.shipped, re.M)[1])

    def problems(self):
        """seed-prefix must leave alone what is there, and make what its users count on."""
        if self.conf.read_text() == self.shipped:
            yield "seed-prefix: overwrote a configuration that was there"
        for name in ("conf/common_location.conf", "conf/auto_vhost", "conf/auto_upstream", "logs", "state"):
            if not (self.path / name).exists():
                yield f"seed-prefix: made no {name}"
        for name, stream in (("access.log", "/dev/stdout"), ("error.log", "/dev/stderr")):
            if (self.path / "logs" / name).readlink() != pathlib.Path(stream):
                yield f"seed-prefix: logs/{name} does not lead to {stream}"
