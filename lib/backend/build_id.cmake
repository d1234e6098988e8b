# DSV_BACKEND_BUILD_ID: what libdsv and a backend of its own file must share, the headers between them.
set(ids "")
foreach(header lib/backend/geometry.h lib/backend/jobs.h lib/backend/library.h lib/backend/ops.h lib/backend/sampling.h
               lib/backend/weights.h lib/base/error.h include/dsv/dsv.h)
  file(SHA256 ${PROJECT_SOURCE_DIR}/${header} id)
  string(APPEND ids ${id})
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${header})
endforeach()
string(SHA256 DSV_BACKEND_BUILD_ID "${ids}")
string(SUBSTRING ${DSV_BACKEND_BUILD_ID} 0 16 DSV_BACKEND_BUILD_ID)
