"""Whether what deploy/ and the documentation say is true: python deploy/check --bin target/debug

Manifests, strictly, against the schemas of the oldest and the newest Kubernetes that kubernetes-validate carries; then all that no schema
knows: every command line is given to the real programs, every path must exist in the image or on a volume, every reference must lead
somewhere. README's table of directives must be the code's. Prints each problem and exits 1 if there is one.
"""

import argparse
import pathlib
import sys
import tempfile

import docker
import docs
import kube
import layout
import programs
import references
import schemas
import systemd


def problems(top: pathlib.Path, binaries: pathlib.Path, scratch: pathlib.Path):
    """Every problem of the deploy/ below `top`."""
    deploy = top / "deploy"
    machine = layout.install(top, binaries, scratch / "machine", ["node", "controller", "systemd"])
    images = {f"dysvr-{name}": layout.install(top, binaries, scratch / name, [name]) for name in ("node", "controller")}
    ask = programs.Programs(binaries, scratch)
    prefix = layout.Prefix(machine, scratch)

    yield from prefix.problems()
    yield from docker.problems(deploy / "docker/Dockerfile", images, ask, prefix)
    yield from systemd.problems(machine, ask, prefix)
    yield from docs.problems(top, ask, prefix)
    yield from docs.directive_problems(top)
    for folder in ("base", "overlays/single"):
        documents = kube.build(deploy / "kubernetes" / folder)
        yield from schemas.problems(documents)
        yield from references.problems(documents)
        yield from kube.problems(documents, images, ask, prefix, layout.version(top))


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--bin", type=pathlib.Path, required=True, help="folder of the programs that were built")
    arguments.add_argument("--top", type=pathlib.Path, default=pathlib.Path(__file__).parents[2], help="the repository")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="dysvr-check-") as scratch:
        # The overlay repeats what it takes from the base.
        found = list(dict.fromkeys(problems(options.top.resolve(), options.bin.resolve(), pathlib.Path(scratch))))
    for problem in found:
        print(problem, file=sys.stderr)
    if found:
        print(f"deploy: {len(found)} problems", file=sys.stderr)
    else:
        print(f"deploy: fine, against Kubernetes {' and '.join(schemas.VERSIONS)}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
