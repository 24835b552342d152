/* diffusion/main.c - the command line: the only file that prints or exits. */
#define _POSIX_C_SOURCE 200809L /* sigaction, isatty */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "assets/json.h"
#include "bench/bench_cuda.h"
#include "bench/bench_kernels.h"
#include "bench/bench_ladder.h"
#include "bench/bench_model.h"
#include "diffusion/batch.h"
#include "diffusion/cli_request.h"
#include "diffusion/compare.h"
#include "diffusion/compare_data.h"
#include "diffusion/compare_page.h"
#include "diffusion/contact_sheet.h"
#include "diffusion/convert.h"
#include "diffusion/engine.h"
#include "diffusion/info.h"
#include "diffusion/options.h"
#include "kernels/base/cpu.h"

enum { EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_INTERRUPTED = 130 };

static volatile sig_atomic_t interrupted; /* a signal handler has nowhere else to put it */

static void on_interrupt(int sig) {
    (void)sig;
    interrupted = 1;
}

static int exit_status(rung_status st) {
    if (interrupted) return EXIT_INTERRUPTED;
    return st == RUNG_OK ? 0 : st == RUNG_EARG ? EXIT_USAGE : EXIT_FAILED;
}

struct progress {
    bool shown; /* standard error is a terminal, and --quiet was not given */
    double start;
};

static int on_step(void *user, int step, int steps) {
    const struct progress *p = user;
    if (p->shown) {
        const double each = (rung_now() - p->start) / step;
        fprintf(stderr, "\rstep %d/%d  %.2f s/it  %.0f s left \033[K%s", step, steps, each, each * (steps - step),
                step == steps ? "\r\033[K" : "");
    }
    return interrupted;
}

static uint64_t peak_rss_bytes(void) {
    struct rusage u;
    return getrusage(RUSAGE_SELF, &u) == 0 ? (uint64_t)u.ru_maxrss * 1024 : 0;
}

static void print_json(const rung_image *image, const char *output, double load, double write) {
    cJSON *o = cJSON_CreateObject(), *s;
    char seed[32];
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)image->seed);
    cJSON_AddStringToObject(o, "output", output);
    cJSON_AddRawToObject(o, "seed", seed); /* a double would round seeds above 2^53 */
    cJSON_AddStringToObject(o, "sampler", image->sampler);
    cJSON_AddNumberToObject(o, "steps", image->steps);
    s = cJSON_AddObjectToObject(o, "seconds");
    cJSON_AddNumberToObject(s, "load", load);
    cJSON_AddNumberToObject(s, "encode", image->times.encode);
    cJSON_AddNumberToObject(s, "denoise", image->times.denoise);
    cJSON_AddNumberToObject(s, "decode", image->times.decode);
    cJSON_AddNumberToObject(s, "write", write);
    cJSON_AddNumberToObject(s, "total",
                            load + image->times.encode + image->times.denoise + image->times.decode + write);
    cJSON_AddNumberToObject(o, "peak_rss_bytes", (double)peak_rss_bytes());
    char *text = cJSON_PrintUnformatted(o);
    if (text) puts(text);
    cJSON_free(text);
    cJSON_Delete(o);
}

static void say_times(const rung_image *image, double load, double write) {
    fprintf(stderr,
            "load %.3f s, encode %.3f s, denoise %.3f s (%d steps of %s), decode %.3f s, write %.3f s, peak %.0f MB\n",
            load, image->times.encode, image->times.denoise, image->steps, image->sampler, image->times.decode, write,
            1e-6 * (double)peak_rss_bytes());
}

/* Picture `i` of -b, when it is this group's turn. */
static rung_status draw_picture(rung_engine *e, const rung_request *r, const cli_options *o, rung_image *image,
                                rung_err *err) {
    struct progress p = {.shown = !o->quiet && isatty(STDERR_FILENO), .start = rung_now()};
    rung_request request = *r;
    request.progress = on_step;
    request.progress_user = &p;
    return rung_generate(e, &request, 1, image, err);
}

