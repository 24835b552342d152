/* tests/fuzz/fuzz_json.c - any bytes as JSON, and what is JSON as a config. */
#include <math.h>
#include <stdint.h>

#include "assets/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cJSON *root;
    rung_err err = {0};
    if (rung_json_parse(&root, (const char *)data, size, "fuzz", &err) == RUNG_OK) {
        for (int i = 0; i < 5; i++) {
            rung_config c = {root, "fuzz", &err, RUNG_OK};
            long list[3];
            size_t n;
            if (i == 0) cfg_need_int(&c, "a", -5, 5);
            if (i == 1) cfg_real(&c, "a", 0, -INFINITY, INFINITY);
            if (i == 2) cfg_bool(&c, "a", true);
            if (i == 3) cfg_string(&c, "a", "");
            if (i == 4) cfg_ints(&c, "a", list, 3, &n, -5, 5);
        }
    }
    cJSON_Delete(root);
    return 0;
}
