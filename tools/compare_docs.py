"""Draws docs/compare.html and docs/compare.png with `rung compare --default`, measures samplers over the gallery's
prompts, and writes what comes out into the README, between its two `compare` marks. About a minute on two cores.

    python tools/compare_docs.py build/rung
"""
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

SAMPLERS = "ddim,lms,euler,heun,dpm++2s,dpm++2m,unipc,deis,res_multistep"
SCHEDULES = "default,karras,exponential"
PROMPTS = 8
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
WEIGHTS = f"{ROOT}/assets/icons/transformer/diffusion_pytorch_model.safetensors"


def prompts():
    lines = [line.strip() for line in open(f"{ROOT}/docs/gallery.txt")]
    return [line for line in lines if line and line[0] != "#" and "--" not in line][:PROMPTS]


def mean(pictures, sampler, scheduler, steps):
    found = [p for p in pictures if (p["sampler"], p["scheduler"], p["steps"]) == (sampler, scheduler, steps)
             and not p["reference"] and "refusal" not in p]
    return sum(p["psnr_db"] for p in found) / len(found)


def table(result):
    pictures = result["pictures"]
    yield "| calls of the denoiser | nearest | PSNR | the model's own (dpm++2m, default) |"
    yield "|---|---|---|---|"
    for best in result["best"]:
        own = mean(pictures, "dpm++2m", "default", best["most_calls"])
        yield (f"| {best['most_calls']} | `--sampler {best['sampler']} --scheduler {best['scheduler']} "
               f"--steps {best['steps']}` | {best['psnr_db']:.1f} dB | {own:.1f} dB |")


def main():
    rung = os.path.abspath(sys.argv[1])
    with tempfile.TemporaryDirectory() as work:
        subprocess.run([rung, "compare", "--default", "-q", "-o", f"{work}/page"], check=True, stdout=subprocess.DEVNULL)
        subprocess.run([rung, "compare", "-q", "-o", f"{work}/wide", "--sampler", SAMPLERS, "--scheduler", SCHEDULES,
                        "--", *prompts()], check=True, stdout=subprocess.DEVNULL)
        for ending in ("html", "png"):
            shutil.copy(f"{work}/page/compare.{ending}", f"{ROOT}/docs/compare.{ending}")
        result = json.load(open(f"{work}/wide/compare.json"))
    halves = [p["psnr_db"] for p in result["pictures"] if p["reference"] and p["steps"] == 100]
    model = hashlib.sha256(open(WEIGHTS, "rb").read()).hexdigest()[:8]
    text = "\n".join(table(result)) + (
        f"\n\nMean PSNR over {PROMPTS} prompts of the gallery to 200 steps of dpm++2m (100 steps of it: "
        f"{sum(halves) / len(halves):.1f} dB), of {len(SAMPLERS.split(','))} samplers with up to three schedules; model "
        f"weights `{model}`, rung {result['version']}; by `tools/compare_docs.py`.\n")
    readme = open(f"{ROOT}/README.md").read()
    new, n = re.subn(r"(<!-- compare -->\n).*?(<!-- /compare -->)", lambda m: m[1] + text + m[2], readme, flags=re.S)
    if n != 1:
        sys.exit("README.md: wanted one <!-- compare --> ... <!-- /compare -->")
    open(f"{ROOT}/README.md", "w").write(new)


main()
