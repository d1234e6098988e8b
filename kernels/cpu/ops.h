// The ops of the CPU backend's table (backend/ops.h says what each does) and the scratch each family needs.
#pragma once

#include "kernels/cpu/device.h"

namespace dsv::cpu {

void close(Device* device);

// attention.cpp, cache.cpp, index.cpp
void cache_append(Device* device, const CacheAppendArgs& args);
void index_select(Device* device, const IndexSelectArgs& args);
void attend(Device* device, const AttendArgs& args);
ScratchSize cache_scratch(const DeviceOptions& options);
ScratchSize index_scratch(const DeviceOptions& options);
ScratchSize attend_scratch(const DeviceOptions& options);
ScratchSize attention_scratch(const DeviceOptions& options);  // the largest of the three

// blocks.cpp
void embed(Device* device, const EmbedArgs& args);
void add_norm(Device* device, const AddNormArgs& args);
void attn_in(Device* device, const AttnInArgs& args);
void attn_q(Device* device, const AttnQArgs& args);
void attn_out(Device* device, const AttnOutArgs& args);
void mtp_in(Device* device, const MtpInArgs& args);
void logits(Device* device, const LogitsArgs& args);
ScratchSize blocks_scratch(const DeviceOptions& options);

// moe.cpp
void route(Device* device, const RouteArgs& args);
void experts(Device* device, const ExpertsArgs& args);
void ffn(Device* device, const FfnArgs& args);
ScratchSize moe_scratch(const DeviceOptions& options);

// sample.cpp
void sample(Device* device, const SampleArgs& args);
ScratchSize sample_scratch(const DeviceOptions& options);

}  // namespace dsv::cpu