static rung_status keep_picture(rung_engine *e, const rung_request *r, const cli_options *o, rung_image *image,
                                size_t i, rung_err *err) {
    char *name = cli_output_name(o->output, r->seed, i);
    if (!name) return rung_fail(err, RUNG_ENOMEM, "out of memory");
    const double load = i == 0 ? rung_describe(e)->load_seconds : 0, start = rung_now();
    rung_status st = cli_save_hooks(image, o, err);
    if (!st) st = rung_image_save(image, name, err);
    if (!st) {
        const double write = rung_now() - start;
        if (o->verbose) say_times(image, load, write);
        if (o->json)
            print_json(image, name, load, write);
        else
            puts(name);
        fflush(stdout);
    }
    free(name);
    return st;
}

/* One picture for each group of ranks, from picture `first` on; rank 0 keeps them. */
static rung_status draw_round(rung_engine *e, const rung_request *r, const cli_options *o, size_t first,
                              rung_err *err) {
    const ranks *all = &e->ranks;
    const size_t left = (size_t)o->batch_count - first, count = left < (size_t)all->groups ? left : (size_t)all->groups;
    rung_image own = {0};
    rung_request request = *r;
    request.seed = r->seed + first + (size_t)all->group_number;
    request.last = left <= (size_t)all->groups;
    rung_status st = RUNG_OK;
    if ((size_t)all->group_number < count) st = draw_picture(e, &request, o, &own, err);
    for (size_t g = 0; !st && g < count; g++) {
        rung_image other = {0}, *image = g == (size_t)all->group_number ? &own : &other;
        request.seed = r->seed + first + g;
        st = ranks_bring(all, image, ranks_leader(all, (int)g), err);
        if (!st && ranks_first(all)) st = keep_picture(e, &request, o, image, first + g, err);
        rung_image_free(&other);
    }
    rung_image_free(&own);
    return st;
}

static rung_status generate(const cli_options *o, const char *model, rung_comm *world, cli_inputs *in, rung_err *err) {
    rung_engine *e = NULL;
    rung_request r = cli_request(o);
    rung_options options;
    RUNG_TRY(cli_engine_options(o, model, world, &options, err));
    if (o->guidance_set)
        return rung_fail(err, RUNG_EARG, "--guidance: this model has no distilled guidance; --cfg-scale is its own");
    RUNG_TRY(cli_inputs_read(in, o, err));
    RUNG_TRY(cli_inputs_embeds(&r, in, o, err));
    RUNG_TRY(cli_choose_seed(o, world, &r.seed, err));
    options.no_text_encoder = r.embeds.data && (r.neg_embeds.data || r.cfg_scale == 1);
    rung_status st = rung_open(&e, &options, err);
    if (!st) st = cli_inputs_noise(&r, in, rung_describe(e), o->noise, err);
    if (!st && o->verbose) fprintf(stderr, "%s, %s\n", model, rung_describe(e)->pipeline);
    if (!st && !o->quiet) fprintf(stderr, "seed %llu\n", (unsigned long long)r.seed);
    for (long i = 0; !st && i < o->batch_count; i += e->ranks.groups) st = draw_round(e, &r, o, (size_t)i, err);
    rung_close(&e);
    return st;
}

static int on_batch_step(void *user, int step, int steps) {
    (void)user, (void)step, (void)steps;
    return interrupted;
}

static cJSON *new_event(const char *kind) {
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "event", kind);
    return o;
}

/* One line on standard output; `o` is deleted. */
static void print_event(cJSON *o) {
    char *text = cJSON_PrintUnformatted(o);
    if (text) puts(text);
    cJSON_free(text);
    cJSON_Delete(o);
    fflush(stdout);
}

