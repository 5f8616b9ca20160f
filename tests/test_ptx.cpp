// Tests of the interpreter of ptx.h on small texts: each kind of instruction against plain C++, the
// layouts of what warps do together against their definitions, and each error that ptx.h promises.
//   test_ptx
#include "test.h"

#include "ptx.h"

#include <cmath>
#include <limits>
#include <type_traits>
#include <utility>

// ----------------------------------------------------------------------------------------- running

static const char HEAD[] = ".version 8.0\n.target sm_80\n.address_size 64\n";

static union { // the only global memory: what kernels read, then what they write
  unsigned char bytes[2][65536];
  uint64_t all[2][8192];
} memory;

static bool find(const void *at, const char **begin, size_t *size) {
  *begin = (const char *)memory.bytes;
  *size = sizeof memory;
  uintptr_t offset = (uintptr_t)at - (uintptr_t)memory.bytes;
  return offset < sizeof memory;
}

// Runs a text with "kernel(.param .u64 in, .param .u64 out)"; what was wrong, or "".
static std::string run_text(const std::string &text, unsigned threads, unsigned order = 0,
                            size_t shared = 0, unsigned blocks = 1) {
  const void *pointers[2] = {memory.bytes[0], memory.bytes[1]};
  try {
    ptx::Module *module = ptx::load(text);
    ptx::Launch launch = {"kernel", {blocks, 1, 1},  {threads, 1, 1}, shared,
                          pointers, sizeof pointers, order,           find};
    std::string error;
    try {
      ptx::run(*module, launch);
    } catch (const ptx::Error &caught) { error = caught.what(); }
    ptx::unload(module);
    return error;
  } catch (const ptx::Error &caught) { return caught.what(); }
}
// The same for a body that finds the addresses in %in and %out and its number in %i and %wide.
static std::string run_body(const std::string &body, unsigned threads, unsigned order = 0,
                            size_t shared = 0) {
  return run_text(std::string(HEAD) +
                      ".extern .shared .align 16 .b8 dynamic[];\n"
                      ".visible .entry kernel(.param .u64 in, .param .u64 out)\n{\n"
                      ".reg .b32 %i, %r<20>; .reg .b64 %wide, %in, %out, %at, %rd<9>;\n"
                      ".reg .f32 %f<16>; .reg .pred %p<9>; .reg .b16 %rs<9>;\n"
                      "ld.param.u64 %in, [in]; ld.param.u64 %out, [out];\n"
                      "mov.u32 %i, %tid.x; cvt.u64.u32 %wide, %i;\n" +
                      body + "\nret;\n}\n",
                  threads, order, shared);
}
static bool says(const std::string &error, const char *what) {
  if (error.find(what) != std::string::npos) return true;
  printf("  \"%s\", wanted \"%s\"\n", error.c_str(), what);
  return false;
}

// -------------------------------------------------------------------------------------- arithmetic

template <class T> static std::string type_name() {
  const char *kind = std::is_floating_point<T>::value ? "f" : (T)-1 < (T)0 ? "s" : "u";
  return kind + std::to_string(8 * sizeof(T));
}
template <class T> static std::string register_kind() {
  if (std::is_floating_point<T>::value) return type_name<T>();
  return "b" + std::to_string(sizeof(T) < 2 ? 16 : 8 * sizeof(T));
}

template <class T> static T interesting() { // limits, small numbers, anything
  uint64_t bits = test_u64();
  T value;
  if (bits % 4 == 0) bits = (uint64_t)1 << (bits >> 8) % (8 * sizeof(T));
  if (bits % 4 == 1) bits = (uint64_t)(int64_t)((int)(bits >> 8 & 63) - 32);
  if (bits % 8 == 2) bits = ~(uint64_t)0 >> (bits >> 8) % 64;
  memcpy(&value, &bits, sizeof value);
  return value;
}
template <class T> static T interesting_real() {
  static const double some[] = {
      0.0,       -0.0, 0.5,          1.5,           2.5,          -0.5, -1.5,  INFINITY,
      -INFINITY, NAN,  2147483647.0, -2147483648.0, 4294967296.0, 1e30, -1e30, 1e-42};
  int which = test_below(32);
  if (which < 16) return (T)some[which];
  return which < 24 ? (T)(test_normal() * 1000) : (T)(test_normal() * std::pow(2.0, which - 28));
}
template <> float interesting() { return interesting_real<float>(); }
template <> double interesting() { return interesting_real<double>(); }

// Operand number `index` of every thread: 8 bytes each, all first operands, then all second ones.
template <class T> static std::string load_operand(int index) {
  std::string name = "%x" + std::to_string(index);
  return ".reg ." + register_kind<T>() + " " + name + ";\nld.global." + type_name<T>() + " " +
         name + ", [%at+" + std::to_string(8 * 256 * index) + "];\n";
}
template <class T> static void fill_operand(int index) {
  for (int i = 0; i < 256; i++) {
    T value = interesting<T>();
    memcpy(&memory.all[0][256 * index + i], &value, sizeof value);
  }
}
template <class T> static T operand(int index, int i) {
  T value;
  memcpy(&value, &memory.all[0][256 * index + i], sizeof value);
  return value;
}
template <class T> static bool same(T got, T wanted) {
  return !memcmp(&got, &wanted, sizeof got) || (got != got && wanted != wanted);
}

