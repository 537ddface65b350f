"""manifests/operator is the chart for those without Helm: the same objects."""

import re
import subprocess

import yaml

from tests.conftest import ROOT, needs_program
from tests.tools import build
from tests.unit.packaging import rendered
from tests.unit.packaging.rendered import Object


def kustomized() -> list[Object]:
    """What `kubectl apply -k manifests/operator` would send."""
    kubectl = str(build.path("kubectl")) if build.path("kubectl").exists() else needs_program("kubectl", "python -m tests.tools.build kubectl")
    done = subprocess.run([kubectl, "kustomize", rendered.OPERATOR], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def by_name(objects: list[Object]) -> dict[tuple[str, str], Object]:
    """Objects by kind and name, without what Helm writes into its own."""
    text = rendered.MARKS.sub("", yaml.safe_dump_all(objects, sort_keys=False, width=10_000))
    text = re.sub(r"^ *helm\.sh/resource-policy: keep\n", "", text, flags=re.MULTILINE)
    found = {(o["kind"], o["metadata"]["name"]): o for o in yaml.safe_load_all(text)}
    for o in found.values():
        if not o["metadata"].get("annotations", True):
            del o["metadata"]["annotations"]
    return found


def test_kustomize_gives_the_objects_of_the_chart_and_a_restricted_namespace() -> None:
    theirs = by_name(kustomized())
    namespace = theirs.pop(("Namespace", rendered.NAMESPACE))
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    hooks = [o for o in rendered.objects() if "helm.sh/hook" in o["metadata"].get("annotations", {})]
    assert theirs == by_name([o for o in rendered.objects() if o not in hooks])


def test_the_files_are_those_the_chart_makes() -> None:
    """After an intended change: python -m tests.unit.packaging.rendered, and read the diff."""
    for name, body in rendered.plain().items():
        assert (rendered.OPERATOR / name).read_text(encoding="utf-8") == body, name


def test_the_crd_is_in_one_place_for_both() -> None:
    kept = yaml.safe_load((ROOT / "manifests" / "crd" / "ehrmindruns.yaml").read_text(encoding="utf-8"))
    (ours,) = [o for o in rendered.objects() if o["kind"] == "CustomResourceDefinition"]
    assert ours["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    assert ours == kept
