"""Colour words of icons, and icons in other colours."""
import numpy as np

HUES = {"red": 2, "orange": 28, "yellow": 50, "green": 125, "blue": 215, "purple": 275, "pink": 325}   # degrees; HSV
WORDS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "gray")
RED, ORANGE, YELLOW, GREEN, BLUE, PURPLE, PINK, BROWN, BLACK, WHITE, GRAY = range(len(WORDS))


def to_hsv(rgb):
    """[..., 3] in 0..1 -> hue in degrees, saturation, value, each [...]."""
    top, low = rgb.max(-1), rgb.min(-1)
    span = np.where(top > low, top - low, 1)
    r, g, b = (rgb[..., k] for k in range(3))
    sector = np.where(top == r, (g - b) / span % 6, np.where(top == g, (b - r) / span + 2, (r - g) / span + 4))
    return np.where(top > low, 60 * sector, 0), (top - low) / np.maximum(top, 1e-6), top


def from_hsv(h, s, v):
    k = [(n + h / 60) % 6 for n in (5, 3, 1)]
    return np.stack([v - v * s * np.clip(np.minimum(i, 4 - i), 0, 1) for i in k], -1)


def colour_index(rgb):
    """Index into WORDS of every pixel of [..., 3] in 0..1."""
    h, s, v = to_hsv(rgb)
    return np.select(
        [v < .22, (s < .15) & (v > .82), s < .15, ((h < 14) | (h >= 345)) & (s > .45), (h < 14) | (h >= 345),
         (h < 42) & (v < .68), h < 42, h < 68, h < 165, h < 255, h < 290],
        [BLACK, WHITE, GRAY, RED, PINK, BROWN, ORANGE, YELLOW, GREEN, BLUE, PURPLE], PINK)


def dominant_colour(icon):
    """The colour word of more than half of the opaque area of a premultiplied uint8 [H, W, 4] icon, or None."""
    pixels = icon.reshape(-1, 4)[::7]
    pixels = pixels[pixels[:, 3] > 128].astype(np.float32)
    if not len(pixels):
        return None
    counts = np.bincount(colour_index(pixels[:, :3] / pixels[:, 3:]), minlength=len(WORDS))
    return WORDS[counts.argmax()] if counts.max() > .5 * len(pixels) else None


def main_hue(icon):
    """The hue, in degrees, that most of an icon's coloured area is nearest to (a peak over 15 degree bins)."""
    alpha = icon[..., 3] / 255.
    h, s, v = to_hsv(icon[..., :3] / np.maximum(icon[..., 3:], 1).astype(np.float32))
    bins = np.bincount((h // 15).astype(int).ravel() % 24, (alpha * s * v).ravel(), 24)
    smooth = bins + np.roll(bins, 1) + np.roll(bins, -1)
    angle = np.deg2rad(h)
    near = alpha * s * v * (np.abs((h - 15 * smooth.argmax() - 7.5 + 180) % 360 - 180) < 30)
    return np.rad2deg(np.arctan2((near * np.sin(angle)).sum(), (near * np.cos(angle)).sum())) % 360


def recolour(icon, word):
    """The icon with its main hue turned to `word`'s: what lies within 35 degrees goes along, the rest stays."""
    alpha = icon[..., 3:].astype(np.float32)
    h, s, v = to_hsv(icon[..., :3] / np.maximum(alpha, 1))
    hue = main_hue(icon)
    turn = (HUES[word] - hue + 180) % 360 - 180
    share = np.clip((50 - np.abs((h - hue + 180) % 360 - 180)) / 15, 0, 1)
    rgb = from_hsv((h + share * turn) % 360, s, v)
    return np.concatenate([(rgb * alpha + .5).clip(0, 255), alpha], -1).astype(np.uint8)
