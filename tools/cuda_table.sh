#!/bin/sh
# tools/cuda_table.sh - what nvcc says about every kernel of kernels/cuda: docs/CUDA_KERNELS.md.
#   tools/cuda_table.sh raw FILE.cu...   one line a kernel and architecture: file kernel arch registers spilled shared
#   tools/cuda_table.sh > docs/CUDA_KERNELS.md
# NVCC names the compiler (nvcc). No GPU is needed. awk and c++filt do the rest.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
nvcc=${NVCC:-nvcc}
architectures="80 86 89 90 100"

raw() {
    targets=""
    for a in $architectures; do targets="$targets -gencode arch=compute_$a,code=sm_$a"; done
    targets="$targets -gencode arch=compute_100,code=compute_100" # PTX for what comes later
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    for file in "$@"; do
        # shellcheck disable=SC2086
        "$nvcc" -std=c++17 $targets --threads 2 -Werror all-warnings -Xptxas -v -I"$root" -fatbin "$file" \
            -o "$work/out" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
        c++filt <"$work/log" | awk -v file="$(basename "$file" .cu)" '
            function plain(s) { # "void f<8, 64, true>(args)" -> f<8,64,true>
                sub(/^void /, "", s); sub(/\(.*/, "", s); gsub(/ /, "", s); return s
            }
            function number_before(word,   i) { for (i = 2; i <= NF; i++) if ($i ~ "^" word) return $(i - 1) + 0; return 0 }
            /Compiling entry function/ {
                split($0, q, "\047"); kernel = plain(q[2]); arch = q[4]
            }
            /spill stores/ { match($0, /[0-9]+ bytes spill stores/); spill = substr($0, RSTART) + 0
                             match($0, /[0-9]+ bytes stack/); spill += substr($0, RSTART) + 0 }
            /Used [0-9]+ registers/ {
                smem = 0
                if (match($0, /[0-9]+ bytes smem/)) smem = substr($0, RSTART) + 0
                print file, kernel, arch, number_before("registers"), spill, smem
            }'
    done | LC_ALL=C sort
}

# The launch's side of it, which the compiler does not see: threads of a block, dynamic shared memory.
launches='
    function threads(kernel) {
        if (kernel == "group_moments_f32") return 32
        return kernel ~ /^(attention|spmm|csl_expand|bitmap_|fpx_gemm)/ ? 128 : 256
    }
    function arguments(kernel, a) { sub(/^[^<]*</, "", kernel); sub(/>.*/, "", kernel); return split(kernel, a, ",") }
    function dynamic(kernel,   a) {
        if (kernel ~ /^attention</) { arguments(kernel, a); return 2 * (a[1] + 8) * (64 + 2 * a[2]) }
        if (kernel ~ /^spmm_/) { arguments(kernel, a); return 2 * 2 * 8192 + 2 * 2 * a[1] * 64 }
        return 0
    }'

table() {
    awk "$launches"'
    BEGIN { # a multiprocessor: threads, blocks, bytes of shared memory (CUDA C++ Programming Guide, technical
            # specifications); each has 65536 registers, given to a warp in units of 256; a block takes 1 KiB more
        split("sm_80 sm_86 sm_89 sm_90 sm_100", order, " ")
        split("2048 1536 1536 2048 2048", t, " "); split("32 16 24 32 32", b, " ")
        split("164 100 100 228 228", k, " ")
        for (i in order) { most_threads[order[i]] = t[i]; most_blocks[order[i]] = b[i]; most_shared[order[i]] = 1024 * k[i] }
    }
    function up(v, unit) { return int((v + unit - 1) / unit) * unit }
    function least(a, b) { return a < b ? a : b }
    function occupancy(arch, regs, shared, n,   warps, blocks) {
        warps = n / 32
        blocks = least(most_blocks[arch], int(most_threads[arch] / n))
        blocks = least(blocks, int(int(65536 / up(regs * 32, 256)) / warps))
        blocks = least(blocks, int(most_shared[arch] / (up(shared, 128) + 1024)))
        return int(100 * blocks * n / most_threads[arch] + 0.5)
    }
    {
        id = $1 " " $2
        if (!(id in seen)) { seen[id] = 1; list[++count] = id; shared[id] = $6 + dynamic($2) }
        cell[id, $3] = $4 " (" occupancy($3, $4, $6 + dynamic($2), threads($2)) "%)"
        spilled[id] += $5
    }
    END {
        print "| file | kernel | threads | shared bytes | sm_80 | sm_86 | sm_89 | sm_90 | sm_100 | spilled bytes |"
        print "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|"
        for (i = 1; i <= count; i++) {
            split(list[i], part, " ")
            printf "| %s | `%s` | %d | %d |", part[1], part[2], threads(part[2]), shared[list[i]]
            for (j = 1; j <= 5; j++) printf " %s |", cell[list[i], order[j]]
            printf " %d |\n", spilled[list[i]]
        }
    }'
}

# FLOPs and bytes of one typical call of every kernel, by hand from the comments above them: each operand moves once.
estimates() {
    awk 'BEGIN {
        print "| kernel | call | MFLOP | MB | H100 | limit | 4090 | limit |"
        print "|---|---|--:|--:|--:|---|--:|---|"
        attention("<32,64,false>", "BERT, 64 tokens", 2, 12, 64, 64, 32, 32)
        attention("<48,64,false>", "SD1.5 512x512, itself", 2, 8, 4096, 4096, 40, 48)
        attention("<48,64,false>", "SD1.5 512x512, text", 2, 8, 4096, 77, 40, 48)
        attention("<64,64,false>", "SDXL 1024x1024, itself", 2, 20, 1024, 1024, 64, 64)
        attention("<64,64,false>", "T5-XXL, 120 tokens", 2, 64, 120, 120, 64, 64)
        attention("<80,64,false>", "SD1.5, second level", 2, 8, 1024, 1024, 80, 80)
        attention("<128,32,false>", "heads of 128", 2, 16, 1024, 1024, 128, 128)
        attention("<160,32,false>", "SD1.5, third level", 2, 8, 256, 256, 160, 160)
        attention("<128,32,true>", "VAE, 64x64, one head of 512", 1, 1, 4096, 4096, 512, 512, 4)
        plain("attention_pack", "SD1.5 512x512, k or v", 2 * 4096 * 320, 0, 4 + 2)
        for (m = 8; m <= 64; m *= 2) product("fpx_gemm_f16<" m ">", "six bits", m, 4096, 4096, 0.75)
        for (m = 8; m <= 64; m *= 2) product("bitmap_gemm_f16<" m ">", "six bits, 50% zeros", m, 4096, 4096, 0.512)
        for (m = 8; m <= 64; m *= 2) product("spmm_f16<" m ">", "90% zeros", m, 4096, 4096, 0.4)
        plain("finish_parts", "8 x 4096, 13 parts", 8 * 4096, 13 + 2, 4 * (13 + 1))
        plain("fpx_expand", "2560 x 320", 2560 * 320, 0, 0.75 + 2)
        plain("bitmap_expand", "2560 x 320, 50% zeros", 2560 * 320, 0, 0.512 + 2)
        plain("csl_expand", "2560 x 320, 90% zeros", 2560 * 320, 0, 0.4 + 2)
        plain("expand_fp6", "3x3 convolution, 320 x 320", 9 * 320 * 320, 0, 0.75 + 2)
        plain("widen_bf16", "3x3 convolution, 320 x 320", 9 * 320 * 320, 0, 2 + 4)
        plain("narrow", "8192 x 320 to f16", 8192 * 320, 0, 4 + 2)
        plain("patches", "3x3, 64x64x320, pair, GroupNorm and SiLU on the way", 2 * 4096 * 320, 12 * 9, 4 + 9 * 2)
        plain("epilogue", "8192 x 1152, residual", 8192 * 1152, 4, 4 + 4 + 4)
        plain("act_f32", "SiLU, 2 x 1280", 2 * 1280, 10, 4 + 4)
        plain("add_f32", "8192 x 320", 8192 * 320, 1, 4 + 4 + 4)
        plain("add_rows_f32", "8192 x 320", 8192 * 320, 1, 4 + 4)
        plain("copy2d_f32", "64x64x640, half of a concatenation, pair", 2 * 4096 * 640, 0, 4 + 4)
        plain("lookup_f32", "77 x 768 from f16", 77 * 768, 0, 2 + 4)
        plain("unpatchify_f32", "64x64x8, pair", 2 * 4096 * 8, 0, 4 + 4)
        plain("group_partial_f32", "64x64x320, pair", 2 * 4096 * 320, 4, 4)
        plain("group_moments_f32", "of 64x64x320, pair", 2 * 16 * 320, 12, 8)
        plain("group_apply_f32", "64x64x320, pair, SiLU", 2 * 4096 * 320, 14, 4 + 4)
        plain("group_affine_f32", "320 channels, pair", 2 * 320, 4, 4 + 4)
        plain("layer_norm_f32", "8192 x 1152, adaLN", 8192 * 1152, 10, 4 + 4)
        plain("rms_norm_f32", "120 x 4096", 120 * 4096, 4, 4 + 4)
        plain("combine_f32", "64x64x4, four terms", 4096 * 4, 8, 4 * 5)
        plain("normal_f32", "64x64x4", 4096 * 4, 60, 4)
        plain("sinusoids_f32", "2 x 320", 2 * 320, 40, 4)
    }
    function row(kernel, call, flops, bytes, h_peak, g_peak,   h_f, h_b, g_f, g_b) {
        h_f = flops / h_peak * 1e6; h_b = bytes / 3.35e12 * 1e6
        g_f = flops / g_peak * 1e6; g_b = bytes / 1.008e12 * 1e6
        printf("| `%s` | %s | %.3g | %.3g | %s | %s |\n", kernel, call, flops / 1e6, bytes / 1e6, bound(h_f, h_b),
            bound(g_f, g_b))
    }
    function bound(arithmetic, memory) {
        return arithmetic > memory ? sprintf("%.3g us | FLOPs", arithmetic) : sprintf("%.3g us | bytes", memory)
    }
    function attention(kernel, name, b, h, lq, lk, d, wide, pieces) { # wide: channels that are multiplied
        if (!pieces) pieces = 1 # each makes the scores anew
        row("attention" kernel, sprintf("%s: %d x %d heads, %d x %d, d %d", name, b, h, lq, lk, d),
            2 * b * h * lq * lk * wide * (pieces + 1), b * h * d * (lq * (4 + 4) + lk * (2 + 2)), 989.4e12, 165.2e12)
    }
    function product(kernel, name, m, n, k, bytes) {
        row(kernel, sprintf("%s: %d x %d x %d", name, m, n, k), 2 * m * n * k, bytes * n * k + 2 * m * k + 4 * m * n,
            989.4e12, 165.2e12)
    }
    function plain(kernel, call, n, flops, bytes) { row(kernel, call, flops * n, bytes * n, 66.9e12, 82.6e12) }'
}

