"""Workloads: their commands, their paths, and the rules that this project holds its own manifests to."""

import pathlib
import re

import layout
import references
import yaml

# The part of kustomize that we use and that build() does.
KUSTOMIZATION = {"apiVersion", "kind", "resources"}


def build(folder: pathlib.Path) -> list[dict]:
    """The documents of a kustomization, in order."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    if unknown := kustomization.keys() - KUSTOMIZATION:
        raise SystemExit(f"{folder}: this check does not know kustomize's {sorted(unknown)}")
    documents = []
    for resource in kustomization["resources"]:
        path = folder / resource
        documents += build(path) if path.is_dir() else filter(None, yaml.safe_load_all(path.read_text()))
    listed = set(kustomization["resources"]) | {"kustomization.yaml"}
    if forgotten := {path.name for path in folder.glob("*.yaml")} - listed:
        raise SystemExit(f"{folder}: {sorted(forgotten)} is in no kustomization")
    return documents


def problems(documents, images, ask, prefix, version):
    """Every problem of the workloads among `documents`."""
    for workload in references.workloads(documents):
        where = f"{workload['kind']}/{workload['metadata']['name']}"
        yield from _pod(where, workload["spec"]["template"]["spec"], prefix)
        for container in references.containers(workload):
            at = f"{where}, {container['name']}"
            yield from _hardening(at, container)
            image, _, tag = container["image"].partition(":")
            if image not in images or tag != version:
                yield f"{at}: image {container['image']}, but we build {', '.join(images)} as {version}"
                continue
            yield from _commands(at, container, documents, images[image], ask, prefix)


def _pod(where: str, pod: dict, prefix):
    if pod.get("automountServiceAccountToken") is not False:
        yield f"{where}: hands out a service account's token"
    if pod.get("securityContext", {}).get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield f"{where}: has no seccomp profile"
    by_name = {container["name"]: container for container in pod["containers"]}
    if not {"proxy", "agent"} <= by_name.keys():
        return
    proxy, agent = by_name["proxy"], by_name["agent"]
    if not pod.get("shareProcessNamespace"):
        yield f"{where}: the agent cannot see the master without shareProcessNamespace"
    if pod.get("hostNetwork") and pod.get("dnsPolicy") != "ClusterFirstWithHostNet":
        yield f"{where}: cannot resolve the controllers' Service from the host's network"
    if "--attach" in agent.get("args", []) and _capabilities(agent):
        yield f"{where}: an agent that attaches needs no capabilities"
    needed = prefix.seconds("worker_shutdown_timeout") + int(proxy["lifecycle"]["preStop"]["exec"]["command"][-1])
    if pod["terminationGracePeriodSeconds"] <= needed:
        yield f"{where}: a grace period of {pod['terminationGracePeriodSeconds']} s cuts requests that may take {needed} s"
    if "/tmp" not in [mount["mountPath"] for mount in proxy["volumeMounts"]]:
        yield f"{where}, proxy: large bodies have nowhere to wait without a /tmp"
    for container in (proxy, agent):
        writable = [mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")]
        for path in prefix.absolute_paths():
            if not _below(path, writable):
                yield f"{where}, {container['name']}: cannot write {path} of the default configuration"


def _capabilities(container: dict) -> set[str]:
    return set(container["securityContext"]["capabilities"].get("add", []))


def _hardening(where: str, container: dict):
    context = container.get("securityContext", {})
    if context.get("allowPrivilegeEscalation") is not False:
        yield f"{where}: allows privilege escalation"
    if context.get("readOnlyRootFilesystem") is not True:
        yield f"{where}: its root is writable"
    if context.get("capabilities", {}).get("drop") != ["ALL"]:
        yield f"{where}: keeps capabilities"
    resources = container.get("resources", {})
    if not {"cpu", "memory"} <= resources.get("requests", {}).keys() or "memory" not in resources.get("limits", {}):
        yield f"{where}: requests of CPU and memory and a limit of memory are needed"


def _commands(where: str, container: dict, documents, image: pathlib.Path, ask, prefix):
    values = _environment(container, documents)
    main = [_expand(word, values) for word in container.get("command", []) + container.get("args", [])]
    hooks = [main]
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        hooks.append(container.get(name, {}).get("exec", {}).get("command"))
        port = next((value["port"] for kind, value in container.get(name, {}).items() if kind in ("grpc", "tcpSocket")), None)
        if port is not None and port not in {declared["containerPort"] for declared in container.get("ports", [])}:
            yield f"{where}: {name} asks port {port}, which it does not open"
    for hook in container.get("lifecycle", {}).values():
        hooks.append(hook.get("exec", {}).get("command"))

    mounts = {mount["mountPath"]: not mount.get("readOnly") for mount in container.get("volumeMounts", [])}
    writable = [mount for mount, is_writable in mounts.items() if is_writable]
    for name, value in values.items():
        if value.startswith("file:") and not _below(value.removeprefix("file:"), writable):
            yield f"{where}: {name} {value} is not on a writable volume"
    for words in filter(None, hooks):
        if not layout.exists(image, words[0]):
            yield f"{where}: {words[0]} is not in the image"
            continue
        for path in re.findall(r"(?:^|file:)(/[\w./-]+)", "\n".join(words[1:]), re.M):
            if not layout.exists(image, path) and not _below(path, mounts):
                yield f"{where}: {path} is neither in the image nor on a volume"
        for option, path in zip(words, words[1:]):
            if option == "--state" and not _below(path, writable):
                yield f"{where}: {option} {path} is not on a writable volume"
        yield from ask.problems(where, words, prefix)
    programs = [main[0]] + [path for path in ("/usr/bin/dysvrctl",) if layout.exists(image, path)]
    yield from ask.environment_problems(where, programs, list(values))


def _environment(container: dict, documents) -> dict[str, str]:
    values = {}
    for variable in container.get("env", []):
        key = variable.get("valueFrom", {}).get("configMapKeyRef")
        if key:
            values[variable["name"]] = references.by(documents, "ConfigMap").get(key["name"], {}).get("data", {}).get(key["key"], "")
        else:
            values[variable["name"]] = variable.get("value", "downward-api")
    return values


def _expand(word: str, values: dict[str, str]) -> str:
    """Kubernetes' `$(NAME)`; an unknown name stays as it stands."""
    return re.sub(r"\$\((\w+)\)", lambda name: values.get(name[1], name[0]), word)


def _below(path: str, folders) -> bool:
    return any(path == folder or path.startswith(folder.rstrip("/") + "/") for folder in folders)
