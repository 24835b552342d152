"""Makes tests/golden/textenc: tiny text encoders as model directories, their embeddings, token ids of hard texts.

    pip install torch==2.13.0 transformers==5.23.0 tokenizers==0.23.3 safetensors numpy
    python tools/goldens/textenc.py

Tokens and embeddings come from transformers. Chunks and weights follow stable-diffusion-webui 1.10
(modules/prompt_parser.py, sd_hijack_clip.py, sd_emphasis.py), written anew below over the transformers model.
"""

import json
import platform
import pydoc_data.topics
import random
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import safetensors.torch
import tokenizers
import torch
import transformers
from tokenizers import pre_tokenizers, trainers
from transformers import BertConfig, BertModel, BertTokenizer, CLIPTextConfig, CLIPTextModel, CLIPTokenizer

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "tests" / "golden" / "textenc"
START, END = "<|startoftext|>", "<|endoftext|>"
TRAINING = list(pydoc_data.topics.topics.values())[:40] + ["a photo of an astronaut riding a horse on mars, highly "
    "detailed, 8k, (masterpiece:1.2), glossy red apple, 3d icon, trending on artstation", "naïve café déjà vu façade",
    "日本語のテキスト 東京の夜景", "привет мир красивая картина", "👩‍🔬🎨🦊"] * 30


# ---- vocabularies ----------------------------------------------------------------------------------------------

def byte_symbols():
    visible = [b for b in range(256) if 33 <= b <= 126 or (b >= 161 and b != 173)]
    return [chr(b) for b in visible] + [chr(256 + i) for i in range(256 - len(visible))]


def clip_vocab(merges):
    symbols = byte_symbols()
    tokens = symbols + [s + "</w>" for s in symbols] + [a + b for a, b in merges] + [START, END]
    return {t: i for i, t in enumerate(tokens)}


def train_merges(count):
    tokenizer = CLIPTokenizer().backend_tokenizer
    trainer = trainers.BpeTrainer(vocab_size=4 * count, end_of_word_suffix="</w>", show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(TRAINING, trainer)
    known = set(clip_vocab([]))
    merges = []
    for left, right in json.loads(tokenizer.to_str())["model"]["merges"]:
        if left in known and right in known and left + right not in known and len(merges) < count:
            merges.append((left, right))
            known.add(left + right)
    return merges


def merges_text(merges):
    return "#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges)


def make_wordpiece(count, lowercase):
    """Characters, then the commonest words and word ends; the library's trainer gives another order in every run."""
    backend = BertTokenizer(do_lower_case=lowercase).backend_tokenizer
    words, ends, letters = Counter(), Counter(), Counter()
    for text in TRAINING:
        for word, _ in backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(text)):
            words[word] += 1
            letters.update(word)
            ends.update("##" + word[-n:] for n in (2, 3, 4) if n < len(word))
    letters = sorted(letters, key=lambda c: (-letters[c], c))[:120]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + letters + ["##" + c for c in letters]
    pieces = words + ends
    tokens += [p for p in sorted(pieces, key=lambda p: (-pieces[p], p)) if p not in tokens][:count - len(tokens)]
    return {t: i for i, t in enumerate(tokens)}


# ---- model directories -----------------------------------------------------------------------------------------

def randomise(model, seed):
    g = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=g)
        if "norm" in name.lower() and name.endswith("weight"):
            p.data = 1 + 0.2 * noise
        elif name.endswith("bias"):
            p.data = 0.2 * noise
        elif "embedding" in name:
            p.data = 0.5 * noise
        else:
            p.data = noise / p.shape[-1] ** 0.5
        p.data = p.data.half().float()  # the file holds f16
    return model.eval()


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=None, separators=(",", ":")) + "\n")


def write_model(name, model, encoder, tokenizer, prefix="", extra=None):
    """The encoder's part of a model directory; tensors in f16 under `prefix`, norms in f32."""
    folder = OUT / name
    write_json(folder / "model_index.json", {"_class_name": "StableDiffusionPipeline",
                                             "text_encoder": ["transformers", encoder],
                                             "tokenizer": ["transformers", tokenizer]})
    write_json(folder / "text_encoder" / "config.json", model.config.to_dict())
    tensors = {prefix + k: v.half() if v.ndim > 1 else v for k, v in model.state_dict().items()}
    tensors.update(extra or {})
    safetensors.torch.save_file(tensors, folder / "text_encoder" / "model.safetensors")
    return folder