static void print_batch_json(const batch_event *e) {
    static const char *const kinds[] = {"fault", "skipped", "picture"};
    char seed[32];
    cJSON *o = new_event(kinds[e->kind]);
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)e->seed);
    cJSON_AddNumberToObject(o, "line", (double)e->line);
    if (e->message) cJSON_AddStringToObject(o, "message", e->message);
    if (e->output) cJSON_AddStringToObject(o, "output", e->output);
    if (e->output) cJSON_AddRawToObject(o, "seed", seed);
    cJSON_AddNumberToObject(o, "done", (double)e->done);
    cJSON_AddNumberToObject(o, "total", (double)e->total);
    cJSON_AddNumberToObject(o, "seconds_each", e->seconds_each);
    print_event(o);
}

static int on_batch_event(void *user, const batch_event *e) {
    const cli_options *o = user;
    if (e->kind == BATCH_FAULT) fprintf(stderr, "rung: %s:%zu: %s\n", o->prompt_file, e->line, e->message);
    if (o->json)
        print_batch_json(e);
    else if (e->kind == BATCH_PICTURE)
        puts(e->output);
    fflush(stdout);
    if (!o->quiet && isatty(STDERR_FILENO))
        fprintf(stderr, "\r%zu/%zu pictures  %.2f s each  %.0f s left \033[K%s", e->done, e->total, e->seconds_each,
                e->left, e->done == e->total ? "\n" : "");
    return interrupted;
}

static rung_status batch(const cli_options *o, const char *model, rung_comm *world, rung_err *err) {
    rung_request defaults = cli_request(o);
    rung_options options;
    prompt_file file = {0};
    batch_result result = {0};
    rung_engine *e = NULL;
    char *text = NULL;
    RUNG_TRY(cli_engine_options(o, model, world, &options, err));
    RUNG_TRY(cli_choose_seed(o, world, &defaults.seed, err));
    if (!world || world->rank == 0) RUNG_TRY(cli_read_prompts(o->prompt_file, &text, err));
    rung_status st = ranks_share_text(world, &text, err);
    if (!st) st = prompt_file_parse(&file, text, &defaults, err);
    free(text);
    if (!st) st = rung_open(&e, &options, err);
    const batch_options how = {.output = o->output ? o->output : "batch/{line}-{seed}.png",
                               .batch_size = (size_t)o->batch_size,
                               .resume = o->resume,
                               .progress = on_batch_step,
                               .event = on_batch_event,
                               .user = (void *)o};
    if (!st) st = batch_run(e, &file, &how, &result, err);
    if (!st && !o->quiet)
        fprintf(stderr, "%zu made, %zu there already, %zu failed\n", result.made, result.skipped, result.faults);
    if (!st && result.faults && (!world || world->rank == 0)) /* it tells the others */
        st = rung_fail(err, RUNG_EFORMAT, "%s: %zu faults", o->prompt_file, result.faults);
    rung_close(&e);
    prompt_file_free(&file);
    return st;
}

/* ---- compare ---- */

struct comparing {
    const cli_options *o;
    double start;
};

static int on_compared(void *user, const compare *c, const compare_cell *p) {
    const struct comparing *w = user;
    if (w->o->json) {
        cJSON *o = new_event("picture");
        compare_cell_json(o, c, p);
        cJSON_AddNumberToObject(o, "done", (double)c->done);
        cJSON_AddNumberToObject(o, "total", (double)c->drawn);
        print_event(o);
    }
    if (!w->o->quiet && isatty(STDERR_FILENO))
        fprintf(stderr, "\r%zu/%zu pictures  %s %s, %d steps  %.0f s left \033[K%s", c->done, c->drawn, p->sampler,
                p->scheduler ? p->scheduler : "", p->steps,
                (rung_now() - w->start) / c->work_done * (c->work - c->work_done), c->done == c->drawn ? "\n" : "");
    return interrupted;
}

