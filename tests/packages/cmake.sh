#!/usr/bin/env bash
# cmake.sh PREFIX: find_package(dsv), shared and static, from C and from C++.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
prefix=$1
model=$(checkpoint_of "$prefix")

# project NAME LANGUAGE STANDARD TARGET SOURCE
project() {
  mkdir "$work/$1"
  cp "$5" "$work/$1/"
  cat >"$work/$1/CMakeLists.txt" <<END
cmake_minimum_required(VERSION 3.22)
project($1 LANGUAGES $2)
set(CMAKE_$2_STANDARD $3)
set(CMAKE_$2_STANDARD_REQUIRED ON)
set(CMAKE_$2_EXTENSIONS OFF)
find_package(dsv 0.1 REQUIRED)
add_executable($1 $(basename "$5"))
target_compile_options($1 PRIVATE -Wall -Wextra -Werror -pedantic)
target_link_libraries($1 PRIVATE $4)
message(STATUS "checkpoint: \${dsv_CHECKPOINT}")
END
  (cd "$work/$1" && "$cmake" -B build -DCMAKE_PREFIX_PATH="$prefix" >log && "$cmake" --build build >>log) ||
    { cat "$work/$1/log"; die "$1 cannot be built"; }
  [[ ! -d $prefix/share/dsv/nano ]] || grep -q "checkpoint: $prefix/share/dsv/nano" "$work/$1/log" ||
    die 'dsv_CHECKPOINT does not name the checkpoint'
  answers "$work/$1/build/$1" "$model"
}

project c_shared C 99 dsv::dsv "$here/../../samples/c/quickstart.c"
project c_static C 99 dsv::dsv_static "$here/../../samples/c/quickstart.c"
project cxx_shared CXX 17 dsv::dsv "$here/consumer.cpp"
project cxx_static CXX 17 dsv::dsv_static "$here/consumer.cpp"
for name in c cxx; do
  readelf -d "$work/${name}_shared/build/${name}_shared" | grep -q 'libdsv.so.0' || die "$name does not load the library"
  ! readelf -d "$work/${name}_static/build/${name}_static" | grep -q libdsv || die "$name is not linked statically"
done

# A version that this one cannot stand in for.
mkdir "$work/newer"
echo 'cmake_minimum_required(VERSION 3.22)
project(newer LANGUAGES C)
find_package(dsv 0.2 REQUIRED)' >"$work/newer/CMakeLists.txt"
! (cd "$work/newer" && "$cmake" -B build -DCMAKE_PREFIX_PATH="$prefix" >log 2>&1) || die '0.2 was asked for and found'
