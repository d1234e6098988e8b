# What both C# packages hold.
cmake_minimum_required(VERSION 3.22)
set(home ${CMAKE_CURRENT_LIST_DIR}/../..)

# stage_library(<folder>): the native half, stripped.
function(stage_library folder)
  file(COPY ${BINDING}/libdsv_csharp.so DESTINATION ${folder})
  execute_process(COMMAND ${STRIP} --strip-unneeded ${folder}/libdsv_csharp.so COMMAND_ERROR_IS_FATAL ANY)
endfunction()

# stage_checkpoint(<folder>)
function(stage_checkpoint folder)
  if(NOT EXISTS ${CHECKPOINT}/config.json)
    message(WARNING "${CHECKPOINT} holds no checkpoint: the package comes without one")
    return()
  endif()
  file(GLOB files ${CHECKPOINT}/*)
  file(COPY ${files} DESTINATION ${folder} FOLLOW_SYMLINK_CHAIN)
endfunction()