def clip_model(seed, vocab, **kw):
    config = CLIPTextConfig(vocab_size=len(vocab) + 8, bos_token_id=vocab[START], eos_token_id=vocab[END],
                            pad_token_id=1, **kw)
    return randomise(CLIPTextModel(config), seed)


def added(content, normalized):
    return {"content": content, "lstrip": False, "normalized": normalized, "rstrip": False, "single_word": False}


def make_clip_a(merges):
    """As SD1.5: vocab.json, merges.txt and legacy configs; tensor names of transformers 4."""
    vocab = clip_vocab(merges)
    model = clip_model(1, vocab, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
                       max_position_embeddings=77, hidden_act="quick_gelu")
    folder = write_model("clip_a", model, "CLIPTextModel", "CLIPTokenizer", prefix="text_model.")
    tok = folder / "tokenizer"
    write_json(tok / "vocab.json", vocab)
    (tok / "merges.txt").write_text(merges_text(merges))
    typed = {k: {"__type": "AddedToken", **added(t, True)}
             for k, t in (("bos_token", START), ("eos_token", END), ("unk_token", END))}
    write_json(tok / "tokenizer_config.json", {**typed, "pad_token": END, "model_max_length": 77,
                                               "do_lower_case": True, "add_prefix_space": False})
    write_json(tok / "special_tokens_map.json", {"bos_token": added(START, True), "eos_token": added(END, True),
                                                 "unk_token": added(END, True), "pad_token": END})
    return model, CLIPTokenizer.from_pretrained(tok)


def make_clip_b(merges):
    """As SD2: exact GELU, padding token "!"; the files that transformers 5 saves."""
    vocab = clip_vocab(merges)
    model = clip_model(2, vocab, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=3,
                       max_position_embeddings=77, hidden_act="gelu", layer_norm_eps=1e-3)
    folder = write_model("clip_b", model, "CLIPTextModel", "CLIPTokenizer")
    CLIPTokenizer(vocab=vocab, merges=merges, pad_token="!", model_max_length=77).save_pretrained(
        folder / "tokenizer")
    return model, CLIPTokenizer.from_pretrained(folder / "tokenizer")


def make_clip_c(merges):
    """Odd sizes, a tokenizer shorter than the encoder, tokens added by its config."""
    vocab = clip_vocab(merges)
    model = clip_model(3, vocab, hidden_size=15, intermediate_size=17, num_hidden_layers=4, num_attention_heads=5,
                       max_position_embeddings=50, hidden_act="quick_gelu")
    folder = write_model("clip_c", model, "CLIPTextModel", "CLIPTokenizer")
    tok = folder / "tokenizer"
    write_json(tok / "vocab.json", vocab)
    (tok / "merges.txt").write_text(merges_text(merges))
    decoder = {str(vocab[START]): {**added(START, False), "special": True},
               str(vocab[END]): {**added(END, True), "special": True},
               "298": {**added("horse", False), "rstrip": True, "single_word": True, "special": False},
               "300": {**added("İ!", True), "lstrip": True, "special": False}}
    write_json(tok / "tokenizer_config.json", {"added_tokens_decoder": decoder, "model_max_length": 40})
    return model, CLIPTokenizer.from_pretrained(tok)


def make_bert_a(count):
    """Uncased, vocab.txt; the pooler is in the file."""
    vocab = make_wordpiece(count, True)
    model = randomise(BertModel(BertConfig(vocab_size=len(vocab), hidden_size=32, num_hidden_layers=2,
                                           num_attention_heads=4, intermediate_size=48, max_position_embeddings=64)), 4)
    folder = write_model("bert_a", model, "BertModel", "BertTokenizer")
    tok = folder / "tokenizer"
    tok.mkdir(parents=True, exist_ok=True)
    (tok / "vocab.txt").write_text("".join(t + "\n" for t in sorted(vocab, key=vocab.get)))
    write_json(tok / "tokenizer_config.json", {"do_lower_case": True, "strip_accents": None, "model_max_length": 512})
    return model, BertTokenizer.from_pretrained(tok)


