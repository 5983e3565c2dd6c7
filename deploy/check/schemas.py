"""Kubernetes' own schemas, strictly: a field that Kubernetes would drop is a problem."""

import kubernetes_validate
from kubernetes_validate import utils

# The oldest and the newest that the package carries.
VERSIONS = (utils.all_versions()[0], utils.latest_version())


def problems(documents: list[dict]):
    """What the schemas of VERSIONS refuse."""
    for document in documents:
        for version in VERSIONS:
            where = f"{document.get('kind')}/{document.get('metadata', {}).get('name')} (Kubernetes {version})"
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                yield f"{where}: {'.'.join(map(str, error.absolute_path))}: {error.message}"
            except kubernetes_validate.SchemaNotFoundError as error:
                yield f"{where}: {error.message}"
