#!/bin/sh
# tests/cuda_budget.sh SOURCE NVCC STEM - kernels/cuda/STEM.cu compiled for every architecture, without a warning, and
# held against docs/CUDA_KERNELS.md: no spills, no stack, at most 8 registers more, no kernel that the table lacks or has
# too many, none without an estimate.
set -eu
slack=8
out=$(NVCC=$2 sh "$1/tools/cuda_table.sh" raw "$1/kernels/cuda/$3.cu")
[ -n "$out" ] || { echo "no kernel found in $3.cu"; exit 1; }
printf '%s\n' "$out" | awk -v file="$3" -v slack=$slack '
    function as_f16(kernel) { sub(/_bf16</, "_f16<", kernel); return kernel }
    FNR == NR { # the table: | file | `kernel` | threads | shared | sm_80 | ... | spilled |
        split($0, c, "|")
        if (gsub(/[ `]/, "", c[2]) > 2) estimated[c[2]] = 1 # of the second table: | `kernel` | call | ...
        gsub(/[ `]/, "", c[3])
        if (c[2] != file) next
        in_table[c[3]] = 1
        split("sm_80 sm_86 sm_89 sm_90 sm_100", arch, " ")
        for (i = 1; i <= 5; i++) budget[c[3], arch[i]] = c[5 + i] + 0
        next
    }
    {
        checked++
        found[$2] = 1
        if ($5 > 0) { print $2, $3, "spills or has a stack:", $5, "bytes"; bad = 1 }
        if (!($2 in in_table)) { print $2, "is not in docs/CUDA_KERNELS.md: run tools/cuda_table.sh"; bad = 1 }
        else if (!(as_f16($2) in estimated)) { print $2, "has no estimate in docs/CUDA_KERNELS.md"; bad = 1 }
        else if ($4 > budget[$2, $3] + slack) { print $2, $3, "takes", $4, "registers, the table has", budget[$2, $3]; bad = 1 }
    }
    END {
        for (k in in_table) if (!(k in found)) { print k, "is in docs/CUDA_KERNELS.md but not in the source"; bad = 1 }
        print checked + 0, "kernels and architectures"
        exit bad || !checked
    }' "$1/docs/CUDA_KERNELS.md" -
