"""The routes that make a vLLM server serve the policies of one run (entry point `vllm.endpoint_plugins`).

    GET  /v1/policy           {"uid", "policy", "loaded"}: whose server this is, and what it serves
    POST /v1/policy/sync      {"name", "uri"}: fetch whole weights, verify, swap
    POST /v1/policy/adapter   {"name", "uri"}: fetch an adapter, verify, load beside the previous one

A sync is one call: a client that dies in the middle leaves nothing paused or half done. Everything that can be wrong with an artifact shows
before the engine is touched, so a bad one leaves the old policy serving.
"""

import asyncio
import json
import shutil
import time
from argparse import Namespace
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from safetensors import SafetensorError, safe_open
from vllm.distributed.weight_transfer.base import WeightTransferUpdateRequest
from vllm.entrypoints.serve.lora.protocol import LoadLoRAAdapterRequest, UnloadLoRAAdapterRequest

from ehrmind_k8s import logs
from ehrmind_k8s.errors import EhrmindError, IntegrityError, TryAgain
from ehrmind_k8s.rollout import weights
from ehrmind_k8s.rollout.base import Policy
from ehrmind_k8s.rollout.server import drain
from ehrmind_k8s.rollout.server.serving import Serving

TIED = "lm_head.weight"
KEEP_ADAPTERS = 2  # the current one, and the one that requests still in flight name


class Wanted(BaseModel):
    """Body of a sync: a policy's name within the run (a folder name here) and its URI."""

    name: str = Field(pattern=r"^[a-z0-9][-a-z0-9]{0,63}$")
    uri: str


class PolicyRoutes:
    """One lock: two syncs of one engine at once would end in an error of the second."""

    name = "ehrmind_policy"
    required_tasks = ("generate",)

    def attach_router(self, app: FastAPI) -> None:
        """Add the routes (vLLM calls this before the engine is there)."""
        app.add_api_route("/v1/policy", self.state, methods=["GET"])
        app.add_api_route("/v1/policy/sync", self.sync, methods=["POST"])
        app.add_api_route("/v1/policy/adapter", self.adapter, methods=["POST"])

    async def init_state(self, engine_client: Any, state: Any, args: Namespace) -> None:
        """Take what the routes need from the running server."""
        self.engine, self.models = engine_client, state.openai_serving_models
        engine_client.shutdown = drain.begin_with(engine_client.shutdown, state)
        self.serving = Serving.from_environment()
        self.lock = asyncio.Lock()
        self.policy: str | None = None
        self.loaded: list[str] = []

    async def state(self) -> dict[str, Any]:
        """Whose policies are served here, which one now (none after a start: those are the weights of the start model), what is loaded."""
        return {"uid": self.serving.uid, "policy": self.policy, "loaded": self.loaded}

    async def sync(self, wanted: Wanted) -> JSONResponse:
        """Serve these whole weights from now on."""
        return await self._locked(wanted, self._swap)

    async def adapter(self, wanted: Wanted) -> JSONResponse:
        """Serve this adapter from now on."""
        return await self._locked(wanted, self._load_adapter)

    async def _locked(self, wanted: Wanted, apply: Callable[[Wanted], Awaitable[dict[str, Any]]]) -> JSONResponse:
        served = self.serving.served(wanted.name)
        async with self.lock:
            try:
                figures = {} if self.policy == served else await apply(wanted)
            except EhrmindError as error:
                logs.event("policy.refused", policy=served, reason=type(error).__name__, message=str(error))
                return JSONResponse({"error": type(error).__name__, "message": str(error)}, 503 if isinstance(error, TryAgain) else 422)
            self.policy = served
            if figures:
                logs.event("policy.served", policy=served, **figures)
            return JSONResponse({"policy": served, **figures})

    async def _swap(self, wanted: Wanted) -> dict[str, Any]:
        folder, fetch_s = await self._fetch(wanted, "full")
        try:
            _check_shapes(folder, Path(self.serving.model))
            started = time.monotonic()
            await self.engine.pause_generation(mode="keep", clear_cache=False)
            try:
                self.policy = None  # until the new weights are whole, nobody may count on any
                await self.engine.start_weight_update()
                await self.engine.update_weights(WeightTransferUpdateRequest(update_info={"folder": str(folder)}))
                await self.engine.finish_weight_update(self.serving.served(wanted.name))
                await self.engine.reset_prefix_cache()
            except BaseException:
                await self.engine.update_weight_version(self.serving.served("none"))  # what is still in flight must not pass for the old policy
                raise
            finally:
                await self.engine.resume_generation()
            return {"fetch_s": fetch_s, "pause_s": round(time.monotonic() - started, 4)}
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    async def _load_adapter(self, wanted: Wanted) -> dict[str, Any]:
        served = self.serving.served(wanted.name)
        if served in self.loaded:
            return {}
        folder, fetch_s = await self._fetch(wanted, "lora")
        started = time.monotonic()
        answer = await self.models.load_lora_adapter(LoadLoRAAdapterRequest(lora_name=served, lora_path=str(folder)))
        if not isinstance(answer, str):
            shutil.rmtree(folder, ignore_errors=True)
            raise IntegrityError(
                f"policy {wanted.name}: vLLM refuses the adapter ({answer.error.type}); its rank or target modules may be the reason"
            )
        self.loaded.append(served)
        while len(self.loaded) > KEEP_ADAPTERS:
            await self._drop(self.loaded.pop(0))
        return {"fetch_s": fetch_s, "pause_s": round(time.monotonic() - started, 4)}

    async def _drop(self, served: str) -> None:
        """Forget an adapter. Unloading removes the name alone; the engine must drop the weights too, and only then may the files go."""
        request = self.models.lora_requests[served]
        await self.models.unload_lora_adapter(UnloadLoRAAdapterRequest(lora_name=served))
        await self.engine.remove_lora(request.lora_int_id)
        shutil.rmtree(request.lora_path, ignore_errors=True)

    async def _fetch(self, wanted: Wanted, kind: weights.Kind) -> tuple[Path, float]:
        self.serving.check_source(wanted.uri)
        started = time.monotonic()
        folder = self.serving.folder(wanted.name)
        meta = await asyncio.to_thread(weights.fetch, Policy(wanted.name, wanted.uri), folder)
        if meta.kind != kind:
            raise IntegrityError(f"{wanted.uri}: expected a {kind} policy, found {meta.kind}")
        return folder, round(time.monotonic() - started, 4)


def _check_shapes(folder: Path, model: Path) -> None:
    """Raises IntegrityError unless both folders hold tensors of the same names and shapes: a load that fails half-way kills the engine."""
    found, expected = _shapes(folder), _shapes(model)
    if json.loads((model / "config.json").read_text(encoding="utf-8")).get("tie_word_embeddings"):
        found.pop(TIED, None)  # some files hold the tied head a second time, some do not
        expected.pop(TIED, None)
    if found != expected:
        name = min({*found.items()} ^ {*expected.items()})[0]
        raise IntegrityError(f"{folder.name}: tensor {name}: expected shape {expected.get(name)} as in the start model, found {found.get(name)}")


def _shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    try:
        for path in folder.glob("*.safetensors"):
            with safe_open(path, framework="pt") as file:
                shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise IntegrityError(f"{folder.name}: not a readable safetensors file ({error})") from None
    return shapes