// "add.s32", or "add.s32, 7" where an immediate follows the operands, or with semicolons the whole
// text from %x0, %x1.. to %d.
template <class D, class... A, size_t... I>
static bool agrees(const std::string &instruction, D (*f)(A...), std::index_sequence<I...>) {
  size_t comma = std::min(instruction.find(','), instruction.size());
  std::string text = "mad.lo.u64 %at, %wide, 8, %in;\n", list;
  int unused[] = {
      (fill_operand<A>(I), text += load_operand<A>(I), list += ", %x" + std::to_string(I), 0)...};
  text += ".reg ." + register_kind<D>() + " %d;\n";
  if (instruction.find(';') != std::string::npos)
    text += instruction;
  else
    text += instruction.substr(0, comma) + " %d" + list + instruction.substr(comma) + ";";
  text += "\nmad.lo.u64 %at, %wide, 8, %out;\nst.global." + type_name<D>() + " [%at], %d;";
  std::string error = run_body(text, 256);
  bool good = error.empty();
  for (int i = 0; good && i < 256; i++) {
    D got;
    memcpy(&got, &memory.all[1][i], sizeof got);
    good = same(got, f(operand<A>(I, i)...));
    if (!good) printf("  operands of thread %d\n", i);
  }
  if (!good) printf("  %s: %s\n", instruction.c_str(), error.c_str());
  return good && unused[0] == 0;
}
template <class D, class... A> static bool agrees(const std::string &instruction, D (*f)(A...)) {
  bool good = true;
  for (int i = 0; i < 8; i++)
    good = good && agrees(instruction, f, std::index_sequence_for<A...>());
  return good;
}
// AGREES("add.s32", int, (int a, int b), a + b)
#define AGREES(instruction, D, operands, ...)                                                      \
  CHECK(agrees<D>(                                                                                 \
      instruction, +[] operands -> D { return (D)(__VA_ARGS__); }))

typedef int16_t s16;
typedef uint16_t u16;
typedef int32_t s32;
typedef uint32_t u32;
typedef int64_t s64;
typedef uint64_t u64;

static void test_integers() {
  AGREES("add.s32", s32, (s32 a, s32 b), (u32)a + (u32)b);
  AGREES("add.s64", s64, (s64 a, s64 b), (u64)a + (u64)b);
  AGREES("sub.s16", s16, (s16 a, s16 b), a - b);
  AGREES("mul.lo.s32", s32, (s32 a, s32 b), (u32)a * (u32)b);
  AGREES("mul.hi.s32", s32, (s32 a, s32 b), ((s64)a * b) >> 32);
  AGREES("mul.hi.u32", u32, (u32 a, u32 b), ((u64)a * b) >> 32);
  AGREES("mul.hi.u64", u64, (u64 a, u64 b), ((unsigned __int128)a * b) >> 64);
  AGREES("mul.wide.s32", s64, (s32 a, s32 b), (s64)a * b);
  AGREES("mul.wide.u32", u64, (u32 a, u32 b), (u64)a * b);
  AGREES("mul.wide.u16", u32, (u16 a, u16 b), (u32)a * b);
  AGREES("mul.wide.s16", s32, (s16 a, s16 b), (s32)a * b);
  AGREES("mad.lo.s32", s32, (s32 a, s32 b, s32 c), (u32)a * (u32)b + (u32)c);
  AGREES("mad.wide.s32", s64, (s32 a, s32 b, s64 c), (u64)((s64)a * b) + (u64)c);
  AGREES("div.s32, 7", s32, (s32 a), a / 7);
  AGREES("div.s32, -1", s32, (s32 a), 0 - (u32)a);
  AGREES("rem.s32, -1", s32, (s32 a), a * 0);
  AGREES("rem.s32, -7", s32, (s32 a), a % 7);
  AGREES("div.u64, 10", u64, (u64 a), a / 10);
  AGREES("min.s32", s32, (s32 a, s32 b), a < b ? a : b);
  AGREES("max.u64", u64, (u64 a, u64 b), a > b ? a : b);
  AGREES("neg.s32", s32, (s32 a), 0 - (u32)a);
  AGREES("abs.s64", s64, (s64 a), a < 0 ? 0 - (u64)a : (u64)a);
}

static void test_bits() {
  AGREES("and.b32", u32, (u32 a, u32 b), a & b);
  AGREES("or.b64", u64, (u64 a, u64 b), a | b);
  AGREES("xor.b16", u16, (u16 a, u16 b), a ^ b);
  AGREES("not.b16", u16, (u16 a), ~a);
  AGREES("shl.b32", u32, (u32 a, u32 b), b > 31 ? 0 : a << b);
  AGREES("shl.b64, 63", u64, (u64 a), a << 63);
  AGREES("shl.b16, 15", u16, (u16 a), a << 15);
  AGREES("shr.u32", u32, (u32 a, u32 b), b > 31 ? 0 : a >> b);
  AGREES("shr.s32", s32, (s32 a, u32 b), a >> (b > 31 ? 31 : b));
  AGREES("shr.s16, 3", s16, (s16 a), a >> 3);
  AGREES("shr.s64, 99", s64, (s64 a), a >> 63);
  AGREES("bfe.u32, 8, 5", u32, (u32 a), a >> 8 & 31);
  AGREES("bfe.s32, 8, 5", s32, (s32 a), (s32)((u32)a << 19) >> 27);
  AGREES("bfe.s32, 28, 9", s32, (s32 a), a >> 28);
  AGREES("bfe.s64, 0, 64", s64, (s64 a), a);
  AGREES("bfe.u64, 60, 0", u64, (u64 a), a * 0);
  AGREES("bfi.b32, 8, 5", u32, (u32 a, u32 b), (b & ~0x1f00u) | (a & 31) << 8);
  AGREES("bfi.b64, 32, 32", u64, (u64 a, u64 b), (b & 0xffffffff) | a << 32);
  AGREES("bfi.b32, 0, 32", u32, (u32 a, u32 b), b * 0 + a);
  AGREES("lop3.b32, 0xe8", u32, (u32 a, u32 b, u32 c), (a & b) | (a & c) | (b & c));
  AGREES("lop3.b32, 0xca", u32, (u32 a, u32 b, u32 c), (a & b) | (~a & c));
  AGREES("prmt.b32, 0x5410", u32, (u32 a, u32 b), (a & 0xffff) | b << 16);
  AGREES("prmt.b32, 0xf7b3", u32, (u32 a, u32 b),
         a >> 24 | (a >> 31) * 0xff00 | (b >> 24) << 16 | (b >> 31) * 0xff000000);
  AGREES("shf.l.wrap.b32, 40", u32, (u32 a, u32 b), b << 8 | a >> 24);
  AGREES("shf.l.clamp.b32, 40", u32, (u32 a, u32 b), a + b * 0);
  AGREES("shf.r.wrap.b32, 4", u32, (u32 a, u32 b), b << 28 | a >> 4);
  AGREES("shf.r.clamp.b32, 32", u32, (u32 a, u32 b), a * 0 + b);
}

