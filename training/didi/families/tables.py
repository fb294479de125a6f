"""The families: their architectures in config.json, and the checkpoint's name of each parameter.

A family is an entry of FAMILIES. A name may end in "[K/N]": the K-th of N equal parts of the tensor's rows.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from .configs import Config, bert_layout, decoder_layout, llada_layout, modernbert_layout, qwen3_layout
from .layout import Layout


@dataclass(frozen=True)
class Family:
    """How checkpoints of a family are read."""

    about: str  # description in model.json
    architectures: tuple[str, ...]  # in config.json
    layout: Callable[[Config], Layout]
    names: Mapping[str, str]  # parameter -> tensor; of a block, with {} for its number
    ignored: str = r"$^"  # tensors that are not part of the forward pass
    copies: Mapping[str, str] = field(default_factory=dict)  # tensor that may repeat a parameter
    renamed: Mapping[str, str] = field(default_factory=dict)  # expression for older names -> name

    def tensor(self, slot: str) -> str:
        """Return the checkpoint's name of a parameter of `Layout.slots`."""
        match = re.fullmatch(r"blocks\.(\d+)\.(.+)", slot)
        slot, block = (f"blocks.{match[2]}", match[1]) if match else (slot, "")
        if slot in self.names:
            return self.names[slot].format(block)
        stem, _, end = slot.rpartition(".")
        name, bracket, part = self.names[stem].format(block).partition("[")
        return f"{name}.{end}{bracket}{part}"

    def current(self, tensor: str) -> str:
        """Return the name that a tensor of the checkpoint has today."""
        for expression, name in self.renamed.items():
            tensor = re.sub(expression, name, tensor)
        return tensor


LLAMA_NAMES = {
    "embedding": "model.embed_tokens.weight",
    "blocks.norm1": "model.layers.{}.input_layernorm",
    "blocks.q": "model.layers.{}.self_attn.q_proj",
    "blocks.k": "model.layers.{}.self_attn.k_proj",
    "blocks.v": "model.layers.{}.self_attn.v_proj",
    "blocks.q_norm": "model.layers.{}.self_attn.q_norm",
    "blocks.k_norm": "model.layers.{}.self_attn.k_norm",
    "blocks.out": "model.layers.{}.self_attn.o_proj",
    "blocks.norm2": "model.layers.{}.post_attention_layernorm",
    "blocks.gate": "model.layers.{}.mlp.gate_proj",
    "blocks.up": "model.layers.{}.mlp.up_proj",
    "blocks.down": "model.layers.{}.mlp.down_proj",
    "final_norm": "model.norm",
    "head": "lm_head",
}

LLADA_NAMES = {
    "embedding": "model.transformer.wte.weight",
    "blocks.norm1": "model.transformer.blocks.{}.attn_norm",
    "blocks.q": "model.transformer.blocks.{}.q_proj",
    "blocks.k": "model.transformer.blocks.{}.k_proj",
    "blocks.v": "model.transformer.blocks.{}.v_proj",
    "blocks.out": "model.transformer.blocks.{}.attn_out",
    "blocks.norm2": "model.transformer.blocks.{}.ff_norm",
    "blocks.gate": "model.transformer.blocks.{}.ff_proj",
    "blocks.up": "model.transformer.blocks.{}.up_proj",
    "blocks.down": "model.transformer.blocks.{}.ff_out",
    "final_norm": "model.transformer.ln_f",
    "head": "model.transformer.ff_out",
}

BERT_NAMES = {
    "embedding": "bert.embeddings.word_embeddings.weight",
    "positions": "bert.embeddings.position_embeddings.weight",
    "segment": "bert.embeddings.token_type_embeddings.weight",
    "embed_norm": "bert.embeddings.LayerNorm",
    "blocks.q": "bert.encoder.layer.{}.attention.self.query",
    "blocks.k": "bert.encoder.layer.{}.attention.self.key",
    "blocks.v": "bert.encoder.layer.{}.attention.self.value",
    "blocks.out": "bert.encoder.layer.{}.attention.output.dense",
    "blocks.norm1": "bert.encoder.layer.{}.attention.output.LayerNorm",
    "blocks.up": "bert.encoder.layer.{}.intermediate.dense",
    "blocks.down": "bert.encoder.layer.{}.output.dense",
    "blocks.norm2": "bert.encoder.layer.{}.output.LayerNorm",
    "transform": "cls.predictions.transform.dense",
    "transform_norm": "cls.predictions.transform.LayerNorm",
    "head.weight": "cls.predictions.decoder.weight",
    "head.bias": "cls.predictions.bias",
}

MODERNBERT_NAMES = {
    "embedding": "model.embeddings.tok_embeddings.weight",
    "embed_norm": "model.embeddings.norm",
    "blocks.norm1": "model.layers.{}.attn_norm",
    "blocks.q": "model.layers.{}.attn.Wqkv[0/3]",
    "blocks.k": "model.layers.{}.attn.Wqkv[1/3]",
    "blocks.v": "model.layers.{}.attn.Wqkv[2/3]",
    "blocks.out": "model.layers.{}.attn.Wo",
    "blocks.norm2": "model.layers.{}.mlp_norm",
    "blocks.gate": "model.layers.{}.mlp.Wi[0/2]",
    "blocks.up": "model.layers.{}.mlp.Wi[1/2]",
    "blocks.down": "model.layers.{}.mlp.Wo",
    "final_norm": "model.final_norm",
    "transform": "head.dense",
    "transform_norm": "head.norm",
    "head": "decoder",
}

FAMILIES = {
    "bert": Family(
        "BERT as a masked-diffusion language model.",
        ("BertForMaskedLM", "BertForPreTraining"),
        bert_layout,
        BERT_NAMES,
        ignored=r"bert\.pooler\..*|cls\.seq_relationship\..*|.*\.position_ids",
        copies={"cls.predictions.decoder.weight": "embedding", "cls.predictions.decoder.bias": "head.bias"},
        renamed={r"LayerNorm\.gamma$": "LayerNorm.weight", r"LayerNorm\.beta$": "LayerNorm.bias"},
    ),
    "modernbert": Family(
        "ModernBERT as a masked-diffusion language model.",
        ("ModernBertForMaskedLM",),
        modernbert_layout,
        MODERNBERT_NAMES,
        copies={"decoder.weight": "embedding"},
    ),
    "llada": Family(
        "LLaDA (arXiv 2502.09992).",
        ("LLaDAModelLM",),
        llada_layout,
        LLADA_NAMES,
        copies={"model.transformer.ff_out.weight": "embedding"},
    ),
    "dream": Family(
        "Dream (arXiv 2508.15487), or a model of its layout.",
        ("DreamModel", "DreamForCausalLM"),
        lambda config: decoder_layout(config, qkv_bias=True, shift=True),
        LLAMA_NAMES,
        ignored=r".*\.rotary_emb\.inv_freq",
        copies={"lm_head.weight": "embedding"},
    ),
    "qwen3-mdlm": Family(
        "Qwen3 trained as a masked-diffusion language model.",
        ("A2DQwen3LMHeadModel",),
        qwen3_layout,
        LLAMA_NAMES,
        copies={"lm_head.weight": "embedding"},
    ),
}