def make_bert_b(count):
    """Cased, tokenizer.json, tensor names of a model with a head, tanh GELU, 1-type embedding."""
    vocab = make_wordpiece(count, False)
    model = randomise(BertModel(BertConfig(vocab_size=len(vocab), hidden_size=18, num_hidden_layers=1,
                                           num_attention_heads=2, intermediate_size=20, max_position_embeddings=40,
                                           hidden_act="gelu_new", type_vocab_size=1, layer_norm_eps=1e-5)), 5)
    folder = write_model("bert_b", model, "BertModel", "BertTokenizer", prefix="bert.",
                         extra={"cls.predictions.bias": torch.zeros(3)})
    BertTokenizer(vocab=vocab, do_lower_case=False, model_max_length=512).save_pretrained(folder / "tokenizer")
    return model, BertTokenizer.from_pretrained(folder / "tokenizer")


# ---- texts -----------------------------------------------------------------------------------------------------

HARD = ["", " ", "\t\n  ", "a", "A photo of a cat", "it's we'LL don't I'd o'clock 'tis rock'n'roll ''s '", "x'S'T'Re",
        "İSTANBUL ıİiI", "ΑΣΣ ΣΑΣ ς", "ẞß ﬁne ǅ ŉ K Å Ω", "e\u0301 é a\u0323\u0301 a\u0301\u0323",
        "\u1100\u1161\u11a8각",
        "日本語 テキスト、東京。", "한국어 글자", "Привет, мир!", "naïve café — “quoted” … «x»", "👩‍🔬🏳️‍🌈🇩🇪👍🏽🎨",
        "0123 12½ ²³ Ⅷⅳ ٣١ ९१ ①⑳ ㊿ 𝟘 10,000.5", "a\u00a0b\u2003c\u3000d\u1680e\u202ff\u2028g\u0085h",
        "a\u200bb\u180ec\ufeffd",
        "<|endoftext|>", "a <|startoftext|> b<|endoftext|>c", "<|ENDOFTEXT|> <|EndOfText|>x",
        "<|startoftext| <|endoftext|>>",
        "!!<|endoftext|>!!", "[CLS] a [SEP] [MASK] [mask] [UNK]x[PAD]", "##ing ##", "!", "hello!!!",
        "horse, horses horse  x",
        "ihorse horse_ horse-x horse½", "x i̇! y İ!z", "x" * 120, "ab" * 51 + "é",
        "a" * 300, "-" * 80, "\u0301\u0316\u0345",
        "\u0345\u0301\u0316a\u0316\u0345\u0301", "𐐀𐐨 𞤀 Ꭰꭰ", "\u1c89\ua7cb\U00010d50\U00016ea0",
        "\U000105d2\u0307 \U00011935\U00011930",
        "\U00013460 \U0002ebf0 \U000323b0 \u088f \U000116d0 \U00011de0", "\u1ac1\u0316\u0301 \u0897\u0316",
        "\x01\x7f\x80\x1c\x1f", "\ue000\uffff\U0010ffff\ufffd",
        "（全角）ＡＢＣ１２３", "الْعَرَبِيَّةُ", "हिन्दी ไทย ខ្មែរ", "a|b\\c`d^e~f$g+h<i=j>k_l", "(a:1.2) [b] {c}",
        "semi;colon,comma.dot"]
POOLS = [lambda r: r.randint(0x20, 0x7E), lambda r: r.choice([9, 10, 13, 32, 32, 0x85, 0xA0, 0x2003, 0x2028, 0x3000]),
         lambda r: r.randint(0x300, 0x36F), lambda r: r.randint(0xA1, 0x24F), lambda r: r.randint(0x370, 0x5FF),
         lambda r: r.randint(0x1F300, 0x1FAFF), lambda r: r.randint(0x4E00, 0x9FFF),
         lambda r: r.randint(0x600, 0x11FF),
         lambda r: ord(r.choice("''''’sStTrReEvVmMlLdD")), lambda r: ord(r.choice("09²½Ⅷ٣१①𝟘𐄇")),
         lambda r: r.randint(0x1E00, 0x1FFF), lambda r: r.randint(0x1AB0, 0x1AFF),
         lambda r: r.randint(0x10000, 0x1FFFF),
         lambda r: r.randint(1, 0xD7FF), lambda r: r.randint(0xE000, 0x10FFFF)]


def random_text(r):
    pools = r.sample(POOLS, r.choice([2, 4]))
    text = "".join(r.choice(HARD[:32]) if r.random() < 0.1 else chr(r.choice(pools)(r))
                   for _ in range(r.randint(2, 16)))
    return text


def texts(seed, count):
    r = random.Random(seed)
    return HARD + [random_text(r) for _ in range(count - len(HARD))]


