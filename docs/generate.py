"""The files that are made from the code, so that nothing is kept by hand twice.

python docs/generate.py            write what FILES below names
python docs/generate.py --check    fail if one differs
"""

import sys
from pathlib import Path
from typing import Any, get_args, get_origin

import chart
import click
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from ehrmind_k8s import cli, crd, spec
from ehrmind_k8s.profile import Profile, Resources
from ehrmind_k8s.settings import Settings

ROOT = Path(__file__).resolve().parents[1]


def run_document() -> str:
    """Every field of the run document, section by section, and the settings of the environment."""
    parts = [
        "# The run document",
        "Generated from `ehrmind_k8s/spec.py` and `settings.py` by `make generate`; do not edit.",
        "A run is one document: `run.yaml` for people, `spec.json` (all defaults resolved) in the run directory. Any field can be given on the"
        " command line as `--set section.key=value`. Values come from, each over the one before: the defaults here, the recipe, the preset,"
        " the file, `--set`. Unknown keys are refused.",
        f"A second submit may change only how a run executes: {', '.join(f'`{k}`' for k in spec.EXECUTION_KEYS)}.",
    ]
    sections = {name: field.annotation for name, field in spec.RunSpec.model_fields.items() if _is_section(field.annotation)}
    parts += ["## Top level", _table(spec.RunSpec, "", skip=sections)]
    for name, section in sections.items():
        parts += _section(name, section)
    parts += ["## As a Kubernetes object", _as_object()]
    parts += ["## Presets", "What each preset changes; an empty cell is the default above.", _presets()]
    parts += ["## Environment", (Settings.__doc__ or "").strip(), _environment()]
    return "\n\n".join(parts) + "\n"


def _as_object() -> str:
    """The same document as an EHRMindRun, by an example."""
    written = {"name": "demo", "task": "medcalc", "preset": "small", "data": {"uri": "s3://bucket/medcalc/v1.0"}, "rlvr": {"prompts_per_step": 16}}
    manifest = yaml.safe_dump(crd.to_object(written, "research"), sort_keys=False).rstrip()
    text = (
        f"On a cluster the document is the `spec` of an `{crd.KIND}` (`kubectl explain {crd.SHORT}.spec`): keys in camelCase, the name in"
        " `metadata.name`, and only what its author wrote. The operator resolves preset and defaults when it accepts the object; from then on"
        f" only {', '.join(f'`{key}`' for key in crd.MUTABLE_KEYS)} may change. URIs are `s3://`, since pods see no folder of yours."
    )
    return f"{text}\n\n```yaml\n{manifest}\n```"


def _section(name: str, model: type[BaseModel]) -> list[str]:
    nested = {k: f.annotation for k, f in model.model_fields.items() if _is_section(f.annotation)}
    parts = [f"## {name}", (model.__doc__ or "").strip(), _table(model, f"{name}.", skip=nested)]
    for key, inner in nested.items():
        parts += [f"### {name}.{key}", (inner.__doc__ or "").strip(), _table(inner, f"{name}.{key}.")]
    return parts


def _table(model: type[BaseModel], prefix: str, skip: Any = ()) -> str:
    rows = [f"| `{prefix}{k}` | {_type(f)} | {_default(f)} | {_cell(f.description or '')} |" for k, f in model.model_fields.items() if k not in skip]
    return "\n".join(["| key | values | default | meaning |", "| --- | --- | --- | --- |", *rows])


def _presets() -> str:
    """One column per preset, one row per key that any of them sets."""
    overlays = {p: _flat(yaml.safe_load((ROOT / "ehrmind_k8s" / "presets" / f"{p}.yaml").read_text(encoding="utf-8")) or {}) for p in spec.PRESETS}
    keys = dict.fromkeys(k for overlay in overlays.values() for k in overlay)
    rows = [f"| `{k}` | " + " | ".join(f"`{o[k]}`" if k in o else "" for o in overlays.values()) + " |" for k in keys]
    return "\n".join([f"| key | {' | '.join(overlays)} |", "| --- |" + " --- |" * len(overlays), *rows])


