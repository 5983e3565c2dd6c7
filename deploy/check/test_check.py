"""The check must find what it is there for: plants faults in a copy of deploy/ and expects each of them to be named."""

import importlib.util
import os
import pathlib
import shutil
import tempfile
import unittest


HERE = pathlib.Path(__file__).parent
TOP = HERE.parents[1]

# `import __main__` would be this program itself.
_spec = importlib.util.spec_from_file_location("check_main", HERE / "__main__.py")
check_main = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(check_main)

NODE = "deploy/kubernetes/base/node/daemonset.yaml"
CONTROLLER = "deploy/kubernetes/base/controller/statefulset.yaml"
SINGLE = "deploy/kubernetes/overlays/single/statefulset.yaml"
PROXY_UNIT = "deploy/systemd/dysvr-proxy.service"
NODE_UNIT = "deploy/systemd/dysvr-node.service"
RUNBOOK = "deploy/RUNBOOK.md"
DOCKERFILE = "deploy/docker/Dockerfile"

# File, what stands there, what we write instead, a part of the problem that must be reported.
FAULTS = [
    (NODE, "minReadySeconds: 5", "minReadySecond: 5", "minReadySecond"),
    (CONTROLLER, "startupProbe:", "startUpProbe:", "startUpProbe"),
    (NODE, "[run, --attach,", "[run, --atach,", "--atach"),
    (NODE, "probe, ready,", "probe, readyness,", "readyness"),
    (NODE, "-c, conf/nginx.conf,", "-c, conf/other.conf,", "other.conf"),
    (NODE, "--state, /var/lib/dysvr/state", "--state, /var/lib/other/state", "/var/lib/other/state"),
    (NODE, "shareProcessNamespace: true", "shareProcessNamespace: false", "shareProcessNamespace"),
    (NODE, "dnsPolicy: ClusterFirstWithHostNet", "dnsPolicy: ClusterFirst", "Service from the host's network"),
    (NODE, "terminationGracePeriodSeconds: 75", "terminationGracePeriodSeconds: 30", "grace period"),
    (NODE, "name: DYSVR_NODE_LABELS", "name: DYSVR_NODE_LABEL", "read no DYSVR_NODE_LABEL"),
    (NODE, "dysvr/node-labels: pool", "dysvr/labels: pool", "no annotation dysvr/node-labels"),
    (NODE, "priorityClassName: dysvr-node", "priorityClassName: dysvr", "no priority class dysvr"),
    (NODE, "{name: run, mountPath: /run/dysvr}", "{name: ran, mountPath: /run/dysvr}", "no volume ran"),
    (NODE, "mountPath: /tmp", "mountPath: /temp", "nowhere to wait"),
    (NODE, "automountServiceAccountToken: false", "automountServiceAccountToken: true", "token"),
    (CONTROLLER, "image: dysvr-controller:0.1.0", "image: dysvr-controller:latest", "image dysvr-controller:latest"),
    (SINGLE, "grpc: {port: 7480,", "grpc: {port: 7481,", "asks port 7481"),
    ("deploy/kubernetes/base/controller/service.yaml", "port: 7480", "port: 7481", "nobody answers to http://dysvr-controller-0"),
    ("deploy/kubernetes/base/controller/poddisruptionbudget.yaml", "      app.kubernetes.io/name: dysvr-", "      app.kubernetes.io/name: ", "selects 0"),
    ("deploy/kubernetes/overlays/single/configmap.yaml", "file:/var/lib/dysvr-c", "file:/var/lib/c", "is not on a writable volume"),
    (SINGLE, "--listen=", "--lisen=", "--lisen"),
    (PROXY_UNIT, "KillMode=", "KillMod=", "KillMod"),
    (PROXY_UNIT, "-s reload", "-s reloaded", "reloaded"),
    (PROXY_UNIT, "PIDFile=/run/dysvr/nginx.pid", "PIDFile=/run/dysvr/proxy.pid", "another pid file"),
    (NODE_UNIT, "run --attach", "run --attached", "--attached"),
    (NODE_UNIT, "ReadWritePaths=/var/lib/dysvr ", "ReadWritePaths=/var/lib/dysv ", "neither installed nor writable"),
    (RUNBOOK, "dysvrctl diff -f", "dysvrctl dif -f", "'dif'"),
    ("README.md", "`loc_id`, ", "`lock_id`, ", "the directive loc_id is missing"),
    (DOCKERFILE, "STOPSIGNAL SIGQUIT", "STOPSIGNAL SIGTERM", "STOPSIGNAL"),
    (DOCKERFILE, "--from=build /out/controller/ /", "--from=build /out/node/ /", "does not carry"),
]


class PlantedFaults(unittest.TestCase):
    def test_each_fault_is_named(self):
        with tempfile.TemporaryDirectory() as folder:
            top = pathlib.Path(folder) / "top"
            shutil.copytree(TOP / "deploy", top / "deploy", ignore=shutil.ignore_patterns("__pycache__"))
            for name in ("Makefile", "Cargo.toml", "README.md"):
                shutil.copy(TOP / name, top / name)
            shutil.copytree(TOP / "conf/src", top / "conf/src")
            for file, right, wrong, _ in FAULTS:
                text = (top / file).read_text()
                self.assertIn(right, text, f"{file} has changed: plant this fault elsewhere")
                (top / file).write_text(text.replace(right, wrong))
            scratch = pathlib.Path(folder) / "scratch"
            found = "\n".join(check_main.problems(top, pathlib.Path(os.environ["BIN"]).resolve(), scratch))
        for file, _, wrong, expected in FAULTS:
            with self.subTest(fault=wrong, file=file):
                if expected not in found:
                    self.fail(f"nothing says {expected!r}")


if __name__ == "__main__":
    unittest.main()