def tokens_golden(models, full):
    cases = {}
    for i, (name, (_, tokenizer)) in enumerate(models.items()):
        t = texts(i, 120)
        cases[name] = {"texts": t, "ids": tokenizer(t, truncation=False).input_ids}
    t = texts(99, 300)
    cases["built-in"] = {"texts": t, "ids": full(t, truncation=False).input_ids}
    write_json(OUT / "tokens.json", cases)


# ---- A1111 -----------------------------------------------------------------------------------------------------

GRAMMAR = re.compile(r"\\[()\[\]\\]|\\|[(\[]|:\s*(?P<weight>[+-]?[.\d]+)\s*\)|[)\]]|[^\\()\[\]:]+|:")
BREAK = re.compile(r"\s*\bBREAK\b\s*")


def parse(prompt):
    """[[text, weight], ...] as parse_prompt_attention gives it."""
    pieces, opened = [], {"(": [], "[": []}

    def close(bracket, factor):
        for piece in pieces[opened[bracket].pop():]:
            piece[1] *= factor

    for match in GRAMMAR.finditer(prompt):
        token = match.group()
        if token[0] == "\\":
            pieces.append([token[1:], 1.0])
        elif token in opened:
            opened[token].append(len(pieces))
        elif match["weight"] and opened["("]:
            close("(", float(match["weight"]))
        elif token == ")" and opened["("]:
            close("(", 1.1)
        elif token == "]" and opened["["]:
            close("[", 1 / 1.1)
        else:
            first, *rest = BREAK.split(token)
            pieces.append([first, 1.0])
            for part in rest:
                pieces += [["BREAK", -1], [part, 1.0]]
    for bracket, factor in (("(", 1.1), ("[", 1 / 1.1)):
        for start in opened[bracket]:
            for piece in pieces[start:]:
                piece[1] *= factor
    merged = [pieces[0]] if pieces else [["", 1.0]]
    for text, weight in pieces[1:]:
        if weight == merged[-1][1]:
            merged[-1][0] += text
        else:
            merged.append([text, weight])
    return merged


def chunk(tokenizer, prompt, room):
    """Chunks of (id, weight) pairs, `room` at most in each."""
    comma = tokenizer.get_vocab().get(",</w>")
    chunks, current, last_comma = [], [], None
    for text, weight in parse(prompt):
        if text == "BREAK" and weight == -1:
            chunks.append(current)
            current, last_comma = [], None
            continue
        for token in tokenizer(text, add_special_tokens=False, truncation=False).input_ids:
            if token == comma:
                last_comma = len(current)
            elif len(current) == room and last_comma is not None and room - last_comma <= 20:
                chunks.append(current[:last_comma + 1])
                current, last_comma = current[last_comma + 1:], None
            if len(current) == room:
                chunks.append(current)
                current, last_comma = [], None
            current.append((token, weight))
    return chunks + [current] if current or not chunks else chunks


@torch.no_grad()
def encode(model, ids, skip):
    states = model(torch.tensor([ids]), output_hidden_states=True)
    if skip == 0:
        return states.last_hidden_state[0]
    return model.final_layer_norm(states.hidden_states[-skip])[0]


def weighted(model, tokenizer, prompt, skip, min_n):
    length = min(tokenizer.model_max_length, model.config.max_position_embeddings)
    chunks = chunk(tokenizer, prompt, length - 2)
    while len(chunks) * length < min_n:
        chunks.append([])
    out = []
    for c in chunks:
        ids = [tokenizer.bos_token_id] + [t for t, _ in c] + [tokenizer.eos_token_id]
        ids += [tokenizer.pad_token_id] * (length - len(ids))
        weight = torch.tensor([1.0] + [w for _, w in c] + [1.0] * (length - 1 - len(c)))[:, None]
        z = encode(model, ids, skip)
        mean = z.mean()
        z = z * weight
        out.append(z * (mean / z.mean()))
    return torch.cat(out)


def literal(model, tokenizer, prompt, skip):
    length = min(tokenizer.model_max_length, model.config.max_position_embeddings)
    ids = tokenizer(prompt, padding="max_length", max_length=length, truncation=True).input_ids
    return encode(model, ids, skip)


