/* kernels/cuda/cuda_record.c - one denoiser step as a CUDA graph.
 *
 * The first step runs as it is called: it sizes the scratch, lets the libraries choose their kernels, counts the bytes
 * of its transfers. The second one is captured, the ones after it are played back: their operations only go into the
 * key that tells whether the step is still the recorded one, their uploads into the pinned memory that the graph reads.
 * A step that turns out to be another one is made again, as a first.
 */
#include <stdlib.h>

#include "kernels/base/size.h"
#include "kernels/cuda/cuda_ops.h"

enum { MOST_FAILURES = 3, SLOT_ALIGN = 64 };
static const uint64_t key_start = 0xcbf29ce484222325u;

typedef enum { STEP_FIRST, STEP_SIZED, STEP_RECORDED, STEP_NEVER } step_state;

struct rung_recording {
    step_state state;
    int failures;        /* captures that broke; after a few, steps run as they are called */
    uint64_t key, made;  /* of the recorded step; of the one under way */
    unsigned generation; /* of the scratch that the graph holds */
    cudaGraphExec_t graph;
    unsigned char *pinned;
    size_t pinned_bytes, slots; /* of the transfers so far */
};

void cuda_record_key(rung_recording *rec, const uint64_t *key, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint64_t v = key[i] * 0x9e3779b97f4a7c15u;
        v ^= v >> 29;
        rec->made = (rec->made ^ v) * 0x100000001b3u;
    }
}

void *cuda_record_slot(cuda_backend *c, size_t bytes) {
    rung_recording *rec = c->recording;
    const size_t at = rec->slots;
    rec->slots += size_div_up(bytes, SLOT_ALIGN) * SLOT_ALIGN;
    if (c->mode == CUDA_RUN) return NULL;
    if (rec->slots <= rec->pinned_bytes) return rec->pinned + at;
    if (c->mode == CUDA_RECORD) c->record_failed = true;
    return NULL; /* played back: the key will differ */
}

static void forget(rung_recording *rec) {
    if (rec->graph) cudaGraphExecDestroy(rec->graph);
    cudaFreeHost(rec->pinned);
    rec->graph = NULL;
    rec->pinned = NULL;
    rec->pinned_bytes = 0;
    if (rec->state != STEP_NEVER) rec->state = STEP_FIRST;
}

static bool begin_capture(cuda_backend *c, rung_recording *rec) {
    const size_t bytes = size_max(rec->slots, 1);
    if (cudaMallocHost((void **)&rec->pinned, bytes) == cudaSuccess) {
        rec->pinned_bytes = bytes;
        if (cudaStreamBeginCapture(c->stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess) return true;
    }
    cudaGetLastError(); /* without a graph it is only slower */
    forget(rec);
    rec->state = STEP_NEVER;
    return false;
}

void cuda_step_begin(rung_backend *be, rung_recording **out) {
    cuda_backend *c = cuda_of(be);
    pthread_mutex_lock(&c->lock);
    if (!*out) *out = calloc(1, sizeof **out);
    rung_recording *rec = *out;
    if (!rec) return; /* no memory: the step runs as it is called */
    cuda_good(c, cudaSetDevice(c->device), "cudaSetDevice");
    if (rec->state == STEP_RECORDED && rec->generation != c->generation) forget(rec);
    if (rec->state == STEP_RECORDED) {
        /* The graph reads and writes the pinned memory: the last one must be through with it. */
        cuda_good(c, cudaStreamSynchronize(c->stream), "the GPU's work");
        c->mode = CUDA_REPLAY;
    } else if (rec->state == STEP_SIZED && c->first.code == RUNG_OK && begin_capture(c, rec)) {
        c->mode = CUDA_RECORD;
    }
    rec->made = key_start;
    rec->slots = 0;
    c->record_failed = false;
    c->recording = rec;
}

/* The captured step as something to launch; false when it could not be captured. */
static bool end_capture(cuda_backend *c, rung_recording *rec) {
    cudaGraph_t graph = NULL;
    bool good = cudaStreamEndCapture(c->stream, &graph) == cudaSuccess && graph && !c->record_failed &&
                c->first.code == RUNG_OK;
    good = good && cudaGraphInstantiate(&rec->graph, graph, 0) == cudaSuccess;
    if (graph) cudaGraphDestroy(graph);
    if (!good) cudaGetLastError();
    rec->key = rec->made;
    rec->generation = c->generation;
    return good;
}

/* True: nothing of the step reached the device. */
static bool finish(cuda_backend *c, rung_recording *rec) {
    if (c->mode == CUDA_RUN) {
        if (rec->state == STEP_FIRST && c->first.code == RUNG_OK) rec->state = STEP_SIZED;
        return false;
    }
    if (c->mode == CUDA_RECORD && end_capture(c, rec)) {
        rec->state = STEP_RECORDED;
    } else if (c->mode == CUDA_RECORD || rec->made != rec->key) {
        const bool capture = c->mode == CUDA_RECORD;
        forget(rec);
        c->download_count = 0;
        if (capture && ++rec->failures == MOST_FAILURES) rec->state = STEP_NEVER;
        return c->first.code == RUNG_OK;
    }
    if (c->first.code == RUNG_OK) cuda_good(c, cudaGraphLaunch(rec->graph, c->stream), "the recorded step");
    return false;
}

bool cuda_step_end(rung_backend *be, rung_recording *rec) {
    cuda_backend *c = cuda_of(be);
    const bool again = rec && finish(c, rec);
    c->mode = CUDA_RUN;
    c->recording = NULL;
    c->record_failed = false;
    pthread_mutex_unlock(&c->lock);
    return again;
}

void cuda_recording_close(rung_backend *be, rung_recording **rec) {
    cuda_backend *c = cuda_of(be);
    if (!*rec) return;
    pthread_mutex_lock(&c->lock);
    cuda_good(c, cudaSetDevice(c->device), "cudaSetDevice");
    cuda_good(c, cudaStreamSynchronize(c->stream), "the GPU's work");
    forget(*rec);
    free(*rec);
    *rec = NULL;
    pthread_mutex_unlock(&c->lock);
}