static void tell_skipped(const compare *c, const cli_options *o) {
    for (size_t row = 0; row < c->n_rows; row++) {
        const compare_cell *p;
        for (size_t i = 0; (p = compare_skipped(c, row, i)); i++) {
            if (o->json) {
                cJSON *event = new_event("skipped");
                compare_cell_json(event, c, p);
                print_event(event);
            }
            if (!o->quiet)
                fprintf(stderr, "skipped: %s %s, %d steps: %s\n", p->sampler, p->scheduler ? p->scheduler : "default",
                        p->steps, p->refusal);
        }
    }
}

/* The four files beside the pictures, told once all are there. */
static rung_status write_comparison(const compare *c, const cli_options *o, const char *model, rung_err *err) {
    static const char *const names[] = {"compare.html", "compare.png", "compare.csv", "compare.json"};
    enum { FILES = 4 };
    char *paths[FILES] = {0};
    rung_status st = RUNG_OK;
    for (int i = 0; i < FILES; i++) paths[i] = compare_path(c, names[i]);
    if (!paths[0] || !paths[1] || !paths[2] || !paths[3]) st = rung_fail(err, RUNG_ENOMEM, "out of memory");
    if (!st) st = compare_csv_write(c, paths[2], err);
    if (!st) st = compare_json_write(c, model, paths[3], err);
    if (!st) st = contact_sheet_write(c, paths[1], err);
    if (!st) st = compare_page_write(c, model, paths[0], err);
    if (!st && o->json) {
        static const char *const keys[] = {"page", "sheet", "csv", "json"};
        cJSON *done = new_event("finished");
        for (int i = 0; i < FILES; i++) cJSON_AddStringToObject(done, keys[i], paths[i]);
        print_event(done);
    }
    for (int i = 0; i < FILES; i++) {
        if (!st && !o->json) puts(paths[i]);
        free(paths[i]);
    }
    return st;
}

static rung_status run_comparison(const cli_options *o, const char *model, rung_err *err) {
    struct comparing w = {.o = o};
    uint64_t seed = (uint64_t)o->seed;
    rung_options engine;
    prompt_file file = {0};
    rung_engine *e = NULL;
    compare c = {0};
    RUNG_TRY(cli_engine_options(o, model, NULL, &engine, err));
    const compare_options how = {.samplers = o->sampler,
                                 .schedulers = o->scheduler,
                                 .steps = o->steps.v,
                                 .n_steps = o->steps.n,
                                 .cfgs = o->cfg_scale.v,
                                 .n_cfgs = o->cfg_scale.n,
                                 .reference = o->reference,
                                 .file = &file,
                                 .n_seeds = (size_t)o->batch_count,
                                 .folder = o->output ? o->output : "compare",
                                 .engine = &engine,
                                 .model = o->model};
    rung_status st = o->seed < 0 ? cli_random_seed(&seed, err) : RUNG_OK;
    if (!st && o->seed < 0 && !o->quiet) fprintf(stderr, "seed %llu\n", (unsigned long long)seed);
    if (!st) st = cli_comparison_prompts(&file, o, seed, err);
    if (!st) st = compare_plan(&c, &how, err);
    if (!st) st = rung_open(&e, &engine, err);
    if (!st) st = compare_fit(&c, e, err);
    if (!st) tell_skipped(&c, o);
    w.start = rung_now();
    if (!st) st = compare_run(&c, e, on_compared, on_batch_step, &w, err);
    if (!st) st = write_comparison(&c, o, o->model ? o->model : e->name, err);
    compare_free(&c);
    rung_close(&e);
    prompt_file_free(&file);
    return st;
}

/* ---- convert ---- */

static rung_status show_text(char *text, rung_err *err) {
    if (!text) return rung_fail(err, RUNG_ENOMEM, "out of memory");
    fputs(text, stdout);
    free(text);
    return RUNG_OK;
}

