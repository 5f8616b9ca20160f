// Parser and interpreter of ptx.h.
//
// Every register, constant, special register and address of a variable has a slot of 64 bits in the
// array of its thread, so an instruction is a function and a list of slots. A slot holds integers
// extended to 64 bits by their own sign; who reads takes as many low bits as his type has.
#include "ptx.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <deque>
#include <map>
#include <memory>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unordered_map>
#include <vector>

namespace ptx {

unsigned long long num_instructions;

struct Thread;
struct Op;
struct Block;
// Runs one instruction; the next one, or null if the thread stops here.
typedef const Op *(*Handler)(Thread &, const Op *);
// Runs one instruction of a whole warp, whose lane i is lanes[i] if mask has bit i.
typedef void (*Together)(Thread *lanes, unsigned mask, const Op *);

struct Op {
  Handler run;
  Together together; // of warp collectives
  const int *slots;  // the operands, in `few` if they fit
  int line;
  int guard; // slot of a predicate, ~slot if negated; 0 = always
  int few[8];
};
enum { MASK = 7 }; // the last of `few` names the operand of a collective that is its mask

enum State { READY, AT_BARRIER, AT_WARP, DONE };

struct Copy { // cp.async
  uint64_t to;
  const char *from;
  unsigned size, bytes; // bytes are copied, the rest is zeroed
};

struct Thread {
  uint64_t *slots;
  Block *block;
  const Op *at; // where it stopped
  State state;
  unsigned index[3], rank, syncs;         // rank in the block; bar.warp.sync so far
  std::vector<std::vector<Copy>> pending; // groups of copies; the last one is still open
};

struct Variable { // of shared memory
  size_t align, size;
  bool dynamic;
};

struct Kernel {
  std::string name;
  std::vector<Op> ops;
  std::deque<std::array<int, 16>> many; // operands of long instructions
  int num_slots = 1;                    // slot 0 is none
  std::vector<std::pair<int, uint64_t>> constants;
  std::vector<std::pair<int, int>> specials; // %tid.x and so on
  size_t parameters = 0, shared = 0;         // bytes
  const std::vector<std::string> *lines = nullptr;
};

struct Module {
  std::vector<std::string> lines;
  std::deque<Kernel> kernels;
};

// Who touched a byte of shared memory last, in which stretch between two barriers of the block
// (`written`, `read`; they go on counting from block to block), after how many bar.warp.sync.
struct Trace {
  uint32_t written, read, writer_syncs, reader_syncs;
  uint16_t writer, reader;
  bool copying, threads, warps; // readers: several threads of a warp, several warps
};

struct Block {
  const Kernel *kernel;
  const Launch *launch;
  unsigned index[3];
  std::vector<Thread> threads;
  std::vector<char> shared; // static, then dynamic
  std::vector<Trace> traces;
  uint32_t epoch, first_epoch;
  std::vector<char> parameters;
  const char *known = nullptr; // the allocation that was found last
  size_t known_size = 0;
};

// Addresses of shared memory start above zero, so that null is none of them. Seen as generic ones
// they lie where no memory of the host does.
static const uint64_t SHARED = 1024, WINDOW = (uint64_t)1 << 60;

[[noreturn]] static void fail(const Thread &thread, const Op *op, const std::string &why) {
  const Block &block = *thread.block;
  auto triple = [](const unsigned *v) {
    return "(" + std::to_string(v[0]) + "," + std::to_string(v[1]) + "," + std::to_string(v[2]) +
           ")";
  };
  throw Error(why + " in kernel " + block.kernel->name + " line " + std::to_string(op->line) +
              " block" + triple(block.index) + " thread" + triple(thread.index) + ": " +
              (*block.kernel->lines)[(size_t)op->line - 1]);
}

// ------------------------------------------------------------------------------------------- slots

template <size_t SIZE> struct Bits;
template <> struct Bits<1> { typedef uint8_t type; };
template <> struct Bits<2> { typedef uint16_t type; };
template <> struct Bits<4> { typedef uint32_t type; };
template <> struct Bits<8> { typedef uint64_t type; };

template <class T> static inline T as(uint64_t bits) {
  typename Bits<sizeof(T)>::type low = (typename Bits<sizeof(T)>::type)bits;
  T value;
  memcpy(&value, &low, sizeof value);
  return value;
}
template <class T> static inline uint64_t bits(T value) { return (uint64_t)(int64_t)value; }
template <> inline uint64_t bits(float value) {
  uint32_t low;
  memcpy(&low, &value, sizeof low);
  return low;
}
template <> inline uint64_t bits(double value) {
  uint64_t all;
  memcpy(&all, &value, sizeof all);
  return all;
}
template <class T> static inline T get(const Thread &thread, const Op *op, int i) {
  return as<T>(thread.slots[op->slots[i]]);
}
template <class T> static inline void put(Thread &thread, const Op *op, int i, T value) {
  thread.slots[op->slots[i]] = bits(value);
}

// ------------------------------------------------------------------------------------------ memory

enum Space { PARAM, SHARED_SPACE, GLOBAL, GENERIC };
enum Access { LOAD, STORE };

// Do an access of `thread` now and one of another thread in the same stretch between barriers meet?
// Not if both are of a warp and it has synchronised since.
static inline bool meets(const Thread &thread, unsigned other, unsigned syncs) {
  return other != thread.rank && (other / 32 != thread.rank / 32 || syncs == thread.syncs);
}

static void trace_load(Thread &thread, const Op *op, Trace &trace) {
  const Block &block = *thread.block;
  if (trace.written < block.first_epoch) fail(thread, op, "shared memory read before written");
  if (trace.written == block.epoch && meets(thread, trace.writer, trace.writer_syncs))
    fail(thread, op, "race: thread " + std::to_string(trace.writer) + " wrote what is read");
  bool others = trace.read == block.epoch && trace.reader != thread.rank;
  bool same_warp = trace.reader / 32 == thread.rank / 32;
  if (trace.read != block.epoch) trace.warps = trace.threads = false;
  if (others && !same_warp) trace.warps = true;
  if (same_warp && trace.reader_syncs != thread.syncs) trace.threads = false;
  if (others && same_warp && trace.reader_syncs == thread.syncs) trace.threads = true;
  trace.read = block.epoch;
  trace.reader = (uint16_t)thread.rank;
  trace.reader_syncs = thread.syncs;
}

static void trace_store(Thread &thread, const Op *op, Trace &trace) {
  const Block &block = *thread.block;
  if (trace.written == block.epoch && meets(thread, trace.writer, trace.writer_syncs))
    fail(thread, op, "race: thread " + std::to_string(trace.writer) + " wrote it too");
  if (trace.read == block.epoch &&
      (trace.warps || meets(thread, trace.reader, trace.reader_syncs) ||
       (trace.threads && trace.reader_syncs == thread.syncs)))
    fail(thread, op, "race: another thread reads what is written");
  trace.written = block.epoch;
  trace.writer = (uint16_t)thread.rank;
  trace.writer_syncs = thread.syncs;
}

static char *shared_at(Thread &thread, const Op *op, uint64_t at, size_t size, Access access) {
  Block &block = *thread.block;
  if (at < SHARED || at + size > SHARED + block.shared.size())
    fail(thread, op, "address beyond shared memory");
  for (size_t i = 0; i < size; i++) {
    Trace &trace = block.traces[at - SHARED + i];
    if (trace.copying) fail(thread, op, "shared memory touched before its copy was waited for");
    if (access == LOAD)
      trace_load(thread, op, trace);
    else
      trace_store(thread, op, trace);
  }
  return &block.shared[at - SHARED];
}

static char *global_at(Thread &thread, const Op *op, uint64_t at, size_t size) {
  Block &block = *thread.block;
  uint64_t begin = (uint64_t)(uintptr_t)block.known;
  if (at - begin >= block.known_size || at - begin + size > block.known_size) {
    const char *found = nullptr;
    size_t found_size = 0;
    if (!block.launch->find((const void *)(uintptr_t)at, &found, &found_size) ||
        at - (uint64_t)(uintptr_t)found + size > found_size)
      fail(thread, op, "address outside of every allocation");
    block.known = found;
    block.known_size = found_size;
  }
  return (char *)(uintptr_t)at;
}

// The bytes at an address, which is the sum of two operands.
template <Space SPACE>
static inline char *memory_at(Thread &thread, const Op *op, int i, size_t size, Access access) {
  uint64_t at = thread.slots[op->slots[i]] + thread.slots[op->slots[i + 1]];
  if (SPACE == SHARED_SPACE) at = (uint32_t)at;
  if (at % size) fail(thread, op, "misaligned address");
  if (SPACE == PARAM) {
    if (at + size > thread.block->parameters.size()) fail(thread, op, "address beyond parameters");
    return &thread.block->parameters[at];
  }
  if (SPACE == SHARED_SPACE) return shared_at(thread, op, at, size, access);
  if (SPACE == GENERIC && at >= WINDOW) return shared_at(thread, op, at - WINDOW, size, access);
  return global_at(thread, op, at, size);
}

template <class T, Space SPACE, int COUNT> static const Op *load(Thread &thread, const Op *op) {
  T values[COUNT];
  memcpy(values, memory_at<SPACE>(thread, op, COUNT, sizeof values, LOAD), sizeof values);
  for (int i = 0; i < COUNT; i++) put<T>(thread, op, i, values[i]);
  return op + 1;
}
template <class T, Space SPACE, int COUNT> static const Op *store(Thread &thread, const Op *op) {
  T values[COUNT];
  for (int i = 0; i < COUNT; i++) values[i] = get<T>(thread, op, i + 2);
  memcpy(memory_at<SPACE>(thread, op, 0, sizeof values, STORE), values, sizeof values);
  return op + 1;
}

// ---- asynchronous copies: operands to, offset, from, offset, size and perhaps the bytes to copy

static const Op *copy_begin(Thread &thread, const Op *op) {
  unsigned size = get<uint32_t>(thread, op, 4), bytes = size;
  if (op->slots[5]) bytes = get<uint32_t>(thread, op, 5);
  if (bytes > size) fail(thread, op, "more bytes to copy than there is room for");
  memory_at<SHARED_SPACE>(thread, op, 0, size, STORE);
  uint64_t to = (uint32_t)(thread.slots[op->slots[0]] + thread.slots[op->slots[1]]);
  uint64_t from = thread.slots[op->slots[2]] + thread.slots[op->slots[3]];
  if (from % size) fail(thread, op, "misaligned address");
  const char *source = bytes ? global_at(thread, op, from, bytes) : nullptr;
  for (unsigned i = 0; i < size; i++) thread.block->traces[to - SHARED + i].copying = true;
  thread.pending.back().push_back({to, source, size, bytes});
  return op + 1;
}
static const Op *copy_commit(Thread &thread, const Op *op) {
  thread.pending.emplace_back();
  return op + 1;
}
static void copy_finish(Thread &thread, const Op *op, size_t groups) {
  for (size_t i = 0; i < groups; i++)
    for (const Copy &copy : thread.pending[i]) {
      for (unsigned k = 0; k < copy.size; k++)
        thread.block->traces[copy.to - SHARED + k].copying = false;
      char *to = shared_at(thread, op, copy.to, copy.size, STORE);
      if (copy.bytes) memcpy(to, copy.from, copy.bytes);
      memset(to + copy.bytes, 0, copy.size - copy.bytes);
    }
  thread.pending.erase(thread.pending.begin(), thread.pending.begin() + (ptrdiff_t)groups);
  if (thread.pending.empty()) thread.pending.emplace_back();
}
static const Op *copy_wait(Thread &thread, const Op *op) { // all but so many committed groups
  size_t keep = get<uint32_t>(thread, op, 0), committed = thread.pending.size() - 1;
  if (committed > keep) copy_finish(thread, op, committed - keep);
  return op + 1;
}
static const Op *copy_wait_all(Thread &thread, const Op *op) {
  copy_finish(thread, op, thread.pending.size());
  return op + 1;
}

// -------------------------------------------------------------------------------------- arithmetic

// NaN has the bits that a GPU gives it.
template <class T> static inline T result(T value) { return value; }
template <> inline float result(float value) {
  return value == value ? value : as<float>(0x7fffffff);
}

template <class T> using Unsigned = typename Bits<sizeof(T)>::type;
template <class T> struct is_float { static const bool value = false; };
template <> struct is_float<float> { static const bool value = true; };
template <> struct is_float<double> { static const bool value = true; };

#define BINARY(Name, expression)                                                                   \
  struct Name {                                                                                    \
    template <class T> T operator()(T a, T b) const { return result<T>((T)(expression)); }         \
  }
// 64 bits of unsigned arithmetic have the low bits of all narrower and signed kinds
BINARY(IntAdd, (uint64_t)a + (uint64_t)b);
BINARY(IntSub, (uint64_t)a - (uint64_t)b);
BINARY(IntMul, (uint64_t)a *(uint64_t)b);
BINARY(IntMin, a < b ? a : b);
BINARY(IntMax, a > b ? a : b);
BINARY(And, a &b);
BINARY(Or, a | b);
BINARY(Xor, a ^ b);
BINARY(Add, a + b);
BINARY(Sub, a - b);
BINARY(Mul, a *b);
BINARY(Div, a / b);
// of two zeros the negative one is smaller; of a number and NaN the number is the result
BINARY(Min, a != a ? b : b != b ? a : a < b || (a == b && std::signbit(a)) ? a : b);
BINARY(Max, a != a ? b : b != b ? a : a > b || (a == b && !std::signbit(a)) ? a : b);
struct High {
  template <class T> T operator()(T a, T b) const {
    return (T)((Wide<T>)a * (Wide<T>)b >> (8 * sizeof(T)));
  }
  template <class T>
  using Wide = typename std::conditional<(T)-1 < (T)0, __int128, unsigned __int128>::type;
};
#define UNARY(Name, expression)                                                                    \
  struct Name {                                                                                    \
    template <class T> T operator()(T a) const { return result<T>((T)(expression)); }              \
  }
struct Copied { // bit for bit, NaN too
  template <class T> T operator()(T a) const { return a; }
};
UNARY(Not, ~(uint64_t)a);
UNARY(IntNeg, 0 - (uint64_t)a);
UNARY(IntAbs, a < 0 ? 0 - (uint64_t)a : (uint64_t)a);
UNARY(Neg, -a);
UNARY(Abs, std::fabs(a));
UNARY(Sqrt, std::sqrt(a));
UNARY(Reciprocal, (T)1 / a);
UNARY(NotPredicate, !a);

template <class T, class F> static const Op *unary(Thread &thread, const Op *op) {
  put<T>(thread, op, 0, F()(get<T>(thread, op, 1)));
  return op + 1;
}
template <class T, class F> static const Op *binary(Thread &thread, const Op *op) {
  put<T>(thread, op, 0, F()(get<T>(thread, op, 1), get<T>(thread, op, 2)));
  return op + 1;
}
template <class T, bool REMAINDER> static const Op *divide(Thread &thread, const Op *op) {
  T a = get<T>(thread, op, 1), b = get<T>(thread, op, 2), minus_one = (T)-1;
  if (!b) fail(thread, op, "division by zero");
  if (minus_one < (T)0 && b == minus_one) // the smallest number has no opposite
    put<T>(thread, op, 0, REMAINDER ? (T)0 : (T)(0 - (uint64_t)a));
  else
    put<T>(thread, op, 0, REMAINDER ? (T)(a % b) : (T)(a / b));
  return op + 1;
}
template <class T, class WIDE> static const Op *mul_wide(Thread &thread, const Op *op) {
  put<WIDE>(thread, op, 0, (WIDE)((WIDE)get<T>(thread, op, 1) * (WIDE)get<T>(thread, op, 2)));
  return op + 1;
}
template <class T, class WIDE> static const Op *mad_wide(Thread &thread, const Op *op) {
  WIDE product = (WIDE)((WIDE)get<T>(thread, op, 1) * (WIDE)get<T>(thread, op, 2));
  put<WIDE>(thread, op, 0, (WIDE)((uint64_t)product + (uint64_t)get<WIDE>(thread, op, 3)));
  return op + 1;
}
template <class T> static const Op *mad_low(Thread &thread, const Op *op) {
  put<T>(thread, op, 0,
         (T)((uint64_t)get<T>(thread, op, 1) * (uint64_t)get<T>(thread, op, 2) +
             (uint64_t)get<T>(thread, op, 3)));
  return op + 1;
}
template <class T> static const Op *fused(Thread &thread, const Op *op) {
  T a = get<T>(thread, op, 1), b = get<T>(thread, op, 2), c = get<T>(thread, op, 3);
  put<T>(thread, op, 0, result<T>(std::fma(a, b, c)));
  return op + 1;
}
template <class T> static const Op *shift_left(Thread &thread, const Op *op) {
  unsigned by = get<uint32_t>(thread, op, 2);
  put<T>(thread, op, 0, by >= 8 * sizeof(T) ? (T)0 : (T)(get<T>(thread, op, 1) << by));
  return op + 1;
}
template <class T> static const Op *shift_right(Thread &thread, const Op *op) {
  unsigned by = get<uint32_t>(thread, op, 2), most = 8 * sizeof(T) - 1;
  T a = get<T>(thread, op, 1);
  put<T>(thread, op, 0, by <= most ? (T)(a >> by) : a < 0 ? (T)-1 : (T)0);
  return op + 1;
}
template <class T> static const Op *select(Thread &thread, const Op *op) {
  put<T>(thread, op, 0, get<T>(thread, op, thread.slots[op->slots[3]] ? 1 : 2));
  return op + 1;
}

// ---- comparisons; those of PTX that end in u are true if a number is NaN

#define COMPARE(Name, expression)                                                                  \
  struct Name {                                                                                    \
    template <class T> bool operator()(T a, T b) const { return expression; }                      \
  }
COMPARE(Equal, a == b);
COMPARE(Unequal, (a < b) | (a > b)); // false if a number is NaN
COMPARE(Less, a < b);
COMPARE(LessEqual, a <= b);
COMPARE(Greater, a > b);
COMPARE(GreaterEqual, a >= b);
COMPARE(Numbers, a == a && b == b);
template <class F> struct Inverse {
  template <class T> bool operator()(T a, T b) const { return !F()(a, b); }
};
template <class T, class F> static const Op *compare(Thread &thread, const Op *op) {
  put<uint8_t>(thread, op, 0, F()(get<T>(thread, op, 1), get<T>(thread, op, 2)));
  return op + 1;
}

// ---- bits

template <class T>
static const Op *field_insert(Thread &thread, const Op *op) { // d, a, b, c, count
  unsigned width = 8 * sizeof(T), at = get<uint32_t>(thread, op, 3) & 255;
  unsigned count = std::min(get<uint32_t>(thread, op, 4) & 255, width);
  T mask = count == width ? (T) ~(T)0 : (T)(((T)1 << count) - 1), b = get<T>(thread, op, 2);
  if (at >= width)
    put<T>(thread, op, 0, b);
  else
    put<T>(thread, op, 0, (T)((b & ~(mask << at)) | (get<T>(thread, op, 1) & mask) << at));
  return op + 1;
}
template <class T> static const Op *field_extract(Thread &thread, const Op *op) { // d, a, at, count
  unsigned width = 8 * sizeof(T), at = get<uint32_t>(thread, op, 2) & 255;
  unsigned count = get<uint32_t>(thread, op, 3) & 255;
  T a = get<T>(thread, op, 1), out = 0;
  Unsigned<T> all = (Unsigned<T>)a;
  bool sign = a < 0 && count; // of signed kinds, the highest bit of the field is repeated
  if (sign || (T)-1 < (T)0) sign = count && all >> std::min(at + count - 1, width - 1) & 1;
  for (unsigned i = 0; i < width; i++)
    if (i < count && at + i < width ? all >> (at + i) & 1 : sign) out |= (T)((Unsigned<T>)1 << i);
  put<T>(thread, op, 0, out);
  return op + 1;
}
static const Op *table_of_three(Thread &thread, const Op *op) { // lop3
  uint32_t a = get<uint32_t>(thread, op, 1), b = get<uint32_t>(thread, op, 2), out = 0;
  uint32_t c = get<uint32_t>(thread, op, 3), table = get<uint32_t>(thread, op, 4);
  for (int i = 0; i < 8; i++)
    if (table >> i & 1) out |= (i & 4 ? a : ~a) & (i & 2 ? b : ~b) & (i & 1 ? c : ~c);
  put<uint32_t>(thread, op, 0, out);
  return op + 1;
}
static const Op *permute(Thread &thread, const Op *op) { // prmt
  uint64_t from = (uint64_t)get<uint32_t>(thread, op, 2) << 32 | get<uint32_t>(thread, op, 1);
  uint32_t choice = get<uint32_t>(thread, op, 3), out = 0;
  for (int i = 0; i < 4; i++) {
    uint32_t byte = from >> (choice >> 4 * i & 7) * 8 & 255;
    if (choice >> 4 * i & 8) byte = byte & 128 ? 255 : 0; // the sign alone
    out |= byte << 8 * i;
  }
  put<uint32_t>(thread, op, 0, out);
  return op + 1;
}
template <bool LEFT, bool WRAP> static const Op *funnel(Thread &thread, const Op *op) { // shf
  uint64_t both = (uint64_t)get<uint32_t>(thread, op, 2) << 32 | get<uint32_t>(thread, op, 1);
  unsigned by = get<uint32_t>(thread, op, 3);
  by = WRAP ? by & 31 : std::min(by, 32u);
  put<uint32_t>(thread, op, 0, (uint32_t)(LEFT ? both << by >> 32 : both >> by));
  return op + 1;
}
template <class T, class PART> static const Op *pack(Thread &thread, const Op *op) {
  T out = 0;
  for (unsigned i = 0; i < sizeof(T) / sizeof(PART); i++)
    out |= (T)((T)get<PART>(thread, op, (int)i + 1) << (8 * sizeof(PART) * i));
  put<T>(thread, op, 0, out);
  return op + 1;
}
template <class T, class PART> static const Op *unpack(Thread &thread, const Op *op) {
  int parts = (int)(sizeof(T) / sizeof(PART));
  T all = get<T>(thread, op, parts);
  for (int i = 0; i < parts; i++)
    put<PART>(thread, op, i, (PART)(all >> (8 * sizeof(PART) * (unsigned)i)));
  return op + 1;
}

// ------------------------------------------------------------------------------------- conversions

enum Rounding { NONE, TO_ZERO, TO_EVEN, DOWN, UP };

template <class T> static inline T round_to_integer(T value, Rounding rounding) {
  switch (rounding) {
    case TO_ZERO: return std::trunc(value);
    case TO_EVEN: return std::nearbyint(value); // the mode of the program is never changed
    case DOWN: return std::floor(value);
    case UP: return std::ceil(value);
    default: return value;
  }
}
// Float to integer keeps to the range of the result; NaN becomes 0.
template <class TO, class FROM> static inline TO to_integer(FROM value) {
  const TO most = (TO)((TO)-1 < (TO)0 ? ((Unsigned<TO>)~(Unsigned<TO>)0 >> 1) : ~(Unsigned<TO>)0);
  const TO least = (TO)-1 < (TO)0 ? (TO)(-most - 1) : (TO)0;
  FROM limit = std::ldexp((FROM)1, 8 * (int)sizeof(TO) - ((TO)-1 < (TO)0));
  if (value != value) return 0;
  if (value >= limit) return most;
  if (value <= ((TO)-1 < (TO)0 ? -limit : (FROM)0)) return least;
  return (TO)value;
}
template <class TO, class FROM, Rounding ROUNDING>
static const Op *convert(Thread &thread, const Op *op) {
  FROM value = get<FROM>(thread, op, 1);
  if constexpr (is_float<FROM>::value) {
    FROM rounded = round_to_integer(value, ROUNDING);
    if constexpr (is_float<TO>::value)
      put<TO>(thread, op, 0, result<TO>((TO)rounded));
    else
      put<TO>(thread, op, 0, to_integer<TO, FROM>(rounded));
  } else {
    put<TO>(thread, op, 0, (TO)value);
  }
  return op + 1;
}

static float from_half(uint32_t half) {
  uint32_t sign = (half & 0x8000) << 16, exponent = half >> 10 & 31, low = half & 1023;
  if (exponent == 31) return as<float>(low ? 0x7fffffff : sign | 0x7f800000);
  float size =
      exponent ? std::ldexp((float)(low + 1024), (int)exponent - 25) : std::ldexp((float)low, -24);
  return sign ? -size : size;
}
static uint16_t to_half(float value) { // to nearest even: by scaling to a multiple of one unit
  uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  float size = std::fabs(value);
  int exponent = 0;
  if (value != value) return 0x7fff;
  if (size >= 65520) return sign | 0x7c00;
  std::frexp(size, &exponent);
  exponent = size > 0 ? std::max(exponent - 11, -24) : -24;
  uint32_t units = (uint32_t)std::nearbyint(std::ldexp(size, -exponent));
  // a unit more than fits is the first number of the next exponent
  return (uint16_t)(sign | (exponent == -24 ? units : units + ((uint32_t)(exponent + 24) << 10)));
}
static float from_bfloat(uint32_t half) { return as<float>(half << 16); }
static uint16_t to_bfloat(float value) {
  uint32_t all = (uint32_t)bits(value);
  return (uint16_t)(value != value ? 0x7fff : (all + 0x7fff + (all >> 16 & 1)) >> 16);
}
static uint32_t to_tf32(float value) { // ties away from zero
  uint32_t all = (uint32_t)bits(value);
  return (all & 0x7f800000) == 0x7f800000 ? all : (all + 0x1000) & 0xffffe000;
}
static float from_tf32(uint32_t all) { return as<float>(all & 0xffffe000); } // the rest is ignored

template <float (*F)(uint32_t)> static const Op *widen(Thread &thread, const Op *op) {
  put<float>(thread, op, 0, F(get<uint16_t>(thread, op, 1)));
  return op + 1;
}
template <class T, T (*F)(float)> static const Op *narrow(Thread &thread, const Op *op) {
  put<T>(thread, op, 0, F(get<float>(thread, op, 1)));
  return op + 1;
}
template <uint16_t (*F)(float)> static const Op *narrow_pair(Thread &thread, const Op *op) {
  uint32_t high = F(get<float>(thread, op, 1)), low = F(get<float>(thread, op, 2));
  put<uint32_t>(thread, op, 0, high << 16 | low);
  return op + 1;
}

// -------------------------------------------------------------------- control and warp collectives

static const Op *branch(Thread &, const Op *op) { return op + op->few[0]; }
static const Op *stop(Thread &thread, const Op *op, State state) {
  thread.state = state;
  thread.at = op;
  return nullptr;
}
static const Op *leave(Thread &thread, const Op *op) {
  copy_finish(thread, op, thread.pending.size());
  return stop(thread, op, DONE);
}
static const Op *barrier(Thread &thread, const Op *op) { return stop(thread, op, AT_BARRIER); }
static const Op *collective(Thread &thread, const Op *op) { return stop(thread, op, AT_WARP); }
static const Op *to_generic(Thread &thread, const Op *op) {
  put<uint64_t>(thread, op, 0, get<uint32_t>(thread, op, 1) + WINDOW);
  return op + 1;
}
static const Op *to_shared(Thread &thread, const Op *op) {
  uint64_t at = get<uint64_t>(thread, op, 1);
  if (at < WINDOW) fail(thread, op, "not an address of shared memory");
  put<uint64_t>(thread, op, 0, at - WINDOW);
  return op + 1;
}

static void sync_warp(Thread *lanes, unsigned mask, const Op *) {
  for (unsigned i = 0; i < 32; i++)
    if (mask >> i & 1) lanes[i].syncs++;
}

// The lane that `lane` of a shuffle reads: PTX ISA, shfl.sync; clamp holds a bound and a segment.
enum Shuffle { UP_BY, DOWN_BY, BUTTERFLY, INDEX };
static int shuffle_source(Shuffle kind, int lane, uint32_t by, uint32_t clamp, bool *inside) {
  int segment = (int)(clamp >> 8 & 31), bound = (int)(clamp & 31), b = (int)(by & 31);
  int most = (lane & segment) | (bound & ~segment), least = lane & segment, from = lane;
  switch (kind) {
    case UP_BY:
      from = lane - b;
      *inside = from >= most;
      break;
    case DOWN_BY:
      from = lane + b;
      *inside = from <= most;
      break;
    case BUTTERFLY:
      from = lane ^ b;
      *inside = from <= most;
      break;
    case INDEX:
      from = least | (b & ~segment);
      *inside = from <= most;
      break;
  }
  return *inside ? from : lane;
}
template <Shuffle KIND> // d, predicate, a, b, c, mask
static void shuffle(Thread *lanes, unsigned mask, const Op *op) {
  uint32_t in[32], out[32];
  bool inside[32];
  for (unsigned i = 0; i < 32; i++)
    if (mask >> i & 1) in[i] = get<uint32_t>(lanes[i], op, 2);
  for (unsigned i = 0; i < 32; i++) {
    if (!(mask >> i & 1)) continue;
    int from = shuffle_source(KIND, (int)i, get<uint32_t>(lanes[i], op, 3),
                              get<uint32_t>(lanes[i], op, 4), &inside[i]);
    if (!(mask >> from & 1)) fail(lanes[i], op, "shuffle from a lane outside the mask");
    out[i] = in[from];
  }
  for (unsigned i = 0; i < 32; i++) {
    if (!(mask >> i & 1)) continue;
    put<uint32_t>(lanes[i], op, 0, out[i]);
    if (op->slots[1]) put<uint8_t>(lanes[i], op, 1, inside[i]);
  }
}

enum Vote { BALLOT, ANY, ALL, UNIFORM };
template <Vote KIND> static void vote(Thread *lanes, unsigned mask, const Op *op) { // d, a, mask
  uint32_t yes = 0;
  for (unsigned i = 0; i < 32; i++)
    if ((mask >> i & 1) && (get<uint8_t>(lanes[i], op, 1) & 1)) yes |= 1u << i;
  uint32_t out = KIND == BALLOT ? yes : KIND == ANY ? yes != 0 : yes == mask;
  if (KIND == UNIFORM) out = yes == mask || !yes;
  for (unsigned i = 0; i < 32; i++)
    if (mask >> i & 1) put<uint32_t>(lanes[i], op, 0, out);
}

// Matrices of 8 rows of 8 elements of 16 bits. Lane 8m+r has the address of row r of matrix m; lane
// 4r+c gets elements 2c and 2c+1 of row r, or of column r.
template <int COUNT, bool TURNED> static void load_matrix(Thread *lanes, unsigned, const Op *op) {
  uint16_t matrix[COUNT][8][8]; // all of them first: a destination may be the address as well
  for (int i = 0; i < 8 * COUNT; i++)
    memcpy(matrix[i / 8][i % 8], memory_at<SHARED_SPACE>(lanes[i], op, COUNT, 16, LOAD), 16);
  for (int m = 0; m < COUNT; m++)
    for (int i = 0; i < 32; i++) {
      int r = i / 4, c = i % 4 * 2;
      uint32_t low = TURNED ? matrix[m][c][r] : matrix[m][r][c];
      uint32_t high = TURNED ? matrix[m][c + 1][r] : matrix[m][r][c + 1];
      put<uint32_t>(lanes[i], op, m, high << 16 | low);
    }
}

// D = A (16, K) B (K, 8) + C of floats, with EACH elements of A or B in a register. Source: PTX
// ISA, fragments of mma.m16n8k4, k8 and k16: with g = lane / 4 and t = lane % 4, register 2h + i of
// A has row g + 8i, register h of B column g, both from depth (4h + t) EACH on; C and D have (g,
// 2t), (g, 2t+1), (g+8, 2t), (g+8, 2t+1). Products are exact, sums in double, rounded once; a GPU
// may lose more.
template <int K, int EACH, float (*F)(uint32_t)>
static void matrix_product(Thread *lanes, unsigned, const Op *op) {
  enum { HALVES = K / 4 / EACH, A = 4, B = A + 2 * HALVES, C = B + HALVES };
  double a[16][K], b[8][K];
  float out[32][4];
  auto element = [&](int lane, int slot, int k) {
    uint32_t all = get<uint32_t>(lanes[lane], op, slot);
    return (double)F(EACH == 1 ? all : all >> (16 * (k % EACH)) & 0xffff);
  };
  for (int k = 0; k < K; k++)
    for (int row = 0, t = k / EACH % 4, h = k / EACH / 4; row < 16; row++) {
      a[row][k] = element(row % 8 * 4 + t, A + 2 * h + row / 8, k);
      if (row < 8) b[row][k] = element(row * 4 + t, B + h, k);
    }
  for (int i = 0; i < 128; i++) {
    int lane = i / 4, row = lane / 4 + i % 4 / 2 * 8, column = lane % 4 * 2 + i % 2;
    double sum = (double)get<float>(lanes[lane], op, C + i % 4);
    for (int k = 0; k < K; k++) sum += a[row][k] * b[column][k];
    out[lane][i % 4] = result<float>((float)sum);
  }
  for (int i = 0; i < 128; i++) put<float>(lanes[i / 4], op, i % 4, out[i / 4][i % 4]);
}

// ------------------------------------------------------------------------- the list of all of them

struct Recipe {
  Handler run;
  Together together;
  size_t operands; // slots that it takes
  int mask;        // of collectives: which of them names the lanes; -1: all lanes of the warp
};
typedef std::unordered_map<std::string, Recipe> Recipes;

template <class T> static std::vector<std::string> names() {
  std::string width = std::to_string(8 * sizeof(T));
  if (is_float<T>::value) return {"f" + width};
  if ((T)-1 < (T)0) return {"s" + width};
  return {"u" + width, "b" + width};
}
template <class T>
static void add(Recipes &all, const std::string &name, size_t operands, Handler run) {
  for (const std::string &type : names<T>()) all[name + type] = {run, nullptr, operands, -1};
}
template <class F, class... T> static void add_unary(Recipes &all, const std::string &name) {
  (add<T>(all, name, 2, unary<T, F>), ...);
}
template <class F, class... T> static void add_binary(Recipes &all, const std::string &name) {
  (add<T>(all, name, 3, binary<T, F>), ...);
}
template <class F, class... T> static void add_compare(Recipes &all, const std::string &name) {
  (add<T>(all, "setp." + name + ".", 3, compare<T, F>), ...);
}

#define SIGNED int16_t, int32_t, int64_t
#define UNSIGNED uint16_t, uint32_t, uint64_t
#define INTEGERS SIGNED, UNSIGNED
#define FLOATS float, double

template <class... T> static void add_integers(Recipes &all) {
  add_binary<IntAdd, T...>(all, "add.");
  add_binary<IntSub, T...>(all, "sub.");
  add_binary<IntMul, T...>(all, "mul.lo.");
  add_binary<IntMin, T...>(all, "min.");
  add_binary<IntMax, T...>(all, "max.");
  (add<T>(all, "div.", 3, divide<T, false>), ...);
  (add<T>(all, "rem.", 3, divide<T, true>), ...);
  (add<T>(all, "mad.lo.", 4, mad_low<T>), ...);
  (add<T>(all, "shr.", 3, shift_right<T>), ...);
}
template <class T, class WIDE> static void add_wide(Recipes &all) {
  add<T>(all, "mul.wide.", 3, mul_wide<T, WIDE>);
  add<T>(all, "mad.wide.", 4, mad_wide<T, WIDE>);
}
static void add_arithmetic(Recipes &all) {
  add_integers<INTEGERS>(all);
  add_wide<int16_t, int32_t>(all);
  add_wide<int32_t, int64_t>(all);
  add_wide<uint16_t, uint32_t>(all);
  add_wide<uint32_t, uint64_t>(all);
  add_binary<High, int32_t, int64_t, uint32_t, uint64_t>(all, "mul.hi.");
  add_unary<IntNeg, SIGNED>(all, "neg.");
  add_unary<IntAbs, SIGNED>(all, "abs.");
  for (std::string rounding : {"", "rn."}) {
    add_binary<Add, FLOATS>(all, "add." + rounding);
    add_binary<Sub, FLOATS>(all, "sub." + rounding);
    add_binary<Mul, FLOATS>(all, "mul." + rounding);
  }
  add_binary<Div, FLOATS>(all, "div.rn.");
  add_binary<Min, FLOATS>(all, "min.");
  add_binary<Max, FLOATS>(all, "max.");
  add_unary<Neg, FLOATS>(all, "neg.");
  add_unary<Abs, FLOATS>(all, "abs.");
  add_unary<Sqrt, FLOATS>(all, "sqrt.rn.");
  add_unary<Reciprocal, FLOATS>(all, "rcp.rn.");
  add<float>(all, "fma.rn.", 4, fused<float>);
  add<double>(all, "fma.rn.", 4, fused<double>);
}

template <class... T> static void add_fields(Recipes &all) {
  (add<T>(all, "bfe.", 4, field_extract<T>), ...);
}
static void add_bits(Recipes &all) {
  add_binary<And, UNSIGNED>(all, "and.");
  add_binary<Or, UNSIGNED>(all, "or.");
  add_binary<Xor, UNSIGNED>(all, "xor.");
  add_unary<Not, UNSIGNED>(all, "not.");
  add<uint16_t>(all, "shl.", 3, shift_left<uint16_t>);
  add<uint32_t>(all, "shl.", 3, shift_left<uint32_t>);
  add<uint64_t>(all, "shl.", 3, shift_left<uint64_t>);
  add<uint32_t>(all, "bfi.", 5, field_insert<uint32_t>);
  add<uint64_t>(all, "bfi.", 5, field_insert<uint64_t>);
  add_fields<int32_t, int64_t, uint32_t, uint64_t>(all);
  all["lop3.b32"] = {table_of_three, nullptr, 5, -1};
  all["prmt.b32"] = {permute, nullptr, 4, -1};
  all["shf.l.wrap.b32"] = {funnel<true, true>, nullptr, 4, -1};
  all["shf.l.clamp.b32"] = {funnel<true, false>, nullptr, 4, -1};
  all["shf.r.wrap.b32"] = {funnel<false, true>, nullptr, 4, -1};
  all["shf.r.clamp.b32"] = {funnel<false, false>, nullptr, 4, -1};
  // mov with braces, see Parser::decode
  all["pack.b32"] = {pack<uint32_t, uint16_t>, nullptr, 3, -1};
  all["pack.b64"] = {pack<uint64_t, uint32_t>, nullptr, 3, -1};
  all["unpack.b32"] = {unpack<uint32_t, uint16_t>, nullptr, 3, -1};
  all["unpack.b64"] = {unpack<uint64_t, uint32_t>, nullptr, 3, -1};
}

static void add_predicates(Recipes &all) {
  all["and.pred"] = {binary<uint8_t, And>, nullptr, 3, -1};
  all["or.pred"] = {binary<uint8_t, Or>, nullptr, 3, -1};
  all["xor.pred"] = {binary<uint8_t, Xor>, nullptr, 3, -1};
  all["not.pred"] = {unary<uint8_t, NotPredicate>, nullptr, 2, -1};
  all["mov.pred"] = {unary<uint8_t, Copied>, nullptr, 2, -1};
  add_compare<Equal, INTEGERS, FLOATS>(all, "eq");
  add_compare<Inverse<Equal>, INTEGERS>(all, "ne");
  add_compare<Unequal, FLOATS>(all, "ne");
  add_compare<Less, INTEGERS, FLOATS>(all, "lt");
  add_compare<LessEqual, INTEGERS, FLOATS>(all, "le");
  add_compare<Greater, INTEGERS, FLOATS>(all, "gt");
  add_compare<GreaterEqual, INTEGERS, FLOATS>(all, "ge");
  add_compare<Less, UNSIGNED>(all, "lo");
  add_compare<LessEqual, UNSIGNED>(all, "ls");
  add_compare<Greater, UNSIGNED>(all, "hi");
  add_compare<GreaterEqual, UNSIGNED>(all, "hs");
  add_compare<Inverse<Unequal>, FLOATS>(all, "equ");
  add_compare<Inverse<Equal>, FLOATS>(all, "neu");
  add_compare<Inverse<GreaterEqual>, FLOATS>(all, "ltu");
  add_compare<Inverse<Greater>, FLOATS>(all, "leu");
  add_compare<Inverse<LessEqual>, FLOATS>(all, "gtu");
  add_compare<Inverse<Less>, FLOATS>(all, "geu");
  add_compare<Numbers, FLOATS>(all, "num");
  add_compare<Inverse<Numbers>, FLOATS>(all, "nan");
}

template <class TO, class FROM>
static void add_convert(Recipes &all, const std::string &rounding, Handler run) {
  for (const std::string &to : names<TO>()) add<FROM>(all, "cvt." + rounding + to + ".", 2, run);
}
template <class TO, class FROM> static void add_to_integer(Recipes &all) {
  add_convert<TO, FROM>(all, "rzi.", convert<TO, FROM, TO_ZERO>);
  add_convert<TO, FROM>(all, "rni.", convert<TO, FROM, TO_EVEN>);
  add_convert<TO, FROM>(all, "rmi.", convert<TO, FROM, DOWN>);
  add_convert<TO, FROM>(all, "rpi.", convert<TO, FROM, UP>);
}
template <class T, class... OTHERS> static void add_convert_with(Recipes &all) {
  (add_convert<T, OTHERS>(all, "", convert<T, OTHERS, NONE>), ...);
  add_convert<float, T>(all, "rn.", convert<float, T, NONE>);
  add_convert<double, T>(all, "rn.", convert<double, T, NONE>);
  add_to_integer<T, float>(all);
  add_to_integer<T, double>(all);
}
template <class... T> static void add_conversions(Recipes &all) {
  (add_convert_with<T, T...>(all), ...);
  add_to_integer<float, float>(all);
  add_to_integer<double, double>(all);
  add_convert<double, float>(all, "", convert<double, float, NONE>);
  add_convert<float, double>(all, "rn.", convert<float, double, NONE>);
  all["cvt.f32.f16"] = {widen<from_half>, nullptr, 2, -1};
  all["cvt.f32.bf16"] = {widen<from_bfloat>, nullptr, 2, -1};
  all["cvt.rn.f16.f32"] = {narrow<uint16_t, to_half>, nullptr, 2, -1};
  all["cvt.rn.bf16.f32"] = {narrow<uint16_t, to_bfloat>, nullptr, 2, -1};
  all["cvt.rna.tf32.f32"] = {narrow<uint32_t, to_tf32>, nullptr, 2, -1};
  all["cvt.rn.f16x2.f32"] = {narrow_pair<to_half>, nullptr, 3, -1};
  all["cvt.rn.bf16x2.f32"] = {narrow_pair<to_bfloat>, nullptr, 3, -1};
}

template <class T, Space SPACE> static void add_space(Recipes &all, const std::string &space) {
  add<T>(all, "ld." + space, 3, load<T, SPACE, 1>);
  add<T>(all, "ld." + space + "v2.", 4, load<T, SPACE, 2>);
  if (sizeof(T) < 8) add<T>(all, "ld." + space + "v4.", 6, load<T, SPACE, 4>);
  if (SPACE == PARAM) return;
  add<T>(all, "st." + space, 3, store<T, SPACE, 1>);
  add<T>(all, "st." + space + "v2.", 4, store<T, SPACE, 2>);
  if (sizeof(T) < 8) add<T>(all, "st." + space + "v4.", 6, store<T, SPACE, 4>);
}
template <class... T> static void add_memory(Recipes &all) {
  (add_space<T, PARAM>(all, "param."), ...);
  (add_space<T, SHARED_SPACE>(all, "shared."), ...);
  (add_space<T, GLOBAL>(all, "global."), ...);
  (add_space<T, GENERIC>(all, ""), ...);
  (add<T>(all, "selp.", 4, select<T>), ...);
  add_unary<Copied, T...>(all, "mov.");
  all["cvta.to.global.u64"] = all["cvta.global.u64"] = all["mov.u64"];
  all["cvta.shared.u64"] = {to_generic, nullptr, 2, -1};
  all["cvta.to.shared.u64"] = {to_shared, nullptr, 2, -1};
  all["cp.async.ca.shared.global"] = {copy_begin, nullptr, 6, -1};
  all["cp.async.cg.shared.global"] = {copy_begin, nullptr, 6, -1};
  all["cp.async.commit_group"] = {copy_commit, nullptr, 0, -1};
  all["cp.async.wait_group"] = {copy_wait, nullptr, 1, -1};
  all["cp.async.wait_all"] = {copy_wait_all, nullptr, 0, -1};
}

template <int K, int EACH, float (*F)(uint32_t)>
static void add_product(Recipes &all, const std::string &type) {
  std::string name = "mma.sync.aligned.m16n8k" + std::to_string(K) + ".row.col.f32.";
  all[name + type + "." + type + ".f32"] = {collective, matrix_product<K, EACH, F>,
                                            8 + 3 * K / 4 / EACH, -1};
}
static void add_collectives(Recipes &all) {
  std::string load = "ldmatrix.sync.aligned.m8n8.";
  all["bra"] = all["bra.uni"] = {branch, nullptr, 1, -1};
  all["ret"] = all["exit"] = {leave, nullptr, 0, -1};
  all["bar.sync"] = all["barrier.sync"] = {barrier, nullptr, 1, -1};
  all["bar.warp.sync"] = {collective, sync_warp, 1, 0};
  all["shfl.sync.up.b32"] = {collective, shuffle<UP_BY>, 6, 5};
  all["shfl.sync.down.b32"] = {collective, shuffle<DOWN_BY>, 6, 5};
  all["shfl.sync.bfly.b32"] = {collective, shuffle<BUTTERFLY>, 6, 5};
  all["shfl.sync.idx.b32"] = {collective, shuffle<INDEX>, 6, 5};
  all["vote.sync.ballot.b32"] = {collective, vote<BALLOT>, 3, 2};
  all["vote.sync.any.pred"] = {collective, vote<ANY>, 3, 2};
  all["vote.sync.all.pred"] = {collective, vote<ALL>, 3, 2};
  all["vote.sync.uni.pred"] = {collective, vote<UNIFORM>, 3, 2};
  all[load + "x1.shared.b16"] = {collective, load_matrix<1, false>, 3, -1};
  all[load + "x2.shared.b16"] = {collective, load_matrix<2, false>, 4, -1};
  all[load + "x4.shared.b16"] = {collective, load_matrix<4, false>, 6, -1};
  all[load + "x1.trans.shared.b16"] = {collective, load_matrix<1, true>, 3, -1};
  all[load + "x2.trans.shared.b16"] = {collective, load_matrix<2, true>, 4, -1};
  all[load + "x4.trans.shared.b16"] = {collective, load_matrix<4, true>, 6, -1};
  add_product<4, 1, from_tf32>(all, "tf32");
  add_product<8, 1, from_tf32>(all, "tf32");
  add_product<8, 2, from_half>(all, "f16");
  add_product<16, 2, from_half>(all, "f16");
  add_product<8, 2, from_bfloat>(all, "bf16");
  add_product<16, 2, from_bfloat>(all, "bf16");
}

static Recipes all_recipes() {
  Recipes all;
  add_arithmetic(all);
  add_bits(all);
  add_predicates(all);
  add_conversions<int8_t, uint8_t, INTEGERS>(all);
  add_memory<int8_t, uint8_t, INTEGERS, FLOATS>(all);
  add_collectives(all);
  return all;
}

// ------------------------------------------------------------------------------------------ parser

static const char *const SPACES = " \t\r\n";

static std::string trimmed(const std::string &text) {
  size_t begin = text.find_first_not_of(SPACES), end = text.find_last_not_of(SPACES);
  return begin == std::string::npos ? "" : text.substr(begin, end - begin + 1);
}
// At the commas outside of all brackets.
static std::vector<std::string> split(const std::string &text) {
  std::vector<std::string> parts;
  int depth = 0;
  if (trimmed(text).empty()) return parts;
  parts.emplace_back();
  for (char c : text) {
    depth += (c == '{' || c == '[') - (c == '}' || c == ']');
    if (c == ',' && !depth)
      parts.emplace_back();
    else
      parts.back() += c;
  }
  for (std::string &part : parts) part = trimmed(part);
  return parts;
}
static std::vector<std::string> words_of(const std::string &text) {
  std::vector<std::string> words;
  for (size_t at = 0; (at = text.find_first_not_of(SPACES, at)) != std::string::npos;) {
    size_t end = std::min(text.find_first_of(SPACES, at), text.size());
    words.push_back(text.substr(at, end - at));
    at = end;
  }
  return words;
}
static bool starts(const std::string &text, const char *with) {
  return !text.compare(0, strlen(with), with);
}
static void erase_all(std::string &text, const char *what) {
  for (size_t at; (at = text.find(what)) != std::string::npos;) text.erase(at, strlen(what));
}
static size_t number(const std::string &text, size_t at) {
  return strtoul(text.c_str() + std::min(at, text.size()), nullptr, 10);
}
static size_t rounded_up(size_t size, size_t align) { return (size + align - 1) / align * align; }

struct Range { // of registers: %r<9> is %r0 to %r8
  int first, count;
};
struct Scope {
  std::unordered_map<std::string, int> slots;
  std::unordered_map<std::string, Range> ranges;
};

struct Parser {
  Module &module;
  const Recipes recipes = all_recipes();
  std::string text; // without comments
  size_t at = 0;
  int line = 1;
  Kernel *kernel = nullptr;                       // the one that is read
  std::vector<Scope> scopes;                      // its names, the innermost last
  std::map<std::string, Variable> shared, global; // variables of the kernel and outside of kernels
  std::unordered_map<std::string, int> labels;
  std::unordered_map<uint64_t, int> constants;
  std::vector<std::pair<int, std::string>> jumps; // instructions and where they go
  std::pair<int, size_t> dynamic;                 // slot and alignment of dynamic shared memory

