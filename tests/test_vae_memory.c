/* tests/test_vae_memory.c - what a decode in strips takes beside the weights, in the geometry of Stable Diffusion 1.5's
 * decoder: scratch, Winograd's room and the threads' scratch, all as they are asked for. */
#define _POSIX_C_SOURCE 200809L
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernels/cpu/cpu_ops.h"
#include "tests/vae_cases.h"

static const char *const folder = "test_vae_memory.model";

/* A safetensors header under way. */
typedef struct {
    char text[1 << 15];
    size_t used, bytes; /* of the text; of the tensors so far */
} header;

/* An f16 tensor; its shape as "[..]". */
static void tensor(header *h, size_t numbers, const char *shape, const char *name, ...) {
    char full[120];
    va_list args;
    va_start(args, name);
    vsnprintf(full, sizeof full, name, args);
    va_end(args);
    h->used += (size_t)snprintf(h->text + h->used, sizeof h->text - h->used,
                                "%s\"decoder.%s\":{\"dtype\":\"F16\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}",
                                h->used ? "," : "{", full, shape, h->bytes, h->bytes + 2 * numbers);
    h->bytes += 2 * numbers;
}

static void vector(header *h, size_t n, const char *name, const char *part) {
    char shape[40];
    snprintf(shape, sizeof shape, "[%zu]", n);
    tensor(h, n, shape, "%s.%s", name, part);
}

static void norm(header *h, size_t ch, const char *name) {
    vector(h, ch, name, "weight");
    vector(h, ch, name, "bias");
}

static void conv(header *h, size_t out, size_t in, size_t side, const char *name) {
    char shape[80];
    snprintf(shape, sizeof shape, "[%zu,%zu,%zu,%zu]", out, in, side, side);
    tensor(h, out * in * side * side, shape, "%s.weight", name);
    vector(h, out, name, "bias");
}

static void resnet(header *h, size_t out, size_t in, const char *name) {
    char part[100];
#define PART(p) (snprintf(part, sizeof part, "%s.%s", name, p), part)
    norm(h, in, PART("norm1"));
    conv(h, out, in, 3, PART("conv1"));
    norm(h, out, PART("norm2"));
    conv(h, out, out, 3, PART("conv2"));
    if (in != out) conv(h, out, in, 1, PART("conv_shortcut"));
#undef PART
}

static void attention(header *h, size_t ch) {
    static const char *const parts[] = {"to_q", "to_k", "to_v", "to_out.0"};
    char name[80], shape[40];
    norm(h, ch, "mid_block.attentions.0.group_norm");
    snprintf(shape, sizeof shape, "[%zu,%zu]", ch, ch);
    for (size_t i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "mid_block.attentions.0.%s", parts[i]);
        tensor(h, ch * ch, shape, "%s.weight", name);
        vector(h, ch, name, "bias");
    }
}

static void sd15_decoder(header *h) {
    static const size_t ch[] = {512, 512, 256, 128};
    char name[80];
    conv(h, 512, 4, 3, "conv_in");
    resnet(h, 512, 512, "mid_block.resnets.0");
    attention(h, 512);
    resnet(h, 512, 512, "mid_block.resnets.1");
    for (size_t i = 0; i < 4; i++) {
        for (size_t j = 0; j < 3; j++) {
            snprintf(name, sizeof name, "up_blocks.%zu.resnets.%zu", i, j);
            resnet(h, ch[i], ch[i && !j ? i - 1 : i], name);
        }
        snprintf(name, sizeof name, "up_blocks.%zu.upsamplers.0.conv", i);
        if (i < 3) conv(h, ch[i], ch[i], 3, name);
    }
    norm(h, 128, "conv_norm_out");
    conv(h, 3, 128, 3, "conv_out");
}

static bool write_file(const char *name, const char *prefix, size_t prefix_bytes, const char *text, size_t size) {
    char path[200];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    if (!f) return false;
    fwrite(prefix, 1, prefix_bytes, f);
    fputs(text, f);
    const bool ok = fflush(f) == 0 && (!size || ftruncate(fileno(f), (off_t)size) == 0);
    return fclose(f) == 0 && ok;
}

/* The weights are zeros, a hole in the file: only their sizes count here. */
static bool write_model(void) {
    static header h;
    sd15_decoder(&h);
    h.used += (size_t)snprintf(h.text + h.used, sizeof h.text - h.used, "}");
    if (h.used >= sizeof h.text) return false;
    char length[8];
    for (int i = 0; i < 8; i++) length[i] = (char)(h.used >> 8 * i & 255);
    mkdir(folder, 0777);
    mkdir("test_vae_memory.model/vae", 0777);
    return write_file("model_index.json", NULL, 0,
                      "{\"_class_name\": \"P\", \"vae\": [\"diffusers\", \"AutoencoderKL\"]}", 0) &&
           write_file("vae/config.json", NULL, 0,
                      "{\"_class_name\": \"AutoencoderKL\", \"act_fn\": \"silu\", \"latent_channels\": 4,"
                      " \"out_channels\": 3, \"block_out_channels\": [128, 256, 512, 512], \"layers_per_block\": 2,"
                      " \"norm_num_groups\": 32, \"use_post_quant_conv\": false, \"up_block_types\":"
                      " [\"UpDecoderBlock2D\", \"UpDecoderBlock2D\", \"UpDecoderBlock2D\", \"UpDecoderBlock2D\"]}",
                      0) &&
           write_file("vae/diffusion_pytorch_model.safetensors", length, 8, h.text, 8 + h.used + h.bytes);
}

int main(void) {
    enum { MB = 1000 * 1000 };
    /* A picture's side, what its decode may take besides the weights with two threads. Of what stays for a larger
     * picture 4 * 128 bytes a pixel are the last level's residual stream. */
    static const struct {
        size_t side, most;
    } cases[] = {{256, 150 * MB}, {512, 300 * MB}, {1024, 730 * MB}, {2048, (size_t)2500 * MB}};
    vae_setup s = {0};
    rung_err e = {0};
    if (CHECK(write_model()) && CHECK(vae_setup_at(&s, folder, rung_cpu_detect(), RUNG_STORE_STORED, &e) == RUNG_OK)) {
        const size_t beside = WINO_ROOM * sizeof(float) + (size_t)rung_pool_threads(s.pool) * RUNG_POOL_SCRATCH;
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            const size_t cells = cases[i].side / 8, scratch = rung_vae_scratch(s.vae, cells, cells, RUNG_TILING_ON);
            fprintf(stderr, "%zux%zu: %zu + %zu MB\n", cases[i].side, cases[i].side, scratch / MB, beside / MB);
            CHECK(scratch > 0 && scratch + beside <= cases[i].most);
        }
    }
    if (e.msg[0]) fprintf(stderr, "  %s\n", e.msg);
    vae_teardown(&s);
    return check_result();
}