static void test_floats() {
  AGREES("add.f32", float, (float a, float b), a + b);
  AGREES("sub.rn.f32", float, (float a, float b), a - b);
  AGREES("mul.f64", double, (double a, double b), a *b);
  AGREES("div.rn.f32", float, (float a, float b), a / b);
  AGREES("fma.rn.f32", float, (float a, float b, float c), fmaf(a, b, c));
  AGREES("fma.rn.f64", double, (double a, double b, double c), fma(a, b, c));
  AGREES("sqrt.rn.f32", float, (float a), sqrtf(a));
  AGREES("sqrt.rn.f64", double, (double a), sqrt(a));
  AGREES("rcp.rn.f64", double, (double a), 1 / a);
  AGREES("neg.f32", float, (float a), -a);
  AGREES("abs.f64", double, (double a), fabs(a));
  AGREES("min.f32, 0f3F800000", float, (float a), a < 1 ? a : 1);
  AGREES("max.f64, 0d8000000000000000", double, (double a), a >= 0 && !std::signbit(a) ? a : -0.0);
}

template <class T> static T clamped(double value) {
  double least = (double)std::numeric_limits<T>::min(),
         most = (double)std::numeric_limits<T>::max();
  if (value != value) return 0;
  if (value <= least) return std::numeric_limits<T>::min();
  return value >= most ? std::numeric_limits<T>::max() : (T)value;
}
// Rounding by hand: of the two neighbours the nearer one, or the even one.
static float to_places(float value, int places, int least) {
  int exponent;
  if (!(std::fabs(value) < INFINITY) || value == 0) return value;
  std::frexp(value, &exponent);
  double unit = std::ldexp(1.0, std::max(exponent - places, least)), low = std::floor(value / unit);
  double rest = value / unit - low;
  if (rest > 0.5 || (rest == 0.5 && std::fmod(low, 2) != 0)) low++;
  return (float)std::copysign(low * unit, (double)value);
}
static float half_value(u16 half) { // of a number below infinity
  int exponent = half >> 10 & 31;
  double size = std::ldexp(half % 1024 + (exponent ? 1024 : 0), std::max(exponent, 1) - 25);
  return (float)(half >> 15 ? -size : size);
}

static void test_conversions() {
  AGREES("cvt.s64.s32", s64, (s32 a), a);
  AGREES("cvt.u64.u32", u64, (u32 a), a);
  AGREES("cvt.u32.u64", u32, (u64 a), a);
  AGREES("cvt.s32.s8", s32, (s32 a), (int8_t)a);
  AGREES("cvt.u16.u32", u16, (u32 a), a);
  AGREES("cvt.rn.f32.s32", float, (s32 a), a);
  AGREES("cvt.rn.f32.u32", float, (u32 a), a);
  AGREES("cvt.rn.f32.s16", float, (s16 a), a);
  AGREES("cvt.rn.f32.u64", float, (u64 a), a);
  AGREES("cvt.rn.f64.s64", double, (s64 a), a);
  AGREES("cvt.rn.f32.f64", float, (double a), a);
  AGREES("cvt.f64.f32", double, (float a), a);
  AGREES("cvt.rzi.s32.f32", s32, (float a), clamped<s32>(std::trunc(a)));
  AGREES("cvt.rzi.u32.f32", u32, (float a), clamped<u32>(std::trunc(a)));
  AGREES("cvt.rni.s32.f64", s32, (double a), clamped<s32>(std::nearbyint(a)));
  AGREES("cvt.rmi.s32.f32", s32, (float a), clamped<s32>(std::floor(a)));
  AGREES("cvt.rpi.s16.f32", s16, (float a), clamped<s16>(std::ceil(a)));
  AGREES("cvt.rni.f32.f32", float, (float a), std::nearbyint(a));
  AGREES("cvt.rzi.f64.f64", double, (double a), std::trunc(a));
  AGREES("cvt.f32.bf16", float, (u16 a), [&] {
    u32 bits = (u32)a << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
  }());
  AGREES("cvt.f32.f16", float, (u16 a),
         (a >> 10 & 31) < 31 ? half_value(a)
         : a % 1024          ? NAN
         : a >> 15           ? -INFINITY
                             : INFINITY);
  // there and back again, so that values are compared
  AGREES("cvt.rn.f16.f32 %rs1, %x0; cvt.f32.f16 %d, %rs1;", float, (float a),
         std::fabs(to_places(a, 11, -24)) < 65520 ? to_places(a, 11, -24) : a * INFINITY);
  AGREES("cvt.rn.bf16.f32 %rs1, %x0; cvt.f32.bf16 %d, %rs1;", float, (float a),
         to_places(a, 8, -133));
}

