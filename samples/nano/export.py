"""Writes a checkpoint in the released layout: block FP8 (E4M3, 128 x 128, power-of-two scales), official names, MTP as the last layer.

python export.py STATE_DIR OUT_DIR        STATE_DIR: the output of train.py
"""

import json
import os
import shutil
import sys

from safetensors.torch import save_file

import train
from model import Config, Nano, quant

SHARD = 12 * 2**20


def named(sd, c):
    o = {"model.embed_tokens.weight": sd["embed"], "model.norm.weight": sd["norm.weight"], "lm_head.weight": sd["head.weight"]}
    N = c.layers
    for k, v in sd.items():
        if k.startswith("blocks."):
            i, r = k.split(".", 2)[1:]
            p = f"model.layers.{i}."
        elif k.startswith("mtp."):
            r = k[4:]
            p = f"model.layers.{N}."
        else:
            continue
        if r in ("mlp.w1", "mlp.w3", "mlp.w2"):
            for e in range(c.experts):
                o[f"{p}mlp.experts.{e}.{ {'w1': 'gate_proj', 'w3': 'up_proj', 'w2': 'down_proj'}[r[4:]] }.weight"] = v[e]
        elif r == "mlp.bias":
            o[p + "mlp.gate.e_score_correction_bias"] = v
        else:
            o[p + r] = v
    p = f"model.layers.{N}."
    o.update(
        {
            p + "enorm.weight": sd["enorm.weight"],
            p + "hnorm.weight": sd["hnorm.weight"],
            p + "eh_proj.weight": sd["eh_proj.weight"],
            p + "embed_tokens.weight": sd["embed"],
            p + "shared_head.norm.weight": sd["mtp_norm.weight"],
            p + "shared_head.head.weight": sd["head.weight"],
        }
    )
    return o


def isq(n):
    return (
        n.endswith("proj.weight")
        and "weights_proj" not in n
        and "eh_proj" not in n
        or n.endswith(("wq_b.weight", "wk.weight", "kv_a_proj_with_mqa.weight"))
    )


def configuration(c):
    return dict(
        architectures=["DeepseekV32ForCausalLM"],
        model_type="deepseek_v32",
        vocab_size=c.vocab,
        hidden_size=c.hidden,
        intermediate_size=c.inter,
        moe_intermediate_size=c.moe_inter,
        num_hidden_layers=c.layers,
        num_attention_heads=c.heads,
        num_key_value_heads=c.heads,
        n_shared_experts=c.shared,
        n_routed_experts=c.experts,
        routed_scaling_factor=c.route_scale,
        kv_lora_rank=c.kv_lora,
        q_lora_rank=c.q_lora,
        qk_rope_head_dim=c.rope,
        qk_nope_head_dim=c.nope,
        v_head_dim=c.vd,
        n_group=c.n_group,
        topk_group=c.topk_group,
        num_experts_per_tok=c.top,
        first_k_dense_replace=c.dense_layers,
        moe_layer_freq=1,
        norm_topk_prob=True,
        scoring_func="sigmoid",
        topk_method="noaux_tc",
        hidden_act="silu",
        max_position_embeddings=8192,
        rms_norm_eps=c.eps,
        rope_theta=10000,
        rope_scaling=dict(
            type="yarn",
            factor=8,
            original_max_position_embeddings=c.orig,
            beta_fast=32,
            beta_slow=1,
            mscale=1.0,
            mscale_all_dim=1.0,
        ),
        index_n_heads=c.ih,
        index_head_dim=c.idim,
        index_topk=c.itop,
        num_nextn_predict_layers=1,
        tie_word_embeddings=False,
        attention_bias=False,
        attention_dropout=0.0,
        bos_token_id=0,
        eos_token_id=1,
        torch_dtype="bfloat16",
        quantization_config=dict(
            quant_method="fp8", fmt="e4m3", weight_block_size=[128, 128], activation_scheme="dynamic", scale_fmt="ue8m0"
        ),
    )


def tensors(state, c):
    """Name -> tensor as stored: FP8 with scale_inv; bf16; fp32 for gate, its bias and the index key norm."""
    out = {}
    for name, value in named(state, c).items():
        if isq(name):
            q, scale = quant(value)
            out[name], out[name + "_scale_inv"] = q.contiguous(), scale.contiguous()
        elif name.endswith("e_score_correction_bias") or "k_norm" in name or name.endswith("mlp.gate.weight"):
            out[name] = value.float().contiguous().clone()
        else:
            out[name] = value.bfloat16().contiguous().clone()
    return out


def export(state_folder, out):
    c, model = Config(), Nano(Config())
    train.load(state_folder, model)
    os.makedirs(out, exist_ok=True)
    stored = tensors({k: v.float() for k, v in model.state_dict().items()}, c)
    size = lambda t: t.numel() * t.element_size()
    shards, current = [{}], 0
    for name in sorted(stored):
        if current + size(stored[name]) > SHARD:
            shards.append({})
            current = 0
        shards[-1][name] = stored[name]
        current += size(stored[name])
    index = {}
    for i, shard in enumerate(shards):
        file = f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, os.path.join(out, file), metadata={"format": "pt"})
        index.update({name: file for name in shard})
    total = sum(map(size, stored.values()))
    with open(os.path.join(out, "model.safetensors.index.json"), "w") as file:
        json.dump(dict(metadata=dict(total_size=total), weight_map=index), file, indent=0)
    with open(os.path.join(out, "config.json"), "w") as file:
        json.dump(configuration(c), file, indent=1)
    with open(os.path.join(out, "generation_config.json"), "w") as file:
        json.dump(dict(bos_token_id=0, eos_token_id=1, pad_token_id=2, do_sample=False), file, indent=1)
    if not os.path.samefile(state_folder, out):
        shutil.copy(os.path.join(state_folder, "tokenizer.json"), out)
    print("tensors", len(stored), "bytes", total, "shards", len(shards))


if __name__ == "__main__":
    export(sys.argv[1], sys.argv[2])
