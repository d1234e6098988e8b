# cmake -D BINDING= -D RID= -D VERSION= -D CHECKPOINT= -D PACKAGE= -D STRIP= -P package.cmake
# PACKAGE (Dsv.<version>.nupkg) of the folder BINDING, which holds Dsv.dll, Dsv.xml and libdsv_csharp.so.
include(${CMAKE_CURRENT_LIST_DIR}/../stage.cmake)
set(stage ${PACKAGE}.stage)
file(REMOVE_RECURSE ${stage})
stage_library(${stage}/runtimes/${RID}/native)
stage_checkpoint(${stage}/nano)
file(COPY ${BINDING}/Dsv.dll ${BINDING}/Dsv.xml DESTINATION ${stage}/lib/netstandard2.0)
file(COPY ${CMAKE_CURRENT_LIST_DIR}/Dsv.targets DESTINATION ${stage}/build)
file(COPY ${CMAKE_CURRENT_LIST_DIR}/README.md ${home}/LICENSE ${home}/packaging/NOTICE DESTINATION ${stage})
configure_file(${CMAKE_CURRENT_LIST_DIR}/Dsv.nuspec.in ${stage}/Dsv.nuspec @ONLY)
configure_file(${CMAKE_CURRENT_LIST_DIR}/content_types.xml "${stage}/[Content_Types].xml" COPYONLY)
configure_file(${CMAKE_CURRENT_LIST_DIR}/rels.xml ${stage}/_rels/.rels COPYONLY)
set(nano "")
if(EXISTS ${stage}/nano)
  set(nano nano)
endif()
execute_process(COMMAND ${CMAKE_COMMAND} -E tar cf ${PACKAGE} --format=zip "--mtime=2026-01-01 00:00:00 UTC" Dsv.nuspec
                        "[Content_Types].xml" _rels README.md LICENSE NOTICE build lib runtimes ${nano}
                WORKING_DIRECTORY ${stage} COMMAND_ERROR_IS_FATAL ANY)
file(REMOVE_RECURSE ${stage})
message(STATUS "${PACKAGE}")