// A comparison, the other way round and under a negated guard as well.
#define COMPARES(name, T, expression)                                                              \
  AGREES("setp." name " %p1, %x0, %x1; selp.u32 %d, 1, 0, %p1;", u32, (T a, T b), expression);     \
  AGREES("setp." name " %p1, %x0, %x1; mov.u32 %d, 0; @!%p1 mov.u32 %d, 1;", u32, (T a, T b),      \
         !(expression))

static void test_predicates() {
  COMPARES("eq.s32", s32, a == b);
  COMPARES("ne.s64", s64, a != b);
  COMPARES("lt.s32", s32, a < b);
  COMPARES("lo.u32", u32, a < b);
  COMPARES("ge.u64", u64, a >= b);
  COMPARES("gt.s16", s16, a > b);
  COMPARES("le.u16", u16, a <= b);
  COMPARES("eq.f32", float, a == b);
  COMPARES("ne.f32", float, a<b || a> b);
  COMPARES("lt.f64", double, a < b);
  COMPARES("geu.f32", float, !(a < b));
  COMPARES("leu.f64", double, !(a > b));
  COMPARES("gtu.f32", float, !(a <= b));
  COMPARES("ltu.f32", float, !(a >= b));
  COMPARES("neu.f32", float, !(a == b));
  COMPARES("equ.f64", double, !(a < b) && !(a > b));
  COMPARES("num.f32", float, a == a && b == b);
  COMPARES("nan.f64", double, a != a || b != b);
  AGREES("setp.lt.s32 %p1, %x0, 0; setp.gt.s32 %p2, %x1, 0; and.pred %p3, %p1, %p2;"
         "not.pred %p4, %p3; mov.pred %p5, %p4; selp.s32 %d, %x0, %x1, %p5;",
         s32, (s32 a, s32 b), a < 0 && b > 0 ? b : a);
  AGREES("setp.lt.s32 %p1, %x0, 0; setp.gt.s32 %p2, %x1, 0; or.pred %p3, %p1, %p2;"
         "xor.pred %p4, %p3, %p2; selp.s32 %d, %x0, %x1, %p4;",
         s32, (s32 a, s32 b), a < 0 && !(b > 0) ? a : b);
}

static void test_moves() {
  AGREES("{ .reg .b32 %r0; mov.b64 {%r0, %r1}, %x0; xor.b32 %r0, %r0, %r1; cvt.u64.u32 %d, %r0; }",
         u64, (u64 a), (u32)a ^ (u32)(a >> 32)); // %r0 of an inner scope
  AGREES("mov.b64 {_, %r1}, %x0; mov.b32 {%rs1, %rs2}, %r1; mov.b32 %d, {%rs2, %rs1};", u32,
         (u64 a), a >> 48 | (a >> 32 & 0xffff) << 16);
  AGREES("mov.b64 %d, {%x0, %x1};", u64, (u32 a, u32 b), (u64)b << 32 | a);
  AGREES("cvt.rn.bf16x2.f32 %d, %x0, %x0;", u32, (float a), [&] {
    u32 bits;
    memcpy(&bits, &a, 4);
    bits = a != a ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    return bits << 16 | bits;
  }());
  AGREES("cvt.rna.tf32.f32 %d, %x0;", u32, (float a), [&] {
    u32 bits;
    memcpy(&bits, &a, 4);
    return (bits & 0x7f800000) == 0x7f800000 ? bits : (bits + 0x1000) & 0xffffe000;
  }());
}

// ------------------------------------------------------------------------------------------ memory

static void test_memory() {
  // a loop; vectors through shared memory, static and dynamic, through generic addresses too
  static const char text[] =
      ".shared .align 16 .b8 room[1024];\n"
      "mad.lo.u64 %at, %wide, 16, %in; ld.global.v4.u32 {%r1, %r2, %r3, %r4}, [%at];\n"
      "mov.u32 %r5, room; mad.lo.s32 %r6, %i, 16, %r5; st.shared.v2.u32 [%r6], {%r1, %r2};\n"
      "st.shared.u32 [%r6+12], %r4; st.shared.u16 [%r6+8], %r3; shr.u32 %r7, %r3, 16;\n"
      "st.shared.u8 [%r6+10], %r7; shr.u32 %r7, %r7, 8; st.shared.u8 [%r6+11], %r7;\n"
      "bar.sync 0; xor.b32 %r8, %i, 5; mad.lo.s32 %r6, %r8, 16, %r5;\n"
      "{ .reg .b64 %t; cvt.u64.u32 %t, %r6; cvta.shared.u64 %rd1, %t; }\n"
      "ld.v4.f32 {%f1, %f2, %f3, %f4}, [%rd1]; mov.u32 %r9, dynamic; mad.lo.s32 %r9, %i, 16, %r9;\n"
      "st.shared.v4.f32 [%r9], {%f1, %f2, %f3, %f4};\n"
      "mad.lo.u64 %at, %wide, 16, %out; mov.u32 %r10, 0;\n"
      "$again: add.s32 %r11, %r9, %r10; ld.shared.u32 %r12, [%r11];\n"
      "cvt.u64.u32 %rd2, %r10; add.s64 %rd3, %at, %rd2; st.global.u32 [%rd3], %r12;\n"
      "add.s32 %r10, %r10, 4; setp.lt.u32 %p1, %r10, 16; @%p1 bra $again;\n";
  for (unsigned order = 0; order < 4; order++) {
    for (uint64_t &each : memory.all[0]) each = test_u64();
    CHECK(run_body(text, 64, order, 1024).empty());
    int right = 1;
    for (int i = 0; i < 64; i++)
      right &= !memcmp(memory.bytes[1] + 16 * i, memory.bytes[0] + 16 * (i ^ 5), 16);
    CHECK(right);
  }
}