  Parser(Module &into, const std::string &from);
  [[noreturn]] void refuse(const std::string &why) const {
    throw Error("ptx line " + std::to_string(line) + ": " + why);
  }
  void skip_spaces();
  std::string until(const char *ends);
  void parse();
  void declare(const std::string &declaration);
  void entry(const std::string &declaration);
  void parameters(const std::string &list);
  void body();
  void finish_kernel();
  void registers(const std::string &declaration);
  void statement(std::string words);
  std::string plain_name(std::string name, const std::vector<std::string> &operands) const;
  void decode(const std::string &name, const std::string &rest, int guard);
  void operand(const std::string &operand, std::vector<int> &slots);
  int slot_of(const std::string &name);
  int find(const std::string &name) const;
  int constant(uint64_t value);
  int place(const std::string &name, const Variable &variable);
};

Parser::Parser(Module &into, const std::string &from) : module(into), dynamic(0, 0) {
  bool comment = false;
  module.lines.emplace_back();
  for (size_t i = 0; i < from.size(); i++) {
    if (from[i] == '\n') {
      module.lines.emplace_back();
      comment = false;
    } else {
      comment |= !from.compare(i, 2, "//");
      module.lines.back() += from[i];
    }
    if (!comment) text += from[i];
  }
  if (text.find("/*") != std::string::npos) refuse("comments of C are not supported");
  for (std::string &each : module.lines) each = trimmed(each);
}

void Parser::skip_spaces() {
  for (; at < text.size() && strchr(SPACES, text[at]); at++) line += text[at] == '\n';
}
// The text up to one of the characters `ends`, and past it.
std::string Parser::until(const char *ends) {
  size_t end = text.find_first_of(ends, at);
  if (end == std::string::npos) refuse("the text ends early");
  std::string part = text.substr(at, end - at);
  line += (int)std::count(part.begin(), part.end(), '\n') + (text[end] == '\n');
  at = end + 1;
  return part;
}

void Parser::parse() {
  for (skip_spaces(); at < text.size(); skip_spaces()) {
    std::string start = text.substr(at, 16);
    if (starts(start, ".version") || starts(start, ".target") || starts(start, ".address_size")) {
      until("\n");
      continue;
    }
    std::string declaration = until(";(");
    if (text[at - 1] == '(')
      entry(declaration);
    else
      declare(declaration);
  }
}

// ".extern .shared .align 16 .b8 name[]"
void Parser::declare(const std::string &declaration) {
  Variable made = {1, 1, false};
  bool is_shared = false;
  std::string name;
  std::vector<std::string> words = words_of(declaration);
  for (size_t i = 0; i < words.size(); i++) {
    if (words[i] == ".align" && i + 1 < words.size())
      made.align = number(words[++i], 0);
    else if (words[i] == ".shared")
      is_shared = true;
    else if (words[i].size() > 2 && strchr("bsuf", words[i][1]) && number(words[i], 2))
      made.size = number(words[i], 2) / 8;
    else if (words[i][0] != '.')
      name += words[i];
    else if (words[i] != ".extern" && words[i] != ".visible" && words[i] != ".weak")
      refuse("unknown declaration: " + declaration);
  }
  size_t bracket = name.find('[');
  if (!is_shared || name.empty()) refuse("unknown declaration: " + declaration);
  made.align = std::max(made.align, made.size);
  if (bracket != std::string::npos) {
    made.dynamic = name[bracket + 1] == ']';
    made.size *= number(name, bracket + 1);
    name.resize(bracket);
  }
  (kernel ? shared : global)[name] = made;
}

void Parser::entry(const std::string &declaration) {
  std::vector<std::string> words = words_of(declaration);
  if (words.size() < 2 || words[words.size() - 2] != ".entry")
    refuse("unknown declaration: " + declaration);
  module.kernels.emplace_back();
  kernel = &module.kernels.back();
  kernel->name = words.back();
  kernel->lines = &module.lines;
  scopes.assign(1, Scope());
  shared = global;
  labels.clear();
  constants.clear();
  jumps.clear();
  dynamic = {0, 0};
  parameters(until(")"));
  until("{"); // .maxntid and the like bind the compiler
  body();
  finish_kernel();
  kernel = nullptr;
}

// ".param .align 8 .b8 name[24], .param .u32 other"
void Parser::parameters(const std::string &list) {
  for (const std::string &each : split(list)) {
    size_t align = 1, size = 1;
    std::vector<std::string> words = words_of(each);
    for (size_t i = 0; i + 1 < words.size(); i++) {
      if (words[i] == ".align") align = number(words[i + 1], 0);
      if (strchr("bsuf", words[i][1]) && number(words[i], 2)) size = number(words[i], 2) / 8;
    }
    std::string name = words.back();
    size_t bracket = name.find('[');
    align = std::max(align, size);
    if (bracket != std::string::npos) size *= number(name, bracket + 1);
    kernel->parameters = rounded_up(kernel->parameters, align);
    scopes[0].slots[name.substr(0, bracket)] = constant(kernel->parameters);
    kernel->parameters += size;
  }
}

void Parser::body() {
  static const char NAME[] = "$_%ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
  for (;;) {
    skip_spaces();
    if (at >= text.size()) refuse("the text ends early");
    size_t end = std::min(text.find_first_not_of(NAME, at), text.size() - 1);
    int begin = line;
    if (text[at] == '{') {
      scopes.emplace_back();
      at++;
    } else if (text[at] == '}') {
      at++;
      if (scopes.size() == 1) return;
      scopes.pop_back();
    } else if (text[end] == ':') {
      std::string label = until(":");
      if (!labels.emplace(label, (int)kernel->ops.size()).second) refuse("label twice: " + label);
    } else {
      std::string words = until(";");
      std::swap(line, begin); // errors name the line where it begins
      statement(words);
      line = begin;
    }
  }
}

void Parser::finish_kernel() {
  kernel->ops.push_back({leave, nullptr, nullptr, line, 0, {0}});
  for (auto &jump : jumps) {
    auto target = labels.find(jump.second);
    if (target == labels.end()) refuse("unknown label " + jump.second);
    kernel->ops[(size_t)jump.first].few[0] = target->second - jump.first;
  }
  for (Op &op : kernel->ops)
    if (!op.slots) op.slots = op.few;
  if (!dynamic.first) return;
  kernel->shared = rounded_up(kernel->shared, dynamic.second);
  kernel->constants.push_back({dynamic.first, SHARED + kernel->shared});
}

// ".reg .b32 %r<12>" or ".reg .b64 %name, %other"
void Parser::registers(const std::string &declaration) {
  size_t type = declaration.find('.', 4);
  if (type == std::string::npos) refuse("unknown declaration: " + declaration);
  size_t begin = std::min(declaration.find_first_of(SPACES, type), declaration.size());
  for (const std::string &name : split(declaration.substr(begin))) {
    size_t bracket = name.find('<');
    int count = bracket == std::string::npos ? 1 : (int)number(name, bracket + 1);
    if (bracket == std::string::npos)
      scopes.back().slots[name] = kernel->num_slots;
    else
      scopes.back().ranges[name.substr(0, bracket)] = {kernel->num_slots, count};
    kernel->num_slots += count;
  }
}

void Parser::statement(std::string words) {
  int guard = 0;
  if (starts(words, ".reg")) return registers(words);
  if (starts(words, ".pragma")) return;
  if (words[0] == '.') return declare(words);
  if (words[0] == '@') {
    size_t end = std::min(words.find_first_of(SPACES), words.size());
    bool negated = words[1] == '!';
    guard = slot_of(words.substr(1 + negated, end - 1 - negated));
    if (negated) guard = ~guard;
    words = trimmed(words.substr(end));
  }
  size_t end = std::min(words.find_first_of(" \t\r\n{["), words.size());
  decode(words.substr(0, end), words.substr(end), guard);
}

// The name that the list has it under: without what changes nothing here, and mov that packs or
// unpacks as an instruction of its own.
std::string Parser::plain_name(std::string name, const std::vector<std::string> &operands) const {
  if (starts(name, "ld.") || starts(name, "st.")) {
    erase_all(name, ".volatile");
    erase_all(name, ".nc");
  }
  for (const char *hint : {".L2::64B", ".L2::128B", ".L2::256B", "::cta"}) erase_all(name, hint);
  if (starts(name, "barrier.sync")) erase_all(name, ".aligned");
  if (starts(name, "mov.") && operands.size() == 2) {
    if (operands[0][0] == '{') name.replace(0, 3, "unpack");
    if (operands[1][0] == '{') name.replace(0, 3, "pack");
  }
  return name;
}
// What must be a number that is known: the barrier, which is the only one; the size of a copy.
static bool allowed(const std::string &name, const std::vector<std::string> &operands) {
  if (name == "bar.sync" || name == "barrier.sync")
    return operands == std::vector<std::string>{"0"};
  if (starts(name, "cp.async.wait_group")) return operands.size() == 1 && isdigit(operands[0][0]);
  if (!starts(name, "cp.async.c") || operands.empty()) return true;
  if (operands.size() < 3) return false;
  return operands[2] == "16" || (name[10] == 'a' && (operands[2] == "4" || operands[2] == "8"));
}

void Parser::decode(const std::string &name, const std::string &rest, int guard) {
  std::vector<std::string> operands = split(rest);
  Op op = {nullptr, nullptr, nullptr, line, guard, {0}};
  std::vector<int> slots;
  std::string plain = plain_name(name, operands);
  auto found = recipes.find(plain);
  if (found == recipes.end() || !allowed(plain, operands))
    refuse("unknown instruction: " + name + rest);
  bool jump = found->second.run == branch;
  if (jump) jumps.push_back({(int)kernel->ops.size(), operands.empty() ? "" : operands[0]});
  for (const std::string &each : operands) jump ? slots.push_back(0) : operand(each, slots);
  if (starts(name, "shfl") && slots.size() == 5) slots.insert(slots.begin() + 1, 0);
  if (found->second.run == copy_begin && slots.size() == 5) slots.push_back(0);
  op.run = found->second.run;
  op.together = found->second.together;
  if (slots.size() != found->second.operands) refuse("wrong number of operands: " + name + rest);
  if (slots.size() > sizeof op.few / sizeof *op.few) {
    kernel->many.emplace_back();
    std::copy(slots.begin(), slots.end(), kernel->many.back().begin());
    op.slots = kernel->many.back().data();
  } else {
    std::copy(slots.begin(), slots.end(), op.few);
  }
  if (op.together) op.few[MASK] = found->second.mask;
  kernel->ops.push_back(op);
}

// "{a, b}", "[a+8]" (two slots: their sum is the address), "a|b", "a"
void Parser::operand(const std::string &operand, std::vector<int> &slots) {
  std::string inner = trimmed(operand.substr(1, operand.size() < 2 ? 0 : operand.size() - 2));
  size_t bar = operand.find('|'), plus = inner.find_first_of("+-", 1);
  if (operand[0] == '{') {
    for (const std::string &each : split(inner)) this->operand(each, slots);
  } else if (operand[0] == '[') {
    slots.push_back(slot_of(trimmed(inner.substr(0, plus))));
    slots.push_back(plus == std::string::npos
                        ? 0
                        : slot_of(trimmed(inner.substr(plus + (inner[plus] == '+')))));
  } else if (bar != std::string::npos) {
    slots.push_back(slot_of(operand.substr(0, bar)));
    slots.push_back(slot_of(operand.substr(bar + 1)));
  } else {
    slots.push_back(slot_of(operand));
  }
}

int Parser::constant(uint64_t value) {
  int &slot = constants[value];
  if (!slot) {
    slot = kernel->num_slots++;
    kernel->constants.push_back({slot, value});
  }
  return slot;
}

// A variable of shared memory gets its room when it is first mentioned.
int Parser::place(const std::string &name, const Variable &variable) {
  int slot;
  if (variable.dynamic) {
    if (!dynamic.first) dynamic.first = kernel->num_slots++;
    dynamic.second = std::max(dynamic.second, variable.align);
    slot = dynamic.first;
  } else {
    kernel->shared = rounded_up(kernel->shared, variable.align);
    slot = constant(SHARED + kernel->shared);
    kernel->shared += variable.size;
  }
  return scopes[0].slots[name] = slot;
}

int Parser::find(const std::string &name) const { // 0: not declared
  size_t digits = name.find_last_not_of("0123456789") + 1;
  for (size_t i = scopes.size(); i-- > 0;) {
    auto single = scopes[i].slots.find(name);
    if (single != scopes[i].slots.end()) return single->second;
    auto range = scopes[i].ranges.find(name.substr(0, digits));
    if (range == scopes[i].ranges.end() || digits == name.size()) continue;
    size_t index = number(name, digits);
    if (index < (size_t)range->second.count) return range->second.first + (int)index;
  }
  return 0;
}

int Parser::slot_of(const std::string &name) {
  static const char *const specials[] = {
      "%tid.x",   "%tid.y",   "%tid.z",    "%ntid.x",   "%ntid.y",   "%ntid.z", "%ctaid.x",
      "%ctaid.y", "%ctaid.z", "%nctaid.x", "%nctaid.y", "%nctaid.z", "%laneid", "%warpid"};
  int slot = find(name);
  if (slot) return slot;
  auto variable = shared.find(name);
  if (variable != shared.end()) return place(name, variable->second);
  for (size_t i = 0; i < sizeof specials / sizeof *specials; i++)
    if (name == specials[i]) {
      kernel->specials.push_back({kernel->num_slots, (int)i});
      return scopes[0].slots[name] = kernel->num_slots++;
    }
  if (name == "_") return scopes[0].slots[name] = kernel->num_slots++;
  char *end = nullptr;
  bool real = name.size() > 2 && name[0] == '0' && strchr("fd", name[1]);
  uint64_t value = strtoull(name.c_str() + (real ? 2 : 0), &end, real ? 16 : 0);
  if (*end == 'U') end++;
  if (*end || end == name.c_str()) refuse("unknown name " + name);
  return constant(value);
}

Module *load(const std::string &text) {
  std::unique_ptr<Module> module(new Module);
  Parser(*module, text).parse();
  return module.release();
}
void unload(Module *module) { delete module; }

// -------------------------------------------------------------------------------- blocks and grids

static void run_thread(Thread &thread) {
  const Op *op = thread.at;
  unsigned long long executed = 0;
  while (op) {
    executed++;
    int guard = op->guard;
    if (guard && (guard > 0) == !thread.slots[guard > 0 ? guard : ~guard])
      op++;
    else
      op = op->run(thread, op);
  }
  num_instructions += executed;
}

// Lets the lanes go on whose collective is complete; `begin` and `end` bound the warp. What can
// never complete is an error.
static bool release_lanes(Block &block, size_t begin, size_t end, Thread &first) {
  const Op *op = first.at;
  unsigned mask = op->few[MASK] < 0 ? ~0u : get<uint32_t>(first, op, op->few[MASK]);
  if (!(mask >> first.rank % 32 & 1)) fail(first, op, "lane outside its own mask");
  if (end - begin < 32 && mask >> (end - begin)) fail(first, op, "mask beyond the block");
  bool complete = true;
  for (size_t i = begin; i < end; i++) {
    Thread &lane = block.threads[i];
    if (!(mask >> (i - begin) & 1)) continue;
    if (lane.state == DONE) fail(first, op, "warp collective names an exited lane");
    if (lane.state != AT_WARP)
      complete = false;
    else if (lane.at != op)
      fail(first, op,
           "warp collective from two places, also line " + std::to_string(lane.at->line));
    else if (op->few[MASK] >= 0 && get<uint32_t>(lane, op, op->few[MASK]) != mask)
      fail(first, op, "warp collective with two masks");
  }
  if (!complete) return false;
  op->together(&block.threads[begin], mask, op);
  for (size_t i = begin; i < end; i++)
    if (mask >> (i - begin) & 1) {
      block.threads[i].state = READY;
      block.threads[i].at = op + 1;
    }
  return true;
}

static bool release_warps(Block &block) {
  bool any = false;
  for (size_t i = 0; i < block.threads.size(); i++) {
    size_t begin = i / 32 * 32, end = std::min(begin + 32, block.threads.size());
    if (block.threads[i].state == AT_WARP)
      any |= release_lanes(block, begin, end, block.threads[i]);
  }
  return any;
}

static bool release_barrier(Block &block) {
  Thread &first = block.threads[0];
  size_t waiting = 0, done = 0;
  for (Thread &thread : block.threads) {
    waiting += thread.state == AT_BARRIER;
    done += thread.state == DONE;
  }
  if (!waiting || waiting + done < block.threads.size()) return false;
  for (Thread &thread : block.threads)
    if (done && thread.state == AT_BARRIER)
      fail(thread, thread.at, "barrier after a thread of the block has exited");
    else if (thread.at != first.at)
      fail(thread, thread.at, "barrier at two places, also line " + std::to_string(first.at->line));
  for (Thread &thread : block.threads) {
    thread.state = READY;
    thread.at++;
  }
  block.epoch++;
  return true;
}

static void run_threads(Block &block) {
  size_t count = block.threads.size();
  unsigned order = block.launch->order, seed = order;
  std::vector<size_t> line(count);
  for (size_t i = 0; i < count; i++) line[i] = order == 1 ? count - 1 - i : i;
  for (bool going = true; going;) {
    going = false;
    for (size_t i = count; order > 1 && i > 1; i--) {
      seed = seed * 1664525u + 1013904223u;
      std::swap(line[i - 1], line[(seed >> 8) % i]);
    }
    for (size_t i : line)
      if (block.threads[i].state == READY) {
        run_thread(block.threads[i]);
        going = true;
      }
    going |= release_warps(block) || release_barrier(block);
  }
  for (Thread &thread : block.threads)
    if (thread.state != DONE) fail(thread, thread.at, "deadlock");
}

static void start_threads(Block &block) {
  const unsigned *size = block.launch->block, *grid = block.launch->grid;
  for (Thread &thread : block.threads) {
    unsigned *index = thread.index;
    unsigned values[] = {index[0], index[1],       index[2],         size[0],         size[1],
                         size[2],  block.index[0], block.index[1],   block.index[2],  grid[0],
                         grid[1],  grid[2],        thread.rank % 32, thread.rank / 32};
    for (auto &special : block.kernel->specials)
      thread.slots[special.first] = values[special.second];
    thread.at = block.kernel->ops.data();
    thread.state = READY;
    thread.syncs = 0;
    thread.pending.assign(1, {});
  }
  std::fill(block.shared.begin(), block.shared.end(), (char)0xFF); // NaN
  block.first_epoch = ++block.epoch;
}

// "_Z14tt__cuda_fused9tt__fused" is called tt__cuda_fused, and so is the plain name.
static bool is_called(const std::string &mangled, const std::string &name) {
  std::string part = std::to_string(name.size()) + name;
  return mangled == name || starts(mangled, ("_Z" + part).c_str()) ||
         starts(mangled, ("_ZL" + part).c_str());
}

static const Kernel &kernel_of(const Module &module, const Launch &launch) {
  for (const Kernel &kernel : module.kernels)
    if (is_called(kernel.name, launch.kernel)) {
      if (kernel.parameters != launch.size)
        throw Error("kernel " + kernel.name + " has parameters of another size");
      return kernel;
    }
  throw Error(std::string("no kernel ") + launch.kernel);
}

void run(const Module &module, const Launch &launch) {
  static std::vector<uint64_t> slots; // kept: the kernels have many, and most stay unused
  const Kernel &kernel = kernel_of(module, launch);
  const unsigned *size = launch.block, *grid = launch.grid;
  size_t count = (size_t)size[0] * size[1] * size[2], each = (size_t)kernel.num_slots;
  size_t blocks = (size_t)grid[0] * grid[1] * grid[2], bytes = kernel.shared + launch.shared;
  const char *argument = (const char *)launch.argument;
  Block block = {};
  block.kernel = &kernel;
  block.launch = &launch;
  block.threads.resize(count);
  block.shared.resize(bytes);
  block.traces.resize(bytes);
  block.parameters.assign(argument, argument + launch.size);
  if (slots.size() < count * each) slots.resize(count * each);
  for (size_t i = 0; i < count; i++) {
    Thread &thread = block.threads[i];
    thread.slots = &slots[i * each];
    thread.block = &block;
    thread.rank = (unsigned)i;
    thread.index[0] = thread.rank % size[0];
    thread.index[1] = thread.rank / size[0] % size[1];
    thread.index[2] = thread.rank / size[0] / size[1];
    thread.slots[0] = 0;
    for (auto &constant : kernel.constants) thread.slots[constant.first] = constant.second;
  }
  for (size_t i = 0; i < blocks; i++) {
    size_t at = launch.order == 1 ? blocks - 1 - i : i;
    block.index[0] = (unsigned)(at % grid[0]);
    block.index[1] = (unsigned)(at / grid[0] % grid[1]);
    block.index[2] = (unsigned)(at / grid[0] / grid[1]);
    start_threads(block);
    run_threads(block);
  }
}

} // namespace ptx
