/* tests/test_table.c - rows looked up from every floating-point dtype, with and without a row scale. */
#include "tests/guard.h"

#include <string.h>

#include "kernels/base/fp6.h"
#include "tests/check.h"
#include "tests/cpu_levels.h"

enum { ROWS = 5, N = 12, COUNT = ROWS * N };

static const int32_t ids[] = {4, 0, 0, 3, 1, 4};
enum { IDS = sizeof ids / sizeof *ids };

/* Values that every dtype here holds exactly: 0, 0.25 .. 3 with sign. */
static float value(size_t i) { return (i % 2 ? -1.0f : 1.0f) * (float)(i * 7 % 13 > 8 ? i % 4 : i * 7 % 13 * 0.25); }

static uint8_t code_of(float v, float (*decode)(uint8_t), unsigned codes) {
    for (unsigned c = 0; c < codes; c++)
        if (decode((uint8_t)c) == v) return (uint8_t)c;
    exit(3); /* value() is wrong: no dtype may lack one */
}

static void put_six_bits(uint8_t *stream, size_t i, unsigned code) {
    for (unsigned b = 0; b < 6; b++)
        if (code >> (5 - b) & 1) stream[(i * 6 + b) / 8] |= (uint8_t)(128 >> (i * 6 + b) % 8);
}

/* The table's bytes as the file has them. */
static void encode(rung_dtype t, uint8_t *out) {
    memset(out, 0, COUNT * 8);
    for (size_t i = 0; i < COUNT; i++) {
        const float f = value(i);
        const double d = f;
        const uint16_t h = t == RUNG_F16 ? rung_f32_to_f16(f) : rung_f32_to_bf16(f);
        switch (t) {
        case RUNG_F64:
            memcpy(out + i * 8, &d, 8);
            break;
        case RUNG_F32:
            memcpy(out + i * 4, &f, 4);
            break;
        case RUNG_F16:
        case RUNG_BF16:
            memcpy(out + i * 2, &h, 2);
            break;
        case RUNG_F8_E4M3:
            out[i] = code_of(f, rung_f8_e4m3_to_f32, 256);
            break;
        case RUNG_F8_E5M2:
            out[i] = code_of(f, rung_f8_e5m2_to_f32, 256);
            break;
        case RUNG_F6_E3M2:
            put_six_bits(out, i, code_of(f, rung_e3m2_to_f32, 64));
            break;
        default:
            put_six_bits(out, i, code_of(f, rung_e2m3_to_f32, 64));
        }
    }
}

static void test_dtype(struct cpu_level_run *r, rung_dtype dtype, const float *scale) {
    uint8_t bytes[COUNT * 8 + 1];
    rung_err err = {0};
    rung_table *table = NULL;
    guard y = guard_floats(IDS * N);
    encode(dtype, bytes + 1); /* a file's tensors have any alignment */
    const rung_tensor t = {.dtype = dtype, .ndim = 2, .shape = {ROWS, N}, .data = bytes + 1, .scale = scale};
    if (!CHECK(r->be->ops->table_open(r->be, &table, &t, &err) == RUNG_OK)) return;
    r->be->ops->lookup(r->be, y.p, table, ids, IDS);
    for (size_t i = 0; i < IDS * N; i++) {
        const size_t row = (size_t)ids[i / N];
        if (!CHECK(y.p[i] == value(row * N + i % N) * (scale ? scale[row] : 1)))
            fprintf(stderr, "  %s row %zu column %zu: %g\n", rung_dtype_name(dtype), row, i % N, y.p[i]);
    }
    r->be->ops->table_close(r->be, &table);
    CHECK(table == NULL);
    r->be->ops->table_close(r->be, &table);
    guard_free(&y);
}

static void test_refused(struct cpu_level_run *r) {
    static const float data[4] = {0};
    const rung_tensor integers = {.dtype = RUNG_I32, .ndim = 2, .shape = {2, 2}, .data = data};
    const rung_tensor flat = {.dtype = RUNG_F32, .ndim = 1, .shape = {4}, .data = data};
    const rung_tensor empty = {.dtype = RUNG_F32, .ndim = 2, .shape = {0, 4}, .data = data};
    rung_table *table = (rung_table *)&table;
    rung_err err = {0};
    CHECK(r->be->ops->table_open(r->be, &table, &integers, &err) == RUNG_EFORMAT && table == NULL);
    CHECK(strstr(err.msg, "I32") != NULL);
    CHECK(r->be->ops->table_open(r->be, &table, &flat, NULL) == RUNG_ESHAPE && table == NULL);
    CHECK(r->be->ops->table_open(r->be, &table, &empty, NULL) == RUNG_ESHAPE && table == NULL);
}

int main(void) {
    static const float scale[ROWS] = {1, 0.5f, -2, 3, 0.1f};
    for (size_t i = 0; i < CPU_LEVELS; i++) {
        unsigned cpu;
        if (!cpu_level(i, &cpu)) continue;
        struct cpu_level_run r = cpu_run_open(cpu, 2);
        for (int t = RUNG_F64; t <= RUNG_F6_E2M3; t++) {
            test_dtype(&r, (rung_dtype)t, NULL);
            test_dtype(&r, (rung_dtype)t, scale);
        }
        test_refused(&r);
        cpu_run_close(&r);
    }
    return check_result();
}
