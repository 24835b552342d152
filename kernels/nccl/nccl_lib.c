#include "kernels/nccl/nccl_lib.h"

#include <dlfcn.h>
#include <string.h>

/* An object pointer becomes a function pointer by its bytes, as POSIX has it for dlsym. */
static rung_status find(void *library, const char *name, void *function, rung_err *err) {
    void *p = dlsym(library, name);
    if (!p) return rung_fail(err, RUNG_EDEVICE, "NCCL: libnccl.so.2 lacks %s", name);
    memcpy(function, &p, sizeof p);
    return RUNG_OK;
}

rung_status nccl_lib_open(nccl_lib *out, rung_err *err) {
    nccl_lib l = {.library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL)};
    rung_status st;
    *out = (nccl_lib){0};
    if (!l.library) return rung_fail(err, RUNG_EDEVICE, "NCCL: %s", dlerror());
#define FIND(name) RUNG_TRY_GOTO(st, done, find(l.library, #name, &l.name, err));
    NCCL_FUNCTIONS(FIND)
    *out = l;
    return RUNG_OK;
done:
    nccl_lib_close(&l);
    return st;
}

void nccl_lib_close(nccl_lib *l) {
    if (l->library) dlclose(l->library);
    *l = (nccl_lib){0};
}
