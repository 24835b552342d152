/* kernels/cuda/cuda_transfer.c - host memory to the device and back, through pinned memory and without waiting. */
#include <string.h>

#include "kernels/base/size.h"
#include "kernels/cuda/cuda_ops.h"

rung_status cuda_staging_open(cuda_backend *c, rung_err *err) {
    for (int i = 0; i < STAGING_CHUNKS; i++) {
        cuda_staging *s = &c->staging[i];
        if (!cuda_good(c, cudaMallocHost((void **)&s->base, STAGING_BYTES), "pinned memory") ||
            !cuda_good(c, cudaEventCreateWithFlags(&s->sent, cudaEventDisableTiming), "an event"))
            return rung_fail(err, c->first.code, "%s", c->first.msg);
    }
    return RUNG_OK;
}

void cuda_staging_close(cuda_backend *c) {
    for (int i = 0; i < STAGING_CHUNKS; i++) {
        if (c->staging[i].sent) cudaEventDestroy(c->staging[i].sent);
        cudaFreeHost(c->staging[i].base);
    }
}

/* Up to `bytes` of pinned memory that no copy under way reads; *got of them. NULL after an error. */
static void *take_staging(cuda_backend *c, size_t bytes, size_t *got) {
    enum { ALIGN = 64 };
    cuda_staging *s = &c->staging[c->chunk];
    if (s->used == STAGING_BYTES) {
        if (!cuda_good(c, cudaEventRecord(s->sent, c->stream), "an event")) return NULL;
        c->chunk = (c->chunk + 1) % STAGING_CHUNKS;
        s = &c->staging[c->chunk];
        if (!cuda_good(c, cudaEventSynchronize(s->sent), "an earlier copy")) return NULL;
        s->used = 0;
    }
    void *place = s->base + s->used;
    *got = size_min(bytes, STAGING_BYTES - s->used);
    s->used = size_min(s->used + size_div_up(*got, ALIGN) * ALIGN, STAGING_BYTES);
    return place;
}

static void upload_staged(cuda_backend *c, unsigned char *dst, const unsigned char *src, size_t bytes) {
    for (size_t at = 0, n; at < bytes; at += n) {
        void *place = take_staging(c, bytes - at, &n);
        if (!place) return;
        memcpy(place, src + at, n);
        if (!cuda_good(c, cudaMemcpyAsync(dst + at, place, n, cudaMemcpyHostToDevice, c->stream),
                       "a copy to the device"))
            return;
    }
}

void cuda_upload(rung_backend *be, void *dst, const void *host_src, size_t bytes) {
    cuda_backend *c = cuda_of(be);
    const bool live = CUDA_BEGIN(c, KEY_UPLOAD, cuda_key_of(dst), bytes);
    void *slot = c->recording && bytes ? cuda_record_slot(c, bytes) : NULL;
    if (slot) memcpy(slot, host_src, bytes); /* also when played back: the graph copies from here */
    if (!live) return;
    if (slot)
        cuda_good(c, cudaMemcpyAsync(dst, slot, bytes, cudaMemcpyHostToDevice, c->stream), "a copy to the device");
    else if (!c->record_failed)
        upload_staged(c, dst, host_src, bytes);
    cuda_end(c, "upload");
}

/* Waits for the copy where the host's memory is pageable; within a recording it ends in pinned memory, and sync moves
 * it on. */
void cuda_download_to(rung_backend *be, void *host_dst, const void *src, size_t bytes) {
    cuda_backend *c = cuda_of(be);
    const bool live = CUDA_BEGIN(c, KEY_DOWNLOAD, cuda_key_of(src), bytes);
    void *slot = c->recording && bytes ? cuda_record_slot(c, bytes) : NULL;
    if (slot && c->download_count == MOST_DOWNLOADS) {
        c->record_failed = true;
    } else if (slot) {
        c->downloads[c->download_count++] = (cuda_download){host_dst, slot, bytes};
        if (live)
            cuda_good(c, cudaMemcpyAsync(slot, src, bytes, cudaMemcpyDeviceToHost, c->stream),
                      "a copy from the device");
    } else if (live && bytes) {
        cuda_good(c, cudaMemcpyAsync(host_dst, src, bytes, cudaMemcpyDeviceToHost, c->stream),
                  "a copy from the device");
    }
    if (live) cuda_end(c, "download");
}

void cuda_downloads_finish(cuda_backend *c) {
    for (size_t i = 0; i < c->download_count; i++)
        memcpy(c->downloads[i].host, c->downloads[i].pinned, c->downloads[i].bytes);
}
