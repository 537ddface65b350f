"""The CustomResourceDefinition: what the API server accepts, defaults, prints and explains, made from `spec.RunSpec`.

`kubectl explain ehr.spec.rlvr` shows the sentences of spec.py. Kubernetes wants a *structural* schema, so references are resolved, `null`
becomes `nullable`, and everything is bounded: the API server estimates the cost of a rule from the longest value it may meet.
A default is here only where no preset sets the key, since the object holds what its author wrote and presets are resolved later.
Left out, because Kubernetes 1.29 does not know it: selectableFields (1.31).
"""

import functools
import json
from collections.abc import Mapping
from typing import Any

from ehrmind_k8s import spec
from ehrmind_k8s.crd import names, rules, status
from ehrmind_k8s.crd.convert import camel, camel_text
from ehrmind_k8s.spec import RunSpec

Schema = dict[str, Any]

TEXT_LIMIT = 512  # bytes of a text that spec.py does not bound: URIs, file names, a commit
LIST_LIMIT = 64  # items of a list that spec.py does not bound: categories
DEFAULTS = ("preset", "profile", "suspend", "cancel", "attempt", "rollout.replicas")
LABELS = {"app.kubernetes.io/name": "ehrmind", "app.kubernetes.io/part-of": "ehrmind"}
KEPT = ("type", "enum", "pattern", "minimum", "maximum", "minLength", "maxLength", "minItems")


def definition() -> Schema:
    """The manifest of the CustomResourceDefinition."""
    version = {
        "name": names.VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": _object()},
        "subresources": {
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.rollout.replicas",
                "statusReplicasPath": ".status.rollout.replicas",
                "labelSelectorPath": ".status.rollout.selector",
            },
        },
        "additionalPrinterColumns": status.COLUMNS,
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{names.PLURAL}.{names.GROUP}", "labels": LABELS},
        "spec": {
            "group": names.GROUP,
            "names": {
                "kind": names.KIND,
                "listKind": f"{names.KIND}List",
                "plural": names.PLURAL,
                "singular": names.KIND.lower(),
                "shortNames": [names.SHORT],
                "categories": ["ehrmind"],
            },
            "scope": "Namespaced",
            "conversion": {"strategy": "None"},
            "versions": [version],
        },
    }


def _object() -> Schema:
    """The schema of a whole object."""
    text = "One run of the recipe: prepare, diagnosis, SFT warm-up, RLVR with separate rollout pods, evaluation."
    made = {
        "description": f"{text} The object keeps what its author wrote; the operator resolves preset and defaults.",
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": _spec(),
            "status": status.schema(),
        },
    }
    return _ruled(made, "")


def _spec() -> Schema:
    """The schema of `spec`, from pydantic's schema of the run document; the name is metadata.name."""
    whole = RunSpec.model_json_schema()
    del whole["properties"]["name"]
    whole["required"].remove("name")
    return _structural(whole, whole["$defs"], "")


def _structural(node: Mapping[str, Any], models: Mapping[str, Any], key: str) -> Schema:
    """One node of pydantic's schema, at the dotted `key` of the run document ("" is the whole of it), as Kubernetes wants it."""
    node, nullable = _without_null(node)
    if "$ref" in node:
        node = {**node, **models[node["$ref"].rpartition("/")[2]]}  # the section's own docstring says more than the field
    made: Schema = {"description": description} if (description := _description(node, key)) else {}
    made |= {k: node[k] for k in KEPT if k in node} | ({"nullable": True} if nullable else {})
    for exclusive, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if exclusive in node:
            made |= {bound: node[exclusive], exclusive: True}
    if made["type"] == "array":
        items = _structural(node["items"], models, f"{key}[]")
        made |= {"items": items, "maxItems": len(items.get("enum", ())) or LIST_LIMIT, "x-kubernetes-list-type": "atomic"}
    elif made["type"] == "object":
        fields = node.get("properties") or dict.fromkeys(node["propertyNames"]["enum"], node["additionalProperties"])
        made["properties"] = {camel(name): _structural(field, models, f"{key}.{name}".lstrip(".")) for name, field in fields.items()}
        made |= {"required": list(map(camel, node["required"]))} if node.get("required") else {}
    elif made["type"] == "string" and "enum" not in made:
        made.setdefault("maxLength", TEXT_LIMIT)
    if key in DEFAULTS:
        made["default"] = node["default"]
    elif key in {default.rpartition(".")[0] for default in DEFAULTS} - {""}:
        made["default"] = {}  # so that the defaults inside apply
    return _ruled(made, "spec" + "".join(f".{camel(part)}" for part in key.split(".") if part))


def _ruled(made: Schema, path: str) -> Schema:
    """A node with the rules for it, if there are any."""
    found = rules.RULES.get(path)
    return made | ({"x-kubernetes-validations": [rule.manifest() for rule in found]} if found else {})


def _without_null(node: Mapping[str, Any]) -> tuple[Mapping[str, Any], bool]:
    """`anyOf: [X, null]` as X with what stands beside it, and whether it was one."""
    if "anyOf" not in node:
        return node, False
    kept, null = node["anyOf"]
    assert null == {"type": "null"}, node
    return {**kept, **{k: v for k, v in node.items() if k != "anyOf"}}, True


def _description(node: Mapping[str, Any], key: str) -> str:
    """The field's sentences, its default, and which presets say otherwise."""
    text = camel_text(node.get("description", ""))
    default = node.get("default")
    if not text or default in (None, [], {}) or "properties" in node:
        return text
    others = [f"{_plain(value)} with {label}" for label, overlay in _overlays().items() if (value := _at(overlay, key)) not in (None, default)]
    return f"{text} Default: {_plain(default)}" + (f" ({', '.join(others)})." if others else ".")


def _plain(value: Any) -> str:
    """A value as run.yaml has it."""
    return json.dumps(value) if not isinstance(value, str) else value


@functools.cache
def _overlays() -> dict[str, Mapping[str, Any]]:
    """What each preset and recipe changes."""
    return {f"preset {p}": spec.overlay(p) for p in spec.PRESETS} | {"recipe paper": spec.overlay("recipe-paper")}


def _at(document: Any, key: str) -> Any:
    """The value at a dotted key, None where there is none."""
    for part in key.split("."):
        document = document.get(part) if isinstance(document, Mapping) else None
    return document
