#define _GNU_SOURCE /* asprintf */
#include "kernels/cuda/cuda_libs.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_OF(x) #x
#define TEXT_IN(x) TEXT_OF(x)
#define BLAS_NAME  "libcublasLt.so." TEXT_IN(CUBLAS_VER_MAJOR)
#define DNN_NAME   "libcudnn.so." TEXT_IN(CUDNN_MAJOR)

/* Where the loader looks, then beside the toolkit that the program was built with. */
static void *open_library(const char *name, rung_err *err) {
    void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    char *path = NULL;
    if (library) return library;
    if (asprintf(&path, "%s/%s", RUNG_CUDA_LIBRARY_DIR, name) >= 0) library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    free(path);
    if (!library) rung_fail(err, RUNG_EDEVICE, "CUDA: %s", dlerror());
    return library;
}

/* An object pointer becomes a function pointer by its bytes, as POSIX has it for dlsym. */
static rung_status find(void *library, const char *name, void *function, rung_err *err) {
    void *p = dlsym(library, name);
    if (!p) return rung_fail(err, RUNG_EDEVICE, "CUDA: a library lacks %s", name);
    memcpy(function, &p, sizeof p);
    return RUNG_OK;
}

rung_status cuda_libs_open(cuda_libs *out, rung_err *err) {
    cuda_libs l = {0};
    rung_status st = RUNG_EDEVICE;
    *out = l;
    l.blas = open_library(BLAS_NAME, err);
    if (!l.blas) goto done;
    l.dnn = open_library(DNN_NAME, err);
    if (!l.dnn) goto done;
#define FIND_BLAS(name) RUNG_TRY_GOTO(st, done, find(l.blas, #name, &l.name, err));
#define FIND_DNN(name)  RUNG_TRY_GOTO(st, done, find(l.dnn, #name, &l.name, err));
    CUDA_BLAS_FUNCTIONS(FIND_BLAS)
    CUDA_DNN_FUNCTIONS(FIND_DNN)
    *out = l;
    return RUNG_OK;
done:
    cuda_libs_close(&l);
    return st;
}

void cuda_libs_close(cuda_libs *l) {
    if (l->dnn) dlclose(l->dnn);
    if (l->blas) dlclose(l->blas);
    memset(l, 0, sizeof *l);
}
