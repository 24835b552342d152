/* samplers/sampler_table.h - the table of samplers, with what only samplers/ knows of each. */
#ifndef RUNG_SAMPLER_TABLE_H
#define RUNG_SAMPLER_TABLE_H
#include "samplers/method.h"

size_t sampler_table_count(void);
const sampler_entry *sampler_table_at(size_t i);
/** By name, alias or label; NULL when there is none. */
const sampler_entry *sampler_table_find(const char *name);
/** The row of a diffusers class; NULL when there is none. */
const sampler_entry *sampler_table_of_class(const char *class_name);
#endif
