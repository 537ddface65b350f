"""`<run>/model/`: what the run is for, as a folder that vLLM or transformers opens, and the line that serves it."""

import json
import shlex
from pathlib import Path

from ehrmind_k8s import artifacts, storage
from ehrmind_k8s.artifacts import Claim
from ehrmind_k8s.evaluation.generate import Subject
from ehrmind_k8s.evaluation.report import Served
from ehrmind_k8s.rollout import weights
from ehrmind_k8s.spec import RunSpec

BASE = "base.json"  # beside an adapter: where the weights are that it belongs to


def publish(spec: RunSpec, run_uri: str, newest: Subject, start: Path, start_uri: str, claim: Claim, work: Path) -> Served:
    """Publish the newest policy as the run's model. `start` holds tokenizer, template and configuration of the start model.

    full: weights over the start model's other files. lora: the adapter with its tokenizer, and `base.json` that names the start model.
    """
    store, meta = storage.open(run_uri), newest.weights.meta
    served = Served(storage.join(run_uri, artifacts.MODEL), newest.policy.name, meta["kind"], command(spec, run_uri, meta["kind"], start_uri))
    done = artifacts.load(store, artifacts.MODEL)
    about = _meta(newest, artifacts.stage_uri(spec, run_uri, "prepare"))
    if done and done.meta == about:
        return served
    folder = work / "export"
    artifacts.fetch(storage.open(newest.policy.uri), "", folder)
    for path in start.iterdir():
        if not (folder / path.name).exists() and path.suffix != ".safetensors" and not path.name.endswith(".safetensors.index.json"):
            (folder / path.name).write_bytes(path.read_bytes())
    if meta["kind"] == "lora":
        (folder / "config.json").unlink()  # an adapter's folder with a model's config would pass for a whole model
        (folder / BASE).write_text(json.dumps({"uri": start_uri, "tokenizer": meta["tokenizer"]}, indent=1), encoding="utf-8")
    artifacts.publish(store, artifacts.MODEL, folder, "model", about, claim=claim)
    return served


def command(spec: RunSpec, run_uri: str, kind: str, start_uri: str) -> str:
    """The shell line that serves the result; s3:// is copied to ./model first, since vLLM reads folders."""
    model, base = storage.join(run_uri, artifacts.MODEL), start_uri
    copies, name = [], shlex.quote(spec.name)
    if storage.path(run_uri) is None:
        wanted = {"model": model} | ({"base": base} if kind == "lora" else {})
        copies = [f"aws s3 cp --recursive {shlex.quote(uri)} ./{folder}" for folder, uri in wanted.items()]
        model, base = "./model", "./base"
    model, base = _path(model), _path(base)
    length = f"--max-model-len {spec.model.context}"
    if kind == "lora":
        serve = f"vllm serve {base} --enable-lora --max-lora-rank {weights.served_rank(spec.model.lora_rank)} --lora-modules {name}={model} {length}"
    else:
        serve = f"vllm serve {model} --served-model-name {name} {length}"
    return " && ".join([*copies, serve])


def _meta(newest: Subject, prepared: str) -> dict[str, str]:
    """What the model is of; `prepared` is where the data is that it learned from, for a run that starts from it."""
    return {"policy": newest.policy.name, "uri": newest.policy.uri, "kind": newest.weights.meta["kind"], "prepared": prepared}


def _path(uri: str) -> str:
    return shlex.quote(str(storage.path(uri) or uri))
