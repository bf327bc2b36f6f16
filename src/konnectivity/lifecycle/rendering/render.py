"""From a specification to objects, and from objects to YAML. Pure: nothing is read or asked.

The same objects feed `konnectivity manifests`, the manager, `deploy/kustomize` and `deploy/helm`.
"""

from __future__ import annotations

from konnectivity.lifecycle.objects.metadata import Object
from konnectivity.lifecycle.objects.monitoring import monitoring
from konnectivity.lifecycle.objects.policy import disruption_budget, network_policy
from konnectivity.lifecycle.objects.rbac import heartbeat_namespace, rights
from konnectivity.lifecycle.objects.workload import ca_bundle, service_account, workload
from konnectivity.lifecycle.rendering.yaml_text import to_yaml as to_yaml
from konnectivity.lifecycle.specification.spec import AgentSpec


def render(spec: AgentSpec) -> list[Object]:
    """All objects of the agents as plain JSON, in the order in which they are to be applied.

    `spec` is taken to be sound (`spec_check.problems`). What the workload needs comes before it;
    objects that only an operator's API knows come last. Secrets are not among them.
    """
    return [
        *heartbeat_namespace(spec),
        service_account(spec),
        *rights(spec),
        *ca_bundle(spec),
        *network_policy(spec),
        workload(spec),
        *disruption_budget(spec),
        *monitoring(spec),
    ]
