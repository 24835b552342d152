/* tests/test_cuda_races.cpp - no kernel has a data race, and none of its barriers is there for nothing.
 *
 * With CUDA_HOST_THREADS (a host thread for each CUDA thread, under ThreadSanitizer) each case runs in a child: as it
 * is, which must be clean and right; then once for every __syncthreads, __syncwarp and cp.async wait that it passes,
 * without that one, which must be noticed: a race, an assertion of the emulation, or a wrong result. */
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/cuda_cases.h"

static bool attention_right(const attention_case &c) {
    unsigned range = 0;
    return attention_error(c, &range) <= 1.5e-3;
}

/* GroupNorm of one picture, 40 pixels and 36 channels in 4 groups, in place; against sums in f64. */
static bool group_norm_right() {
    enum { PIXELS = 40, CH = 36, GROUPS = 4, EACH_GROUP = CH / GROUPS };
    uint64_t seed = 4;
    std::vector<float> x = random_floats(PIXELS * CH, 2, &seed), y = x;
    cuda_group_args a = {};
    a.x = y.data(), a.batch = 1, a.pixels = PIXELS, a.ch = CH, a.groups = GROUPS, a.eps = 1e-5f;
    std::vector<float> scratch(cuda_k_group_scratch(&a) / sizeof(float));
    a.scratch = scratch.data();
    cuda_k_group_stats(nullptr, &a);
    cuda_k_group_norm(nullptr, y.data(), &a, RUNG_ACT_NONE);
    for (int g = 0; g < GROUPS; g++) {
        double sum = 0, square = 0;
        for (int i = 0; i < PIXELS * EACH_GROUP; i++) sum += x[i / EACH_GROUP * CH + g * EACH_GROUP + i % EACH_GROUP];
        const double mean = sum / (PIXELS * EACH_GROUP);
        for (int i = 0; i < PIXELS * EACH_GROUP; i++)
            square += pow(x[i / EACH_GROUP * CH + g * EACH_GROUP + i % EACH_GROUP] - mean, 2);
        const double k = 1 / sqrt(square / (PIXELS * EACH_GROUP) + 1e-5);
        for (int i = 0; i < PIXELS * EACH_GROUP; i++) {
            const size_t at = i / EACH_GROUP * CH + g * EACH_GROUP + i % EACH_GROUP;
            if (!(fabs(y[at] - (x[at] - mean) * k) <= 1e-5)) return false;
        }
    }
    return true;
}

/* LayerNorm in place: every lane needs the row's first number, which one of them overwrites. */
static bool layer_norm_right() {
    enum { ROWS = 3, N = 70 };
    uint64_t seed = 5;
    std::vector<float> x = random_floats(ROWS * N, 2, &seed), y = x;
    cuda_layer_norm_args a = {};
    a.x = a.y = y.data(), a.rows = ROWS, a.n = N, a.eps = 1e-5f;
    cuda_k_layer_norm(nullptr, &a);
    for (int r = 0; r < ROWS; r++) {
        double sum = 0, square = 0;
        for (int i = 0; i < N; i++) sum += x[r * N + i];
        for (int i = 0; i < N; i++) square += pow(x[r * N + i] - sum / N, 2);
        for (int i = 0; i < N; i++)
            if (!(fabs(y[r * N + i] - (x[r * N + i] - sum / N) / sqrt(square / N + 1e-5)) <= 1e-5)) return false;
    }
    return true;
}

