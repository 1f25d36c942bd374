"""Checks that what is deployed has no right, password or way out that it does not need; run by `deploy/check`.

    python3 deploy/hardening.py [FOLDER]

Knows the rules of docs/security.md, section Deployment. Reads the files as YAML; compose's and Kubernetes' schemas
are checked elsewhere.
"""

from __future__ import annotations

import ipaddress
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

#: Where clouds answer with credentials; no policy may let a pod reach them, except for DNS.
_METADATA = [ipaddress.ip_address(text) for text in ("169.254.169.254", "169.254.170.2", "fd00:ec2::254")]
_SECRET = re.compile(r"PASSWORD|SECRET|TOKEN$|_KEY$|_KEY_ID$|_USER$")
#: A value from the environment that must be there.
_REQUIRED = re.compile(r"^\$\{\w+:\?.+\}$")


def check(root: Path) -> list[str]:
    """The problems of all files, each with its file and what to do."""
    problems = []
    for path in (root / "docker-compose.yml", *sorted((root / "deploy").glob("compose.*.yml"))):
        services = yaml.safe_load(path.read_text(encoding="utf-8")).get("services", {})
        overridden = path.name != "docker-compose.yml"
        for name, service in services.items():
            if not (overridden and "image" not in service):  # it only adds to a service of the main file
                problems += [f"{path.name}: {name}: {text}" for text in _compose_problems(service)]
            problems += [f"{path.name}: {name}: {text}" for text in _password_problems(service)]
    for path in sorted((root / "deploy" / "kubernetes").rglob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            problems += [f"{path.relative_to(root)}: {text}" for text in _manifest_problems(document or {})]
    return problems


def _compose_problems(service: dict[str, Any]) -> Iterator[str]:
    if service.get("cap_drop") != ["ALL"] or service.get("cap_add"):
        yield "must drop all capabilities and add none (cap_drop: [ALL])"
    if "no-new-privileges:true" not in service.get("security_opt", []):
        yield "must not gain privileges (security_opt: no-new-privileges:true)"
    if service.get("read_only") is not True:
        yield "its root must be read-only (read_only: true)"
    if any("size=" not in mount for mount in service.get("tmpfs", [])):
        yield "a tmpfs must have a size"
    if service.get("privileged") or service.get("pid") or service.get("network_mode") == "host":
        yield "must not share the host's devices, processes or network"
    if any("docker.sock" in str(volume) for volume in service.get("volumes", [])):
        yield "must not reach the container engine"
    if not str(service.get("image", "")).startswith(("${", "darkroom-")):
        yield "its image must come from a variable, so that `deploy/pin-images` can pin it (${NAME_IMAGE:-…})"


def _password_problems(service: dict[str, Any]) -> Iterator[str]:
    for name, value in (service.get("environment") or {}).items():
        if (
            _SECRET.search(name)
            and value is not None
            and not name.endswith("_FILE")
            and not _REQUIRED.match(value)
        ):
            yield f"{name} must be required, without a default (${{{name}:?what to do}})"


def _manifest_problems(document: dict[str, Any]) -> Iterator[str]:
    name = f"{document.get('kind')} {document.get('metadata', {}).get('name')}"
    if document.get("kind") == "NetworkPolicy":
        yield from (f"{name}: {text}" for text in _policy_problems(document["spec"]))
    pod = document.get("spec", {}).get("template", {}).get("spec")
    if pod and any("image" in container for container in pod["containers"]):  # others are patches
        yield from (f"{name}: {text}" for text in _pod_problems(pod))


def _pod_problems(pod: dict[str, Any]) -> Iterator[str]:
    if pod.get("automountServiceAccountToken") is not False:
        yield "must not mount a token of the cluster (automountServiceAccountToken: false)"
    context = pod.get("securityContext", {})
    if not context.get("runAsNonRoot") or context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "must not run as root, and with the runtime's seccomp profile"
    for container in pod["containers"]:
        rights = container.get("securityContext", {})
        if rights.get("allowPrivilegeEscalation") is not False or rights.get("capabilities") != {"drop": ["ALL"]}:
            yield f"container {container['name']} must drop all capabilities and not gain privileges"
        if rights.get("readOnlyRootFilesystem") is not True:
            yield f"the root of container {container['name']} must be read-only"
        if "memory" not in container.get("resources", {}).get("limits", {}):
            yield f"container {container['name']} must have a memory limit"
    for volume in pod.get("volumes", []):
        if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
            yield f"volume {volume['name']} must have a size (emptyDir: {{sizeLimit: …}})"


def _policy_problems(spec: dict[str, Any]) -> Iterator[str]:
    if "egress" in spec and "Egress" not in spec["policyTypes"]:
        yield "lists egress, and does not restrict it (policyTypes)"
    if "Egress" not in spec["policyTypes"]:
        yield "must say what the pods may reach (policyTypes: [Ingress, Egress])"
    for rule in spec.get("egress", []):
        ports = {port.get("port") for port in rule.get("ports", [])}
        if "to" not in rule:
            yield "lets the pods reach every address; list them (to: …)"
        if ports == {53}:
            continue
        for block in (peer["ipBlock"] for peer in rule.get("to", []) if "ipBlock" in peer):
            reached = [str(address) for address in _METADATA if _covers(block, address)]
            if reached:
                yield f"lets the pods reach {', '.join(reached)}, where clouds answer with credentials (except: …)"


def _covers(block: dict[str, Any], address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether a block of addresses has this one."""
    excepted = any(address in ipaddress.ip_network(text) for text in block.get("except", []))
    return address in ipaddress.ip_network(block["cidr"]) and not excepted


if __name__ == "__main__":
    found = check(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent)
    print("\n".join(found), file=sys.stderr, end="\n" if found else "")  # noqa: T201
    sys.exit(1 if found else 0)
