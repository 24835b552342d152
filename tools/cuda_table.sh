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

# FLOPs and bytes of typical calls, by hand from the comments above the kernels: each operand moves once.
estimates() {
    awk 'BEGIN {
        print "| operation | shape | GFLOP | MB | H100 | limit | 4090 | limit |"
        print "|---|---|--:|--:|--:|---|--:|---|"
        attention("self-attention, SD1.5 512x512", 2, 8, 4096, 4096, 40, 48)
        attention("self-attention, SDXL 1024x1024", 2, 20, 1024, 1024, 64, 64)
        attention("cross-attention, SD1.5 512x512", 2, 8, 4096, 77, 40, 48)
        attention("self-attention, T5-XXL", 2, 64, 120, 120, 64, 64)
        product("TC-FPx, time embedding", 2, 1280, 1280, 0.75)
        product("TC-FPx, T5-XXL feed-forward", 120, 10240, 4096, 0.75)
        product("six bits expanded to f16, U-Net feed-forward", 8192, 2560, 320, 0.75 + 2 + 2)
        product("f16 weights, time embedding", 2, 1280, 1280, 2)
        product("Tiled-CSL 90% zeros", 16, 4096, 4096, 0.4)
        product("bitmap + six bits, 50% zeros", 16, 4096, 4096, 0.512)
        plain("GroupNorm + SiLU, U-Net 64x64x320, pair", 2 * 4096 * 320, 10, 12)
        plain("LayerNorm + adaLN, 8192 x 1152", 8192 * 1152, 10, 8)
        plain("epilogue with residual, 8192 x 1152", 8192 * 1152, 4, 12)
    }
    function row(name, shape, flops, bytes, h_peak, g_peak,   h_f, h_b, g_f, g_b) {
        h_f = flops / h_peak * 1e6; h_b = bytes / 3.35e12 * 1e6
        g_f = flops / g_peak * 1e6; g_b = bytes / 1.008e12 * 1e6
        printf("| %s | %s | %.3g | %.3g | %s | %s |\n", name, shape, flops / 1e9, bytes / 1e6, bound(h_f, h_b),
            bound(g_f, g_b))
    }
    function bound(arithmetic, memory) {
        return arithmetic > memory ? sprintf("%.3g us | FLOPs", arithmetic) : sprintf("%.3g us | bytes", memory)
    }
    function attention(name, b, h, lq, lk, d, wide) { # wide: channels that are multiplied
        row(name, sprintf("batch %d, heads %d, %d x %d, d %d", b, h, lq, lk, d), 4 * b * h * lq * lk * wide,
            b * h * d * (4 * lq * 2 + lk * 2 * (4 + 2 + 2)), 989.4e12, 165.2e12)
    }
    function product(name, m, n, k, bytes) {
        row(name, sprintf("%d x %d x %d", m, n, k), 2 * m * n * k, bytes * n * k + 2 * m * k + 4 * m * n, 989.4e12, 165.2e12)
    }
    function plain(name, n, flops, bytes) { row(name, sprintf("%d numbers", n), flops * n, bytes * n, 66.9e12, 82.6e12) }'
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
where there is an nvcc, and fails when one spills or takes more than 8 registers more than here.

EOF
raw "$root"/kernels/cuda/*.cu | table
cat <<EOF

## Estimate: bytes and FLOPs against the roofline

**An estimate, not a measurement**: the least time that the arithmetic or the memory traffic of a call would take if
either ran at the device's peak, each operand moved once, nothing else in the way. Real kernels take longer. Peaks by
NVIDIA's data sheets, dense: H100 SXM 989.4 TFLOPS (f16 tensor, f32 sums), 66.9 (f32), 3.35 TB/s; RTX 4090 165.2, 82.6,
1.008 TB/s. For six-bit and sparse weights the FLOPs are the dense product's.

EOF
estimates
