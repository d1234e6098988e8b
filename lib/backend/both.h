// Functions that the host and a GPU compute alike.
#pragma once

#ifdef __CUDACC__
#define DSV_BOTH __host__ __device__ __forceinline__
#else
#define DSV_BOTH inline
#endif
