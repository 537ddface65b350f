"""One template and one tokenizer for SFT, RLVR and evaluation, without torch or transformers.

A prompt is rendered by the model's own chat template, nothing prefilled, and tokenised once here; token ids travel from then on.
`fingerprint` goes with every policy, since a tokenizer that silently differs ruins training without an error
(transformers rebuilds the pre-tokenizer of some model types and ignores the saved one).
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import jinja2.sandbox
import tokenizers
from jinja2.ext import loopcontrols

from ehrmind_k8s.errors import ModelError
from ehrmind_k8s.records import Example, Prompt

# Digits, signs, units, tags, newlines and non-ASCII letters as clinical notes have them.
PROBE = (
    'BP 120/80 mmHg, K⁺ 4.5 mEq/L, creatinine 1.02 µmol/L; "pain" 7–8/10.\n<think>a+b=12</think>\n<answer>{"answer": "14 weeks, 3 days"}</answer>\n'
)
REQUIRED = ("config.json", "tokenizer.json", "tokenizer_config.json")


class Tokenizer:
    """The tokenizer of a model folder. Raises ModelError where a file is missing or text does not survive the round trip."""

    def __init__(self, folder: Path) -> None:
        for name in REQUIRED:
            if not (folder / name).is_file():
                raise ModelError(f"{folder}: {name} is missing; a model folder needs {', '.join(REQUIRED)} and its weights as .safetensors")
        self._config = _json(folder / "tokenizer_config.json")
        self._tokenizer = _tokenizer(folder / "tokenizer.json")
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.eos_token = _text(self._config.get("eos_token"))
        self.eos_id = self._id(self.eos_token, "eos_token", folder)
        pad = _text(self._config.get("pad_token")) or self.eos_token
        self.pad_token, self.pad_id = pad, self._id(pad, "pad_token", folder)
        self.stop_ids = tuple(sorted({self.eos_id, *_eos_ids(folder)}))
        self._template = _template(folder, self._config)
        if self.decode(self.encode(PROBE)) != PROBE:
            raise ModelError(f"{folder}: the tokenizer does not give back the text it was given; clinical values would change on the way")

    def __len__(self) -> int:
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text as it stands: no special token is added."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, special tokens (stop, padding, turn markers) left out."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=True)

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The prompt text up to where the assistant begins to write."""
        try:
            return self._template.render(messages=[dict(m) for m in messages], add_generation_prompt=True, **self._tokens)
        except jinja2.TemplateError as error:
            raise ModelError(f"the chat template refuses these messages: {error}") from None

    def prompt(self, example: Example) -> Prompt:
        """The tokens an example's completion is sampled after."""
        return Prompt(example.id, tuple(self.encode(self.render(example.messages))))

    def completion(self, text: str) -> list[int]:
        """Token ids of a whole completion to learn: `text` without what the template opened, then the stop token."""
        return [*self.encode(text.removeprefix(self.opening)), self.eos_id]

    def text(self, ids: Sequence[int]) -> str:
        """The text that a scorer judges: what the template opened, then what was sampled."""
        return self.opening + self.decode(ids)

    @cached_property
    def opening(self) -> str:
        """`<think>` with what follows it where the chat template itself opens the thinking block, else an empty text."""
        tail = self.render([{"role": "user", "content": "x"}]).rsplit("x", 1)[-1]
        _, tag, rest = tail.rpartition("<think>")
        return tag + rest if tag and not rest.strip() else ""

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the probe's ids, a rendered prompt's ids and the stop ids: equal means that two sides speak the same tokens."""
        prompt = self.encode(self.render([{"role": "user", "content": PROBE}]))
        return hashlib.sha256(json.dumps([self.encode(PROBE), prompt, list(self.stop_ids)]).encode()).hexdigest()

    @property
    def _tokens(self) -> dict[str, str]:
        names = ("bos_token", "eos_token", "pad_token", "unk_token")
        return {n: _text(self._config.get(n)) for n in names}

    def _id(self, token: str, name: str, folder: Path) -> int:
        found = self._tokenizer.token_to_id(token) if token else None
        if found is None:
            raise ModelError(f"{folder}/tokenizer_config.json: {name} is {token!r}, which tokenizer.json does not know; training needs a stop token")
        return int(found)


def _tokenizer(path: Path) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_file(str(path))
    except Exception:  # the library raises the bare class, and quotes the file
        raise ModelError(f"{path}: not a whole tokenizer file that this version of tokenizers reads; copy it again") from None


def _template(folder: Path, config: Mapping[str, Any]) -> jinja2.Template:
    file = folder / "chat_template.jinja"
    source = file.read_text(encoding="utf-8") if file.is_file() else config.get("chat_template")
    if isinstance(source, list):  # several named templates
        source = next((t["template"] for t in source if t.get("name") == "default"), None)
    if not source:
        raise ModelError(
            f"{folder}: no chat template (chat_template.jinja, or chat_template in tokenizer_config.json); use an instruction-tuned model"
        )
    # No strftime_now: a prompt must not depend on the day it is made. Templates that want a date fall back to a fixed one.
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = lambda value, **kwargs: json.dumps(value, ensure_ascii=False, indent=kwargs.get("indent"))
    environment.globals["raise_exception"] = _raise
    try:
        return environment.from_string(source)
    except jinja2.TemplateError as error:
        raise ModelError(f"{folder}: the chat template does not parse: {error}") from None


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _eos_ids(folder: Path) -> set[int]:
    found: set[int] = set()
    for name in ("config.json", "generation_config.json"):
        value = _json(folder / name).get("eos_token_id") if (folder / name).is_file() else None
        found |= {value} if isinstance(value, int) else set(value or ())
    return found


def _text(token: Any) -> str:
    return token.get("content", "") if isinstance(token, dict) else token or ""


def _json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(document, dict):
        raise ModelError(f"{path}: expected a JSON object, found {type(document).__name__}")
    return document
