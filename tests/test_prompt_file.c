/* tests/test_prompt_file.c - prompt files: the A1111 form, JSON Lines, and lines that are wrong. */
#include <string.h>

#include "diffusion/prompt_file.h"
#include "tests/check.h"

static const rung_request defaults = {.seed = 42, .steps = 9, .sampler = "euler"};

static prompt_file parse(const char *text) {
    prompt_file f;
    rung_err e = {0};
    CHECK(prompt_file_parse(&f, text, &defaults, &e) == RUNG_OK);
    return f;
}

static void plain_lines(void) {
    prompt_file f = parse("\xef\xbb\xbf  a red apple \r\n\n# a comment\n\tcaf\xc3\xa9, (warm:1.2)\n");
    if (CHECK(f.count == 2 && f.fault_count == 0)) {
        CHECK(f.lines[0].line == 1 && strcmp(f.lines[0].request.prompt, "a red apple") == 0);
        CHECK(f.lines[1].line == 4 && strcmp(f.lines[1].request.prompt, "caf\xc3\xa9, (warm:1.2)") == 0);
        CHECK(f.lines[0].request.seed == 42 && f.lines[0].request.steps == 9 && f.lines[0].pictures == 1);
        CHECK(strcmp(f.lines[0].request.sampler, "euler") == 0);
    }
    prompt_file_free(&f);
}

static void option_lines(void) {
    prompt_file f =
        parse("--prompt \"a sign -- red\" --negative_prompt bad low  quality --seed 18446744073709551 --steps 20"
              " --cfg_scale 5.5 --width 128 --height 64 --sampler_name \"DPM++ 2M\" --batch_size 2 --n_iter 3\n"
              "--seed 7 --prompt it\\'s 'a \"cat\"' here --eta 0 --cfg_scale 0 --sampler_name Automatic\n");
    if (CHECK(f.count == 2 && f.fault_count == 0)) {
        const rung_request *a = &f.lines[0].request, *b = &f.lines[1].request;
        CHECK(strcmp(a->prompt, "a sign -- red") == 0 && strcmp(a->negative_prompt, "bad low quality") == 0);
        CHECK(a->seed == 18446744073709551u && a->steps == 20 && a->cfg_scale == 5.5f && a->width == 128);
        CHECK(a->height == 64 && strcmp(a->sampler, "DPM++ 2M") == 0 && f.lines[0].pictures == 6 && !a->eta_set);
        CHECK(strcmp(b->prompt, "it's a \"cat\" here") == 0 && b->seed == 7 && b->eta_set && b->eta == 0);
        CHECK(b->cfg_scale == 1 && strcmp(b->sampler, "euler") == 0);
    }
    prompt_file_free(&f);
}

static void json_lines(void) {
    prompt_file f = parse("{\"prompt\": \"x\\ny\", \"seed\": 5, \"width\": 96, \"cfg_scale\": 1e1, \"seed2\": 1}\n"
                          "{\"prompt\": \"--z \\u00e9\", \"seed\": \"9007199254740993\", \"eta\": 0.25}\n"
                          "{\"prompt\": \"x\", \"steps\": 1.5}\n{\"prompt\": [1]}\n{\"prompt\": \"x\"\n");
    if (CHECK(f.count == 1 && f.fault_count == 4)) {
        const rung_request *r = &f.lines[0].request;
        CHECK(strcmp(r->prompt, "--z \xc3\xa9") == 0 && r->seed == 9007199254740993u && r->eta == 0.25f);
        CHECK(f.faults[0].line == 1 && strstr(f.faults[0].message, "seed2"));
        CHECK(f.faults[1].line == 3 && strstr(f.faults[1].message, "steps is '1.5'"));
        CHECK(f.faults[2].line == 4 && strstr(f.faults[2].message, "prompt"));
        CHECK(f.faults[3].line == 5);
    }
    prompt_file_free(&f);
}

static void wrong_lines_are_told(void) {
    static const struct {
        const char *line, *says;
    } wrong[] = {
        {"a sign -- red", "quotes"},
        {"--prompt", "wants a value"},
        {"--prompt --seed 3", "wants a value"},
        {"--prompt x --tiling true", "tiling"},
        {"--prompt \"x", "not closed"},
        {"--prompt x --seed -1", "seed"},
        {"--prompt x --width 0", "width"},
        {"--prompt x --steps 1e3", "steps"},
        {"--seed 3", "no prompt"},
        {"--prompt x --cfg_scale nan", "cfg"},
        {"caf\xe9", "UTF-8"},
        {"--prompt x --batch_size 99999", "batch_size"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        prompt_file f = parse(wrong[i].line);
        if (!CHECK(f.count == 0 && f.fault_count == 1 && strstr(f.faults[0].message, wrong[i].says)))
            fprintf(stderr, "  '%s': %s\n", wrong[i].line, f.fault_count ? f.faults[0].message : "taken");
        prompt_file_free(&f);
    }
}

int main(void) {
    plain_lines();
    option_lines();
    json_lines();
    wrong_lines_are_told();
    return check_result();
}