if [ "${1:-}" = raw ]; then
    shift
    raw "$@"
    exit
fi
cat <<EOF
# CUDA kernels: what the compiler says, and an estimate

Made by \`tools/cuda_table.sh\` with $("$nvcc" --version | sed -n 's/.*\(release [0-9.]*\).*/nvcc \1/p'). Nothing here was measured on a GPU.

## Registers, shared memory, occupancy

Registers of a thread, and in parentheses the share of a multiprocessor's threads that can be resident (bounded by
registers, shared memory, blocks). Shared bytes: static and dynamic. \`tests/cuda_budget.sh\` compiles the kernels anew,
where there is an nvcc, and fails when one spills, takes more than 8 registers more than here, or is in one table only.

EOF
raw "$root"/kernels/cuda/*.cu | table
cat <<EOF

## Estimate: bytes and FLOPs against the roofline

**An estimate, not a measurement**: the least time that the arithmetic or the memory traffic of a call would take if
either ran at the device's peak, each operand moved once, nothing else in the way. Real kernels take longer; a launch
alone takes some microseconds. Peaks by NVIDIA's data sheets, dense: H100 SXM 989.4 TFLOPS (f16 tensor, f32 sums), 66.9
(f32), 3.35 TB/s; RTX 4090 165.2, 82.6, 1.008 TB/s. For six-bit and sparse weights the FLOPs are the dense product's.
bf16 is as f16.

EOF
estimates