static int on_convert(void *user, const char *what, size_t done, size_t total) {
    const cli_options *o = user;
    if (!o->quiet && isatty(STDERR_FILENO)) {
        if (total)
            fprintf(stderr, "\r%s: %zu of %zu tensors\033[K", what, done, total);
        else
            fprintf(stderr, "\r%s\033[K", what);
    }
    return interrupted;
}

static rung_status convert(const cli_options *o, rung_err *err) {
    rung_request defaults = cli_request(o);
    char *prompts = NULL;
    convert_report report = {0};
    if (o->seed < 0) RUNG_TRY(cli_random_seed(&defaults.seed, err));
    if (o->calibrate) RUNG_TRY(cli_read_prompts(o->calibrate, &prompts, err));
    const convert_options c = {.model = o->model,
                               .out = o->convert_out,
                               .type = o->type,
                               .sparsity = o->sparsity,
                               .prompts = prompts,
                               .defaults = &defaults,
                               .keep = o->keep,
                               .n_keep = o->n_keep,
                               .form = o->form,
                               .threads = (int)o->threads,
                               .progress = on_convert,
                               .user = (void *)o};
    rung_status st = rung_convert(&c, &report, err);
    if (!o->quiet && isatty(STDERR_FILENO)) fputs("\r\033[K", stderr);
    if (!st) st = show_text(convert_report_text(&report, o->json), err);
    convert_report_free(&report);
    free(prompts);
    return st;
}

/* ---- bench ---- */

static void print_bench_row(void *arg, const rung_bench_row *r) {
    const cli_options *o = arg;
    if (o->json) {
        printf("{\"name\":\"%s\",\"isa\":\"%s\",\"seconds\":%.9g,\"gflops\":%.6g,\"peak_gflops\":%.6g,\"gbps\":%.6g,"
               "\"copy_gbps\":%.6g,\"bytes_each\":%.6g",
               r->name, r->isa, r->seconds, r->gflops, r->peak_gflops, r->gbps, r->copy_gbps, r->bytes_each);
        if (r->compared) printf(",\"error\":%.3g", r->error);
        puts("}");
    } else if (r->gflops > 0 && r->peak_gflops == 0) {
        printf("%-44s %-7s %10.4f ms %10.1f GFLOPS %20.1f GB/s\n", r->name, r->isa, 1e3 * r->seconds, r->gflops,
               r->gbps);
    } else if (r->gflops > 0) {
        printf("%-44s %-7s %10.3f ms %8.1f GFLOPS %5.1f%% of peak %7.1f GB/s", r->name, r->isa, 1e3 * r->seconds,
               r->gflops, 100 * r->gflops / r->peak_gflops, r->gbps);
        if (r->bytes_each > 0) printf("  %.3f B/weight", r->bytes_each);
        if (r->compared) printf("  error %.1e", r->error);
        putchar('\n');
    } else {
        printf("%-44s %-7s %10.3f ms %38.1f GB/s", r->name, r->isa, 1e3 * r->seconds, r->gbps);
        if (r->copy_gbps > 0) printf("  %3.0f%% of a copy", 100 * r->gbps / r->copy_gbps);
        if (r->compared) printf("  error %.1e", r->error);
        putchar('\n');
    }
    fflush(stdout);
}

static void print_bench_stage(void *arg, const rung_bench_stage *r) {
    const cli_options *o = arg;
    if (o->json) {
        printf(
            "{\"name\":\"%s\",\"seconds\":%.9g,\"gflops\":%.6g,\"calls\":%zu,\"bytes\":%zu,\"peak_rss_bytes\":%zu}\n",
            r->name, r->seconds, r->gflops, r->calls, r->bytes, (size_t)peak_rss_bytes());
    } else if (r->bytes) {
        printf("%-22s %10.1f MB\n", r->name, 1e-6 * (double)r->bytes);
    } else {
        printf("%-22s %10.1f ms", r->name, 1e3 * r->seconds);
        if (r->calls) printf(" %6zu calls", r->calls);
        if (r->gflops > 0) printf("%*s %8.1f GFLOPS", r->calls ? 0 : 13, "", r->gflops);
        putchar('\n');
    }
    fflush(stdout);
}