// What goes wrong while a kernel runs.
static void test_errors() {
  static const struct {
    const char *body, *error;
    size_t shared;
  } cases[] = {
      {"add.s64 %at, %in, 2; ld.global.u32 %r1, [%at];", "misaligned", 0},
      {"ld.global.v4.u32 {%r1, %r2, %r3, %r4}, [%in+8];", "misaligned", 0},
      {"ld.global.v2.u32 {%r1, %r2}, [%in+8];", "", 0},
      {"st.global.v2.u32 [%in+4], {%r1, %r2};", "misaligned", 0},
      {"mov.u32 %r1, dynamic; st.shared.v4.f32 [%r1+8], {%f1, %f1, %f1, %f1};", "misaligned", 64},
      {"ld.global.u32 %r1, [%out+65536];", "outside of every allocation", 0},
      {"ld.global.u64 %rd1, [%in+-8];", "outside of every allocation", 0},
      {"mov.u32 %r1, dynamic; st.shared.u32 [%r1+64], %i;", "beyond shared memory", 64},
      {"mov.u32 %r1, dynamic; st.shared.u32 [%r1+-4], %i;", "beyond shared memory", 64},
      {"mov.u32 %r1, 0; st.shared.u32 [%r1], %i;", "beyond shared memory", 64},
      {"ld.param.u32 %r1, [out+8];", "beyond parameters", 0},
      {"mov.u32 %r1, dynamic; ld.shared.u32 %r2, [%r1];", "read before written", 64},
      {"div.s32 %r1, %i, %i;", "division by zero", 0},
      {"rem.u32 %r1, %i, %i;", "division by zero", 0},
      // races: two writers; a reader and a writer; the same behind a barrier
      {"mov.u32 %r1, dynamic; st.shared.u32 [%r1], %i;", "race", 64},
      {"mov.u32 %r1, dynamic; mad.lo.s32 %r2, %i, 4, %r1; st.shared.u32 [%r2], %i; bar.sync 0;"
       "st.shared.u32 [%r2], %i; xor.b32 %r3, %i, 1; mad.lo.s32 %r2, %r3, 4, %r1; ld.shared.u32 "
       "%r3, [%r2];",
       "race", 256},
      {"mov.u32 %r1, dynamic; mad.lo.s32 %r2, %i, 4, %r1; st.shared.u32 [%r2], %i; bar.sync 0;"
       "xor.b32 %r3, %i, 33; mad.lo.s32 %r2, %r3, 4, %r1; ld.shared.u32 %r3, [%r2];",
       "", 256},
      {"mov.u32 %r1, dynamic; mad.lo.s32 %r2, %i, 4, %r1; st.shared.u32 [%r2], %i; bar.sync 0;"
       "xor.b32 %r3, %i, 33; mad.lo.s32 %r4, %r3, 4, %r1; ld.shared.u32 %r3, [%r4];"
       "st.shared.u32 [%r2], %r3;",
       "race", 256},
      // what a warp has synchronised by itself: enough within it, not between warps
      {"mov.u32 %r1, dynamic; mad.lo.s32 %r2, %i, 4, %r1; st.shared.u32 [%r2], %i;"
       "bar.warp.sync -1; xor.b32 %r3, %i, 1; mad.lo.s32 %r2, %r3, 4, %r1;"
       "ld.shared.u32 %r3, [%r2]; bar.warp.sync -1; st.shared.u32 [%r2], %r3;",
       "", 256},
      {"mov.u32 %r1, dynamic; mad.lo.s32 %r2, %i, 4, %r1; st.shared.u32 [%r2], %i;"
       "bar.warp.sync -1; xor.b32 %r3, %i, 32; mad.lo.s32 %r2, %r3, 4, %r1;"
       "ld.shared.u32 %r3, [%r2];",
       "race", 256},
      {"mov.u32 %r1, dynamic; mad.lo.s32 %r2, %i, 4, %r1; st.shared.u32 [%r2], %i; bar.sync 0;"
       "ld.shared.u32 %r3, [%r1+4]; setp.eq.s32 %p1, %i, 1; @%p1 st.shared.u32 [%r1+4], %i;",
       "race", 256},
      // barriers
      {"setp.lt.s32 %p1, %i, 7; @%p1 bra $there; bar.sync 0; bra $end; $there: bar.sync 0; $end:",
       "barrier at two places", 0},
      {"setp.lt.s32 %p1, %i, 7; @%p1 ret; bar.sync 0;", "has exited", 0},
      {"setp.lt.s32 %p1, %i, 7; @%p1 bra $there; bar.sync 0; $there: bar.warp.sync -1;", "deadlock",
       0},
      {"setp.lt.s32 %p1, %i, 7; @%p1 ret; shfl.sync.idx.b32 %r1, %i, 0, 31, -1;", "exited lane", 0},
      {"setp.lt.s32 %p1, %i, 7; @%p1 bra $there; bar.warp.sync -1; bra $end;"
       "$there: bar.warp.sync -1; $end:",
       "from two places", 0},
      {"shfl.sync.idx.b32 %r1, %i, 3, 31, 255;", "outside its own mask", 0},
      {"setp.gt.s32 %p1, %i, 7; @%p1 ret; shfl.sync.idx.b32 %r1, %i, 9, 31, 255;",
       "outside the mask", 0},
      {"setp.gt.s32 %p1, %i, 7; @%p1 ret; shfl.sync.idx.b32 %r1, %i, 3, 31, 255;", "", 0},
  };
  for (unsigned order = 0; order < 3; order++)
    for (auto &each : cases) {
      std::string error = run_body(each.body, 64, order, each.shared);
      CHECK(*each.error ? says(error, each.error) : says(error + "good", "good") && error.empty());
      CHECK(error.empty() || error.find("in kernel kernel line") != std::string::npos);
    }
}

