"""Writes textenc/unicode_pins.h: where the tokenizers library disagrees with Unicode 15 to 17 about a character.

    pip install tokenizers==0.23.3 unicodedata2==17.0.0
    python tools/goldens/textenc_unicode.py          # needs libutf8proc.so.2 (2.8.0: Unicode 15)

tokenizers mixes tables of several ages: Oniguruma's for regular expressions, Rust's own for lower-casing, old crates
for normalisation and for BERT's categories. utf8proc's tables are as old as the installed library. A character on which
the tokenizers library differs from Unicode 15 (utf8proc 2.8) or from Unicode 17 is listed with the answer that the
tokenizers library gives; for all others every version in between gives the same one.
"""

import ctypes
from pathlib import Path

import tokenizers
import unicodedata2 as u17
from tokenizers import Regex, normalizers, pre_tokenizers

OUT = Path(__file__).resolve().parents[2] / "textenc" / "unicode_pins.h"
u15 = ctypes.CDLL("libutf8proc.so.2")
u15.utf8proc_category_string.restype = ctypes.c_char_p
u15.utf8proc_unicode_version.restype = ctypes.c_char_p
print("tokenizers", tokenizers.__version__, "unicodedata2", u17.unidata_version, "utf8proc",
      u15.utf8proc_unicode_version().decode())

CODE_POINTS = [c for c in range(1, 0x110000) if not 0xD800 <= c < 0xE000]


def old_category(c):
    return u15.utf8proc_category_string(c).decode()


def new_category(c):
    return u17.category(chr(c))


def pins(theirs, member):
    """(forced yes, forced no): where `theirs` differs from category membership in either version."""
    yes, no = [], []
    for c in CODE_POINTS:
        mine = {member(old_category(c)), member(new_category(c))}
        t = theirs(c)
        if mine != {t}:
            (yes if t else no).append(c)
    return yes, no


def removed_by(normalizer):
    return lambda c: normalizer.normalize_str(chr(c)) == ""


def regex(pattern):
    return removed_by(normalizers.Replace(Regex(pattern), ""))


def bert(**kw):
    return normalizers.BertNormalizer(**{**dict(clean_text=False, handle_chinese_chars=False, strip_accents=False,
                                                lowercase=False), **kw})


def is_bert_punctuation(c):
    return len(bert_split.pre_tokenize_str("a" + chr(c) + "a")) == 3


bert_split = pre_tokenizers.BertPreTokenizer()
nfc, nfd, lower = normalizers.NFC(), normalizers.NFD(), normalizers.Lowercase()


def opaque_to_normalisation():
    """Characters that the library's normaliser does not know: no decomposition, no class, no composition."""
    probes = [chr(c) for c in (0x334, 0x93C, 0x3099, 0x94D, 0x5B0, 0x315, 0x316, 0x301, 0x345, 0x327, 0x35C, 0x35D)]
    found = set()
    for c in CODE_POINTS:
        ch = chr(c)
        if u17.combining(ch):
            texts = ["a" + p + ch for p in probes] + ["a" + ch + p for p in probes]
        else:
            texts = [ch]
        if any(nfd.normalize_str(t) != u17.normalize("NFD", t) for t in texts):
            found.add(c)
        parts = u17.decomposition(ch).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            pair = "".join(chr(int(p, 16)) for p in parts)
            if nfc.normalize_str(pair) != u17.normalize("NFC", pair):
                found |= {c, int(parts[0], 16)}
    return sorted(found)


def ranges(cps):
    out = []
    for c in sorted(cps):
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def c_table(name, comment, rows):
    text = f"/* {comment} */\nstatic const uint32_t {name}[][{len(rows[0])}] = {{\n"
    line = "   "
    for row in rows:
        cell = " {" + ", ".join(f"0x{v:x}" for v in row) + "},"
        if len(line) + len(cell) > 118:
            text += line + "\n"
            line = "   "
        line += cell
    return text + line + "\n};\n"


def lower_rows():
    """(first, last, distance): lower case that Unicode 15 does not have. U+0130 alone becomes two characters."""
    rows = []
    for c in CODE_POINTS:
        low = lower.normalize_str(chr(c))
        assert len(low) == 1 or c == 0x130
        if c == 0x130 or ord(low) == u15.utf8proc_tolower(c):
            continue
        distance = (ord(low) - c) & 0xFFFFFFFF
        if rows and rows[-1][1] == c - 1 and rows[-1][2] == distance:
            rows[-1][1] = c
        else:
            rows.append([c, c, distance])
    return rows


def main():
    bert_mark = removed_by(bert(strip_accents=True))
    clean = removed_by(bert(clean_text=True))
    tables = [("LETTER", "\\p{L} of regular expressions", pins(regex(r"\p{L}"), lambda k: k[0] == "L")),
              ("NUMBER", "\\p{N} of regular expressions", pins(regex(r"\p{N}"), lambda k: k[0] == "N")),
              ("BERT_MARK", "Mn, BERT's accents", pins(bert_mark, lambda k: k == "Mn")),
              ("BERT_PUNCTUATION", "P or ASCII punctuation, as BERT splits words",
               pins(is_bert_punctuation, lambda k: k[0] == "P")),
              ("BERT_CONTROL", "Cc, Cf, Cs or Co, what BERT removes",
               pins(clean, lambda k: k in ("Cc", "Cf", "Cs", "Co")))]
    parts = [f"""/* textenc/unicode_pins.h - characters on which the tokenizers library differs from some Unicode
 * version between 15 and 17. Ranges, both ends included, sorted. Only unicode.c includes this.
 * Made by tools/goldens/textenc_unicode.py with tokenizers {tokenizers.__version__}; do not edit. */
#ifndef RUNG_UNICODE_PINS_H
#define RUNG_UNICODE_PINS_H
#include <stdint.h>

/* clang-format off */
"""]
    for name, comment, (yes, no) in tables:
        for suffix, cps in (("YES", yes), ("NO", no)):
            if cps:
                parts.append(c_table(f"{name}_{suffix}", f"{comment}: {suffix.lower()}", ranges(cps)))
            print(name, suffix, len(cps))
    parts.append(c_table("NORM_OPAQUE", "unknown to NFC and NFD there: neither moved, taken apart nor composed",
                         ranges(opaque_to_normalisation())))
    parts.append(c_table("LOWER", "lower case beyond Unicode 15: first, last, distance modulo 2^32", lower_rows()))
    OUT.write_text("".join(parts) + "#endif\n")


main()