static rung_status bench_model(const cli_options *o, rung_err *err) {
    enum { REPEAT = 2 };
    char *shipped = NULL;
    rung_options options;
    if (!o->model) RUNG_TRY(cli_default_model(&shipped, err));
    rung_status st = cli_engine_options(o, o->model ? o->model : shipped, NULL, &options, err);
    if (!st)
        st = rung_bench_model(&options, (size_t)o->width, (size_t)o->height, REPEAT, print_bench_stage, (void *)o, err);
    free(shipped);
    return st;
}

static rung_status bench(const cli_options *o, rung_err *err) {
    const double seconds_each = 0.3;
    unsigned mask;
    rung_pool *pool;
    if (o->backend && strcmp(o->backend, "cuda") == 0)
        return rung_bench_cuda((int)o->device, o->bench_filter, seconds_each, print_bench_row, (void *)o, err);
    if (o->bench_filter && strcmp(o->bench_filter, "model") == 0) return bench_model(o, err);
    RUNG_TRY(rung_cpu_mask(&mask, err));
    RUNG_TRY(rung_pool_open(&pool, (int)o->threads, err));
    const rung_status st = rung_bench_kernels(pool, rung_cpu_detect() & mask, o->bench_filter, seconds_each,
                                              print_bench_row, (void *)o, err);
    rung_pool_close(&pool);
    return st;
}

static void print_ladder_row(void *arg, const bench_ladder_row *r) {
    const cli_options *o = arg;
    if (o->json)
        printf("{\"model\":\"%s\",\"ranks\":%d,\"link\":\"%s\",\"progress\":\"%s\",\"mode\":\"%s\",\"step\":%.6g,"
               "\"waited\":%.6g,\"modules\":%zu,\"reduce\":%.6g,\"reduce_bytes\":%zu,\"recovered\":%.4g,"
               "\"predicted\":%.4g}\n",
               r->model, r->ranks, r->link, r->progress, r->mode, r->step, r->waited, r->modules, r->reduce,
               r->reduce_bytes, r->recovered, r->predicted);
    else
        printf("%-18s %d ranks  %-24s %-6s  %-9s %9.2f ms/step  waited %8.2f ms  reduce %7.3f ms = %3.0f%% of a module"
               "  recovered %5.2f  predicted %5.2f\n",
               r->model, r->ranks, r->link, r->progress, r->mode, 1e3 * r->step, 1e3 * r->waited, 1e3 * r->reduce,
               100 * r->reduce_share, r->recovered, r->predicted);
    fflush(stdout);
}

static rung_status bench_ladder(const cli_options *o, rung_comm *world, rung_err *err) {
    static const char *const progress[] = {"poll", "thread", "none"};
    unsigned mask;
    rung_pool *pool;
    char *shipped = NULL;
    bool silent = world && world->rank > 0;
    if (!o->model) RUNG_TRY(cli_default_model(&shipped, err));
    rung_status st = rung_cpu_mask(&mask, err);
    if (!st) st = rung_pool_open(&pool, o->threads ? (int)o->threads : 1, err); /* one thread a rank */
    if (!st) {
        const bench_ladder_options how = {.model = o->model ? o->model : shipped,
                                          .link = o->bench_link ? o->bench_link
                                                  : world       ? "not named"
                                                                : "none",
                                          .progress = progress[o->parallel.progress],
                                          .row = silent ? NULL : print_ladder_row,
                                          .arg = (void *)o};
        st = bench_ladder_run(world, pool, rung_cpu_detect() & mask, &how, err);
        rung_pool_close(&pool);
    }
    free(shipped);
    return st;
}