// What is not even loaded.
static void test_refusals() {
  static const char *const bodies[] = {
      "add.sat.s32 %r1, %i, 1;",
      "add.ftz.f32 %f1, %f1, %f1;",
      "ex2.approx.f32 %f1, %f1;",
      "atom.global.add.u32 %r1, [%in], 1;",
      "bar.sync 1;",
      "bar.sync 0, 32;",
      "bar.sync %i;",
      "call foo, ();",
      "add.s32 %r1, %i;",
      "add.s32 %r1, %i, 1, 2;",
      "add.s32 %r1, %nothing, 1;",
      "add.s32 %r20, %i, 1;",
      "bra $nowhere;",
      "$twice: $twice:",
      "mov.u32 %r1, %clock;",
      "cp.async.cg.shared.global [%r1], [%in], 8;",
      "cp.async.ca.shared.global [%r1], [%in], 12;",
      "cp.async.ca.shared.global [%r1], [%in], %r2;",
      "cp.async.wait_group %r1;",
      "ldmatrix.sync.aligned.m8n8.x3.shared.b16 {%r1, %r2, %r3}, [%r4];",
      "mma.sync.aligned.m16n8k8.row.row.f32.tf32.tf32.f32 {%f1, %f2, %f3, %f4},"
      "{%r1, %r2, %r3, %r4}, {%r5, %r6}, {%f1, %f2, %f3, %f4};",
      "selp.u32 %r1, 1, 0, !%p1;",
      "div.full.f32 %f1, %f1, %f1;",
      "ld.const.u32 %r1, [%in];",
      ".local .align 4 .b8 room[4];",
      "mov.f32 %f1, 1.5;",
      "ld.global.v8.u32 %r1, [%in];"};
  for (const char *body : bodies) {
    std::string error = run_body(std::string("setp.lt.u32 %p1, %i, 9999; @%p1 ret;\n") + body, 1);
    CHECK(says(error, "ptx line ")); // though the thread would never have come there
  }
  std::string entry = std::string(HEAD) + ".entry kernel(.param .u64 in, .param .u64 out)";
  CHECK(says(run_text(std::string(HEAD) + ".func f() { ret; }", 1), "unknown declaration"));
  CHECK(says(run_text(std::string(HEAD) + ".global .align 4 .b8 x[4];", 1), "unknown declaration"));
  CHECK(says(run_text(entry + "{ ret; ", 1), "ends early"));
  CHECK(says(run_text(std::string(HEAD) + ".entry other() { ret; }", 1), "no kernel kernel"));
  CHECK(says(run_text(std::string(HEAD) + ".entry kernel(.param .u64 in) { ret; }", 1), "size"));
  CHECK(run_text(std::string(HEAD) + ".entry _Z6kernelPvS_(.param .align 8 .b8 p[16]) { ret; }", 1)
            .empty());
}

// ----------------------------------------------------------------------------- warps work together

// Lane i writes %r1 to word i.
static const char STORE_R1[] = "mad.lo.u64 %at, %wide, 4, %out; st.global.u32 [%at], %r1;";
static u32 word(int i) {
  u32 value;
  memcpy(&value, memory.bytes[1] + 4 * i, 4);
  return value;
}

static void test_shuffles() {
  static const struct {
    const char *body;
    int (*from)(int lane);
  } cases[] = {
      {"shfl.sync.bfly.b32 %r1, %i, 5, 31, -1;", [](int i) { return i ^ 5; }},
      {"shfl.sync.idx.b32 %r1, %i, 9, 31, -1;", [](int) { return 9; }},
      {"shfl.sync.up.b32 %r1, %i, 3, 0, -1;", [](int i) { return i < 3 ? i : i - 3; }},
      {"shfl.sync.down.b32 %r1, %i, 3, 31, -1;", [](int i) { return i > 28 ? i : i + 3; }},
      // segments of 8 lanes
      {"shfl.sync.down.b32 %r1, %i, 3, 6175, -1;", [](int i) { return i % 8 > 4 ? i : i + 3; }},
      {"shfl.sync.idx.b32 %r1, %i, 10, 6175, -1;", [](int i) { return i / 8 * 8 + 2; }},
      {"shfl.sync.up.b32 %r1|%p1, %i, 3, 0, -1; @!%p1 mov.u32 %r1, 77;",
       [](int i) { return i < 3 ? 77 : i - 3; }},
      {"setp.lt.s32 %p1, %i, 5; vote.sync.ballot.b32 %r1, %p1, -1;", [](int) { return 31; }},
      {"setp.lt.s32 %p1, %i, 5; vote.sync.any.pred %p2, %p1, -1; selp.u32 %r1, 3, 4, %p2;",
       [](int) { return 3; }},
      {"setp.lt.s32 %p1, %i, 5; vote.sync.all.pred %p2, %p1, -1; selp.u32 %r1, 3, 4, %p2;",
       [](int) { return 4; }},
      {"setp.lt.s32 %p1, %i, 0; vote.sync.uni.pred %p2, %p1, -1; selp.u32 %r1, 3, 4, %p2;",
       [](int) { return 3; }},
  };
  for (auto &each : cases)
    for (unsigned order = 0; order < 3; order++) {
      int right = says(run_body(std::string(each.body) + STORE_R1, 32, order) + "good", "good");
      for (int i = 0; i < 32; i++) right &= (int)word(i) == each.from(i);
      CHECK(right);
    }
}

