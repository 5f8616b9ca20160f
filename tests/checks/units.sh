# Several translation units: one implementation with many users, in C and in C++, and private
# copies.
. "$(dirname "$0")/common.sh"

# linked C_COMPILER CXX_COMPILER IMPLEMENTATION_LANGUAGE: one implementation, users in both
# languages
linked() {
  folder=$build/$1-$2-$3
  mkdir -p "$folder"
  if [ "$3" = c ]; then implement="$1 -std=c99"; else implement="$2 -std=c++11 -x c++"; fi
  $implement -O1 -c units_implementation.c -o "$folder/implementation.o" &&
    $1 -std=c99 -O1 -c units_main.c -o "$folder/main.o" &&
    $1 -std=c99 -O1 -c units_user.c -o "$folder/user_c.o" &&
    $2 -std=c++11 -O1 -c units_user.cpp -o "$folder/user_cpp.o" &&
    $2 "$folder"/*.o -o "$folder/program" -lm && run_tests "$folder/program"
}

# private C_COMPILER CXX_COMPILER: two TT_STATIC copies that even differ in TT_MAX_ORDER
private() {
  folder=$build/private-$1-$2
  mkdir -p "$folder"
  $1 -std=c99 -Wall -Wextra -Werror -O1 -c units_static.c -o "$folder/static_c.o" &&
    $2 -std=c++11 -Wall -Wextra -Werror -O1 -c units_static.cpp -o "$folder/static_cpp.o" &&
    $2 "$folder"/*.o -o "$folder/program" -lm && run_tests "$folder/program"
}

for pair in "gcc g++" "clang clang++" "gcc clang++" "clang g++"; do
  c=${pair% *} cxx=${pair#* }
  if have $c && have $cxx; then
    check "$c implementation, $c and $cxx users" linked $c $cxx c
    check "$cxx implementation, $c and $cxx users" linked $c $cxx cxx
    check "two private copies, $c and $cxx" private $c $cxx
  else
    skip "$c with $cxx" "not installed"
  fi
done
finish