static rung_status show_devices(const cli_options *o, rung_err *err) {
    char *text = NULL;
    RUNG_TRY(rung_info_devices(&text, o->json, err));
    return show_text(text, err);
}

static rung_status with_model(const cli_options *o, rung_comm *world, rung_err *err) {
    char *shipped = NULL, *text = NULL;
    cli_inputs in = {0};
    if (!o->model) RUNG_TRY(cli_default_model(&shipped, err));
    const char *model = o->model ? o->model : shipped;
    rung_status st;
    if (o->command == CLI_INFO) {
        st = rung_info_text(&text, model, o->json, err);
        if (!st) st = show_text(text, err);
    } else if (o->command == CLI_BATCH) {
        st = batch(o, model, world, err);
    } else if (o->command == CLI_COMPARE) {
        st = run_comparison(o, model, err);
    } else {
        st = generate(o, model, world, &in, err);
    }
    cli_inputs_free(&in);
    free(shipped);
    return st;
}

static rung_status run(const cli_options *o, rung_comm *world, rung_err *err) {
    switch (o->command) {
    case CLI_VERSION:
        printf("rung %s\n", rung_version());
        return RUNG_OK;
    case CLI_HELP:
        return show_text(cli_help(), err);
    case CLI_BENCH:
        return o->bench_ladder ? bench_ladder(o, world, err) : bench(o, err);
    case CLI_CONVERT:
        return convert(o, err);
    case CLI_GENERATE:
    case CLI_BATCH:
    case CLI_COMPARE:
    case CLI_INFO:
        break;
    }
    if (o->devices) return show_devices(o, err);
    return with_model(o, world, err);
}

static int was_interrupted(void *user) {
    (void)user;
    return interrupted;
}

/* The ranks of an mpirun, for what they do together. Anything else is rank 0's alone: *idle for the others. */
static rung_status open_world(const cli_options *o, rung_comm **world, bool *idle, rung_err *err) {
    const rung_mpi_options how = {
        .progress = o->parallel.progress, .timeout = o->parallel.timeout, .cancelled = was_interrupted};
    const bool together = o->command == CLI_GENERATE || o->command == CLI_BATCH || o->bench_ladder;
    int rank;
    const bool launched = rung_mpi_launched(&rank);
    *idle = launched && !together && rank > 0;
    return launched && together ? rung_mpi_open(world, &how, err) : RUNG_OK;
}

/* Ranks end together, and one that fails takes the others along. */
static int finish(rung_comm **world, rung_status st, rung_err *err) {
    if (!st && *world) st = rung_mpi_done(*world, err);
    if (st && *world) rung_comm_tell(*world, err->msg);
    if (st) fprintf(stderr, "rung: %s\n", err->msg);
    if (*world) rung_mpi_leave(world, exit_status(st));
    return exit_status(st);
}

int main(int argc, char **argv) {
    rung_err err = {0};
    rung_comm *world = NULL;
    cli_options o;
    bool idle = false;
    int rank;
    const struct sigaction stop = {.sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND};
    sigaction(SIGINT, &stop, NULL); /* the first Ctrl-C ends after the step, a second one at once */
    sigaction(SIGTERM, &stop, NULL);
    signal(SIGXFSZ, SIG_IGN); /* a file beyond the limit is an error that is told, not a death */
    rung_status st = cli_parse(&o, argc, argv, &err);
    if (st && rung_mpi_launched(&rank) && rank > 0) return exit_status(st); /* rank 0 says it for all */
    if (!st) st = open_world(&o, &world, &idle, &err);
    if (world && world->rank > 0) o.quiet = !(o.verbose = false);
    if (!st && !idle) st = run(&o, world, &err);
    if (!st && (fflush(stdout) != 0 || ferror(stdout)))
        st = rung_fail(&err, RUNG_EIO, "standard output could not be written");
    const int status = finish(&world, st, &err);
    cli_options_free(&o);
    return status;
}