// Row r, column c of matrix m of 8 x 8 is 1000 m + 10 r + c. Lane 8m+r points to row r, and the
// rows lie in reverse.
static void test_load_matrix(int count, bool turned) {
  std::string list, stores, name = "x" + std::to_string(count) + (turned ? ".trans" : "");
  for (int m = 0; m < count; m++) {
    list += (m ? ", %r" : "%r") + std::to_string(10 + m);
    stores +=
        "st.global.u32 [%at+" + std::to_string(4 * m) + "], %r" + std::to_string(10 + m) + ";";
  }
  u16 rows[32][8];
  for (int m = 0; m < 4; m++)
    for (int k = 0; k < 64; k++)
      rows[31 - 8 * m - k / 8][k % 8] = (u16)(1000 * m + k / 8 * 10 + k % 8);
  memcpy(memory.bytes[0], rows, sizeof rows);
  std::string error =
      run_body("mad.lo.u64 %at, %wide, 16, %in; ld.global.v4.u32 {%r1, %r2, %r3, %r4}, [%at];"
               "mov.u32 %r5, dynamic; mad.lo.s32 %r6, %i, 16, %r5; st.shared.v4.u32 [%r6], {%r1, "
               "%r2, %r3, %r4};"
               "sub.s32 %r7, 31, %i; mad.lo.s32 %r10, %r7, 16, %r5; bar.sync 0;"
               "ldmatrix.sync.aligned.m8n8." +
                   name + ".shared.b16 {" + list +
                   "}, [%r10];"
                   "mad.lo.u64 %at, %wide, 16, %out;" +
                   stores,
               32, 1, 512);
  int right = says(error + "good", "good") && error.empty();
  for (int i = 0; i < 32 * count; i++) {
    int lane = i / count, m = i % count, r = lane / 4, c = lane % 4 * 2;
    u32 low = (u32)(1000 * m + (turned ? 10 * c + r : 10 * r + c));
    right &= word(4 * lane + m) == ((low + (turned ? 10 : 1)) << 16 | low);
  }
  CHECK(right);
}

// D = A B + C with small integers, which all types hold. Fragments as the PTX ISA has them: element
// i of lane l of A, B and C, groupID = l / 4, threadID_in_group = l % 4.
static void test_product(int depth, const char *type, int each, u32 (*encode)(int)) {
  int a[16][16], b[16][8], c[16][8], num_a = depth / 2, num_b = depth / 4;
  u32 registers[32][16] = {{0}};
  for (int i = 0; i < 256; i++) a[i / 16][i % 16] = test_below(17) - 8;
  for (int i = 0; i < 128; i++) b[i / 8][i % 8] = test_below(17) - 8;
  for (int i = 0; i < 128; i++) c[i / 8][i % 8] = test_below(99);
  for (int lane = 0; lane < 32; lane++) {
    int group = lane / 4, thread = lane % 4;
    for (int i = 0; i < num_a; i++) {
      int row = i / each % 2 ? group + 8 : group;
      int column = each == 1 ? thread + i / 2 * 4 : thread * 2 + i % 2 + (i >= 4 ? 8 : 0);
      registers[lane][i / each] |= encode(a[row][column]) << (i % each * 16);
    }
    for (int i = 0; i < num_b; i++) {
      int row = each == 1 ? thread + i * 4 : thread * 2 + i % 2 + (i >= 2 ? 8 : 0);
      registers[lane][4 + i / each] |= encode(b[row][group]) << (i % each * 16);
    }
    for (int i = 0; i < 4; i++) {
      float value = (float)c[i < 2 ? group : group + 8][thread * 2 + i % 2];
      memcpy(&registers[lane][8 + i], &value, 4);
    }
  }
  memcpy(memory.bytes[0], registers, sizeof registers);
  std::string first = num_a / each == 4 ? "{%r1, %r2, %r3, %r4}" : "{%r1, %r2}";
  std::string second = num_b / each == 2 ? "{%r5, %r6}" : "{%r5}", t = type;
  std::string error = run_body(
      "mad.lo.u64 %at, %wide, 64, %in; ld.global.v4.u32 {%r1, %r2, %r3, %r4}, [%at];"
      "ld.global.v2.u32 {%r5, %r6}, [%at+16]; ld.global.v4.f32 {%f1, %f2, %f3, %f4}, [%at+32];"
      "mma.sync.aligned.m16n8k" +
          std::to_string(depth) + ".row.col.f32." + t + "." + t +
          ".f32 "
          "{%f1,%f2,%f3,%f4}," +
          first + "," + second +
          ",{%f1,%f2,%f3,%f4};"
          "mad.lo.u64 %at, %wide, 16, %out; st.global.v4.f32 [%at], {%f1, %f2, %f3, %f4};",
      32, 7);
  int right = says(error + "good", "good") && error.empty();
  for (int i = 0; i < 128; i++) {
    int row = i / 4 / 4 + (i % 4 < 2 ? 0 : 8), column = i / 4 % 4 * 2 + i % 2, sum = c[row][column];
    for (int k = 0; k < depth; k++) sum += a[row][k] * b[k][column];
    float got;
    memcpy(&got, memory.bytes[1] + 4 * i, 4);
    right &= got == (float)sum;
  }
  CHECK(right);
}
static u32 encode_tf32(int value) {
  float real = (float)value;
  u32 bits;
  memcpy(&bits, &real, 4);
  return bits | 0x1fff; // which tensor cores do not look at
}
static u32 encode_bf16(int value) { return encode_tf32(value) >> 16; }
static u32 encode_f16(int value) {
  for (u32 bits = 0; bits < 0x7c00; bits++)
    if (half_value((u16)bits) == (float)std::abs(value)) return bits | (value < 0 ? 0x8000 : 0);
  return 0;
}

