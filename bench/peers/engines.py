"""One engine, one stage, timed: what compare.py starts in a process of its own.

    python bench/peers/engines.py ENGINE MODEL STAGE SIZE THREADS REPEAT

prints one JSON object: seconds (best of REPEAT runs after a first one), peak_rss_bytes, version. Stages: `unet`, one
call of the denoiser on a guidance pair, SIZE / 8 latent cells a side and 77 rows of text; `vae`, one picture decoded
(by stable-diffusion.cpp once, without a first run: its decoder keeps nothing from one picture to the next).
"""
import importlib.metadata
import json
import os
import pathlib
import resource
import subprocess
import sys
import time


def best(call, repeat):
    call()
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def inputs(stage, cells, dtype=None):
    import torch
    torch.manual_seed(0)
    if stage == "vae":
        return [torch.randn(1, 4, cells, cells, dtype=dtype)]
    return [torch.randn(2, 4, cells, cells, dtype=dtype), torch.tensor([500.0, 500.0], dtype=dtype),
            torch.randn(2, 77, 768, dtype=dtype)]


def network(model, stage, dtype):
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    torch.set_grad_enabled(False)
    cls = UNet2DConditionModel if stage == "unet" else AutoencoderKL
    net = cls.from_pretrained(model / stage, torch_dtype=dtype)
    if stage == "unet":
        return lambda x, t, c: net(x, t, encoder_hidden_states=c).sample
    return lambda z: net.decode(z).sample


def run_torch(model, stage, size, threads, repeat, dtype="float32"):
    import torch
    torch.set_num_threads(threads)
    net = network(model, stage, getattr(torch, dtype))
    x = inputs(stage, size // 8, getattr(torch, dtype))
    return best(lambda: net(*x), repeat), torch.__version__


def openvino_file(model, stage, size):
    """The network as OpenVINO's file, f16 weights, converted once: traced on a small picture, shaped for this size."""
    import openvino
    import torch

    class Wrap(torch.nn.Module):
        def __init__(self):
            super().__init__()
            from diffusers import AutoencoderKL, UNet2DConditionModel
            cls = UNet2DConditionModel if stage == "unet" else AutoencoderKL
            self.net = cls.from_pretrained(model / stage).eval()

        def forward(self, *x):
            if stage == "vae":
                return self.net.decode(x[0], return_dict=False)[0]
            return self.net(x[0], x[1], encoder_hidden_states=x[2], return_dict=False)[0]

    path = model / "openvino" / f"{stage}-{size}.xml"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        torch.set_grad_enabled(False)
        net = openvino.convert_model(Wrap(), example_input=tuple(inputs(stage, 16)))
        net.reshape(dict(zip(net.inputs, [tuple(t.shape) for t in inputs(stage, size // 8)])))
        openvino.save_model(net, path, compress_to_fp16=True)
    return path


def run_openvino(model, stage, size, threads, repeat, precision="f32"):
    import openvino
    path = openvino_file(model, stage, size)
    options = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    if precision:
        options["INFERENCE_PRECISION_HINT"] = precision
    net = openvino.Core().compile_model(path, "CPU", options)
    request = net.create_infer_request()
    x = [t.numpy() for t in inputs(stage, size // 8)]
    chosen = net.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    return best(lambda: request.infer(x), repeat), f"{openvino.__version__} in {chosen}"


def run_rung(model, stage, size, threads, repeat, kept=None):
    rung = os.environ.get("RUNG", "build/rung")
    command = [rung, "bench", "model", "-m", str(model), "-t", str(threads), "-W", str(size), "-H", str(size), "--json"]
    out = subprocess.run(command + (["--type", kept] if kept else []), check=True, capture_output=True, text=True).stdout
    rows = [json.loads(line) for line in out.splitlines()]
    seconds = next(r["seconds"] for r in rows if r["name"] == ("denoiser" if stage == "unet" else "vae"))
    version = subprocess.run([rung, "--version"], capture_output=True, text=True).stdout.strip()
    return seconds, version


def run_sdcpp(model, stage, size, threads, repeat):
    """Its own log and callback tell the times; it draws whole pictures, from a prompt."""
    import io
    import re
    import stable_diffusion_cpp
    log, steps = io.StringIO(), []
    version = f"stable-diffusion.cpp ({importlib.metadata.version('stable-diffusion-cpp-python')})"

    def on_step(step, total, seconds):
        steps.append(seconds)
        if stage == "unet" and len(steps) > repeat:  # there is no way to stop it before it decodes
            report(stage, min(steps[1:]), version)
            sys.stdout.flush()
            os._exit(0)

    sys.stderr = log
    engine = stable_diffusion_cpp.StableDiffusion(model_path=str(model), vae_decode_only=True, n_threads=threads)
    engine.generate_image("a red apple", width=size, height=size, sample_method="euler", progress_callback=on_step,
                          sample_steps=repeat + 1 if stage == "unet" else 1, cfg_scale=7 if stage == "unet" else 1)
    return min(float(t) for t in re.findall(r"latent \d+ decoded, taking ([\d.]+)s", log.getvalue())), version


ENGINES = {
    "rung": run_rung,
    "rung-fp6": lambda *a: run_rung(*a, kept="fp6"),
    "torch": run_torch,
    "torch-bf16": lambda *a: run_torch(*a, dtype="bfloat16"),
    "openvino": run_openvino,
    "openvino-bf16": lambda *a: run_openvino(*a, precision="bf16"),
    "openvino-default": lambda *a: run_openvino(*a, precision=None),  # whatever it chooses for this processor
    "sdcpp": run_sdcpp,
}


def report(stage, seconds, version):
    engine, _, _, size, threads = sys.argv[1:6]
    who = resource.RUSAGE_CHILDREN if engine.startswith("rung") else resource.RUSAGE_SELF
    print(json.dumps({"engine": engine, "stage": stage, "size": int(size), "threads": int(threads), "seconds": seconds,
                      "peak_rss_bytes": resource.getrusage(who).ru_maxrss * 1024, "version": version}))


def main():
    engine, model, stage, size, threads, repeat = sys.argv[1:7]
    report(stage, *ENGINES[engine](pathlib.Path(model), stage, int(size), int(threads), int(repeat)))


if __name__ == "__main__":
    main()
