"""A server of chat completions on loopback, for the tests of the judge: run as a program, it prints its port.

The first part of the path chooses how it answers: `model` generates with a real Llama of a few thousand
parameters over bytes; `first` always prefers the text shown first, the others the one whose "quality N" is
higher, unless they fail in a way; `translate` turns
every word of a text round. GET /counts tells what the server has seen, GET /ids the tokens of "ABab".
"""

import itertools
import json
import os
import re
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-test-0123456789abcdef"
REPLIES: dict[str, tuple[int, str, dict[str, str]]] = {
    "busy": (429, "{}", {"Retry-After": "1"}),
    "later": (429, "{}", {"Retry-After": "3600"}),
    "quota": (429, '{"error": {"code": "insufficient_quota"}}', {}),
    "broken": (500, "{}", {}),
    "flaky": (503, "{}", {}),
    "auth": (401, "no: %s", {}),
    "invalid": (400, "no: %s", {}),
    "filter": (400, "no: %s", {}),
    "moved": (307, "", {"Location": "/first/v1/chat/completions"}),
    "cut": (200, '{"model":', {"Content-Length": "500"}),
}
GARBAGE = ['{"choices": []}', "<html>busy</html>", None]
_lock = threading.Lock()
_counts: dict[str, dict[str, int]] = {}
_model: list[Any] = []


def load_model() -> tuple[Any, Any]:
    """Make the model and its tokenizer once: bytes as tokens, random weights of a fixed seed."""
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE

    with _lock:
        if not _model:
            torch.set_num_threads(1)
            torch.manual_seed(3)
            vocabulary = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
            core = Tokenizer(BPE({**vocabulary, "<end>": len(vocabulary)}, []))
            core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            core.decoder = decoders.ByteLevel()
            tokenizer = transformers.PreTrainedTokenizerFast(
                tokenizer_object=core, eos_token="<end>", pad_token="<end>"
            )
            config = transformers.LlamaConfig(
                vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1,
                num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=8192,
                eos_token_id=len(vocabulary), pad_token_id=len(vocabulary), bos_token_id=None,
            )  # fmt: skip
            _model.extend((transformers.LlamaForCausalLM(config).eval(), tokenizer))
    return _model[0], _model[1]


def generate(body: dict[str, Any]) -> tuple[list[str], int, int]:
    """Return the texts, and the tokens in and out."""
    import torch
    from transformers import LogitsProcessor

    model, tokenizer = load_model()
    bias = torch.zeros(len(tokenizer))
    for token, value in body.get("logit_bias", {}).items():
        bias[int(token)] = value

    class Biased(LogitsProcessor):
        def __call__(self, input_ids: Any, scores: Any) -> Any:
            return scores + bias

    inputs = tokenizer(body["messages"][0]["content"], return_tensors="pt")
    width = inputs["input_ids"].shape[1]
    with _lock, torch.no_grad():
        torch.manual_seed(body.get("seed", 0))
        out = model.generate(
            **inputs, do_sample=True, temperature=body["temperature"], num_return_sequences=body["n"],
            max_new_tokens=body["max_tokens"], logits_processor=[Biased()], top_k=0,
        )[:, width:]  # fmt: skip
    texts = tokenizer.batch_decode(out, skip_special_tokens=True)
    return texts, width, int(out.numel())


def scripted(mode: str, body: dict[str, Any]) -> tuple[list[str], int, int]:
    content = body["messages"][0]["content"]
    if mode == "translate":
        text = content.rpartition("<text>\n")[2].removesuffix("\n</text>")
        made = " ".join(f"{word[::-1]}o" for word in text.split())
        return [f"<translation>{made}</translation>"], len(content.encode()) // 4, len(text.encode()) // 4
    letter = "A"
    if mode != "first":
        first, second = map(int, re.findall(r"quality (\d+)", content)[:2])
        letter = "A" if first > second else "B"
    many = 1 if mode == "single" else body["n"]
    return [f"**{letter}**."] * many, len(content.encode()) // 2, 2 * many


class Handler(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None: ...

    def do_GET(self) -> None:
        if self.path == "/counts":
            return self.reply(200, json.dumps(_counts))
        if self.path == "/ids":
            tokenizer = load_model()[1]
            return self.reply(200, json.dumps([tokenizer.convert_tokens_to_ids(c) for c in "ABab"]))
        return self.reply(200, json.dumps({"data": [{"id": "tiny"}, {"id": "other"}]}))

    def do_POST(self) -> None:
        mode = self.path.split("/")[1]
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with _lock:
            seen = _counts.setdefault(mode, {"requests": 0, "tokens": 0, "answers": 0})
            seen["requests"] += 1
            turn = seen["requests"]
        kind = mode.split("-")[0]  # `busy-2` fails as `busy`, with a count of its own
        if not self.fails(kind, turn, body):
            self.answer(mode, kind, body)

    def fails(self, kind: str, turn: int, body: dict[str, Any]) -> bool:
        """Answer for the kinds that fail at this turn."""
        sometimes = {
            "busy": turn == 1,
            "flaky": turn % 2 == 1,
            "auth": self.headers["Authorization"] != f"Bearer {KEY}",
            "filter": "forbidden" in body["messages"][0]["content"],
        }
        if kind == "hang":
            time.sleep(3)
        elif kind == "drip":
            self.drip()
            return True
        elif kind in REPLIES and sometimes.get(kind, True):
            status, text, headers = REPLIES[kind]
            self.reply(status, text.replace("%s", str(self.headers["Authorization"])), headers)
            return True
        return False

    def drip(self) -> None:
        self.send_response(200)
        self.end_headers()
        for _ in range(60):
            self.wfile.write(b" ")
            time.sleep(0.05)

    def answer(self, mode: str, kind: str, body: dict[str, Any]) -> None:
        if kind == "slow":
            time.sleep(0.15)
        texts, tokens_in, tokens_out = generate(body) if kind == "model" else scripted(kind, body)
        if kind == "garbage":
            texts = ["A better question", "", "B", "both"][: body["n"]]
            number = next(_turns)
            if (raw := GARBAGE[number % 3]) is not None:
                return self.reply(200, raw)
        with _lock:
            _counts[mode]["tokens"] += tokens_in + tokens_out
            _counts[mode]["answers"] += 1
        contents: list[str | None] = list(texts)
        if kind == "empty":
            contents[0] = None
        message = [
            {"index": i, "message": {"role": "assistant", "content": t}} for i, t in enumerate(contents)
        ]
        usage = {"prompt_tokens": tokens_in, "completion_tokens": tokens_out}
        found = {"model": "another-model" if kind == "other" else body["model"], "choices": message}
        return self.reply(200, json.dumps(found if kind == "uncounted" else {**found, "usage": usage}))

    def reply(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
        data = text.encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


_turns = itertools.count()


class Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # clients that hang up are what is tested
            super().handle_error(request, client_address)


def main() -> None:
    server = Quiet(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    threading.Thread(target=lambda: os._exit(len(sys.stdin.read())), daemon=True).start()
    server.serve_forever()


if __name__ == "__main__":
    main()