// ----------------------------------------------------------------------------- asynchronous copies

#define COPY                                                                                       \
  "mov.u32 %r1, dynamic; mad.lo.s32 %r2, %i, 16, %r1; mad.lo.u64 %at, %wide, 16, %in;"             \
  "cp.async.cg.shared.global [%r2], [%at], 16;"
#define COMMIT "cp.async.commit_group;"
#define FETCH "ld.shared.u32 %r1, [%r2];"
#define NEIGHBOUR "xor.b32 %r3, %i, 1; mad.lo.s32 %r2, %r3, 16, %r1;"

static void test_copies() {
  static const struct {
    const char *body, *error;
  } cases[] = {
      {COPY COMMIT FETCH, "before its copy was waited for"},
      {COPY FETCH "cp.async.wait_all;", "before its copy was waited for"},
      {COPY COMMIT "cp.async.wait_group 1;" FETCH, "before its copy was waited for"},
      {COPY "cp.async.wait_group 0;" FETCH, "before its copy was waited for"}, // not committed
      {COPY COMMIT "bar.sync 0;" NEIGHBOUR FETCH, "before its copy was waited for"},
      {COPY COMMIT "st.shared.u32 [%r2], %i;", "before its copy was waited for"},
      {"mov.u32 %r2, dynamic; cp.async.cg.shared.global [%r2+8], [%in], 16;", "misaligned"},
      {"mov.u32 %r2, dynamic; cp.async.ca.shared.global [%r2], [%in+2], 4;", "misaligned"},
      {"mov.u32 %r2, dynamic; cp.async.cg.shared.global [%r2], [%in+-16], 16;", "outside of every"},
      {"mov.u32 %r2, dynamic; cp.async.ca.shared.global [%r2+1020], [%in], 8;", "misaligned"},
      {"mov.u32 %r2, dynamic; cp.async.ca.shared.global [%r2+1024], [%in], 8;", "beyond shared"},
  };
  for (auto &each : cases) CHECK(says(run_body(each.body, 32, 0, 1024), each.error));
  CHECK(
      says(run_body(COPY COMMIT "cp.async.wait_group 0;" NEIGHBOUR FETCH, 1, 0, 1024), "written"));
  for (unsigned order = 0; order < 3; order++)
    CHECK(!run_body(COPY COMMIT "cp.async.wait_group 0;" NEIGHBOUR FETCH, 64, order, 1024).empty());
  for (int i = 0; i < 1024; i++) memory.all[0][i] = (u64)i << 32 | (u64)(3 * i);
  // the copy of a neighbour, behind a barrier; two groups, of which the older one is waited for
  static const char *const good[] = {
      COPY COMMIT "cp.async.wait_group 0; bar.sync 0;" NEIGHBOUR FETCH,
      COPY "cp.async.wait_all; bar.sync 0;" NEIGHBOUR FETCH,
      COPY COMMIT "cp.async.ca.shared.global [%r2+1024], [%at], 8;" COMMIT
                  "cp.async.wait_group 1; bar.sync 0;" NEIGHBOUR FETCH};
  for (const char *body : good)
    for (unsigned order = 0; order < 3; order++) {
      int right = says(run_body(std::string(body) + STORE_R1, 64, order, 2048) + "good", "good");
      for (int i = 0; i < 64; i++) right &= word(i) == (u32)(6 * (i ^ 1));
      CHECK(right);
    }
  // what lies beyond the bytes to copy is zeroed, and need not exist
  CHECK(run_body("mov.u32 %r2, dynamic; mov.u32 %r3, 4;"
                 "cp.async.cg.shared.global [%r2], [%in+48], 16, %r3; cp.async.wait_all;"
                 "ld.shared.v4.u32 {%r4, %r5, %r6, %r7}, [%r2];"
                 "st.global.v4.u32 [%out], {%r4, %r5, %r6, %r7};",
                 1, 0, 64)
            .empty());
  CHECK(word(0) == 18 && word(1) == 0 && word(2) == 0 && word(3) == 0);
  CHECK(run_body("mov.u32 %r2, dynamic; mov.u32 %r3, 0;"
                 "cp.async.cg.shared.global [%r2], [%out+65536], 16, %r3; cp.async.wait_all;",
                 1, 0, 64)
            .empty());
  // as late as allowed: the source is overwritten before the wait
  CHECK(run_body("mov.u32 %r2, dynamic; cp.async.ca.shared.global [%r2], [%in], 4;"
                 "mov.u32 %r3, 123; st.global.u32 [%in], %r3; cp.async.wait_all;"
                 "ld.shared.u32 %r4, [%r2]; st.global.u32 [%out], %r4;",
                 1, 0, 64)
            .empty());
  CHECK(word(0) == 123);
}

int main(void) {
  test_integers();
  test_bits();
  test_floats();
  test_conversions();
  test_predicates();
  test_moves();
  test_memory();
  test_errors();
  test_refusals();
  test_shuffles();
  for (int count = 1; count <= 4; count *= 2) {
    test_load_matrix(count, false);
    test_load_matrix(count, true);
  }
  test_product(4, "tf32", 1, encode_tf32);
  test_product(8, "tf32", 1, encode_tf32);
  test_product(8, "f16", 2, encode_f16);
  test_product(16, "f16", 2, encode_f16);
  test_product(8, "bf16", 2, encode_bf16);
  test_product(16, "bf16", 2, encode_bf16);
  test_copies();
  printf("%ld passed, %ld failed\n", test_passed, test_failed);
  return test_failed != 0;
}
