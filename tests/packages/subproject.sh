#!/usr/bin/env bash
# subproject.sh SOURCE: add_subdirectory(dsv) in another project. Configures it and compiles a program's object; to
# build libdsv once more would take minutes, so that is done only where DSV_CYCLES says that time is no matter.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
source=$1
mkdir "$work/game"
cp "$source/samples/c/quickstart.c" "$here/consumer.cpp" "$work/game/"
cat >"$work/game/CMakeLists.txt" <<END
cmake_minimum_required(VERSION 3.22)
project(game LANGUAGES C CXX)
add_subdirectory($source dsv)
add_executable(game quickstart.c)
target_link_libraries(game PRIVATE dsv::dsv)
add_library(level OBJECT consumer.cpp)
set_target_properties(level PROPERTIES CXX_STANDARD 17)
target_link_libraries(level PRIVATE dsv::dsv)
if(NOT TARGET dsv::dsv_static)
  message(FATAL_ERROR "dsv::dsv_static is missing")
endif()
if(NOT EXISTS \${dsv_CHECKPOINT}/config.json)
  message(FATAL_ERROR "dsv_CHECKPOINT does not name the checkpoint")
endif()
END
cd "$work/game"
"$cmake" -G Ninja -B build -DBUILD_TESTING=ON -DDSV_CUDA=OFF >log 2>&1 || { cat log; die 'it cannot be configured'; }
"$cmake" --build build --target CMakeFiles/game.dir/quickstart.c.o CMakeFiles/level.dir/consumer.cpp.o >log 2>&1 ||
  { cat log; die 'a program that uses it does not compile'; }
! grep -qE 'gtest|swig|dsv_tool' build/build.ninja || die 'it brings tests, bindings or programs along'
if [[ -n ${DSV_CYCLES:-} ]]; then
  "$cmake" --build build -j "$(nproc)" --target game >log 2>&1 || { tail -40 log; die 'it cannot be built'; }
  answers "$work/game/build/game" "$source/samples/nano/checkpoint"
fi
