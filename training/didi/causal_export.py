"""Exports a causal model with its key-value cache: `python -m didi.causal_export --checkpoint FILE --out DIR`.

The folder is laid out as Hugging Face's tools expect a GPT-NeoX (which our causal model is, its absent biases
being zero): `config.json`, `model.safetensors` under that architecture's names, `onnx/model.onnx` with the
usual names of inputs and outputs; `tokenizer.json` must lie there.
"""

import argparse
import json
from pathlib import Path

import onnx
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from .backbone import BackboneConfig
from .causal import CausalLM
from .corpus import SEPARATOR
from .to_onnx import export_onnx


class CachedDecoder(nn.Module):
    """input_ids [B, S], attention_mask [B, T + S] (0 at padding on the left), position_ids [B, S], and the cache
    [B, H, T, D] twice a block -> logits [B, S, V], and the cache grown to T + S."""

    def __init__(self, model: CausalLM):
        super().__init__()
        self.model = model.requires_grad_(False)

    @property
    def inputs(self) -> list[str]:
        return ["input_ids", "attention_mask", "position_ids", *self.cache_names("past_key_values")]

    @property
    def outputs(self) -> list[str]:
        return ["logits", *self.cache_names("present")]

    def cache_names(self, prefix: str) -> list[str]:
        return [f"{prefix}.{i}.{part}" for i in range(len(self.model.blocks)) for part in ("key", "value")]

    def forward(self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, cache: list[Tensor]):
        S, total = input_ids.shape[1], attention_mask.shape[1]
        column = torch.arange(total)[None]
        row = torch.arange(S)[:, None] + (total - S)
        keep = (column <= row)[None] & (attention_mask[:, None] > 0)
        pairs = list(zip(cache[0::2], cache[1::2]))
        hidden, grown = self.model.extend(input_ids, keep[:, None], position_ids[:, None], pairs)
        return self.model.linear(hidden), *(tensor for pair in grown for tensor in pair)


def load_causal(path: Path) -> CausalLM:
    """A causal model, in evaluation mode: the averaged weights of a training checkpoint (.pt), or an exported folder."""
    if path.is_dir():
        sizes = json.loads((path / "config.json").read_text())
        config = BackboneConfig(
            vocab_size=sizes["vocab_size"],
            hidden=sizes["hidden_size"],
            blocks=sizes["num_hidden_layers"],
            heads=sizes["num_attention_heads"],
            context=sizes["max_position_embeddings"],
            mlp_ratio=sizes["intermediate_size"] // sizes["hidden_size"],
        )
        weights = from_neox(load_file(path / "model.safetensors"), config)
    else:
        state = torch.load(path, weights_only=True)
        config, weights = BackboneConfig(**state["config"]), state["ema"]
    model = CausalLM(config)
    model.load_state_dict(weights)
    return model.eval()


def neox_names(config: BackboneConfig) -> dict[str, str]:
    """Our parameter names -> GPT-NeoX's."""
    names = {
        "vocab_embed.embedding": "gpt_neox.embed_in.weight",
        "norm_final.weight": "gpt_neox.final_layer_norm.weight",
        "linear.weight": "embed_out.weight",
    }
    for i in range(config.blocks):
        ours, theirs = f"blocks.{i}", f"gpt_neox.layers.{i}"
        names |= {
            f"{ours}.norm1.weight": f"{theirs}.input_layernorm.weight",
            f"{ours}.attn_qkv.weight": f"{theirs}.attention.query_key_value.weight",
            f"{ours}.attn_out.weight": f"{theirs}.attention.dense.weight",
            f"{ours}.norm2.weight": f"{theirs}.post_attention_layernorm.weight",
            f"{ours}.mlp.0.weight": f"{theirs}.mlp.dense_h_to_4h.weight",
            f"{ours}.mlp.0.bias": f"{theirs}.mlp.dense_h_to_4h.bias",
            f"{ours}.mlp.2.weight": f"{theirs}.mlp.dense_4h_to_h.weight",
            f"{ours}.mlp.2.bias": f"{theirs}.mlp.dense_4h_to_h.bias",
        }
    return names


