"""The demo model: Gemma 4 (E type) with every dimension shrunk, its tokenizer, processor and initial weights."""
import math, os, re, sys
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "..", "tests", "fixtures"))
import random
import torch, torch.nn.functional as F
import make_goldens_gemma4 as G          # config, tokenizer, template and processor layout shared with the golden fixtures
import commands as C, scenes as S

ASR = "Transcribe the following speech segment in English:"
JSON = "Return the command as JSON:"
SEE = "Describe what the camera sees."
DIMS = dict(hidden=128, layers=10, pattern=5, kv_shared=5, ffn=320, double_wide=True, heads=4, kv_heads=1, head_dim=32,
            global_head_dim=64, partial=0.25, window=128, ple=16, vocab=1280,
            v_hidden=96, v_heads=3, v_head_dim=32, v_layers=3, v_ffn=256, v_table=256, budget=70,
            a_hidden=128, a_heads=4, a_layers=4, a_out=128, sscp1=8, a_cap=50.0,
            config_style="published", shards=1)
SCALARS = [0.875, 0.9375, 0.9375, 1.0, 0.875, 0.9375, 1.0, 0.9375, 0.875, 1.0]      # layer_scalar: constants, not trained


def corpus():
    r, L = random.Random(0), []
    for _ in range(3000):
        s, c = C.sample(r)
        L += [C.to_text(s), s] + re.findall(r'\{"action":"|","(?:area|device)":"|","value":"?|"?\}|[^"{}:,]+', C.to_json(c))
    for _ in range(2000):
        L.append(S.caption(S.sample(r)))
    L += [ASR, JSON, SEE] * 400 + ["user\nmodel"] * 400
    return "\n".join(L)


def tokenizer():
    G.CORPUS = corpus()
    torch.manual_seed(0)
    return G.build_tokenizer(DIMS)


def config():
    cfg = G.build_config(DIMS)
    cfg._attn_implementation = "eager"
    return cfg


def init(model, seed=0):
    g = torch.Generator().manual_seed(seed)
    rnd = lambda *s: torch.randn(*s, generator=g)
    for n, p in sorted(model.named_parameters()):
        with torch.no_grad():
            if n.endswith(("per_dim_scale", "bias")):
                p.zero_()
            elif n.endswith("position_embedding_table"):
                p.copy_(0.2 * rnd(*p.shape))
            elif p.ndim == 1:
                p.fill_(1.0)
                if n.endswith(("q_norm.weight", "k_norm.weight")):
                    p.fill_(p.numel() ** -0.25)
                elif "post_" in n:
                    p.fill_(0.5)
            elif "embed_tokens" in n:
                p.copy_(rnd(*p.shape) / math.sqrt(DIMS["ple"] if "per_layer" in n else DIMS["hidden"]))
            elif "patch_embedder.input_proj" in n:      # smooth random filters: a picture is mostly flat areas and edges
                w = rnd(p.shape[0], 4, 4, 3).repeat_interleave(4, 1).repeat_interleave(4, 2)
                p.copy_(w.reshape(p.shape) / 40)
            elif "layer0.conv" in n:                     # mostly contrasts: the channel norm would let the level drown them
                w = rnd(*p.shape)
                p.copy_(w - 0.9 * w.mean((2, 3), keepdim=True))
            else:
                gain = 1.4 if "conv.weight" in n else 0.8
                p.copy_(rnd(*p.shape) * gain / math.sqrt(p[0].numel()))
    for l, v in zip(model.model.language_model.layers, SCALARS):
        l.layer_scalar.fill_(v)
    model.tie_weights()


def build(seed=0):
    from transformers import Gemma4ForConditionalGeneration
    m = Gemma4ForConditionalGeneration(config())
    init(m, seed)
    return m.eval()


if __name__ == "__main__":
    t = tokenizer(); m = build()
    for s in ("Turn off the living room coffee machine.", '{"action":"set","device":"lamp","area":"kitchen","value":40}', ASR,
              "A red bicycle is parked in the driveway on the left at night.", "<bos><|turn>user\n<|audio><|audio|><audio|>X<turn|>\n<|turn>model\n"):
        print(t.convert_ids_to_tokens(t(s, add_special_tokens=False).input_ids))
    c = {}
    for n, p in m.named_parameters():
        k = ".".join(n.split(".")[:2]); c[k] = c.get(k, 0) + p.numel()
    print(c, sum(c.values()))
