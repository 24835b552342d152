#!/usr/bin/env python3
"""FP6 (E3M2) weights in safetensors files: quantise, pack, write, read.

    fp6.py FILE.safetensors      lists what is in a file
    fp6.py --test                the format's own checks

A quantised tensor has dtype F6_E3M2, its own shape, and an F32 tensor NAME.scale [rows]; rows = shape[0], the other
axes flattened. value = code value * scale[row]; scale = max|row| / 28. Codes are one bit stream over the whole tensor,
row-major, 8 codes = 6 bytes, most significant bit first.
"""
import json, struct, sys
import numpy as np, torch

NOTE = "msb-first: row-major bit stream, 8 codes = 6 bytes, most significant bit first; value = E3M2(code) * NAME.scale[row]"
MAGNITUDES = np.array([m / 16 if e == 0 else (1 + m / 4) * 2.0 ** (e - 3) for e in range(8) for m in range(4)], np.float32)
TABLE = np.concatenate([MAGNITUDES, -MAGNITUDES])
DTYPES = {"F32": np.float32, "F16": np.float16, "I64": np.int64}


def is_fp6(part, name, w):
    """Which weights ship in FP6: matrices, kernels and embeddings, but not the thin or sensitive ends of a network."""
    if w.ndim < 2 or w.numel() % 8 or "scale_shift_table" in name:
        return False
    keep = {"vae": ("conv_in", "conv_out", "quant_conv", "post_quant_conv"),
            "transformer": ("pos_embed.proj", "proj_out"),
            "text_encoder": ("embeddings.position_embeddings", "embeddings.token_type_embeddings")}[part]
    stem = name.removesuffix(".weight").removeprefix("encoder.").removeprefix("decoder.")
    return stem not in keep


def round_e3m2(a):
    """f32 tensor in units of the row scale -> nearest E3M2 value, ties to even, saturating at 28."""
    m = a.abs().clamp(max=28.)
    step = torch.exp2(torch.floor(torch.log2(m.clamp(min=.25))) - 2)    # spacing: 2^(E-5), subnormals as E = 1
    return torch.round(m / step) * step * torch.sign(a)


def row_scale(w):
    """f32 [rows, 1...]: broadcastable scale of each output row."""
    s = w.detach().float().reshape(w.shape[0], -1).abs().amax(1).clamp(min=1e-12) / 28
    return s.reshape(-1, *[1] * (w.ndim - 1))


def fake_quantise(w):
    s = row_scale(w)
    return round_e3m2(w.float() / s) * s


class FakeFP6(torch.nn.Module):
    """Parametrisation: forward sees the rounded weight, the gradient passes straight through."""
    def forward(self, w):
        return w + (fake_quantise(w) - w).detach()


def pack(w):
    """(bytes, f32 scales [rows]) of a tensor whose element count is a multiple of 8."""
    if not torch.isfinite(w).all():
        raise ValueError("NaN or Inf in the weights")
    s = row_scale(w)
    v = round_e3m2(w.float() / s).reshape(-1).numpy()
    codes = (np.searchsorted(MAGNITUDES, np.abs(v)) | (np.signbit(v) << 5)).astype(np.uint8)
    bits = np.unpackbits(codes.reshape(-1, 1), axis=1)[:, 2:]
    return np.packbits(bits.reshape(-1)).tobytes(), s.reshape(-1).numpy()


def unpack(data, shape, scale):
    """f32 [shape] from the bit stream."""
    bits = np.unpackbits(np.frombuffer(data, np.uint8)).reshape(-1, 6)
    codes = np.packbits(np.pad(bits, ((0, 0), (2, 0))), axis=1).reshape(-1)
    return (TABLE[codes].reshape(shape[0], -1) * scale[:, None]).reshape(shape).astype(np.float32)


def write(path, tensors, fp6, half, metadata):
    """Write {name: tensor}; names in `fp6` as F6_E3M2 plus scale, in `half` as F16, the rest F32. F32 first, F6 last: no holes."""
    blobs = []
    for name, w in tensors.items():
        w = w.detach().cpu().contiguous()
        if name in fp6:
            data, scale = pack(w)
            blobs += [(name + ".scale", "F32", list(scale.shape), scale.tobytes()), (name, "F6_E3M2", list(w.shape), data)]
        elif name in half:
            blobs.append((name, "F16", list(w.shape), w.half().numpy().tobytes()))
        else:
            blobs.append((name, "F32", list(w.shape), w.float().numpy().tobytes()))
    blobs.sort(key=lambda b: (["F32", "F16", "F6_E3M2"].index(b[1]), b[0]))
    header, at = {"__metadata__": metadata}, 0
    for name, dtype, shape, data in blobs:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(b[3] for b in blobs))


def header(path):
    with open(path, "rb") as f:
        size, = struct.unpack("<Q", f.read(8))
        return json.loads(f.read(size)), 8 + size


def read(path):
    """{name: f32 tensor}, FP6 tensors decoded, scales folded in."""
    head, start = header(path)
    data = open(path, "rb").read()[start:]
    part = lambda name: data[slice(*head[name]["data_offsets"])]
    out = {}
    for name, entry in head.items():
        if name == "__metadata__" or name.endswith(".scale") and head.get(name[:-6], {}).get("dtype") == "F6_E3M2":
            continue
        if entry["dtype"] == "F6_E3M2":
            array = unpack(part(name), entry["shape"], np.frombuffer(part(name + ".scale"), np.float32))
        else:
            array = np.frombuffer(part(name), DTYPES[entry["dtype"]]).reshape(entry["shape"]).astype(np.float32)
        out[name] = torch.from_numpy(np.array(array))
    return out


def test():
    ones, scale = pack(torch.tensor([[28.] + [1.] * 15]))
    assert ones[:6].hex() == "7cc30c30c30c" and scale[0] == 1, ones.hex()      # 011111 001100 001100 ...
    ties = torch.tensor([.03125, .09375, .15625, .21875, .28125, .34375, 26, 30, -.0625])
    assert round_e3m2(ties).tolist() == [0, .125, .125, .25, .25, .375, 24, 28, -.0625]
    table = torch.from_numpy(TABLE)
    assert torch.equal(round_e3m2(table), table)
    near = torch.rand(200000) * 60 - 30
    gaps = (near[:, None] - table[None]).abs().amin(1)
    assert torch.allclose((round_e3m2(near) - near).abs(), gaps, atol=1e-6)
    w = torch.randn(24, 7, 3, 3)[:, :, :2]
    data, scale = pack(w)
    assert len(data) * 8 == w.numel() * 6
    assert torch.allclose(torch.from_numpy(unpack(data, w.shape, scale)), fake_quantise(w), atol=1e-7)
    print("ok")


if __name__ == "__main__":
    if sys.argv[1] == "--test":
        test()
    else:
        for key, entry in header(sys.argv[1])[0].items():
            print(key, entry)
