// Opening a backend that is a library of its own, and what a program without one is told.
#include "backend/library.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "base/error.h"

namespace dsv {
namespace {

using testing::HasSubstr;

Error failure_of(const char* path) {
  try {
    open_backend_library(path);
  } catch (const Error& error) {
    return error;
  }
  return Error(DSV_OK, "");
}

TEST(Library, IsRefusedByNameIfItCannotBeUsed) {
  const Error missing = failure_of("/nowhere/libdsv_cuda.so");
  EXPECT_EQ(missing.status(), DSV_ERROR_UNSUPPORTED);
  EXPECT_THAT(missing.what(), HasSubstr("/nowhere/libdsv_cuda.so"));
  EXPECT_THAT(missing.what(), HasSubstr("use the cpu backend"));
  const Error stranger = failure_of("libm.so.6");
  EXPECT_EQ(stranger.status(), DSV_ERROR_UNSUPPORTED);
  EXPECT_THAT(stranger.what(), HasSubstr("libm.so.6 is not of the same build"));
  const Error stale = failure_of(DSV_STALE_LIBRARY);
  EXPECT_EQ(stale.status(), DSV_ERROR_UNSUPPORTED);
  EXPECT_THAT(stale.what(), HasSubstr("is not of the same build"));
}

// With a GPU, a driver and the library the engine opens; else one sentence says which of them is missing.
TEST(Cuda, OpensOrSaysWhyNot) {
  dsv_engine_options options;
  dsv_engine_options_init(&options);
  options.backend = "cuda";
  dsv_engine* engine = nullptr;
  const dsv_status status = dsv_engine_create(&options, &engine);
  EXPECT_EQ(dsv_has_feature("backend.cuda"), status == DSV_OK);
  if (status != DSV_OK) {
    EXPECT_EQ(status, DSV_ERROR_UNSUPPORTED);
    EXPECT_EQ(dsv_engine_create(&options, &engine), status);
    EXPECT_THAT(dsv_error_message(), HasSubstr("use the cpu backend"));
    EXPECT_EQ(engine, nullptr);
  }
  dsv_engine_destroy(engine);
  for (const char* nonsense : {"cuda1", "cuda:-1", "cuda:x", "cuda:99"}) {
    options.backend = nonsense;
    EXPECT_NE(dsv_engine_create(&options, &engine), DSV_OK) << nonsense;
  }
}

}  // namespace
}  // namespace dsv
