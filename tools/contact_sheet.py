"""Arranges pictures in a grid over a light background.

    python tools/contact_sheet.py docs/gallery.png 8 gallery/*.png
"""
import sys

from PIL import Image


def main():
    out, columns, files = sys.argv[1], int(sys.argv[2]), sorted(sys.argv[3:])
    pictures = [Image.open(f).convert("RGBA") for f in files]
    side, gap = max(p.width for p in pictures), 8
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGBA", (columns * (side + gap) + gap, rows * (side + gap) + gap), (246, 247, 250, 255))
    for i, p in enumerate(pictures):
        sheet.alpha_composite(p, (gap + i % columns * (side + gap), gap + i // columns * (side + gap)))
    sheet.convert("RGB").save(out, optimize=True)


main()
