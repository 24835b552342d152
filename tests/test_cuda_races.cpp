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
