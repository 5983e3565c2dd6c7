"""Names that one document uses and another must have: selectors, ports, ConfigMaps, priority classes, Services in URLs."""

import re
from collections import Counter

# The name of one pod of a StatefulSet, with a port.
PER_POD = r"(http://([\w-]+)-(\d+)\.([\w-]+)\.([\w-]+)\.svc:(\d+))"


def by(documents: list[dict], kind: str) -> dict[str, dict]:
    """The documents of a kind by name."""
    return {document["metadata"]["name"]: document for document in documents if document["kind"] == kind}


def workloads(documents: list[dict]) -> list[dict]:
    """The documents that hold a pod template."""
    return [document for document in documents if "template" in document.get("spec", {})]


def containers(workload: dict) -> list[dict]:
    """Init containers and containers."""
    pod = workload["spec"]["template"]["spec"]
    return pod.get("initContainers", []) + pod["containers"]


def problems(documents: list[dict]):
    """Every reference that leads nowhere."""
    names = Counter((document["kind"], document["metadata"]["name"]) for document in documents)
    yield from (f"{kind}/{name} is there {count} times" for (kind, name), count in names.items() if count > 1)

    config_maps, services, classes = by(documents, "ConfigMap"), by(documents, "Service"), by(documents, "PriorityClass")
    pods = [workload["spec"]["template"] for workload in workloads(documents)]

    for document in documents:
        where = f"{document['kind']}/{document['metadata']['name']}"
        namespace = document["metadata"].get("namespace")
        if document["kind"] not in ("Namespace", "PriorityClass") and namespace not in by(documents, "Namespace"):
            yield f"{where}: its namespace {namespace} is not there"

    for kind in ("Service", "PodDisruptionBudget"):
        for name, document in by(documents, kind).items():
            selector = document["spec"]["selector"]
            selector = selector.get("matchLabels", selector)
            selected = [pod for pod in pods if selector.items() <= pod["metadata"]["labels"].items()]
            if len(selected) != 1:
                yield f"{kind}/{name}: selects {len(selected)} kinds of pods"
                continue
            ports = {port["name"] for container in selected[0]["spec"]["containers"] for port in container.get("ports", [])}
            for port in document["spec"].get("ports", []):
                if port["targetPort"] not in ports:
                    yield f"{kind}/{name}: no pod has a port {port['targetPort']}"

    for workload in workloads(documents):
        where = f"{workload['kind']}/{workload['metadata']['name']}"
        pod = workload["spec"]["template"]
        if not workload["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items():
            yield f"{where}: does not select its own pods"
        if pod["spec"].get("priorityClassName", next(iter(classes), None)) not in {None, *classes}:
            yield f"{where}: no priority class {pod['spec']['priorityClassName']}"
        if "serviceName" in workload["spec"] and workload["spec"]["serviceName"] not in services:
            yield f"{where}: no Service {workload['spec']['serviceName']}"
        volumes = {volume["name"] for volume in pod["spec"].get("volumes", []) + _claims(workload)}
        for container in containers(workload):
            for mount in container.get("volumeMounts", []):
                if mount["name"] not in volumes:
                    yield f"{where}, {container['name']}: no volume {mount['name']}"
            for variable in container.get("env", []):
                yield from _variable(f"{where}, {container['name']}", variable, config_maps, pod)

    sets = by(documents, "StatefulSet")
    for name, config_map in config_maps.items():
        for value in config_map["data"].values():
            for url, owner, ordinal, service, namespace, port in re.findall(PER_POD, value):
                target = services.get(service)
                there = target and target["metadata"]["namespace"] == namespace and int(port) in _ports(target)
                if not there or int(ordinal) >= sets.get(owner, {"spec": {"replicas": 0}})["spec"]["replicas"]:
                    yield f"ConfigMap/{name}: nobody answers to {url}"


def _claims(workload: dict) -> list[dict]:
    return [claim["metadata"] for claim in workload["spec"].get("volumeClaimTemplates", [])]


def _ports(service: dict) -> set[int]:
    return {port["port"] for port in service["spec"]["ports"]}


def _variable(where: str, variable: dict, config_maps: dict[str, dict], pod: dict):
    source = variable.get("valueFrom", {})
    if key := source.get("configMapKeyRef"):
        if key["key"] not in config_maps.get(key["name"], {"data": {}})["data"]:
            yield f"{where}: {variable['name']}: no key {key['key']} in ConfigMap/{key['name']}"
    path = source.get("fieldRef", {}).get("fieldPath", "")
    if annotation := re.fullmatch(r"metadata\.annotations\['(.*)'\]", path):
        if annotation[1] not in pod["metadata"].get("annotations", {}):
            yield f"{where}: {variable['name']}: pods have no annotation {annotation[1]}"
