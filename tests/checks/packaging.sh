# The recipes of examples/packaging give packages that compile and run.
. "$(dirname "$0")/common.sh"
recipes=../examples/packaging
version=$(sed -n 's/^#define TT_VERSION  *"\(.*\)"$/\1/p' ../tt.h)

# FetchContent clones the repository; where this is none, it takes the folder.
cmake_project() {
  source=
  git -C .. rev-parse HEAD >/dev/null 2>&1 || source="-DFETCHCONTENT_SOURCE_DIR_TT=$PWD/.."
  cmake -S $recipes/cmake -B "$build/cmake" $source && cmake --build "$build/cmake" &&
    [ "$("$build/cmake/program")" = 16 ]
}

# assembled KIND MANIFEST VERSION_LINE
assembled() {
  sh $recipes/assemble.sh "$1" "$build/$1" https://example.org/here &&
    grep -q "$3" "$build/$1/$2" && ! grep -q @ "$build/$1/$2" &&
    ! sh $recipes/assemble.sh "$1" "$build/$1"               # never over what is there
}

# A sketch is C++ behind Arduino.h; setup() must print 16.
sketch() {
  printf '%s\n' '#include <cstdio>' 'static struct { void begin(long) {}' \
    'void println(double x) { std::printf("%g\n", x); } } Serial;' >"$build/Arduino.h"
  printf '#include "Arduino.h"\n#include "%s"\nint main() { setup(); loop(); }\n' \
    arduino/examples/one_layer/one_layer.ino >"$build/sketch.cpp"
  ${CXX:-c++} -std=c++11 -Wall -Wextra -Werror -I"$build/arduino/src" "$build/sketch.cpp" \
    -o "$build/sketch" && [ "$("$build/sketch")" = 16 ]
}

# A library in src/, compiled by itself.
library() {
  python3 -c 'import json, sys; json.load(open(sys.argv[1]))' "$build/platformio/library.json" &&
    printf '#define TT_IMPLEMENTATION\n#include <tt.h>\n' >"$build/unit.c" &&
    ${CC:-cc} -I"$build/platformio/src" -c "$build/unit.c" -o "$build/unit.o"
}

# The component, by a stand-in for the one command of ESP-IDF.
component() {
  mkdir "$build/idf" &&
    printf '%s\n' 'cmake_minimum_required(VERSION 3.14)' 'project(idf C)' \
      'function(idf_component_register)' \
      '  cmake_parse_arguments(PARSE_ARGV 0 C "" "" "SRCS;INCLUDE_DIRS")' \
      '  add_library(tt STATIC ${C_SRCS})' \
      '  target_include_directories(tt PUBLIC ${C_INCLUDE_DIRS})' 'endfunction()' \
      "add_subdirectory($PWD/$build/esp-idf component)" >"$build/idf/CMakeLists.txt" &&
    cmake -S "$build/idf" -B "$build/idf/build" && cmake --build "$build/idf/build"
}

check "Arduino library" assembled arduino library.properties "^version=$version$"
check "PlatformIO library" assembled platformio library.json "\"version\": \"$version\""
check "ESP-IDF component" assembled esp-idf idf_component.yml "^version: \"$version\"$"
barrier
if have cmake; then
  check "CMake project with FetchContent" cmake_project
  check "ESP-IDF component compiles" component
else
  skip cmake "not installed"
fi
if have "${CXX:-c++}"; then check "sketch" sketch; else skip "${CXX:-c++}" "not installed"; fi
if have python3; then
  check "PlatformIO library compiles" library
else
  skip python3 "not installed"
fi
finish
