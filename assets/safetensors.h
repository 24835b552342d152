/* assets/safetensors.h - one .safetensors file, mapped: the header is checked, tensors are views. Internal to assets/;
 * networks read rung_weights.
 *
 * The file: u64 LE header length, header (JSON: name -> {dtype, shape, data_offsets}), data. Tensors fill the data
 * without overlap and without holes. Source: the safetensors crate's `tensor.rs` (SafeTensors::read_metadata).
 * The mapping is read as it goes: a file that another program cuts short meanwhile ends this one with SIGBUS.
 */
#ifndef RUNG_SAFETENSORS_H
#define RUNG_SAFETENSORS_H
#include "kernels/base/tensor.h"

typedef struct rung_safetensors rung_safetensors;

/** RUNG_EIO; RUNG_EFORMAT naming the tensor and what is wrong with it; RUNG_ENOMEM. */
rung_status rung_safetensors_open(rung_safetensors **out, const char *path, rung_err *err);
void rung_safetensors_close(rung_safetensors **s);

const char *rung_safetensors_path(const rung_safetensors *s);
size_t rung_safetensors_count(const rung_safetensors *s);
/** i-th tensor in name order; no name is there twice. Six-bit tensors come without their scale. */
const char *rung_safetensors_name(const rung_safetensors *s, size_t i);
const rung_tensor *rung_safetensors_tensor(const rung_safetensors *s, size_t i);
/** NULL when there is none. */
const rung_tensor *rung_safetensors_find(const rung_safetensors *s, const char *name);

/** Gives the pages that hold `bytes` bytes at `data` back to the system when they lie in this file; reading brings them
 *  back. */
void rung_safetensors_release(const rung_safetensors *s, const void *data, size_t bytes);
/** The whole file, from its header on; of more than 1 GiB, 64 bytes in each 16 KiB. */
uint64_t rung_safetensors_hash(const rung_safetensors *s);
#endif
