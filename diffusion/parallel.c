#include "diffusion/parallel.h"

#include <stdlib.h>
#include <string.h>

/* "tp=4" against "tp": the text after "=", NULL when it is another key. */
static const char *value_of(const char *item, size_t n, const char *key) {
    const size_t k = strlen(key);
    return n > k && strncmp(item, key, k) == 0 && item[k] == '=' ? item + k + 1 : NULL;
}

static bool number(const char *v, const char *end, double lo, double hi, double *out) {
    char *stop;
    *out = v ? strtod(v, &stop) : 0;
    return v && stop == end && stop > v && *out >= lo && *out <= hi;
}

static bool progress_of(const char *v, size_t n, rung_progress *out) {
    static const char *const names[] = {"poll", "thread", "none"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strlen(names[i]) != n || strncmp(names[i], v, n) != 0) continue;
        *out = (rung_progress)i;
        return true;
    }
    return false;
}

static bool parse_item(parallel_spec *s, const char *item, size_t n) {
    const char *end = item + n, *v;
    double x;
    if (n == 5 && strncmp(item, "batch", n) == 0) return s->batch = true;
    if ((v = value_of(item, n, "progress"))) return progress_of(v, (size_t)(end - v), &s->progress);
    if ((v = value_of(item, n, "timeout"))) return number(v, end, 0.1, 1e6, &s->timeout);
    int *whole = (v = value_of(item, n, "tp")) ? &s->tp : (v = value_of(item, n, "cfg")) ? &s->cfg : NULL;
    if (!whole || !number(v, end, 1, whole == &s->cfg ? 2 : 4096, &x) || x != (double)(int)x) return false;
    *whole = (int)x;
    return true;
}

rung_status parallel_parse(parallel_spec *s, const char *text, rung_err *err) {
    *s = (parallel_spec){0};
    for (const char *item = text; item;) {
        const char *comma = strchr(item, ',');
        const size_t n = comma ? (size_t)(comma - item) : strlen(item);
        if (!parse_item(s, item, n))
            return rung_fail(err, RUNG_EARG,
                             "--parallel: '%.*s', wanted tp=N, cfg=1, cfg=2, batch, timeout=SECONDS or "
                             "progress=poll|thread|none",
                             (int)n, item);
        item = comma ? comma + 1 : NULL;
    }
    return RUNG_OK;
}

rung_status parallel_choose(parallel_layout *out, const parallel_spec *s, int ranks, bool many, bool guided,
                            rung_err *err) {
    const bool said = s->tp || s->cfg || s->batch;
    parallel_layout l = {s->tp, s->cfg};
    if (!said && many) l = (parallel_layout){1, 1};
    if (!l.cfg) l.cfg = s->batch || ranks % 2 || !guided || (l.tp && ranks != 2 * l.tp) ? 1 : 2;
    if (!l.tp) l.tp = s->batch ? 1 : ranks % l.cfg ? 1 : ranks / l.cfg;
    const int each = l.tp * l.cfg;
    const bool groups = s->batch || (!said && many);
    if (groups ? ranks % each != 0 : ranks != each)
        return rung_fail(err, RUNG_EARG, "--parallel: tp=%d times cfg=%d takes %d ranks, %d %s launched%s", l.tp, l.cfg,
                         each, ranks, ranks == 1 ? "was" : "were",
                         ranks == 1     ? " (mpirun -n N rung ...)"
                         : ranks % each ? ""
                                        : "; add batch to draw several pictures at once");
    *out = l;
    return RUNG_OK;
}
