"""rung beside other engines on the same weights, one after another, each in a process of its own.

    python bench/peers/make_sd15.py /tmp/sd15
    python bench/peers/compare.py /tmp/sd15 [--size 512] [--threads 2] [--engines rung,torch,openvino,sdcpp] [--out FILE]

prints a table: seconds, peak memory, and how many times as long as rung each engine takes. Results go to FILE as JSON
lines; a row that FILE has already is not measured again, so that a long comparison can be made in parts. The program is
RUNG (build/rung). Needs torch and diffusers; openvino and stable-diffusion-cpp-python where they are asked for.
"""
import argparse
import json
import pathlib
import subprocess
import sys

KEY = ("engine", "stage", "size", "threads")


def measure(args, engine, stage):
    command = [sys.executable, str(pathlib.Path(__file__).with_name("engines.py")), engine, str(args.model), stage,
               str(args.size), str(args.threads), str(args.repeat)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(f"{engine} {stage}: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def table(rows):
    print("| stage | size | engine | seconds | against rung | peak RSS, MB |\n|---|---|---|---|---|---|")
    ours = {(r["stage"], r["size"], r["threads"]): r["seconds"] for r in rows if r["engine"] == "rung"}
    for r in sorted(rows, key=lambda r: (r["stage"], r["size"], r["seconds"])):
        base = ours.get((r["stage"], r["size"], r["threads"]))
        ratio = f'{r["seconds"] / base:.2f}x' if base else ""
        print(f'| {r["stage"]} | {r["size"]} | {r["engine"]} {r["version"]} | {r["seconds"]:.2f} | {ratio} | '
              f'{r["peak_rss_bytes"] / 1e6:.0f} |')


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--engines", default="rung,torch,openvino,sdcpp")
    parser.add_argument("--stages", default="unet,vae")
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    rows = [json.loads(line) for line in args.out.read_text().splitlines()] if args.out and args.out.exists() else []
    for stage in args.stages.split(","):
        for engine in args.engines.split(","):
            if any(tuple(r[k] for k in KEY) == (engine, stage, args.size, args.threads) for r in rows):
                continue
            row = measure(args, engine, stage)
            if row:
                rows.append(row)
                if args.out:
                    args.out.write_text("".join(json.dumps(r) + "\n" for r in rows))
    table(rows)


if __name__ == "__main__":
    main()