@torch.no_grad()
def bert(model, tokenizer, prompt, min_n):
    ids = tokenizer(prompt, truncation=True, max_length=model.config.max_position_embeddings, padding=False).input_ids
    real = len(ids)
    ids = ids + [tokenizer.pad_token_id] * max(0, min_n - real)
    mask = torch.tensor([[1] * real + [0] * (len(ids) - real)])
    return model(torch.tensor([ids]), attention_mask=mask).last_hidden_state[0], real


# ---- cases -----------------------------------------------------------------------------------------------------

PLAIN = "A glossy red apple, 3d icon"
WEIGHTS = "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky)))., \\(plain\\) \\[too\\] x\\\\y: (late:-0.5) [cut"
R = random.Random(7)
VOCABULARY = "detailed, astronaut horse mars (glossy) red apple 3d [icon] trending artstation, naïve café photo".split()
LONG = " ".join(R.choice(VOCABULARY) + ("," if R.random() < 0.03 else "") for _ in range(300))


def embedding_cases(models):
    cases = []

    def add(name, prompt, rows, **options):
        file = f"{name}-{sum(c['model'] == name for c in cases)}.npy"
        np.save(OUT / file, rows.numpy().astype(np.float32))
        cases.append({"model": name, "prompt": prompt, "file": file, **options})

    for name in ("clip_a", "clip_b", "clip_c"):
        model, tokenizer = models[name]
        long = LONG if name == "clip_a" else LONG[:500]
        for skip in range(4 if name == "clip_a" else 3):
            add(name, PLAIN, literal(model, tokenizer, PLAIN, skip), literal=True, clip_skip=skip)
        add(name, PLAIN, literal(model, tokenizer, PLAIN, 0))  # without weights the two ways are one
        add(name, WEIGHTS, weighted(model, tokenizer, WEIGHTS, 2, 0), clip_skip=2)
        add(name, WEIGHTS, literal(model, tokenizer, WEIGHTS, 0), literal=True)
        add(name, long, literal(model, tokenizer, long, 0), literal=True)
        add(name, long, weighted(model, tokenizer, long, 0, 0))
        for prompt, min_n in (("", 0), ("", 100), ("日本語 café 👩‍🔬 (naïve:1.4)", 0), ("red BREAK (apple:1.2) BREAK", 0),
                              (f"cat {END} dog", 3 * 77)):
            add(name, prompt, weighted(model, tokenizer, prompt, 0, min_n), min_n=min_n)
    for name in ("bert_a", "bert_b"):
        model, tokenizer = models[name]
        for prompt, min_n in ((PLAIN, 0), (PLAIN, 30), ("", 0), (LONG, 0), ("日本語 café 👩‍🔬 [MASK] (x:1.2)", 35)):
            rows, real = bert(model, tokenizer, prompt, min_n)
            add(name, prompt, rows, min_n=min_n, real=real)
    write_json(OUT / "cases.json", cases)


def piece_cases():
    r = random.Random(11)
    parts = ["(", ")", "[", "]", "\\", ":", "a", "b c", ",", " BREAK ", "BREAK", "xBREAK", ":1.2)", ":.5)", ": -1 )",
             ":+2.)", ":1.2", "(a:1.1)", "\\(", "\\\\", "é", "\u2003", "_BREAK", "\nBREAK\n", "½BREAK"]
    prompts = [WEIGHTS, LONG, "", "(", "((((", "]]", "a:b:c", "(a:1.5):2)", "(a BREAK b)", "BREAK BREAK", "(x:-1)BREAK",
               "[a:0.5]", "(a:0)", "(a : 1.5)", "\\", "(\\(a\\):1.2)"]
    prompts += ["".join(r.choice(parts) for _ in range(r.randint(1, 14))) for _ in range(150)]
    write_json(OUT / "pieces.json", [{"prompt": p, "pieces": parse(p)} for p in prompts])


def main():
    print("torch", torch.__version__, "transformers", transformers.__version__, "tokenizers",
          tokenizers.__version__, "python", platform.python_version())
    shutil.rmtree(OUT, ignore_errors=True)
    merges = train_merges(900)
    models = {"clip_a": make_clip_a(merges), "clip_b": make_clip_b(merges[:300]), "clip_c": make_clip_c(merges[:200]),
              "bert_a": make_bert_a(700), "bert_b": make_bert_b(500)}
    lines = (ROOT / "assets" / "clip" / "merges.txt").read_text().splitlines()
    full = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    tokens_golden(models, CLIPTokenizer(vocab=clip_vocab(full), merges=full))
    embedding_cases(models)
    piece_cases()


main()