def to_neox(model: CausalLM) -> dict[str, Tensor]:
    """The weights under GPT-NeoX's names: query, key and value head by head, zero biases where we have none."""
    config, d = model.config, model.config.hidden
    weights = {}
    for ours, theirs in neox_names(config).items():
        tensor = model.state_dict()[ours]
        if ours.endswith("attn_qkv.weight"):
            tensor = tensor.view(3, config.heads, d // config.heads, d).transpose(0, 1).reshape(3 * d, d)
        weights[theirs] = tensor.contiguous()
        if ours.endswith(("norm1.weight", "norm2.weight", "norm_final.weight", "attn_qkv.weight", "attn_out.weight")):
            weights[theirs.removesuffix("weight") + "bias"] = torch.zeros(len(tensor))
    return weights


def from_neox(weights: dict[str, Tensor], config: BackboneConfig) -> dict[str, Tensor]:
    """The inverse of `to_neox`."""
    d, ours_to_theirs = config.hidden, neox_names(config)
    state = {ours: weights[theirs].float() for ours, theirs in ours_to_theirs.items()}
    for name in state:
        if name.endswith("attn_qkv.weight"):
            state[name] = state[name].view(config.heads, 3, d // config.heads, d).transpose(0, 1).reshape(3 * d, d)
    return state


def neox_config(config: BackboneConfig, end_id: int) -> dict:
    """`config.json` of the same model for Hugging Face's tools."""
    return {
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": "gpt_neox",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden,
        "num_hidden_layers": config.blocks,
        "num_attention_heads": config.heads,
        "intermediate_size": config.mlp_ratio * config.hidden,
        "hidden_act": "gelu_new",
        "rotary_pct": 1.0,
        "rotary_emb_base": 10_000,
        "max_position_embeddings": config.context,
        "layer_norm_eps": 1e-5,
        "use_parallel_residual": False,
        "tie_word_embeddings": False,
        "bos_token_id": end_id,
        "eos_token_id": end_id,
        "torch_dtype": "float32",
    }


def export_causal(model: CausalLM, path: Path) -> None:
    """Writes the decoder with its cache as ONNX."""
    decoder = CachedDecoder(model).eval()
    config = model.config
    B, S, T = 2, 3, 5
    # Tensors of their own: the exporter takes one tensor met twice for one input.
    cache = [torch.zeros(B, config.heads, T, config.hidden // config.heads) for _ in range(2 * config.blocks)]
    batch, new, past = (torch.export.Dim(name) for name in ("batch", "new", "past"))
    exported = export_onnx(
        decoder,
        example={
            "input_ids": torch.zeros(B, S, dtype=torch.int64),
            "attention_mask": torch.ones(B, T + S, dtype=torch.int64),
            "position_ids": torch.zeros(B, S, dtype=torch.int64),
            "cache": cache,
        },
        inputs=decoder.inputs,
        outputs=decoder.outputs,
        dynamic_shapes={
            "input_ids": {0: batch, 1: new},
            "attention_mask": {0: batch, 1: torch.export.Dim.AUTO},
            "position_ids": {0: batch, 1: new},
            "cache": [{0: batch, 2: past}] * len(cache),
        },
    )
    onnx.save(exported, str(path))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True, help="checkpoint.pt of a causal training run")
    parser.add_argument("--out", type=Path, required=True, help="folder; must hold tokenizer.json")
    parser.add_argument("--onnx", action=argparse.BooleanOptionalAction, default=True, help="write onnx/model.onnx too")
    args = parser.parse_args()
    model = load_causal(args.checkpoint)
    end = Tokenizer.from_file(str(args.out / "tokenizer.json")).token_to_id(SEPARATOR)
    weights = {name: tensor.half() for name, tensor in to_neox(model).items()}
    save_file(weights, args.out / "model.safetensors", {"format": "pt"})
    (args.out / "config.json").write_text(json.dumps(neox_config(model.config, end), indent=2) + "\n")
    if args.onnx:
        (args.out / "onnx").mkdir(exist_ok=True)
        # From the weights that ship, so that both files hold the same model.
        export_causal(load_causal(args.out), args.out / "onnx" / "model.onnx")
    print(f"wrote {args.out}: {', '.join(sorted(p.name for p in args.out.iterdir()))}")


if __name__ == "__main__":
    main()
