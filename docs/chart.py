"""What the chart holds that is made from the code, so that `helm install` refuses what the operator would refuse: the CRD, and the
schema of a profile inside the schema of the values. `docs/generate.py` writes and checks them.
"""

import json
from pathlib import Path
from typing import Any

import yaml

from ehrmind_k8s import crd
from ehrmind_k8s.profile import Profile

CHART = Path(__file__).resolve().parents[1] / "helm" / "ehrmind"
HEADER = "# Made from ehrmind_k8s/crd by `make generate`; do not edit. The policy keeps it, and with it every run, at `helm uninstall`.\n"


def custom_resource() -> str:
    """The CRD as a template: not in `crds/`, which Helm never upgrades. Braces of its texts are no template's."""
    definition = crd.definition()
    kept = {"helm.sh/resource-policy": "keep", **definition["metadata"].get("annotations", {})}
    definition = {**definition, "metadata": {**definition["metadata"], "annotations": kept}}
    text = yaml.safe_dump(definition, sort_keys=False, width=150, allow_unicode=True).replace("{{", '{{ "{{" }}')
    return f"{HEADER}{{{{- if .Values.crds.install }}}}\n{text}{{{{- end }}}}\n"


def values_schema() -> str:
    """The schema as it is, with the definitions of a profile made anew from `ehrmind_k8s.profile`."""
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    profile = _bare(Profile.model_json_schema())
    parts = profile.pop("$defs")
    schema["$defs"] = {"image": schema["$defs"]["image"], "Profile": profile, **parts}
    return _lines(schema) + "\n"


def _bare(node: Any) -> Any:
    """Without pydantic's titles, which repeat the keys, and defaults, which the operator fills in."""
    if isinstance(node, dict):
        return {k: _bare(v) for k, v in node.items() if not (k in ("title", "default") and not isinstance(v, dict))}
    return [_bare(v) for v in node] if isinstance(node, list) else node


def _lines(node: Any, indent: int = 0) -> str:
    """JSON with what fits into 120 columns on one line, so that a person can read the schema."""
    flat, pad = json.dumps(node, ensure_ascii=False), " " * (indent + 2)
    if len(flat) + indent <= 118 or not isinstance(node, dict | list):
        return flat
    if isinstance(node, list):
        return "[\n" + ",\n".join(pad + _lines(v, indent + 2) for v in node) + "\n" + " " * indent + "]"
    return "{\n" + ",\n".join(f"{pad}{json.dumps(k)}: {_lines(v, indent + 2)}" for k, v in node.items()) + "\n" + " " * indent + "}"