def _flat(document: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in document.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _environment() -> str:
    rows = []
    for name, field in Settings.model_fields.items():
        names = getattr(field.validation_alias, "choices", None) or [f"EHRMIND_{name.upper()}"]
        default = "`~/.local/state/ehrmind`" if name == "state_dir" else _default(field)
        rows.append(f"| {' or '.join(f'`{n}`' for n in names)} | {default} | {_cell(field.description or '')} |")
    return "\n".join(["| variable | default | meaning |", "| --- | --- | --- |", *rows])


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _type(field: FieldInfo) -> str:
    return _cell(_words(field.annotation) + "".join(f", {bound}" for bound in map(_bound, field.metadata) if bound))


def _words(annotation: Any) -> str:
    if str(get_origin(annotation)) == "typing.Literal":
        return ", ".join(f"`{a}`" for a in get_args(annotation))
    if annotation is type(None):
        return "none"
    if get_origin(annotation) is tuple:
        return f"list of {_words(get_args(annotation)[0])}"
    if get_origin(annotation) is dict or _is_section(annotation):
        return "mapping"
    if get_args(annotation):
        return " or ".join(_words(a) for a in get_args(annotation) if not _is_constraint(a))
    return {"str": "text", "int": "integer", "float": "number", "bool": "true or false"}.get(getattr(annotation, "__name__", ""), str(annotation))


def _is_constraint(part: Any) -> bool:
    return isinstance(part, FieldInfo) or hasattr(part, "func")  # a pattern, or a validator's function


def _bound(constraint: Any) -> str:
    for sign, name in (("≥", "ge"), (">", "gt"), ("≤", "le"), ("<", "lt")):
        if hasattr(constraint, name):
            return f"{sign} {getattr(constraint, name)}"
    return ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value in (None, PydanticUndefined, (), {}):
        return "none"
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{value}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def profiles() -> str:
    """Every key of a profile, section by section."""
    sections = {name: field.annotation for name, field in Profile.model_fields.items() if _is_section(field.annotation)}
    parts = [
        "# Profiles",
        "Generated from `ehrmind_k8s/profile.py` by `make generate`; do not edit.",
        (Profile.__doc__ or "").strip() + " Profiles stand under `profiles` in the chart's values, or in the ConfigMap `ehrmind-profiles` of the"
        " operator's namespace, one YAML document each. A run names one (`profile`), `default` when it says nothing. Unknown keys are refused.",
        _table(Profile, "", skip=sections),
    ]
    for name, section in sections.items():
        parts += _section(name, section)
    parts += ["## resources, for each role", (Resources.__doc__ or "").strip(), _table(Resources, "resources.ROLE.")]
    parts += ["Tolerations are written as in a pod spec."]
    return "\n\n".join(parts) + "\n"


def commands() -> str:
    """Every command with its help, as `--help` prints it."""
    parts = ["# Commands", "Generated from `ehrmind_k8s/cli/` by `make generate`; do not edit."]
    context = cli.group.make_context("ehrmind", [], resilient_parsing=True, terminal_width=120)
    parts.append(f"```\n{cli.group.get_help(context)}\n```")
    for name in cli.COMMANDS:
        command = cli.group.get_command(context, name)
        assert command is not None
        parts += _help(command, click.Context(command, info_name=name, parent=context, terminal_width=120), 2)
    return "\n\n".join(parts) + "\n"


def _help(command: click.Command, context: click.Context, level: int) -> list[str]:
    text = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
    parts = [f"{'#' * level} {context.command_path}", f"```\n{text}\n```"]
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            parts += _help(inner, click.Context(inner, info_name=name, parent=context, terminal_width=120), level + 1)
    return parts


def definition() -> str:
    """The CustomResourceDefinition."""
    head = "# Generated from ehrmind_k8s/spec.py and ehrmind_k8s/crd/ by `make generate`; do not edit.\n"
    return head + yaml.safe_dump(crd.definition(), sort_keys=False, allow_unicode=True, width=120)


FILES = {
    "docs/run-document.md": run_document,
    "docs/commands.md": commands,
    "docs/profiles.md": profiles,
    "manifests/crd/ehrmindruns.yaml": definition,
    "helm/ehrmind/templates/crd.yaml": chart.custom_resource,
    "helm/ehrmind/values.schema.json": chart.values_schema,
}


def main() -> int:
    """Write the files, or with --check compare them."""
    stale = []
    for name, make in FILES.items():
        path, text = ROOT / name, make()
        if "--check" in sys.argv:
            stale += [name] if not path.exists() or path.read_text(encoding="utf-8") != text else []
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    if stale:
        print(f"{' and '.join(stale)} differ from the code; run: make generate", file=sys.stderr)
    return len(stale)


if __name__ == "__main__":
    sys.exit(main())
