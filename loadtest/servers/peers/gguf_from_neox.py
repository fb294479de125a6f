"""Convert a GPT-NeoX folder to a GGUF file: `gguf_from_neox.py FOLDER OUT f16|q8_0`.

The folder holds config.json, tokenizer.json and model.safetensors."""

import json
import sys
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import load_file


def split_heads(tensor: np.ndarray, heads: int) -> np.ndarray:
    """Reorder rows: the checkpoint has query, key and value head by head, llama.cpp all queries first."""
    rest = tensor.shape[1:]
    return tensor.reshape(heads, 3, -1, *rest).swapaxes(0, 1).reshape(-1, *rest)


def names(layers: int) -> dict[str, str]:
    """Return the names in GGUF of the tensors in the checkpoint."""
    found = {
        "gpt_neox.embed_in.weight": "token_embd.weight",
        "embed_out.weight": "output.weight",
        "gpt_neox.final_layer_norm.weight": "output_norm.weight",
        "gpt_neox.final_layer_norm.bias": "output_norm.bias",
    }
    parts = {
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "attention.query_key_value": "attn_qkv",
        "attention.dense": "attn_output",
        "mlp.dense_h_to_4h": "ffn_up",
        "mlp.dense_4h_to_h": "ffn_down",
    }
    for layer in range(layers):
        for theirs, ours in parts.items():
            for kind in ("weight", "bias"):
                found[f"gpt_neox.layers.{layer}.{theirs}.{kind}"] = f"blk.{layer}.{ours}.{kind}"
    return found


def main(folder: Path, out: Path, kind: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    heads, layers = config["num_attention_heads"], config["num_hidden_layers"]

    writer = gguf.GGUFWriter(out, "gptneox")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(layers)
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_rope_dimension_count(int(config["rotary_pct"] * config["hidden_size"] // heads))
    writer.add_rope_freq_base(config["rotary_emb_base"])
    writer.add_parallel_residual(config["use_parallel_residual"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])

    special = {token["id"]: token["content"] for token in tokenizer["added_tokens"]}
    tokens = {index: token for token, index in tokenizer["model"]["vocab"].items()} | special
    ids = range(config["vocab_size"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([tokens.get(index, f"[unused {index}]") for index in ids])
    token_types = gguf.TokenType
    writer.add_token_types(
        [
            token_types.CONTROL if i in special else token_types.NORMAL if i in tokens else token_types.UNUSED
            for i in ids
        ]
    )
    merges = tokenizer["model"]["merges"]
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])

    tensors = load_file(folder / "model.safetensors")
    for theirs, ours in names(layers).items():
        tensor = tensors[theirs]
        if "query_key_value" in theirs:
            tensor = split_heads(tensor, heads)
        # Vectors are added to float32 activations.
        tensor = np.ascontiguousarray(tensor if tensor.ndim > 1 else tensor.astype(np.float32))
        if tensor.ndim > 1 and kind == "q8_0":
            q8_0 = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(ours, gguf.quantize(tensor.astype(np.float32), q8_0), raw_dtype=q8_0)
        else:
            writer.add_tensor(ours, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