/* A tile with an item in every place, expanded for the libraries. */
static bool csl_expand_right() {
    enum { N = 130, K = 72 };
    std::vector<uint16_t> w(N * K), y(N * K, 0x7777);
    for (size_t i = 0; i < w.size(); i++) w[i] = i % 3 ? (uint16_t)(i % 5000 + 1) : 0;
    std::vector<int32_t> at = {0};
    std::vector<uint32_t> items, tile(RUNG_CSL_TILE);
    for (size_t r = 0; r < N; r += RUNG_CSL_ROWS)
        for (size_t k = 0; k < K; k += RUNG_CSL_COLS) {
            const size_t rows = N - r < RUNG_CSL_ROWS ? N - r : (size_t)RUNG_CSL_ROWS;
            const size_t cols = K - k < RUNG_CSL_COLS ? K - k : (size_t)RUNG_CSL_COLS;
            const size_t count = rung_csl_pack_tile(tile.data(), w.data() + r * K + k, K, rows, cols);
            items.insert(items.end(), tile.begin(), tile.begin() + (long)count);
            at.push_back((int32_t)(items.size() / RUNG_CSL_UNIT));
        }
    cuda_k_csl_expand(nullptr, y.data(), items.data(), at.data(), N, K);
    return y == w;
}

struct race_case {
    const char *name;
    bool (*right)();
};
static const race_case cases[] = {
    {"attention",
     [] {
         return attention_right({1, 1, 20, 20, 130, false, RANDOM_MASK, true});
     }},
    {"attention_pieces",
     [] {
         return attention_right({1, 1, 168, 20, 70});
     }},
    {"fpx",
     [] {
         return product_error({FPX, 8, 130, 192}) == 0;
     }},
    {"fpx_split",
     [] {
         return product_error({FPX, 9, 70, 320, 2, true}) == 0;
     }},
    {"csl",
     [] {
         return product_error({CSL, 9, 40, 192, 1, false, 0.9}) == 0;
     }},
    {"bitmap",
     [] {
         return product_error({BITMAP, 9, 40, 192, 1, false, 0.6}) == 0;
     }},
    {"group_norm", group_norm_right},
    {"layer_norm", layer_norm_right},
    {"csl_expand", csl_expand_right},
};

#ifdef CUDA_HOST_THREADS

extern "C" const char *__tsan_default_options() { return "halt_on_error=1:exitcode=66"; }

/* A child: "NAME" runs the case and prints the places that can be left out; "NAME SITE" leaves one out. */
static int child(int argc, char **argv) {
    for (const race_case &c : cases) {
        if (strcmp(c.name, argv[1]) != 0) continue;
        if (argc > 2)
            cuda_host::drop_site(argv[2]);
        else
            cuda_host::record_sites(true);
        if (!c.right()) return 1;
        for (size_t i = 0; argc == 2 && i < cuda_host::site_count(); i++) printf("%s\n", cuda_host::site_name(i));
        return 0;
    }
    return 2;
}

/* Runs this program again; its exit status, its lines of output to *out unless NULL. */
static int run_child(const std::string &arguments, std::vector<std::string> *out) {
    char self[4096];
    const ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n < 0) return -1;
    const std::string quiet = out ? "" : " 2>/dev/null"; /* what is noticed is wanted there */
    FILE *f = popen(("'" + std::string(self, (size_t)n) + "' " + arguments + quiet).c_str(), "r");
    if (!f) return -1;
    char line[256];
    while (fgets(line, sizeof line, f))
        if (out) out->push_back(std::string(line, strcspn(line, "\n")));
    return pclose(f);
}

int main(int argc, char **argv) {
    if (argc > 1) return child(argc, argv);
    std::map<std::string, bool> noticed; /* a place that several cases pass is missed by one of them */
    for (const race_case &c : cases) {
        std::vector<std::string> sites;
        if (!CHECK(run_child(c.name, &sites) == 0)) fprintf(stderr, "  %s: a race or a wrong result\n", c.name);
        CHECK(!sites.empty());
        for (const std::string &site : sites) {
            bool &seen = noticed[site];
            seen = seen || run_child(std::string(c.name) + " " + site, nullptr) > 0;
        }
    }
    for (const auto &site : noticed)
        if (!CHECK(site.second)) fprintf(stderr, "  nobody misses %s\n", site.first.c_str());
    return check_result();
}

#else

int main() {
    for (const race_case &c : cases)
        for (int order = 0; order < 2; order++) {
            cuda_host::set_order(order);
            if (!CHECK(c.right())) fprintf(stderr, "  %s, order %d\n", c.name, order);
        }
    return check_result();
}

#endif
