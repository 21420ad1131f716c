"""The same model in other files: GGUF, which llama.cpp and its kin read, and int8 weights for transformers.

GGUF: q and k are stored with their rotary halves interleaved, as the format's Llama has them; tied embeddings are
stored once. Its tokenizer splits long runs of digits elsewhere than ours, so token ids are to come from tokenizer.json
where they have to agree to the last one.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import gguf
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from athena.errors import BadInput
from athena.evalpack import EvalPack
from athena.evaluate import evaluate, load_folder
from athena.evaluation import Evaluation

GgufType = Literal["F32", "Q8_0"]
GGUF_TYPES: tuple[GgufType, ...] = ("F32", "Q8_0")
ARCHITECTURE = "llama"
_PRETOKENIZER = "llama-bpe"  # the nearest to ours that readers of the format know
logging.getLogger("gguf").setLevel(logging.WARNING)


def write_gguf(model: Path, target: Path, kind: GgufType, *, name: str) -> None:
    """Writes the Llama in the folder `model` to one GGUF file; at most a tensor is in memory at a time.

    Q8_0: matrices in blocks of 32 weights with one float16 scale each; norms, and matrices whose rows are no multiple
    of 32, stay float32. Raises BadInput for another architecture.
    """
    config = json.loads((model / "config.json").read_bytes())
    if config.get("model_type") != ARCHITECTURE:
        raise BadInput(f"{model} is a {config.get('model_type')}, not a Llama", remedy="release a Llama")
    writer = gguf.GGUFWriter(target, ARCHITECTURE, use_temp_file=True)
    _describe(writer, config, kind, name)
    _add_tokenizer(writer, json.loads((model / "tokenizer.json").read_bytes()), config)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    for tensor_name, tensor in _tensors(model):
        renamed = names.get_name(tensor_name, try_suffixes=(".weight",))
        if renamed is None:
            raise BadInput(f"GGUF's Llama has no {tensor_name}")
        heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
        values = _interleaved(tensor, heads.get(tensor_name.split(".")[-2]))
        if kind == "Q8_0" and values.ndim == 2 and values.shape[1] % 32 == 0:
            quantized = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0)
            writer.add_tensor(renamed, quantized, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(renamed, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _describe(writer: gguf.GGUFWriter, config: dict[str, Any], kind: GgufType, name: str) -> None:
    writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32 if kind == "F32" else gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: dict[str, Any], config: dict[str, Any]) -> None:
    """The byte-level BPE of a tokenizer.json."""
    special = {token["id"] for token in tokenizer["added_tokens"]}
    vocabulary = {index: token for token, index in tokenizer["model"]["vocab"].items()}
    vocabulary |= {token["id"]: token["content"] for token in tokenizer["added_tokens"]}
    missing = set(range(config["vocab_size"])) - set(vocabulary)
    tokens = [vocabulary.get(index, f"<|unused-{index}|>") for index in range(config["vocab_size"])]
    kinds = [
        gguf.TokenType.UNUSED if i in missing else gguf.TokenType.CONTROL if i in special else gguf.TokenType.NORMAL
        for i in range(config["vocab_size"])
    ]
    merges = tokenizer["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_PRETOKENIZER)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_add_bos_token(True)


def _tensors(model: Path) -> Iterator[tuple[str, torch.Tensor]]:
    for file in sorted(model.glob("*.safetensors")):
        with safe_open(file, framework="pt") as stored:
            for name in stored.keys():  # noqa: SIM118  not a mapping
                yield name, stored.get_tensor(name)


def _interleaved(tensor: torch.Tensor, heads: int | None) -> NDArray[Any]:
    """float32 values; of q and k [heads · dim, hidden], the two rotary halves of each head row by row in turn."""
    values = tensor.to(torch.float32)
    if heads is not None:
        values = values.reshape(heads, 2, values.shape[0] // heads // 2, -1).transpose(1, 2).reshape(values.shape)
    return values.contiguous().numpy()


def write_int8(model: Path, target: Path) -> None:
    """A folder for transformers (with compressed-tensors) and vLLM: the linear layers' weights as int8.

    One float32 scale a row, the row's greatest value over 127; four weights lie in an int32. Embeddings, norms and the
    output layer stay as they are.
    """
    from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32

    stored: dict[str, torch.Tensor] = {}
    for name, tensor in _tensors(model):
        if not name.endswith("_proj.weight"):
            stored[name] = tensor
            continue
        values = tensor.to(torch.float32)
        scale = values.abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny) / 127
        packed = pack_to_int32((values / scale).round().to(torch.int8), num_bits=8)
        base = name.removesuffix(".weight")
        stored |= {
            f"{base}.weight_packed": packed,
            f"{base}.weight_scale": scale,
            f"{base}.weight_shape": torch.tensor(tensor.shape),
        }
    target.mkdir(parents=True, exist_ok=True)
    save_file(stored, target / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((model / "config.json").read_bytes())
    config["quantization_config"] = _INT8
    (target / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")


_INT8 = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "quantization_status": "compressed",
    "ignore": ["lm_head"],
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"},
        }
    },
}


def measure_gguf(file: Path, like: Evaluation, pack: EvalPack, tokenizer: Path) -> Evaluation:
    """What the ruler reads of a GGUF file, on the same documents as `like`; loaded by unmodified transformers."""
    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    return _measure(model, tokenizer, like, pack)


def measure_int8(folder: Path, like: Evaluation, pack: EvalPack, tokenizer: Path) -> Evaluation:
    """What the ruler reads of a folder that `write_int8` left, on the same documents as `like`."""
    model = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, local_files_only=True)
    return _measure(model, tokenizer, like, pack)


def measure_model(folder: Path, like: Evaluation, pack: EvalPack) -> Evaluation:
    """What the ruler reads of the release itself here: machines differ in the last digits."""
    model, _ = load_folder(folder)
    return _measure(model, folder, like, pack)


def _measure(model: Any, tokenizer: Path, like: Evaluation, pack: EvalPack) -> Evaluation:
    from athena.train.tokenizer import load_tokenizer

    if pack.hash != like.eval_pack:
        raise BadInput("the release was measured with another evaluation pack", remedy=f"give pack {like.eval_pack}")
    return evaluate(
        model, load_tokenizer(tokenizer), pack, per_domain=like.per_domain, window=like.window,
        seed=bytes.fromhex(like.seed),
    )  # fmt: skip
