// Files: hostile input, round trips, the writer's layout, atomic saving, failing allocations.
// Headers stand in tables with ' instead of ", and are turned into files in memory.

#define FILE_PATH "test_file_scratch.bin"

typedef struct file_bytes { unsigned char *bytes; size_t size; } file_bytes;

// Eight bytes of length, the header, `data` bytes of `fill`.
static file_bytes file_build(const char *header, ptrdiff_t data, int fill) {
  size_t length = strlen(header);
  file_bytes file;
  file.size = 8 + length + (size_t)data;
  file.bytes = (unsigned char *)test_new((ptrdiff_t)file.size, 1);
  for (int i = 0; i < 8; i++) file.bytes[i] = (unsigned char)((uint64_t)length >> (8 * i) & 255);
  for (size_t i = 0; i < length; i++)
    file.bytes[8 + i] = (unsigned char)(header[i] == '\'' ? '"' : header[i]);
  memset(file.bytes + 8 + length, fill, (size_t)data);
  return file;
}

// The same bytes in a block of exactly their size, so that a sanitizer sees every read behind the
// end.
static file_bytes file_exact(const void *bytes, size_t size) {
  file_bytes file;
  file.size = size;
  file.bytes = (unsigned char *)malloc(size ? size : 1);
  if (!file.bytes) { printf("out of memory in the tests\n"); exit(1); }
  if (size) memcpy(file.bytes, bytes, size);
  return file;
}

#ifndef TT_NO_STDIO
static void file_store(const char *path, const void *bytes, size_t size) {
  FILE *stream = fopen(path, "wb");
  CHECK(stream && fwrite(bytes, 1, size, stream) == size && fclose(stream) == 0);
}

static int file_exists(const char *path) {
  FILE *stream = fopen(path, "rb");
  if (stream) fclose(stream);
  return stream != NULL;
}
#endif

// Every allocation of `run` fails once; run says whether it came through.
static void file_failures(int (*run)(const tt_options *options)) {
  for (long n = 1; n < 1000; n++) {
    test_heap heap;
    tt_options options = test_options();
    options.allocator = test_allocator(&heap);
    heap.fail_at = n;
    int good = run(&options);
    CHECK(heap.live_blocks == 0 && good == (heap.calls < n));
    if (good) return;
  }
  CHECK(!"came through");
}

// Opens from memory and from a path: both must say the same. Returns the status; nothing stays
// open.
static tt_status file_status(const void *bytes, size_t size) {
  tt_file *file = (tt_file *)(void *)&file;                    // must become NULL on failure
  tt_status status = tt_file_open_memory(bytes, size, NULL, &file);
  CHECK((status == TT_OK) == (file != NULL));
  tt_file_close(file);
#ifndef TT_NO_STDIO
  file_store(FILE_PATH, bytes, size);
  CHECK_STATUS(tt_file_open(FILE_PATH, NULL, &file), status);
  CHECK((status == TT_OK) == (file != NULL));
  tt_file_close(file);
  remove(FILE_PATH);
#endif
  return status;
}

// Touches everything an open file offers. What it returns depends on every byte read.
static unsigned file_touch(const void *bytes, size_t size) {
  tt_file *file;
  unsigned sum = 0;
  if (tt_file_open_memory(bytes, size, NULL, &file)) return 0;
  for (int i = 0; i < tt_file_count(file); i++) {
    const char *name, *dtype;
    const ptrdiff_t *dims;
    const void *data;
    int order;
    size_t length;
    tt_matrix w;
    CHECK_STATUS(tt_file_tensor(file, i, &name, &dtype, &order, &dims, &data, &length), TT_OK);
    unsigned char *copy = (unsigned char *)test_new((ptrdiff_t)length, 1);
    CHECK_STATUS(tt_file_read(file, i, 0, copy, length), TT_OK);
    CHECK(!memcmp(copy, data, length));
    for (size_t t = 0; t < length; t++) sum = sum * 31 + copy[t];
    free(copy);
    char *cores = strstr(name, ".cores.0");
    char layer[TT__NAME_CAP + 1];
    strcpy(layer, name);
    if (cores) layer[cores - name] = 0;
    tt_status status = tt_file_matrix(file, layer, NULL, &w);
    if (status) CHECK(!w.block && !w.shape.order);
    else sum += (unsigned)w.rows;
    tt_free(&w);
  }
  for (int i = 0; i < tt_file_metadata_count(file); i++) {
    const char *key, *value;
    CHECK_STATUS(tt_file_metadata(file, i, &key, &value), TT_OK);
    sum = sum * 31 + (unsigned)strlen(key) + (unsigned)strlen(value);
  }
  tt_file_close(file);
  return sum + 1;
}

// ---- hostile headers

#define FILE_T(dtype, shape, offsets)                                                              \
  "{'dtype':'" dtype "','shape':[" shape "],'data_offsets':[" offsets "]}"

typedef struct file_attack { const char *what, *header; int data; tt_status wanted; } file_attack;

static const file_attack file_attacks[] = {
    {"one tensor", "{'a':" FILE_T("F32", "2,3", "0,24") "}", 24, TT_OK},
    {"only metadata", "{'__metadata__':{'a':'b','c':''}}", 0, TT_OK},
    {"nothing", "{}", 0, TT_OK},
    {"spaces behind", "{}     ", 0, TT_OK},
    {"white space inside",
     "{ 'a' :\t{ 'shape' : [ 2 ,\n3 ] ,\r'dtype':'U8','data_offsets':[ 0 , 6 ] } } ", 6, TT_OK},
    {"rank 0", "{'a':" FILE_T("F32", "", "0,4") "}", 4, TT_OK},
    {"zero size at a shared offset",
     "{'a':" FILE_T("F32", "2", "0,8") ",'b':" FILE_T("U8", "0", "0,0") ",'c':" FILE_T("I64", "5,0",
                                                                                       "8,8") "}",
     8, TT_OK},
    {"eight dimensions", "{'a':" FILE_T("U8", "1,1,1,1,1,1,1,2", "0,2") "}", 2, TT_OK},
    {"every dtype",
     "{'a':" FILE_T("F4", "2", "0,1") ",'b':" FILE_T("F6_E2M3", "4", "1,4") ",'c':" FILE_T(
         "F6_E3M2", "4",
         "4,7") ",'d':" FILE_T("BOOL", "1",
                               "7,8") ",'e':" FILE_T("U8", "1", "8,9") ",'f':" FILE_T("I8", "1",
                                                                                      "9,10") ",'g'"
                                                                                              ":" FILE_T("F8_E5M2",
                                                                                                         "1", "10,11") ",'h':" FILE_T("F8_E4M3", "1", "11,12") ",'i':" FILE_T("F8_E8M0", "1", "12,13") ",'j':" FILE_T("F8_E4M3FNUZ", "1", "13,14") ",'k':" FILE_T("F8_E5M2FNUZ", "1", "14,15") ",'l':" FILE_T("I16",
                                                                                                                                                                                                                                                                                                              "1",
                                                                                                                                                                                                                                                                                                              "15,17") ",'m':" FILE_T("U16", "1", "17,19") ",'n':" FILE_T("F16",
                                                                                                                                                                                                                                                                                                                                                                          "1", "19,21") ",'o':" FILE_T("BF16",
                                                                                                                                                                                                                                                                                                                                                                                                       "1", "21,23") ",'p':" FILE_T("I32",
                                                                                                                                                                                                                                                                                                                                                                                                                                    "1", "23,27") ",'q':" FILE_T("U32",
                                                                                                                                                                                                                                                                                                                                                                                                                                                                 "1",
                                                                                                                                                                                                                                                                                                                                                                                                                                                                 "27,31") ",'r':" FILE_T("F32",
                                                                                                                                                                                                                                                                                                                                                                                                                                                                                         "1",
                                                                                                                                                                                                                                                                                                                                                                                                                                                                                         "31,35") ",'s':" FILE_T("C64",
                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                 "1",
                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                 "35,43") ",'t':" FILE_T("F64", "1", "43,51") ",'u':" FILE_T("I64",
                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                             "1",
                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                             "51,59") ",'v':" FILE_T("U64",
                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                     "1",
                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                     "59,67") "}",
     67, TT_OK},
    {"escaped keys and names", "{'\\u0061\\n\\ud83d\\ude00':{}}", 0, TT_ERROR_FORMAT},
    {"escapes",
     "{'\\u0061\\/"
     "\\\\\\ud83d\\ude00\\u00e9\\u20AC':{'d\\u0074ype':'U8','shape':[],'data_offsets':[0,1]}}",
     1, TT_OK},
    // numbers and products
    {"product wraps to 0", "{'a':" FILE_T("F32", "4294967296,4294967296", "0,0") "}", 0,
     TT_ERROR_FORMAT},
    {"product wraps to 4", "{'a':" FILE_T("F32", "4194305,4194305,211106198978564", "0,16") "}", 16,
     TT_ERROR_FORMAT},
    {"product wraps, negative", "{'a':" FILE_T("F32", "-1,-4", "0,16") "}", 16, TT_ERROR_FORMAT},
    {"signed product wraps", "{'a':" FILE_T("U8", "9223372036854775807,2", "0,8") "}", 8,
     TT_ERROR_FORMAT},
    {"bits wrap", "{'a':" FILE_T("F64", "288230376151711744", "0,0") "}", 0, TT_ERROR_FORMAT},
    {"overflow before a zero", "{'a':" FILE_T("U8", "4294967296,4294967296,0", "0,0") "}", 0,
     TT_ERROR_FORMAT},
    {"too few bytes", "{'a':" FILE_T("F64", "4", "0,16") "}", 16, TT_ERROR_FORMAT},
    {"shape smaller than offsets", "{'a':" FILE_T("U8", "4", "0,16") "}", 16, TT_ERROR_FORMAT},
    {"offsets behind the end", "{'a':" FILE_T("U8", "16", "0,16") "}", 15, TT_ERROR_FORMAT},
    {"one trailing byte", "{'a':" FILE_T("U8", "16", "0,16") "}", 17, TT_ERROR_FORMAT},
    {"trailing bytes, no tensor", "{}", 1, TT_ERROR_FORMAT},
    {"offsets backwards", "{'a':" FILE_T("U8", "4", "4,0") "}", 4, TT_ERROR_FORMAT},
    {"hole", "{'a':" FILE_T("U8", "4", "0,4") ",'b':" FILE_T("U8", "4", "8,12") "}", 12,
     TT_ERROR_FORMAT},
    {"hole in front", "{'a':" FILE_T("U8", "4", "4,8") "}", 8, TT_ERROR_FORMAT},
    {"overlap", "{'a':" FILE_T("U8", "8", "0,8") ",'b':" FILE_T("U8", "8", "4,12") "}", 12,
     TT_ERROR_FORMAT},
    {"same bytes twice", "{'a':" FILE_T("U8", "8", "0,8") ",'b':" FILE_T("U8", "8", "0,8") "}", 8,
     TT_ERROR_FORMAT},
    {"offset 2^63", "{'a':" FILE_T("U8", "0", "9223372036854775808,9223372036854775808") "}", 0,
     TT_ERROR_FORMAT},
    {"offset 2^64", "{'a':" FILE_T("U8", "0", "18446744073709551616,18446744073709551616") "}", 0,
     TT_ERROR_FORMAT},
    {"offset 2^63 - 1", "{'a':" FILE_T("U8", "0", "9223372036854775807,9223372036854775807") "}", 0,
     TT_ERROR_FORMAT},
    {"odd number of F4", "{'a':" FILE_T("F4", "3", "0,1") "}", 1, TT_ERROR_FORMAT},
    {"F6, 3 of them", "{'a':" FILE_T("F6_E2M3", "3", "0,2") "}", 2, TT_ERROR_FORMAT},
    {"exponent", "{'a':" FILE_T("U8", "1e3", "0,1000") "}", 1000, TT_ERROR_FORMAT},
    {"leading zero", "{'a':" FILE_T("U8", "01", "0,1") "}", 1, TT_ERROR_FORMAT},
    {"two zeros", "{'a':" FILE_T("U8", "00", "0,0") "}", 0, TT_ERROR_FORMAT},
    {"minus zero", "{'a':" FILE_T("U8", "-0", "0,0") "}", 0, TT_ERROR_FORMAT},
    {"plus", "{'a':" FILE_T("U8", "+1", "0,1") "}", 1, TT_ERROR_FORMAT},
    {"fraction", "{'a':" FILE_T("U8", "1.0", "0,1") "}", 1, TT_ERROR_FORMAT},
    {"true as a number", "{'a':" FILE_T("U8", "true", "0,1") "}", 1, TT_ERROR_FORMAT},
    {"nine dimensions", "{'a':" FILE_T("U8", "1,1,1,1,1,1,1,1,1", "0,1") "}", 1,
     TT_ERROR_UNSUPPORTED},
    {"three offsets", "{'a':" FILE_T("U8", "1", "0,1,1") "}", 1, TT_ERROR_FORMAT},
    {"one offset", "{'a':" FILE_T("U8", "1", "1") "}", 1, TT_ERROR_FORMAT},
    {"list in a list", "{'a':" FILE_T("U8", "[1]", "0,1") "}", 1, TT_ERROR_FORMAT},
    {"comma at the end of a list", "{'a':" FILE_T("U8", "1,", "0,1") "}", 1, TT_ERROR_FORMAT},
    {"two commas", "{'a':" FILE_T("U8", "1,,1", "0,1") "}", 1, TT_ERROR_FORMAT},
    {"no comma", "{'a':" FILE_T("U8", "1 1", "0,1") "}", 1, TT_ERROR_FORMAT},
    // names and fields
    {"same name twice", "{'a':" FILE_T("U8", "1", "0,1") ",'a':" FILE_T("U8", "1", "1,2") "}", 2,
     TT_ERROR_FORMAT},
    {"same name twice, escaped",
     "{'a':" FILE_T("U8", "1", "0,1") ",'\\u0061':" FILE_T("U8", "1", "1,2") "}", 2,
     TT_ERROR_FORMAT},
    {"metadata twice", "{'__metadata__':{},'__metadata__':{}}", 0, TT_ERROR_FORMAT},
    {"metadata key twice", "{'__metadata__':{'x':'1','y':'3','x':'2'}}", 0, TT_ERROR_FORMAT},
    {"tensor named __metadata__", "{'__metadata__':" FILE_T("U8", "1", "0,1") "}", 1,
     TT_ERROR_FORMAT},
    {"metadata: number", "{'__metadata__':{'x':1}}", 0, TT_ERROR_FORMAT},
    {"metadata: null", "{'__metadata__':null}", 0, TT_ERROR_FORMAT},
    {"metadata: object", "{'__metadata__':{'x':{}}}", 0, TT_ERROR_FORMAT},
    {"metadata: list", "{'__metadata__':[]}", 0, TT_ERROR_FORMAT},
    {"no dtype", "{'a':{'shape':[1],'data_offsets':[0,1]}}", 1, TT_ERROR_FORMAT},
    {"no shape", "{'a':{'dtype':'U8','data_offsets':[0,1]}}", 1, TT_ERROR_FORMAT},
    {"no offsets", "{'a':{'dtype':'U8','shape':[1]}}", 1, TT_ERROR_FORMAT},
    {"dtype twice", "{'a':{'dtype':'U8','dtype':'U8','shape':[1],'data_offsets':[0,1]}}", 1,
     TT_ERROR_FORMAT},
    {"shape twice", "{'a':{'dtype':'U8','shape':[1],'shape':[1],'data_offsets':[0,1]}}", 1,
     TT_ERROR_FORMAT},
    {"unknown field", "{'a':{'dtype':'U8','shape':[1],'data_offsets':[0,1],'more':1}}", 1,
     TT_ERROR_FORMAT},
    {"unknown dtype", "{'a':" FILE_T("F33", "1", "0,4") "}", 4, TT_ERROR_FORMAT},
    {"dtype in lower case", "{'a':" FILE_T("f32", "1", "0,4") "}", 4, TT_ERROR_FORMAT},
    {"empty dtype", "{'a':" FILE_T("", "1", "0,4") "}", 4, TT_ERROR_FORMAT},
    {"long dtype", "{'a':" FILE_T("F8_E4M3FNUZ_and_more", "1", "0,1") "}", 1, TT_ERROR_FORMAT},
    {"NUL in a name", "{'a\\u0000b':" FILE_T("U8", "1", "0,1") "}", 1, TT_ERROR_FORMAT},
    {"escape character in a name", "{'a\\u001b[2J':" FILE_T("U8", "1", "0,1") "}", 1,
     TT_ERROR_FORMAT},
    {"DEL in a name", "{'a\x7f':" FILE_T("U8", "1", "0,1") "}", 1, TT_ERROR_FORMAT},
    {"C1 control in a name", "{'a\xc2\x9b':" FILE_T("U8", "1", "0,1") "}", 1, TT_ERROR_FORMAT},
    {"raw control in a string", "{'__metadata__':{'a':'x\ny'}}", 0, TT_ERROR_FORMAT},
    {"lone surrogate", "{'\\ud800':" FILE_T("U8", "1", "0,1") "}", 1, TT_ERROR_FORMAT},
    {"surrogate and something", "{'\\ud800\\u0041':" FILE_T("U8", "1", "0,1") "}", 1,
     TT_ERROR_FORMAT},
    {"low surrogate first", "{'\\udc00':" FILE_T("U8", "1", "0,1") "}", 1, TT_ERROR_FORMAT},
    {"not hexadecimal", "{'\\u00`1':" FILE_T("U8", "1", "0,1") "}", 1, TT_ERROR_FORMAT},
    {"unknown escape", "{'\\x':" FILE_T("U8", "1", "0,1") "}", 1, TT_ERROR_FORMAT},
    // form
    {"header is a list", "[]", 0, TT_ERROR_FORMAT},
    {"header is a string", "'a'", 0, TT_ERROR_FORMAT},
    {"space in front", " {}", 0, TT_ERROR_FORMAT},
    {"byte order mark", "\xef\xbb\xbf{}", 0, TT_ERROR_FORMAT},
    {"truncated UTF-8", "{'__metadata__':{'a':'\xe2\x82'}}", 0, TT_ERROR_FORMAT},
    {"truncated UTF-8 at the end", "{}\xe2", 0, TT_ERROR_FORMAT},
    {"overlong UTF-8", "{'__metadata__':{'a':'\xc0\xaf'}}", 0, TT_ERROR_FORMAT},
    {"overlong UTF-8, 3 bytes", "{'__metadata__':{'a':'\xe0\x80\xaf'}}", 0, TT_ERROR_FORMAT},
    {"surrogate in UTF-8", "{'__metadata__':{'a':'\xed\xa0\x80'}}", 0, TT_ERROR_FORMAT},
    {"beyond U+10FFFF", "{'__metadata__':{'a':'\xf4\x90\x80\x80'}}", 0, TT_ERROR_FORMAT},
    {"UTF-8 of all lengths", "{'__metadata__':{'a':'\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80'}}", 0,
     TT_OK},
    {"line feed behind", "{}\n", 0, TT_ERROR_FORMAT},
    {"second object", "{}{}", 0, TT_ERROR_FORMAT},
    {"unclosed", "{'a':" FILE_T("U8", "1", "0,1"), 1, TT_ERROR_FORMAT},
    {"unclosed string", "{'a", 0, TT_ERROR_FORMAT},
    {"unclosed escape", "{'a\\", 0, TT_ERROR_FORMAT},
    {"comma at the end", "{'a':" FILE_T("U8", "1", "0,1") ",}", 1, TT_ERROR_FORMAT},
    {"comma first", "{,'a':" FILE_T("U8", "1", "0,1") "}", 1, TT_ERROR_FORMAT},
    {"no colon", "{'a'" FILE_T("U8", "1", "0,1") "}", 1, TT_ERROR_FORMAT},
    {"name without quotes", "{a:" FILE_T("U8", "1", "0,1") "}", 1, TT_ERROR_FORMAT},
    {"tensor is a number", "{'a':1}", 0, TT_ERROR_FORMAT},
    {"deep", "{'a':{'dtype':[[[[[[[[", 0, TT_ERROR_FORMAT},
    // versions
    {"version 1", "{'__metadata__':{'tt.version':'1'}}", 0, TT_OK},
    {"version 1.7", "{'__metadata__':{'tt.version':'1.7'}}", 0, TT_OK},
    {"version 2", "{'__metadata__':{'tt.version':'2'}}", 0, TT_ERROR_UNSUPPORTED},
    {"version 10", "{'__metadata__':{'tt.version':'10'}}", 0, TT_ERROR_UNSUPPORTED},
    {"no version", "{'__metadata__':{'tt.version':''}}", 0, TT_ERROR_UNSUPPORTED},
};

static void file_test_attacks(void) {
  for (size_t i = 0; i < sizeof file_attacks / sizeof *file_attacks; i++) {
    const file_attack *attack = &file_attacks[i];
    file_bytes file = file_build(attack->header, attack->data, 1);
    test_check_status(file_status(file.bytes, file.size), attack->wanted, attack->what, __FILE__,
                      __LINE__);
    (void)file_touch(file.bytes, file.size);
    free(file.bytes);
  }
}

// Lengths that lie, and the caps.
static void file_test_lengths(void) {
  file_bytes file = file_build("{'a':" FILE_T("U8", "1", "0,1") "}", 1, 7);
  CHECK_STATUS(file_status(file.bytes, 0), TT_ERROR_FORMAT);
  CHECK_STATUS(file_status(file.bytes, 7), TT_ERROR_FORMAT);
  CHECK_STATUS(file_status("\0\0\0\0\0\0\0\0\0\0", 10), TT_ERROR_FORMAT);
  CHECK_STATUS(file_status("\1\0\0\0\0\0\0\0{}", 10), TT_ERROR_FORMAT);
  CHECK_STATUS(file_status("\2\0\0\0\0\0\0\0{}", 10), TT_OK);
  CHECK_STATUS(file_status("\3\0\0\0\0\0\0\0{}\0", 11), TT_ERROR_FORMAT);   // padded with NUL
  CHECK_STATUS(file_status("\3\0\0\0\0\0\0\0{}", 10), TT_ERROR_FORMAT);     // N = size - 7
  CHECK_STATUS(file_status("\377\377\377\377\377\377\377\377{}", 10), TT_ERROR_FORMAT);
  CHECK_STATUS(file_status("\370\377\377\377\377\377\377\377{}", 10),
               TT_ERROR_FORMAT); // 8 + N wraps to 0
  CHECK_STATUS(file_status("\1\341\365\5\0\0\0\0{}", 10),
               TT_ERROR_FORMAT); // cap + 1, but not there
  for (size_t size = 0; size < file.size; size++)
    CHECK_STATUS(file_status(file.bytes, size), TT_ERROR_FORMAT);
  free(file.bytes);
  size_t huge = 8 + 100000001u;
  unsigned char *bytes = (unsigned char *)calloc(huge, 1);
  tt_file *opened;
  if (bytes) {                                                 // small machines may skip this
    memcpy(bytes, "\1\341\365\5\0\0\0\0{}", 10);
    CHECK_STATUS(tt_file_open_memory(bytes, huge, NULL, &opened), TT_ERROR_UNSUPPORTED);
  }
  free(bytes);
}

// A million and one tensors are refused without an index; a hundred thousand are sorted in no time.
static void file_test_many(void) {
  static const int counts[2] = {100000, 1000001};
  for (int c = 0; c < 2; c++) {
    char *text = (char *)malloc(64 * (size_t)counts[c] + 16), *at = text + 8;
    if (!text) return;
    for (int i = 0; i < counts[c]; i++)
      at += sprintf(at, "%c\"%x\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}",
                    i ? ',' : '{', (unsigned)i);
    *at++ = '}';
    for (int i = 0; i < 8; i++) text[i] = (char)((uint64_t)(at - text - 8) >> (8 * i) & 255);
    tt_file *file;
    tt_options options = test_options();
    test_heap heap;
    options.allocator = test_allocator(&heap);
    CHECK_STATUS(tt_file_open_memory(text, (size_t)(at - text), &options, &file),
                 c ? TT_ERROR_UNSUPPORTED : TT_OK);
    int index = -1;
    if (!c) CHECK(tt_file_find(file, "1869f", &index) == TT_OK && tt_file_count(file) == counts[0]);
    if (c) CHECK(heap.calls == 0);
    tt_file_close(file);
    CHECK(heap.live_blocks == 0);
    free(text);
  }
}

// Names up to 1024 bytes.
static void file_test_names(void) {
  for (int length = 1023; length <= 1025; length++) {
    char header[1200], name[1100];
    memset(name, 'x', (size_t)length);
    name[length] = 0;
    sprintf(header, "{'%s':" FILE_T("U8", "1", "0,1") "}", name);
    file_bytes file = file_build(header, 1, 0);
    CHECK_STATUS(file_status(file.bytes, file.size), length > 1024 ? TT_ERROR_UNSUPPORTED : TT_OK);
    free(file.bytes);
    tt_writer *writer;
    CHECK_STATUS(tt_writer_create(NULL, &writer), TT_OK);
    CHECK_STATUS(tt_writer_add(writer, name, "U8", 0, NULL, "", 1),
                 length > 1024 ? TT_ERROR_INVALID : TT_OK);
    tt_writer_free(writer);
  }
}

// ---- reading

static void file_test_access(void) {
  file_bytes bytes = file_build(
      "{'b':" FILE_T(
          "U8", "2,3",
          "4,10") ",'__metadata__':{'k\\t':'v\\'w','a':'\\u20ac'},'a':" FILE_T("F32", "",
                                                                               "0,4") "}",
      10, 0);
  // \t is a control character in a key: such a file is refused
  CHECK_STATUS(file_status(bytes.bytes, bytes.size), TT_ERROR_FORMAT);
  free(bytes.bytes);
  bytes = file_build(
      "{'b':" FILE_T(
          "U8", "2,3",
          "4,10") ",'__metadata__':{'k':'v\\t\\'w','a':'\\u20ac'},'a':" FILE_T("F32", "",
                                                                               "0,4") "}",
      10, 0);
  for (int i = 0; i < 10; i++) bytes.bytes[bytes.size - 10 + (size_t)i] = (unsigned char)(i + 1);
  tt_file *file;
  const char *name, *dtype, *key, *value;
  const ptrdiff_t *dims;
  const void *data;
  size_t size;
  int order, index;
  unsigned char out[8];
  CHECK_STATUS(tt_file_open_memory(bytes.bytes, bytes.size, NULL, &file), TT_OK);
  CHECK(tt_file_count(file) == 2 && tt_file_metadata_count(file) == 2);
  CHECK_STATUS(tt_file_tensor(file, 1, &name, &dtype, &order, &dims, &data, &size), TT_OK);
  CHECK(!strcmp(name, "b") && !strcmp(dtype, "U8") && order == 2 && dims[0] == 2 && dims[1] == 3 &&
        size == 6);
  CHECK(data == bytes.bytes + bytes.size - 6);
  CHECK_STATUS(tt_file_tensor(file, 0, NULL, NULL, NULL, NULL, NULL, NULL), TT_OK);
  CHECK_STATUS(tt_file_tensor(file, 2, &name, NULL, NULL, NULL, NULL, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_file_tensor(file, -1, &name, NULL, NULL, NULL, NULL, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_file_metadata(file, 0, &key, &value), TT_OK);
  CHECK(!strcmp(key, "k") && !strcmp(value, "v\t\"w"));
  CHECK_STATUS(tt_file_metadata(file, 1, NULL, &value), TT_OK);
  CHECK(!strcmp(value, "\xe2\x82\xac"));
  CHECK_STATUS(tt_file_metadata(file, 2, &key, &value), TT_ERROR_INVALID);
  CHECK_STATUS(tt_file_metadata(NULL, 0, &key, &value), TT_ERROR_INVALID);
  CHECK_STATUS(tt_file_find(file, "b", &index), TT_OK);
  CHECK(index == 1);
  CHECK_STATUS(tt_file_find(file, "c", &index), TT_ERROR_INVALID);
  CHECK_STATUS(tt_file_find(file, "", &index), TT_ERROR_INVALID);
  CHECK_STATUS(tt_file_find(NULL, "b", &index), TT_ERROR_INVALID);
  CHECK_STATUS(tt_file_read(file, 1, 2, out, 3), TT_OK);
  CHECK(out[0] == 7 && out[2] == 9);
  CHECK_STATUS(tt_file_read(file, 1, 6, out, 0), TT_OK);
  CHECK_STATUS(tt_file_read(file, 1, 6, NULL, 0), TT_OK);
  CHECK_STATUS(tt_file_read(file, 1, 0, NULL, 1), TT_ERROR_INVALID);
  CHECK_STATUS(tt_file_read(file, 1, 6, out, 1), TT_ERROR_INVALID);
  CHECK_STATUS(tt_file_read(file, 1, 7, out, 0), TT_ERROR_INVALID);
  CHECK_STATUS(tt_file_read(file, 1, 1, out, (size_t)-1), TT_ERROR_INVALID);
  CHECK_STATUS(tt_file_read(file, 1, (size_t)-1, out, 2), TT_ERROR_INVALID);
  CHECK_STATUS(tt_file_read(file, 2, 0, out, 0), TT_ERROR_INVALID);
  CHECK_STATUS(tt_file_read(NULL, 0, 0, out, 0), TT_ERROR_INVALID);
  tt_file_close(file);
  tt_file_close(NULL);
  CHECK(tt_file_count(NULL) == 0 && tt_file_metadata_count(NULL) == 0);
  tt_options wrong = test_options();
  wrong.epsilon = -1;
  CHECK_STATUS(tt_file_open_memory(bytes.bytes, bytes.size, &wrong, &file), TT_ERROR_INVALID);
  CHECK_STATUS(tt_file_open_memory(bytes.bytes, bytes.size, NULL, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_file_open_memory(NULL, 10, NULL, &file), TT_ERROR_INVALID);
  CHECK_STATUS(tt_file_open_memory(NULL, 0, NULL, &file), TT_ERROR_FORMAT);
  CHECK_STATUS(tt_file_open_memory(bytes.bytes, (size_t)-1, NULL, &file), TT_ERROR_MEMORY);
  free(bytes.bytes);
}

// The same tensors by path: data is NULL, reads come from the stream in any order; a file that
// shrinks is IO.
static void file_test_path(void) {
#ifndef TT_NO_STDIO
  file_bytes bytes = file_build("{'a':" FILE_T("U8", "5000", "0,5000") "}", 5000, 0);
  unsigned char *data = bytes.bytes + bytes.size - 5000, out[16];
  const void *pointer = data;
  float *floats = test_floats(5000);
  tt_file *file;
  for (int i = 0; i < 5000; i++) data[i] = (unsigned char)test_below(256);
  file_store(FILE_PATH, bytes.bytes, bytes.size);
  CHECK_STATUS(tt_file_open(FILE_PATH, NULL, &file), TT_OK);
  CHECK_STATUS(tt_file_tensor(file, 0, NULL, NULL, NULL, NULL, &pointer, NULL), TT_OK);
  CHECK(pointer == NULL);
  for (int i = 0; i < 20; i++) {
    int at = test_below(4984);
    CHECK_STATUS(tt_file_read(file, 0, (size_t)at, out, 16), TT_OK);
    CHECK(!memcmp(out, data + at, 16));
  }
  CHECK_STATUS(tt_file_read_f32(file, 0, floats, 5000), TT_OK);
  for (int i = 0; i < 5000; i++) if (floats[i] != (float)data[i]) { CHECK(0); break; }
  file_store(FILE_PATH, bytes.bytes, bytes.size - 100);
  CHECK_STATUS(tt_file_read_f32(file, 0, floats, 5000), TT_ERROR_IO);
  CHECK_STATUS(tt_file_read(file, 0, 4990, out, 10), TT_ERROR_IO);
  tt_file_close(file);
  CHECK_STATUS(tt_file_open(FILE_PATH, NULL, NULL), TT_ERROR_INVALID);
  remove(FILE_PATH);
  CHECK_STATUS(tt_file_open(FILE_PATH, NULL, &file), TT_ERROR_IO);
  CHECK(file == NULL);
  CHECK_STATUS(tt_file_open(NULL, NULL, &file), TT_ERROR_INVALID);
  CHECK(tt_file_open(".", NULL, &file) == TT_ERROR_IO && file == NULL);       // a folder
  free(floats);
  free(bytes.bytes);
#endif
}

static void file_test_read_f32(void) {
  file_bytes bytes = file_build(
      "{'a':" FILE_T("F64", "1", "0,8") ",'b':" FILE_T("F32", "1", "8,12") ",'c':" FILE_T("F16", "1", "12,14") ",'d':" FILE_T("BF16", "1", "14,16") ",'e':" FILE_T(
          "F8_E4M3", "2",
          "16,18") ",'f':" FILE_T("F8_E5M2", "1",
                                  "18,19") ",'g':" FILE_T("I8", "1",
                                                          "19,20") ",'h':" FILE_T("U8", "1",
                                                                                  "20,21") ",'i'"
                                                                                           ":" FILE_T("I16", "1", "21,23") ",'j':" FILE_T(
                                                                                               "F4",
                                                                                               "2",
                                                                                               "23,"
                                                                                               "24") ",'k':" FILE_T("F32",
                                                                                                                    "0,4",
                                                                                                                    "24,24") "}",
      24, 0);
  static const unsigned char values[24] = {0, 0, 0, 0, 0, 0, 0xF8, 0xBF, 0, 0, 0x20, 0x41, 0, 0x3E,
                                           0xC0, 0xBF,
                                           // little-endian on purpose
                                           0x38, 0xB8, 0x3C, 0xFB, 0xFB, 1, 0, 0x21};
  static const float wanted[8] = {-1.5f, 10.0f, 1.5f, -1.5f, 1.0f, 1.0f, -5.0f, 251.0f};
  memcpy(bytes.bytes + bytes.size - 24, values, 24);
  tt_file *file;
  float out[2];
  CHECK_STATUS(tt_file_open_memory(bytes.bytes, bytes.size, NULL, &file), TT_OK);
  for (int i = 0; i < 8; i++) {
    CHECK_STATUS(tt_file_read_f32(file, i, out, i == 4 ? 2 : 1), TT_OK);
    CHECK(out[0] == wanted[i] && (i != 4 || out[1] == -1.0f));
    CHECK_STATUS(tt_file_read_f32(file, i, out, 3), TT_ERROR_INVALID);
  }
  CHECK_STATUS(tt_file_read_f32(file, 8, out, 1), TT_ERROR_UNSUPPORTED);
  CHECK_STATUS(tt_file_read_f32(file, 9, out, 2), TT_ERROR_UNSUPPORTED);
  CHECK_STATUS(tt_file_read_f32(file, 10, NULL, 0), TT_OK);
  CHECK_STATUS(tt_file_read_f32(file, 0, NULL, 1), TT_ERROR_INVALID);
  CHECK_STATUS(tt_file_read_f32(file, 0, out, -1), TT_ERROR_INVALID);
  CHECK_STATUS(tt_file_read_f32(file, 11, out, 1), TT_ERROR_INVALID);
  CHECK_STATUS(tt_file_read_f32(NULL, 0, out, 1), TT_ERROR_INVALID);
  tt_file_close(file);
  free(bytes.bytes);
}

// ---- .npy

static file_bytes file_npy(int major, int minor, const char *dict, ptrdiff_t data) {
  size_t length = strlen(dict), start = major == 1 ? 10 : 12;
  file_bytes file;
  file.size = start + length + (size_t)data;
  file.bytes = (unsigned char *)test_new((ptrdiff_t)file.size, 1);
  memcpy(file.bytes, "\x93NUMPY", 6);
  file.bytes[6] = (unsigned char)major;
  file.bytes[7] = (unsigned char)minor;
  for (size_t i = 8; i < start; i++) file.bytes[i] = (unsigned char)(length >> (8 * (i - 8)) & 255);
  memcpy(file.bytes + start, dict, length);
  for (ptrdiff_t i = 0; i < data; i++)
    file.bytes[start + length + (size_t)i] = (unsigned char)(i & 63);
  return file;
}

#define FILE_NPY(descr, order, shape)                                                              \
  "{'descr': '" descr "', 'fortran_order': " order ", 'shape': " shape ", }"

typedef struct file_array {
  int major, minor;
  const char *dict;
  int data;
  tt_status wanted;
} file_array;

static const file_array file_arrays[] = {
    {1, 0, FILE_NPY("<f4", "False", "(2, 3)") "    \n", 24, TT_OK},
    {2, 0, FILE_NPY("<f4", "False", "(2, 3)") "\n", 24, TT_OK},
    {3, 0, FILE_NPY("<f8", "False", "(2,)") "\n", 16, TT_OK},
    {1, 0, FILE_NPY("<f2", "False", "()") "\n", 2, TT_OK},
    {1, 0, FILE_NPY("|i1", "False", "(2, 1)") "\n", 2, TT_OK},
    {1, 0, FILE_NPY("|u1", "False", "(0, 1)") "\n", 0, TT_OK},
    {1, 0, "{\"shape\":(4,),\"descr\":\"<f4\",\"fortran_order\":False}\n", 16, TT_OK},
    {1, 0, FILE_NPY("<f4", "True", "(2, 3)") "\n", 24, TT_ERROR_UNSUPPORTED},
    {1, 0, FILE_NPY(">f4", "False", "(2, 3)") "\n", 24, TT_ERROR_UNSUPPORTED},
    {1, 0, FILE_NPY("|O", "False", "(2, 3)") "\n", 24, TT_ERROR_UNSUPPORTED},
    {1, 0, FILE_NPY("<c8", "False", "(2, 3)") "\n", 48, TT_ERROR_UNSUPPORTED},
    {1, 0, "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,), }\n", 8,
     TT_ERROR_UNSUPPORTED},
    {4, 0, FILE_NPY("<f4", "False", "(2, 3)") "\n", 24, TT_ERROR_UNSUPPORTED},
    {1, 1, FILE_NPY("<f4", "False", "(2, 3)") "\n", 24, TT_ERROR_UNSUPPORTED},
    {1, 0, FILE_NPY("<f4", "False", "(1, 1, 1, 1, 1, 1, 1, 1, 1)") "\n", 4, TT_ERROR_UNSUPPORTED},
    {1, 0, FILE_NPY("<f4", "False", "(2, 3)") "\n", 23, TT_ERROR_FORMAT},
    {1, 0, FILE_NPY("<f4", "False", "(2, 3)") "\n", 25, TT_ERROR_FORMAT},
    {1, 0, FILE_NPY("<f4", "False", "(4294967296, 4294967296)") "\n", 0, TT_ERROR_FORMAT},
    {1, 0, FILE_NPY("<f4", "False", "(-1,)") "\n", 4, TT_ERROR_FORMAT},
    {1, 0, FILE_NPY("<f4", "False", "(1)") "\n", 4, TT_ERROR_FORMAT},
    {1, 0, FILE_NPY("<f4", "False", "(,)") "\n", 4, TT_ERROR_FORMAT},
    {1, 0, FILE_NPY("<f4", "False", "[1]") "\n", 4, TT_ERROR_FORMAT},
    {1, 0, FILE_NPY("<f4", "Falsy", "(1,)") "\n", 4, TT_ERROR_FORMAT},
    {1, 0, FILE_NPY("<f4", "0", "(1,)") "\n", 4, TT_ERROR_FORMAT},
    {1, 0, FILE_NPY("<f4", "Tru", "(1,)") "\n", 4, TT_ERROR_FORMAT},
    {1, 0, FILE_NPY("<f4", "False", "(1,)") " ", 4, TT_ERROR_FORMAT},
    {1, 0, FILE_NPY("<f4", "False", "(1,)") "x\n", 4, TT_ERROR_FORMAT},
    {1, 0, "{'descr': '<f4', 'shape': (1,), }\n", 4, TT_ERROR_FORMAT},
    {1, 0, "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (1,), }\n", 4,
     TT_ERROR_FORMAT},
    {1, 0, "{'descr': '<f4', 'more': 1, 'fortran_order': False, 'shape': (1,), }\n", 4,
     TT_ERROR_FORMAT},
    {1, 0, "{'descr': 4, 'fortran_order': False, 'shape': (1,), }\n", 4, TT_ERROR_FORMAT},
    {1, 0, "{'descr: ", 0, TT_ERROR_FORMAT},
    {1, 0, "{'de\\scr': '<f4', 'fortran_order': False, 'shape': (1,), }\n", 4, TT_ERROR_FORMAT},
    {1, 0, "", 0, TT_ERROR_FORMAT},
    {1, 0, "{}\n", 0, TT_ERROR_FORMAT},
};

static void file_test_npy(void) {
  for (size_t i = 0; i < sizeof file_arrays / sizeof *file_arrays; i++) {
    const file_array *array = &file_arrays[i];
    file_bytes file = file_npy(array->major, array->minor, array->dict, array->data);
    test_check_status(file_status(file.bytes, file.size), array->wanted, array->dict, __FILE__,
                      __LINE__);
    for (size_t size = 0; size < file.size && array->wanted == TT_OK; size++) {
      file_bytes cut = file_exact(file.bytes, size);
      tt_file *opened;
      CHECK_STATUS(tt_file_open_memory(cut.bytes, size, NULL, &opened), TT_ERROR_FORMAT);
      free(cut.bytes);
    }
    free(file.bytes);
  }
  file_bytes bytes = file_npy(1, 0, FILE_NPY("|i1", "False", "(2, 3)") "\n", 6);
  tt_file *file;
  tt_matrix w;
  const char *name;
  CHECK_STATUS(tt_file_open_memory(bytes.bytes, bytes.size, NULL, &file), TT_OK);
  CHECK(tt_file_count(file) == 1 &&
        tt_file_tensor(file, 0, &name, NULL, NULL, NULL, NULL, NULL) == TT_OK && !*name);
  CHECK_STATUS(tt_file_matrix(file, "", NULL, &w), TT_OK);
  CHECK(w.rows == 2 && w.cols == 3 && w.cores[0].dtype == TT_I8 &&
        ((const signed char *)w.cores[0].data)[5] == 5);
  tt_free(&w);
  tt_file_close(file);
  free(bytes.bytes);
  char *dict = (char *)test_new(10100, 1);                     // the cap of numpy: 10,000 bytes
  for (int size = 10000; size <= 10001; size++) {
    memset(dict, ' ', (size_t)size);
    memcpy(dict, FILE_NPY("|u1", "False", "(3,)"), strlen(FILE_NPY("|u1", "False", "(3,)")));
    dict[size - 1] = '\n';
    bytes = file_npy(2, 0, dict, 3);
    CHECK_STATUS(file_status(bytes.bytes, bytes.size), size > 10000 ? TT_ERROR_UNSUPPORTED : TT_OK);
    free(bytes.bytes);
  }
  free(dict);
}

// ---- trains

// A train of random codes whose values are all finite.
static tt_matrix file_train(int order, tt_dtype dtype, int group, int sweep, int padded, int bias,
                            const tt_options *options) {
  static const int rows[3] = {3, 4, 2}, cols[3] = {5, 2, 7}, ranks[4] = {1, 4, 3, 1};
  tt_matrix header, w;
  ptrdiff_t dims[4];
  memset(&header, 0, sizeof header);
  header.shape = test_shape(order, rows, cols, ranks);
  header.sweep = sweep;
  header.rows = header.cols = 1;
  for (int k = 0; k < order; k++) {
    header.rows *= rows[k];
    header.cols *= cols[k];
    header.cores[k].dtype = dtype;
    header.cores[k].group = group;
  }
  header.rows -= padded;
  header.cols -= 2 * padded;
  tt_allocator allocator = tt__options(options).allocator;
  CHECK_STATUS(tt__train_allocate(&header, bias, &allocator, &w), TT_OK);
  for (int k = 0; k < order; k++) {
    tt_core *core = &w.cores[k];
    tt__core_dims(&w, k, dims);
    ptrdiff_t height = dims[0] * dims[1], length = dims[2] * dims[3],
              line = tt__row_size(dtype, length);
    core->scale = k == 1 ? 0.75f : 1.0f;
    for (ptrdiff_t i = 0; i < height; i++) {
      unsigned char *row = (unsigned char *)core->data + i * line;
      for (ptrdiff_t j = 0; j < length; j++) {
        double value = test_normal();
        float single = (float)value;
        uint16_t code = (uint16_t)(tt__is_minifloat(dtype) ? tt_from_f32(dtype, single, 1) : 0);
        int limit = tt__is_integer(dtype) ? (1 << (tt__dtype_bits(dtype) - 1)) - 1 : 0;
        if (dtype == TT_F64) memcpy(row + 8 * j, &value, 8);
        else if (dtype == TT_F32) memcpy(row + 4 * j, &single, 4);
        else if (tt__dtype_bits(dtype) == 16) memcpy(row + 2 * j, &code, 2);
        else if (tt__is_minifloat(dtype)) row[j] = (unsigned char)code;
        else tt__put_integer(row, j, tt__dtype_bits(dtype), test_below(2 * limit + 1) - limit);
      }
    }
    for (ptrdiff_t i = 0; i < height * tt__row_scales(group, length); i++) {
      float scale = (float)(0.5 + test_uniform());
      uint16_t half = (uint16_t)tt_from_f32(TT_F16, scale, 1);
      if (group > 0) memcpy((unsigned char *)core->scales + 2 * i, &half, 2);
      else memcpy((unsigned char *)core->scales + 4 * i, &scale, 4);
    }
  }
  for (ptrdiff_t i = 0; i < w.rows && bias; i++) ((float *)w.bias)[i] = (float)test_normal();
  return w;
}

// Equal in every number that a file holds.
static int file_same(const tt_matrix *a, const tt_matrix *b) {
  ptrdiff_t dims[4];
  int same = !memcmp(&a->shape.order, &b->shape.order, sizeof a->shape.order) &&
             a->sweep == b->sweep && a->rows == b->rows && a->cols == b->cols &&
             !a->bias == !b->bias;
  if (!same) return 0;
  for (int k = 0; k < a->shape.order; k++) {
    const tt_core *x = &a->cores[k], *y = &b->cores[k];
    same = same && a->shape.rows[k] == b->shape.rows[k] && a->shape.cols[k] == b->shape.cols[k] &&
           a->shape.ranks[k + 1] == b->shape.ranks[k + 1] && x->dtype == y->dtype &&
           x->group == y->group &&
           (x->scale == 0 ? 1 : x->scale) == (y->scale == 0 ? 1 : y->scale) &&
           !x->scales == !y->scales;
    if (!same) return 0;
    tt__core_dims(a, k, dims);
    ptrdiff_t height = dims[0] * dims[1], length = dims[2] * dims[3];
    same = !memcmp(x->data, y->data, (size_t)(height * tt__row_size(x->dtype, length)));
    size_t scales = (size_t)(height * tt__row_scales(x->group, length) * (x->group > 0 ? 2 : 4));
    if (x->group) same = same && !memcmp(x->scales, y->scales, scales);
  }
  return same && (!a->bias || !memcmp(a->bias, b->bias, (size_t)a->rows * sizeof(float)));
}

static file_bytes file_saved(tt_writer *writer) {
  file_bytes file = {NULL, 0};
  CHECK_STATUS(tt_writer_save_memory(writer, NULL, &file.size), TT_OK);
  file.bytes = (unsigned char *)test_new((ptrdiff_t)file.size, 1);
  CHECK_STATUS(tt_writer_save_memory(writer, file.bytes, &file.size), TT_OK);
  return file;
}

static void file_round_trip(const tt_matrix *w) {
  tt_writer *writer;
  tt_file *file;
  tt_matrix back;
  CHECK_STATUS(tt_writer_create(NULL, &writer), TT_OK);
  CHECK_STATUS(tt_writer_add_matrix(writer, "net.fc1", w, NULL), TT_OK);
  file_bytes bytes = file_saved(writer);
  tt_writer_free(writer);
  CHECK_STATUS(tt_file_open_memory(bytes.bytes, bytes.size, NULL, &file), TT_OK);
  CHECK_STATUS(tt_file_matrix(file, "net.fc1", NULL, &back), TT_OK);
  CHECK(file_same(w, &back));
  CHECK(((uintptr_t)back.cores[0].data & 63) == 0);
  tt_free(&back);
  tt_file_close(file);
  free(bytes.bytes);
}

static void file_test_round_trips(void) {
  static const int groups[4] = {0, TT_GROUP_ROW, 32, 5};
  for (int dtype = TT_F32; dtype <= TT_I2; dtype++)
    for (int g = 0; g < (dtype >= TT_I8 ? 4 : 1); g++)
      for (int flags = 0; flags < 8; flags++)
        for (int order = 1; order <= 3; order++) {
          tt_matrix w = file_train(order, (tt_dtype)dtype, groups[g], flags & 1, flags >> 1 & 1,
                                   flags >> 2, NULL);
          file_round_trip(&w);
          tt_free(&w);
        }
  // formats may differ from core to core
  tt_matrix w = file_train(3, TT_I4, 32, 0, 1, 1, NULL);
  tt_matrix other = file_train(3, TT_F16, 0, 0, 1, 1, NULL);
  tt_matrix mixed = w;
  mixed.block = NULL;
  mixed.cores[1] = other.cores[1];
  mixed.cores[0].scale = 0;                                    // the same as 1
  file_round_trip(&mixed);
  tt_free(&w);
  tt_free(&other);
}

typedef struct file_layer {
  const char *what, *header;
  int data, fill, strict;
  tt_status wanted;
} file_layer;

// Two cores (1,2,3,2) and (2,2,1,1) in F32: 48 + 16 bytes.
#define FILE_CORES                                                                                 \
  "'l.cores.0':" FILE_T("F32", "1,2,3,2", "0,48") ",'l.cores.1':" FILE_T("F32", "2,2,1,1", "48,64")
#define FILE_SAID(text) "{'__metadata__':{'tt.layers':'{\\'l\\':" text "}'}," FILE_CORES "}"
#define FILE_LISTS "\\'rows\\':[2,2],\\'cols\\':[3,1],\\'ranks\\':[1,2,1]"
#define FILE_CORE(dtype, group) "{\\'dtype\\':\\'" dtype "\\',\\'group\\':" group "}"
// One core (1,2,3,1) of codes: U8 [2 rows, `bytes`].
#define FILE_PACKED(dtype, group, bytes, end, more)                                                \
  "{'__metadata__':{'tt.layers':'{\\'l\\':{\\'rows\\':[2],\\'cols\\':[3],"                         \
  "\\'ranks\\':[1,1],\\'cores\\':[" FILE_CORE(dtype, group) "]}}'},'l.cores.0':" FILE_T(           \
      "U8", "2," bytes, "0," end) more "}"

static const file_layer file_layers[] = {
    {"cores alone", "{" FILE_CORES "}", 64, 0, 0, TT_OK},
    {"everything said",
     FILE_SAID(
         "{" FILE_LISTS
         ",\\'sweep\\':0,\\'size\\':[3,3],\\'cores\\':[" FILE_CORE("F32", "0") "," FILE_CORE(
             "F32", "0") "],\\'rel_error\\':1.5e-3,\\'later\\':[{\\'x\\':[null,true,\\'}\\']}]}"),
     64, 0, 0, TT_OK},
    {"nothing said", FILE_SAID("{}"), 64, 0, 0, TT_OK},
    {"another layer", "{'__metadata__':{'tt.layers':'{\\'m\\':{\\'rows\\':[7]}}'}," FILE_CORES "}",
     64, 0, 0, TT_OK},
    {"not finite", "{" FILE_CORES "}", 64, 255, 0, TT_ERROR_NONFINITE},
    {"useful ranks", "{" FILE_CORES "}", 64, 0, 1, TT_OK},
    {"rank above what is useful",
     "{'l.cores.0':" FILE_T("F32", "1,1,2,3", "0,24") ",'l.cores.1':" FILE_T("F32", "3,2,2,1",
                                                                             "24,72") "}",
     72, 0, 1, TT_ERROR_SHAPE},
    {"the same, not strict",
     "{'l.cores.0':" FILE_T("F32", "1,1,2,3", "0,24") ",'l.cores.1':" FILE_T("F32", "3,2,2,1",
                                                                             "24,72") "}",
     72, 0, 0, TT_OK},
    {"wrong row factor", FILE_SAID("{\\'rows\\':[2,3]}"), 64, 0, 0, TT_ERROR_FORMAT},
    {"wrong column factor", FILE_SAID("{\\'cols\\':[2,1]}"), 64, 0, 0, TT_ERROR_FORMAT},
    {"wrong rank", FILE_SAID("{\\'ranks\\':[1,3,1]}"), 64, 0, 0, TT_ERROR_FORMAT},
    {"too few factors", FILE_SAID("{\\'rows\\':[4]}"), 64, 0, 0, TT_ERROR_FORMAT},
    {"too many factors", FILE_SAID("{\\'rows\\':[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]}"), 64, 0, 0,
     TT_ERROR_FORMAT},
    {"factor 0", FILE_SAID("{\\'rows\\':[2,0]}"), 64, 0, 0, TT_ERROR_FORMAT},
    {"factor 2^31", FILE_SAID("{\\'rows\\':[2,2147483648]}"), 64, 0, 0, TT_ERROR_FORMAT},
    {"size 0", FILE_SAID("{\\'size\\':[0,3]}"), 64, 0, 0, TT_ERROR_FORMAT},
    {"size too large", FILE_SAID("{\\'size\\':[5,3]}"), 64, 0, 0, TT_ERROR_FORMAT},
    {"columns too large", FILE_SAID("{\\'size\\':[4,4]}"), 64, 0, 0, TT_ERROR_FORMAT},
    {"size 2^63 - 1", FILE_SAID("{\\'size\\':[4,9223372036854775807]}"), 64, 0, 0, TT_ERROR_FORMAT},
    {"half a size", FILE_SAID("{\\'size\\':[4]}"), 64, 0, 0, TT_ERROR_FORMAT},
    {"sweep 2", FILE_SAID("{\\'sweep\\':2}"), 64, 0, 0, TT_ERROR_FORMAT},
    {"sweep does not fit", FILE_SAID("{\\'sweep\\':1}"), 64, 0, 0, TT_ERROR_FORMAT},
    {"sweep twice", FILE_SAID("{\\'sweep\\':0,\\'sweep\\':0}"), 64, 0, 0, TT_ERROR_FORMAT},
    {"rows twice", FILE_SAID("{\\'rows\\':[2,2],\\'rows\\':[2,2]}"), 64, 0, 0, TT_ERROR_FORMAT},
    {"layer twice", FILE_SAID("{},\\'l\\':{}"), 64, 0, 0, TT_ERROR_FORMAT},
    {"one core said", FILE_SAID("{\\'cores\\':[" FILE_CORE("F32", "0") "]}"), 64, 0, 0,
     TT_ERROR_FORMAT},
    {"other dtype said",
     FILE_SAID("{\\'cores\\':[" FILE_CORE("F32", "0") "," FILE_CORE("F16", "0") "]}"), 64, 0, 0,
     TT_ERROR_FORMAT},
    {"unknown dtype said",
     FILE_SAID("{\\'cores\\':[" FILE_CORE("F32", "0") "," FILE_CORE("F7", "0") "]}"), 64, 0, 0,
     TT_ERROR_FORMAT},
    {"scales said, none there",
     FILE_SAID("{\\'cores\\':[" FILE_CORE("F32", "0") "," FILE_CORE("F32", "-1") "]}"), 64, 0, 0,
     TT_ERROR_FORMAT},
    {"group -2", FILE_SAID("{\\'cores\\':[" FILE_CORE("F32", "0") "," FILE_CORE("F32", "-2") "]}"),
     64, 0, 0, TT_ERROR_FORMAT},
    {"no group", FILE_SAID("{\\'cores\\':[" FILE_CORE("F32", "0") ",{\\'dtype\\':\\'F32\\'}]}"), 64,
     0, 0, TT_ERROR_FORMAT},
    {"dtype twice",
     FILE_SAID("{\\'cores\\':[" FILE_CORE(
         "F32", "0") ",{\\'dtype\\':\\'F32\\',\\'dtype\\':\\'F32\\',\\'group\\':0}]}"),
     64, 0, 0, TT_ERROR_FORMAT},
    {"unknown key of a core",
     FILE_SAID("{\\'cores\\':[" FILE_CORE(
         "F32", "0") ",{\\'dtype\\':\\'F32\\',\\'x\\':-1.5,\\'group\\':0}]}"),
     64, 0, 0, TT_OK},
    {"17 cores said",
     FILE_SAID("{\\'cores\\':[{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}]}"), 64, 0, 0,
     TT_ERROR_FORMAT},
    {"a number for the layer", FILE_SAID("1"), 64, 0, 0, TT_ERROR_FORMAT},
    {"unclosed", FILE_SAID("{"), 64, 0, 0, TT_ERROR_FORMAT},
    {"unclosed unknown value", FILE_SAID("{\\'x\\':[[[["), 64, 0, 0, TT_ERROR_FORMAT},
    {"closed too often", FILE_SAID("{\\'x\\':]}"), 64, 0, 0, TT_ERROR_FORMAT},
    {"text behind", "{'__metadata__':{'tt.layers':'{} x'}," FILE_CORES "}", 64, 0, 0,
     TT_ERROR_FORMAT},
    {"empty text", "{'__metadata__':{'tt.layers':''}," FILE_CORES "}", 64, 0, 0, TT_ERROR_FORMAT},
    {"a list", "{'__metadata__':{'tt.layers':'[]'}," FILE_CORES "}", 64, 0, 0, TT_ERROR_FORMAT},
    {"ranks do not chain",
     "{'l.cores.0':" FILE_T("F32", "1,2,3,2", "0,48") ",'l.cores.1':" FILE_T("F32", "3,1,1,1",
                                                                             "48,60") "}",
     60, 0, 0, TT_ERROR_FORMAT},
    {"first rank 2", "{'l.cores.0':" FILE_T("F32", "2,2,3,1", "0,48") "}", 48, 0, 0,
     TT_ERROR_FORMAT},
    {"last rank 2", "{'l.cores.0':" FILE_T("F32", "1,2,3,2", "0,48") "}", 48, 0, 0,
     TT_ERROR_FORMAT},
    {"three dimensions", "{'l.cores.0':" FILE_T("F32", "1,2,6", "0,48") "}", 48, 0, 0,
     TT_ERROR_FORMAT},
    {"a dimension of 0", "{'l.cores.0':" FILE_T("F32", "1,0,3,1", "0,0") "}", 0, 0, 0,
     TT_ERROR_FORMAT},
    {"cores of I32", "{'l.cores.0':" FILE_T("I32", "1,2,3,1", "0,24") "}", 24, 0, 0,
     TT_ERROR_FORMAT},
    {"cores of U8, nothing said", "{'l.cores.0':" FILE_T("U8", "2,2", "0,4") "}", 4, 0, 0,
     TT_ERROR_FORMAT},
    {"bias",
     "{'l.cores.0':" FILE_T("F32", "1,2,3,1", "0,24") ",'l.bias':" FILE_T("F32", "2", "24,32") "}",
     32, 0, 0, TT_OK},
    {"bias in F16",
     "{'l.cores.0':" FILE_T("F32", "1,2,3,1", "0,24") ",'l.bias':" FILE_T("F16", "2", "24,28") "}",
     28, 0, 0, TT_OK},
    {"bias too long",
     "{'l.cores.0':" FILE_T("F32", "1,2,3,1", "0,24") ",'l.bias':" FILE_T("F32", "3", "24,36") "}",
     36, 0, 0, TT_ERROR_FORMAT},
    {"bias in I32",
     "{'l.cores.0':" FILE_T("F32", "1,2,3,1", "0,24") ",'l.bias':" FILE_T("I32", "2", "24,32") "}",
     32, 0, 0, TT_ERROR_UNSUPPORTED},
    {"bias not finite",
     "{'l.cores.0':" FILE_T("I8", "1,2,3,1", "0,6") ",'l.bias':" FILE_T("F32", "2", "6,14") "}", 14,
     255, 0, TT_ERROR_NONFINITE},
    {"I8", "{'l.cores.0':" FILE_T("I8", "1,2,3,1", "0,6") "}", 6, 255, 0, TT_OK},
    {"E4M3 NaN", "{'l.cores.0':" FILE_T("F8_E4M3", "1,2,3,1", "0,6") "}", 6, 255, 0,
     TT_ERROR_NONFINITE},
    {"E5M2", "{'l.cores.0':" FILE_T("F8_E5M2", "1,2,3,1", "0,6") "}", 6, 1, 0, TT_OK},
    {"E5M2 Inf", "{'l.cores.0':" FILE_T("F8_E5M2", "1,2,3,1", "0,6") "}", 6, 0x7C, 0,
     TT_ERROR_NONFINITE},
    {"F64 NaN", "{'l.cores.0':" FILE_T("F64", "1,1,1,1", "0,8") "}", 8, 255, 0, TT_ERROR_NONFINITE},
    {"scale",
     "{'l.cores.0':" FILE_T("I8", "1,2,3,1", "0,6") ",'l.scale.0':" FILE_T("F32", "1", "6,10") "}",
     10, 1, 0, TT_OK},
    {"scale 0",
     "{'l.cores.0':" FILE_T("I8", "1,2,3,1", "0,6") ",'l.scale.0':" FILE_T("F32", "1", "6,10") "}",
     10, 0, 0, TT_OK},
    {"scale NaN",
     "{'l.cores.0':" FILE_T("I8", "1,2,3,1", "0,6") ",'l.scale.0':" FILE_T("F32", "1", "6,10") "}",
     10, 255, 0, TT_ERROR_NONFINITE},
    {"two scales",
     "{'l.cores.0':" FILE_T("I8", "1,2,3,1", "0,6") ",'l.scale.0':" FILE_T("F32", "2", "6,14") "}",
     14, 1, 0, TT_ERROR_FORMAT},
    {"scale in F16",
     "{'l.cores.0':" FILE_T("I8", "1,2,3,1", "0,6") ",'l.scale.0':" FILE_T("F16", "2", "6,10") "}",
     10, 1, 0, TT_ERROR_FORMAT},
    {"scales of rows",
     "{'l.cores.0':" FILE_T("I8", "1,2,3,1", "0,6") ",'l.scales.0':" FILE_T("F32", "2", "6,14") "}",
     14, 1, 0, TT_OK},
    {"scales of rows, NaN",
     "{'l.cores.0':" FILE_T("I8", "1,2,3,1", "0,6") ",'l.scales.0':" FILE_T("F32", "2", "6,14") "}",
     14, 255, 0, TT_ERROR_NONFINITE},
    {"scales of a row too many",
     "{'l.cores.0':" FILE_T("I8", "1,2,3,1", "0,6") ",'l.scales.0':" FILE_T("F32", "3", "6,18") "}",
     18, 1, 0, TT_ERROR_FORMAT},
    {"scales of groups",
     "{'l.cores.0':" FILE_T("I8", "1,2,3,1", "0,6") ",'l.scales.0':" FILE_T("F16", "2,1",
                                                                            "6,10") "}",
     10, 1, 0, TT_OK},
    {"scales of too many groups",
     "{'l.cores.0':" FILE_T("I8", "1,2,3,1", "0,6") ",'l.scales.0':" FILE_T("F16", "2,2",
                                                                            "6,14") "}",
     14, 1, 0, TT_ERROR_FORMAT},
    {"scales of rank 0",
     "{'l.cores.0':" FILE_T("I8", "1,2,3,1", "0,6") ",'l.scales.0':" FILE_T("F32", "", "6,10") "}",
     10, 1, 0, TT_ERROR_FORMAT},
    {"scales in BF16",
     "{'l.cores.0':" FILE_T("I8", "1,2,3,1", "0,6") ",'l.scales.0':" FILE_T("BF16", "2,1",
                                                                            "6,10") "}",
     10, 1, 0, TT_ERROR_FORMAT},
    {"scales of a float core",
     "{'l.cores.0':" FILE_T("F16", "1,2,3,1", "0,12") ",'l.scales.0':" FILE_T("F32", "2",
                                                                              "12,20") "}",
     20, 1, 0, TT_ERROR_FORMAT},
    {"I4", FILE_PACKED("I4", "0", "2", "4", ""), 4, 1, 0, TT_OK},
    {"I3", FILE_PACKED("I3", "0", "2", "4", ""), 4, 1, 0, TT_OK},
    {"I2", FILE_PACKED("I2", "0", "1", "2", ""), 2, 1, 0, TT_OK},
    {"I2 in rows of two bytes", FILE_PACKED("I2", "0", "2", "4", ""), 4, 1, 0, TT_ERROR_FORMAT},
    {"I8 in U8", FILE_PACKED("I8", "0", "3", "6", ""), 6, 1, 0, TT_ERROR_FORMAT},
    {"I4, groups of 2",
     FILE_PACKED("I4", "2", "2", "4", ",'l.scales.0':" FILE_T("F16", "2,2", "4,12")), 12, 1, 0,
     TT_OK},
    {"I4, groups of 2, too few",
     FILE_PACKED("I4", "2", "2", "4", ",'l.scales.0':" FILE_T("F16", "2,1", "4,8")), 8, 1, 0,
     TT_ERROR_FORMAT},
    {"I4, group 0 with scales",
     FILE_PACKED("I4", "0", "2", "4", ",'l.scales.0':" FILE_T("F16", "2,1", "4,8")), 8, 1, 0,
     TT_ERROR_FORMAT},
    {"I4, rows unknown",
     "{'__metadata__':{'tt.layers':'{\\'l\\':{\\'cols\\':[3],\\'ranks\\':[1,1],\\'cores\\':"
     "[" FILE_CORE("I4", "0") "]}}'},'l.cores.0':" FILE_T("U8", "2,2", "0,4") "}",
     4, 1, 0, TT_ERROR_FORMAT},
    {"I4, huge product",
     "{'__metadata__':{'tt.layers':'{\\'l\\':{\\'rows\\':[2147483647],\\'cols\\':[2147483647],\\'"
     "ranks\\':[1,1],"
     "\\'cores\\':[" FILE_CORE("I4", "0") "]}}'},'l.cores.0':" FILE_T("U8", "2,2", "0,4") "}",
     4, 1, 0, TT_ERROR_FORMAT},
    {"weight",
     "{'l.weight':" FILE_T("F32", "2,3", "0,24") ",'l.bias':" FILE_T("F32", "2", "24,32") "}", 32,
     0, 0, TT_OK},
    {"weight in U8", "{'l.weight':" FILE_T("U8", "2,3", "0,6") "}", 6, 3, 0, TT_OK},
    {"weight in I64", "{'l.weight':" FILE_T("I64", "1,1", "0,8") "}", 8, 0, 0,
     TT_ERROR_UNSUPPORTED},
    {"weight of three dimensions", "{'l.weight':" FILE_T("F32", "2,3,1", "0,24") "}", 24, 0, 0,
     TT_ERROR_SHAPE},
    {"weight without rows", "{'l.weight':" FILE_T("F32", "0,3", "0,0") "}", 0, 0, 0,
     TT_ERROR_SHAPE},
    {"weight with NaN", "{'l.weight':" FILE_T("F16", "1,1", "0,2") "}", 2, 255, 0,
     TT_ERROR_NONFINITE},
    {"weight with a wrong bias",
     "{'l.weight':" FILE_T("F32", "2,3", "0,24") ",'l.bias':" FILE_T("F32", "3", "24,36") "}", 36,
     0, 0, TT_ERROR_FORMAT},
    {"exact name",
     "{'l':" FILE_T("BF16", "2,3", "0,12") ",'l.bias':" FILE_T("I64", "1", "12,20") "}", 20, 0, 0,
     TT_OK},
    {"no such layer", "{'m.weight':" FILE_T("F32", "2,3", "0,24") "}", 24, 0, 0, TT_ERROR_INVALID},
};

static void file_test_layers(void) {
  for (size_t i = 0; i < sizeof file_layers / sizeof *file_layers; i++) {
    const file_layer *layer = &file_layers[i];
    file_bytes bytes = file_build(layer->header, layer->data, layer->fill);
    tt_file *file;
    tt_matrix w;
    tt_options options = test_options();
    test_heap heap;
    options.strict = layer->strict;
    options.allocator = test_allocator(&heap);
    test_check_status(tt_file_open_memory(bytes.bytes, bytes.size, &options, &file), TT_OK,
                      layer->what, __FILE__, __LINE__);
    memset(&w, 0x55, sizeof w);
    test_check_status(tt_file_matrix(file, "l", &options, &w), layer->wanted, layer->what, __FILE__,
                      __LINE__);
    if (layer->wanted)
      CHECK(!w.block && !w.rows && !w.shape.order && heap.live_blocks == (file != NULL));
    else CHECK(tt__valid(&w));
    tt_free(&w);
    tt_file_close(file);
    CHECK(heap.live_blocks == 0);
    free(bytes.bytes);
  }
}

// Values: a dense U8 matrix, a core with scale 0, a padded size, a bias.
static void file_test_values(void) {
  tt_file *file;
  tt_matrix w;
  file_bytes bytes = file_build(
      "{'l.weight':" FILE_T("U8", "1,3", "0,3") ",'l.bias':" FILE_T("U8", "1", "3,4") "}", 4, 200);
  CHECK_STATUS(tt_file_open_memory(bytes.bytes, bytes.size, NULL, &file), TT_OK);
  CHECK_STATUS(tt_file_matrix(file, "l", NULL, &w), TT_OK);
  CHECK(w.cores[0].dtype == TT_F32 && ((const float *)w.cores[0].data)[2] == 200.0f &&
        w.bias[0] == 200.0f);
  tt_free(&w);
  CHECK_STATUS(tt_file_matrix(file, "l.weight", NULL, &w), TT_OK);
  CHECK(w.bias == NULL && w.rows == 1 && w.cols == 3 && w.shape.order == 1);
  tt_free(&w);
  CHECK_STATUS(tt_file_matrix(file, NULL, NULL, &w), TT_ERROR_INVALID);
  CHECK_STATUS(tt_file_matrix(NULL, "l", NULL, &w), TT_ERROR_INVALID);
  CHECK_STATUS(tt_file_matrix(file, "l", NULL, NULL), TT_ERROR_INVALID);
  char name[1200];
  memset(name, 'n', sizeof name);
  name[1199] = 0;
  CHECK_STATUS(tt_file_matrix(file, name, NULL, &w), TT_ERROR_INVALID);
  tt_file_close(file);
  free(bytes.bytes);
  bytes = file_build(
      "{'l.cores.0':" FILE_T("I8", "1,1,2,1", "0,2") ",'l.scale.0':" FILE_T("F32", "", "2,6") "}",
      6, 0);
  bytes.bytes[bytes.size - 5] = 77;                            // a code, times 0
  CHECK_STATUS(tt_file_open_memory(bytes.bytes, bytes.size, NULL, &file), TT_OK);
  CHECK_STATUS(tt_file_matrix(file, "l", NULL, &w), TT_OK);
  CHECK(((const signed char *)w.cores[0].data)[1] == 0 && w.cores[0].scale == 1.0f);
  tt_free(&w);
  tt_file_close(file);
  free(bytes.bytes);
  char text[4000] = "{", *at = text + 1;                       // 17 cores
  for (int k = 0; k < 17; k++)
    at += sprintf(at, "%s'l.cores.%d':{'dtype':'I8','shape':[1,1,1,1],'data_offsets':[%d,%d]}",
                  k ? "," : "", k, k, k + 1);
  strcpy(at, "}");
  bytes = file_build(text, 17, 1);
  CHECK_STATUS(tt_file_open_memory(bytes.bytes, bytes.size, NULL, &file), TT_OK);
  CHECK_STATUS(tt_file_matrix(file, "l", NULL, &w),
               TT_MAX_ORDER < 17 ? TT_ERROR_UNSUPPORTED : TT_OK);
  tt_free(&w);
  tt_file_close(file);
  free(bytes.bytes);
}

// ---- writing

static void file_test_golden(void) {
  static const char header[] =
      "{\"__metadata__\":{\"format\":\"pt\",\"tt.generator\":\"tt.h " TT_VERSION
      "\",\"note\":\"two\\u000a\\\"lines\\\\\"},"
      "\"c\":{\"dtype\":\"F64\",\"shape\":[],\"data_offsets\":[0,8]},"
      "\"b\":{\"dtype\":\"F32\",\"shape\":[2,1],\"data_offsets\":[8,16]},"
      "\"a\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[16,18]},"
      "\"d\":{\"dtype\":\"F16\",\"shape\":[0,7],\"data_offsets\":[18,18]},"
      "\"A\\\"\xc3\xa9\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[18,21]},"
      "\"Z\":{\"dtype\":\"BOOL\",\"shape\":[1],\"data_offsets\":[21,22]},"
      "\"aa\":{\"dtype\":\"F4\",\"shape\":[2],\"data_offsets\":[22,23]}}";
  static const ptrdiff_t one[1] = {1}, two[2] = {2, 1}, three[1] = {3}, none[2] = {0, 7},
                         pair[1] = {2};
  tt_writer *writer;
  CHECK_STATUS(tt_writer_create(NULL, &writer), TT_OK);
  CHECK_STATUS(tt_writer_add(writer, "aa", "F4", 1, pair, "\1", 1), TT_OK);
  CHECK_STATUS(tt_writer_add(writer, "a", "F16", 1, one, "\2\2", 2), TT_OK);
  CHECK_STATUS(tt_writer_add(writer, "Z", "BOOL", 1, one, "\3", 1), TT_OK);
  CHECK_STATUS(tt_writer_add(writer, "b", "F32", 2, two, "\4\4\4\4\4\4\4\4", 8), TT_OK);
  CHECK_STATUS(tt_writer_add(writer, "A\"\xc3\xa9", "U8", 1, three, "\5\5\5", 3), TT_OK);
  CHECK_STATUS(tt_writer_add(writer, "c", "F64", 0, NULL, "\6\6\6\6\6\6\6\6", 8), TT_OK);
  CHECK_STATUS(tt_writer_add(writer, "d", "F16", 2, none, NULL, 0), TT_OK);
  CHECK_STATUS(tt_writer_metadata(writer, "note", "one"), TT_OK);
  CHECK_STATUS(tt_writer_metadata(writer, "note", "two\n\"lines\\"), TT_OK);
  file_bytes bytes = file_saved(writer);
  size_t length = strlen(header), start = (8 + length + 63) / 64 * 64;
  CHECK(bytes.size == start + 23 && bytes.bytes[0] == ((start - 8) & 255) &&
        bytes.bytes[1] == (start - 8) >> 8);
  CHECK(!memcmp(bytes.bytes + 8, header, length));
  for (size_t i = 8 + length; i < start; i++) CHECK(bytes.bytes[i] == ' ');
  CHECK(!memcmp(bytes.bytes + start, "\6\6\6\6\6\6\6\6\4\4\4\4\4\4\4\4\2\2\5\5\5\3\1", 23));
  CHECK_STATUS(file_status(bytes.bytes, bytes.size), TT_OK);
  size_t size = bytes.size - 1;                                // one byte too little room
  memset(bytes.bytes, 0x77, bytes.size);
  CHECK_STATUS(tt_writer_save_memory(writer, bytes.bytes, &size), TT_ERROR_INVALID);
  CHECK(size == bytes.size && bytes.bytes[0] == 0x77);
  CHECK_STATUS(tt_writer_save_memory(writer, bytes.bytes, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_writer_save_memory(NULL, bytes.bytes, &size), TT_ERROR_INVALID);
  free(bytes.bytes);
  tt_writer_free(writer);
  tt_writer_free(NULL);
}

static void file_test_refused(void) {
  static const ptrdiff_t dims[9] = {1, 1, 1, 1, 1, 1, 1, 1, 1}, minus[1] = {-1},
                         wide[2] = {PTRDIFF_MAX, PTRDIFF_MAX};
  static const ptrdiff_t three[1] = {3};
  tt_writer *writer;
  tt_options wrong = test_options();
  wrong.allocator.alloc_fn = test_alloc;
  CHECK_STATUS(tt_writer_create(&wrong, &writer), TT_ERROR_INVALID);
  CHECK_STATUS(tt_writer_create(NULL, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_writer_create(NULL, &writer), TT_OK);
  CHECK_STATUS(tt_writer_add(writer, "a", "U8", 8, dims, "x", 1), TT_OK);
  CHECK_STATUS(tt_writer_add(writer, "a", "U8", 1, dims, "x", 1), TT_ERROR_INVALID);
  CHECK_STATUS(tt_writer_add(writer, "b", "U8", 9, dims, "x", 1), TT_ERROR_INVALID);
  CHECK_STATUS(tt_writer_add(writer, "b", "U8", -1, dims, "x", 1), TT_ERROR_INVALID);
  CHECK_STATUS(tt_writer_add(writer, "b", "U8", 1, NULL, "x", 1), TT_ERROR_INVALID);
  CHECK_STATUS(tt_writer_add(writer, "b", "U8", 1, minus, "x", 1), TT_ERROR_INVALID);
  CHECK_STATUS(tt_writer_add(writer, "b", "U8", 2, wide, "x", 1), TT_ERROR_INVALID);
  CHECK_STATUS(tt_writer_add(writer, "b", "U8", 1, dims, "xx", 2), TT_ERROR_INVALID);
  CHECK_STATUS(tt_writer_add(writer, "b", "U8", 1, dims, NULL, 1), TT_ERROR_INVALID);
  CHECK_STATUS(tt_writer_add(writer, "b", "U8", 1, dims, "x", (size_t)-1), TT_ERROR_INVALID);
  CHECK_STATUS(tt_writer_add(writer, "b", "F4", 1, three, "xx", 2), TT_ERROR_INVALID);
  CHECK_STATUS(tt_writer_add(writer, "b", "U9", 1, dims, "x", 1), TT_ERROR_INVALID);
  CHECK_STATUS(tt_writer_add(writer, "b", NULL, 1, dims, "x", 1), TT_ERROR_INVALID);
  CHECK_STATUS(tt_writer_add(writer, NULL, "U8", 1, dims, "x", 1), TT_ERROR_INVALID);
  CHECK_STATUS(tt_writer_add(NULL, "b", "U8", 1, dims, "x", 1), TT_ERROR_INVALID);
  CHECK_STATUS(tt_writer_add(writer, "__metadata__", "U8", 1, dims, "x", 1), TT_ERROR_INVALID);
  CHECK_STATUS(tt_writer_add(writer, "\xff", "U8", 1, dims, "x", 1), TT_ERROR_INVALID);
  CHECK_STATUS(tt_writer_add(writer, "a\nb", "U8", 1, dims, "x", 1), TT_ERROR_INVALID);
  CHECK_STATUS(tt_writer_metadata(writer, "format", "np"), TT_ERROR_INVALID);
  CHECK_STATUS(tt_writer_metadata(writer, "tt.layers", "{}"), TT_ERROR_INVALID);
  CHECK_STATUS(tt_writer_metadata(writer, "a", "\xc3"), TT_ERROR_INVALID);
  CHECK_STATUS(tt_writer_metadata(writer, "a\t", "b"), TT_ERROR_INVALID);
  CHECK_STATUS(tt_writer_metadata(writer, NULL, "b"), TT_ERROR_INVALID);
  CHECK_STATUS(tt_writer_metadata(writer, "a", NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_writer_metadata(NULL, "a", "b"), TT_ERROR_INVALID);
  tt_matrix w = file_train(2, TT_F32, 0, 0, 0, 1, NULL);
  CHECK_STATUS(tt_writer_add_matrix(writer, "l", &w, NULL), TT_OK);
  CHECK_STATUS(tt_writer_add_matrix(writer, "l", &w, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_writer_add_matrix(writer, "m\n", &w, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_writer_add_matrix(writer, NULL, &w, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_writer_add_matrix(writer, "m", NULL, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_writer_add_matrix(NULL, "m", &w, NULL), TT_ERROR_INVALID);
  char name[1025];
  memset(name, 'n', 1020);
  name[1020] = 0;                                              // no room for ".cores.0"
  CHECK_STATUS(tt_writer_add_matrix(writer, name, &w, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_writer_add(writer, "m.cores.1", "U8", 0, NULL, "x", 1), TT_OK);
  CHECK_STATUS(tt_writer_add_matrix(writer, "m", &w, NULL),
               TT_ERROR_INVALID); // its second core is taken
  ((float *)w.bias)[0] = (float)INFINITY;
  CHECK_STATUS(tt_writer_add_matrix(writer, "n", &w, NULL), TT_ERROR_NONFINITE);
  ((float *)w.cores[1].data)[0] = (float)NAN;
  CHECK_STATUS(tt_writer_add_matrix(writer, "n", &w, NULL), TT_ERROR_NONFINITE);
  ((float *)w.cores[1].data)[0] = 1;
  ((float *)w.bias)[0] = 1;
  CHECK_STATUS(tt_writer_add_matrix(writer, "n", &w, NULL), TT_OK); // nothing of it stayed behind
  tt_free(&w);
  file_bytes bytes = file_saved(writer);
  tt_file *file;
  int index;
  CHECK_STATUS(tt_file_open_memory(bytes.bytes, bytes.size, NULL, &file), TT_OK);
  CHECK(tt_file_count(file) == 10 && tt_file_find(file, "m.cores.0", &index) == TT_ERROR_INVALID);
  CHECK_STATUS(tt_writer_copy(writer, file, 0), TT_ERROR_INVALID);
  CHECK_STATUS(tt_writer_copy(writer, file, 10), TT_ERROR_INVALID);
  CHECK_STATUS(tt_writer_copy(writer, file, -1), TT_ERROR_INVALID);
  CHECK_STATUS(tt_writer_copy(writer, NULL, 0), TT_ERROR_INVALID);
  CHECK_STATUS(tt_writer_copy(NULL, file, 0), TT_ERROR_INVALID);
  tt_file_close(file);
  free(bytes.bytes);
  tt_writer_free(writer);
}

// Many tensors with a long common prefix, added in sorted order: the search tree stays shallow. All
// are copied into a second file that must have the same bytes.
static void file_test_copy(void) {
  tt_writer *writer, *second;
  tt_file *file;
  char name[100];
  static const char types[3][4] = {"U8", "F32", "F64"};
  static const size_t widths[3] = {1, 4, 8};
  CHECK_STATUS(tt_writer_create(NULL, &writer), TT_OK);
  CHECK_STATUS(tt_writer_create(NULL, &second), TT_OK);
  for (int i = 0; i < 5000; i++) {
    sprintf(name, "model.language_model.layers.%05d.self_attention.query.weight", i);
    CHECK_STATUS(tt_writer_add(writer, name, types[i % 3], 0, NULL, "abcdefgh", widths[i % 3]),
                 TT_OK);
  }
  file_bytes bytes = file_saved(writer);
  CHECK_STATUS(tt_file_open_memory(bytes.bytes, bytes.size, NULL, &file), TT_OK);
  for (int i = tt_file_count(file); i-- > 0;) CHECK_STATUS(tt_writer_copy(second, file, i), TT_OK);
  tt_file_close(file);
  file_bytes again = file_saved(second);
  CHECK(again.size == bytes.size && !memcmp(again.bytes, bytes.bytes, bytes.size));
  free(again.bytes);
  free(bytes.bytes);
  tt_writer_free(second);
  tt_writer_free(writer);
}

// What the report adds: numbers in a fixed notation, read back by strtod within the nine digits.
static void file_test_report(void) {
  static const double values[8] = {0,     1,      1.5e-3,         9.999999999e-8,
                                   1e300, 5e-324, 123456789012.0, 0.1};
  for (int i = 0; i < 8; i++) {
    char text[64] = {0};
    tt__sink sink = {text, 63, 0};
    tt__sink_real(&sink, -values[i]);
    CHECK_AT_MOST(fabs(strtod(text, NULL) + values[i]), 6e-9 * values[i]);
  }
  tt_report report;
  tt_writer *writer;
  tt_file *file;
  const char *key, *value = "";
  memset(&report, 0, sizeof report);
  report.relative_error = 0.0125;
  report.entropy[0] = 1.75;
  report.entropy[1] = (double)NAN;
  report.dense_params = 1680;
  tt_matrix w = file_train(3, TT_I4, 32, 1, 1, 0, NULL);
  CHECK_STATUS(tt_writer_create(NULL, &writer), TT_OK);
  CHECK_STATUS(tt_writer_add_matrix(writer, "b", &w, &report), TT_OK);
  CHECK_STATUS(tt_writer_add_matrix(writer, "a\"", &w, NULL), TT_OK);
  file_bytes bytes = file_saved(writer);
  CHECK_STATUS(tt_file_open_memory(bytes.bytes, bytes.size, NULL, &file), TT_OK);
  for (int i = 0; i < tt_file_metadata_count(file); i++) {
    CHECK_STATUS(tt_file_metadata(file, i, &key, &value), TT_OK);
    if (!strcmp(key, "tt.layers")) break;
  }
  CHECK(tt_file_metadata_count(file) == 4 && !strcmp(key, "tt.layers"));
  CHECK(!strcmp(
      value,
      "{\"b\":{\"size\":[23,68],\"rows\":[3,4,2],\"cols\":[5,2,7],\"ranks\":[1,4,3,1],\"sweep\":1,"
      "\"cores\":[{\"dtype\":\"I4\",\"group\":32},{\"dtype\":\"I4\",\"group\":32},{\"dtype\":"
      "\"I4\",\"group\":32}],"
      "\"rel_error\":1.25000000e-2,\"bond_entropy\":[1.75000000e0,null],\"dense_params\":1680},"
      "\"a\\\"\":{\"size\":[23,68],\"rows\":[3,4,2],\"cols\":[5,2,7],\"ranks\":[1,4,3,1],\"sweep\":"
      "1,"
      "\"cores\":[{\"dtype\":\"I4\",\"group\":32},{\"dtype\":\"I4\",\"group\":32},{\"dtype\":"
      "\"I4\",\"group\":32}]}}"));
  tt_matrix back;
  CHECK_STATUS(tt_file_matrix(file, "a\"", NULL, &back), TT_OK);
  CHECK(file_same(&w, &back));
  tt_free(&back);
  tt_file_close(file);
  free(bytes.bytes);
  tt_writer_free(writer);
  tt_free(&w);
}

// A save that fails leaves the old file as it was and no scratch behind.
static void file_test_atomic(void) {
#ifndef TT_NO_STDIO
  char name[64];
  tt_writer *writer;
  tt_file *file;
  test_heap heap;
  tt_options options = test_options();
  options.allocator = test_allocator(&heap);
  CHECK_STATUS(tt_writer_create(&options, &writer), TT_OK);
  CHECK_STATUS(tt_writer_add(writer, "a", "U8", 0, NULL, "x", 1), TT_OK);
  file_store(FILE_PATH, "old bytes", 9);
  heap.fail_at = heap.calls + 1;
  CHECK_STATUS(tt_writer_save(writer, FILE_PATH), TT_ERROR_MEMORY);
  heap.fail_at = 0;
  for (int i = 0; i < 100; i++) {
    sprintf(name, i ? FILE_PATH ".tmp%d" : FILE_PATH ".tmp", i);
    file_store(name, "mine", 4);                               // not ours to overwrite
  }
  CHECK_STATUS(tt_writer_save(writer, FILE_PATH), TT_ERROR_IO);
  char old[16] = {0};
  FILE *stream = fopen(FILE_PATH, "rb");
  CHECK(stream && fread(old, 1, 16, stream) == 9 && !memcmp(old, "old bytes", 9));
  if (stream) fclose(stream);
  remove(FILE_PATH ".tmp7");
  CHECK_STATUS(tt_writer_save(writer, FILE_PATH), TT_OK);
  CHECK(!file_exists(FILE_PATH ".tmp7") && file_exists(FILE_PATH ".tmp6"));
  for (int i = 0; i < 100; i++) {
    sprintf(name, i ? FILE_PATH ".tmp%d" : FILE_PATH ".tmp", i);
    CHECK(remove(name) == 0 || i == 7);
  }
  CHECK_STATUS(tt_file_open(FILE_PATH, NULL, &file), TT_OK);
  CHECK(tt_file_count(file) == 1);
  CHECK_STATUS(tt_writer_add(writer, "b", "U8", 0, NULL, "y", 1), TT_OK);
  CHECK_STATUS(tt_writer_save(writer, FILE_PATH), TT_OK);      // over a file that is open elsewhere
  CHECK(tt_file_read(file, 0, 0, old, 1) == TT_OK && old[0] == 'x');
  tt_file_close(file);
  CHECK_STATUS(tt_file_open(FILE_PATH, NULL, &file), TT_OK);
  CHECK(tt_file_count(file) == 2 && !file_exists(FILE_PATH ".tmp"));
  tt_file_close(file);
  remove(FILE_PATH);
  CHECK_STATUS(tt_writer_save(writer, "no/such/folder/file"), TT_ERROR_IO);
  CHECK_STATUS(tt_writer_save(writer, "."),
               TT_ERROR_IO); // created beside it, but cannot replace it
  CHECK(!file_exists("..tmp"));
  CHECK_STATUS(tt_writer_save(writer, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_writer_save(NULL, FILE_PATH), TT_ERROR_INVALID);
  tt_writer_free(writer);
  CHECK(heap.live_blocks == 0);
#endif
}

// ---- sharded checkpoints

typedef struct file_map {
  const char *what, *index;
  tt_status by_path, in_memory;
} file_map;

#define FILE_A "test_file_shard_a.bin"
#define FILE_B "test_file_shard_b.bin"
#define FILE_MAP(pairs) "{'metadata':{'total_size':12},'weight_map':{" pairs "}}"

// In memory a good index is UNSUPPORTED. Shard a holds x and both, b holds y, both and hidden.
static const file_map file_maps[] = {
    {"all", FILE_MAP("'x':'" FILE_A "','y':'" FILE_B "','both':'" FILE_A "'"), TT_OK,
     TT_ERROR_UNSUPPORTED},
    {"spaces and lines", "{ 'weight_map' :\n{'x' : '" FILE_A "' }\n,'other':[1,{'a':null}]}\n",
     TT_OK, TT_ERROR_UNSUPPORTED},
    {"no tensors", FILE_MAP(""), TT_OK, TT_ERROR_UNSUPPORTED},
    {"a shard that is not there", FILE_MAP("'x':'test_file_shard_c.bin'"), TT_ERROR_IO,
     TT_ERROR_UNSUPPORTED},
    {"the index itself", FILE_MAP("'x':'" FILE_PATH "'"), TT_ERROR_FORMAT, TT_ERROR_UNSUPPORTED},
    {"tensor in the other shard", FILE_MAP("'x':'" FILE_B "'"), TT_ERROR_FORMAT,
     TT_ERROR_UNSUPPORTED},
    {"tensor in no shard", FILE_MAP("'x':'" FILE_A "','w':'" FILE_B "'"), TT_ERROR_FORMAT,
     TT_ERROR_UNSUPPORTED},
    {"metadata as a tensor", FILE_MAP("'__metadata__':'" FILE_A "'"), TT_ERROR_FORMAT,
     TT_ERROR_UNSUPPORTED},
    {"a tensor twice", FILE_MAP("'x':'" FILE_A "','x':'" FILE_A "'"), TT_ERROR_FORMAT,
     TT_ERROR_FORMAT},
    {"two maps", "{'weight_map':{},'weight_map':{}}", TT_ERROR_FORMAT, TT_ERROR_FORMAT},
    {"no map", "{'metadata':{}}", TT_ERROR_FORMAT, TT_ERROR_FORMAT},
    {"map as a list", "{'weight_map':[]}", TT_ERROR_FORMAT, TT_ERROR_FORMAT},
    {"map inside", "{'a':{'weight_map':{}}}", TT_ERROR_FORMAT, TT_ERROR_FORMAT},
    {"a number for a shard", FILE_MAP("'x':1"), TT_ERROR_FORMAT, TT_ERROR_FORMAT},
    {"open end", "{'weight_map':{}", TT_ERROR_FORMAT, TT_ERROR_FORMAT},
    {"text behind", "{'weight_map':{}}x", TT_ERROR_FORMAT, TT_ERROR_FORMAT},
    {"invalid UTF-8", "{'weight_map':{},'\xff':1}", TT_ERROR_FORMAT, TT_ERROR_FORMAT},
    {"empty name", FILE_MAP("'x':''"), TT_ERROR_FORMAT, TT_ERROR_FORMAT},
    {"folder", FILE_MAP("'x':'./" FILE_A "'"), TT_ERROR_FORMAT, TT_ERROR_FORMAT},
    {"absolute", FILE_MAP("'x':'/etc/passwd'"), TT_ERROR_FORMAT, TT_ERROR_FORMAT},
    {"escaped slash", FILE_MAP("'x':'a\\u002f" FILE_A "'"), TT_ERROR_FORMAT, TT_ERROR_FORMAT},
    {"this folder", FILE_MAP("'x':'.'"), TT_ERROR_FORMAT, TT_ERROR_FORMAT},
    {"folder above", FILE_MAP("'x':'..'"), TT_ERROR_FORMAT, TT_ERROR_FORMAT},
    {"backslash", FILE_MAP("'x':'..\\\\" FILE_A "'"), TT_ERROR_FORMAT, TT_ERROR_FORMAT},
    {"drive", FILE_MAP("'x':'C:" FILE_A "'"), TT_ERROR_FORMAT, TT_ERROR_FORMAT},
    {"NUL in a shard", FILE_MAP("'x':'" FILE_A "\\u0000'"), TT_ERROR_FORMAT, TT_ERROR_FORMAT},
    {"NUL in a tensor", FILE_MAP("'x\\u0000':'" FILE_A "'"), TT_ERROR_FORMAT, TT_ERROR_FORMAT},
    {"escape sequence", FILE_MAP("'x':'" FILE_A "\\u001b'"), TT_ERROR_FORMAT, TT_ERROR_FORMAT},
};

// An index as text with ' instead of ", opened in both ways; no object where the status is bad.
static void file_check_map(const char *text, size_t size, tt_status by_path, tt_status in_memory) {
  file_bytes bytes = file_exact(text, size);
  tt_file *file;
  for (size_t i = 0; i < size; i++)
    if (text[i] == '\'') bytes.bytes[i] = '"';
  CHECK_STATUS(tt_file_open_memory(bytes.bytes, size, NULL, &file), in_memory);
  CHECK(file == NULL);
#ifndef TT_NO_STDIO
  file_store(FILE_PATH, bytes.bytes, size);
  CHECK_STATUS(tt_file_open(FILE_PATH, NULL, &file), by_path);
  CHECK((by_path == TT_OK) == (file != NULL));
  tt_file_close(file);
  remove(FILE_PATH);
#endif
  (void)by_path;
  free(bytes.bytes);
}

static void file_store_shards(void) {
#ifndef TT_NO_STDIO
  file_bytes a = file_build(
                 "{'x':" FILE_T("U8", "2", "0,2") ",'both':" FILE_T("U8", "3", "2,5") "}", 5, 1),
             b = file_build("{'y':" FILE_T("U8", "4", "3,7") ",'both':" FILE_T(
                                "U8", "3", "0,3") ",'hidden':" FILE_T("F32", "1", "7,11") "}",
                            11, 2);
  file_store(FILE_A, a.bytes, a.size);
  file_store(FILE_B, b.bytes, b.size);
  free(a.bytes);
  free(b.bytes);
#endif
}

static void file_test_maps(void) {
  file_store_shards();
  for (size_t i = 0; i < sizeof file_maps / sizeof *file_maps; i++) {
    long failed = test_failed;
    const file_map *map = file_maps + i;
    file_check_map(map->index, strlen(map->index), map->by_path, map->in_memory);
    if (failed != test_failed) printf("  index: %s\n", map->what);
  }
  static const char nul[] = "{'weight_map':{'x':'" FILE_A "\0'}}";
  file_check_map(nul, sizeof nul - 1, TT_ERROR_FORMAT, TT_ERROR_FORMAT);
  char text[3000], name[1100];
  for (int length = 1024; length < 1026; length++) { // too long for a tensor, for a shard
    memset(name, 'n', 1100);
    name[length] = 0;
    sprintf(text, "{'weight_map':{'%s':'" FILE_A "'}}", name);
    tt_status status = length > 1024 ? TT_ERROR_UNSUPPORTED : TT_ERROR_FORMAT;
    file_check_map(text, strlen(text), status, TT_ERROR_UNSUPPORTED);
    sprintf(text, "{'weight_map':{'x':'%s'}}", name);
    status = length > 1024 ? TT_ERROR_FORMAT : TT_ERROR_IO;
    file_check_map(text, strlen(text), status, length > 1024 ? status : TT_ERROR_UNSUPPORTED);
  }
  tt_file *file;
  char *large = (char *)test_new(TT__HEADER_CAP + 1, 1); // more text than a header may have
  memcpy(large, "{\"weight_map\":{}}", 17);
  CHECK_STATUS(tt_file_open_memory(large, TT__HEADER_CAP + 1, NULL, &file), TT_ERROR_UNSUPPORTED);
  free(large);
#ifndef TT_NO_STDIO
  static const char map[] = FILE_MAP("'x':'" FILE_A "','y':'" FILE_B "'");
  file_bytes b = file_build("{'y':" FILE_T("U8", "4", "0,4") "}", 4, 2);
  file_store(FILE_B, b.bytes, b.size - 1); // a shard cut short
  file_check_map(map, sizeof map - 1, TT_ERROR_FORMAT, TT_ERROR_UNSUPPORTED);
  file_store(FILE_B,
             "\x93NUMPY\1\0\x36\0{'descr': '|u1', 'fortran_order': False, 'shape': (1,)}\n\1", 65);
  file_check_map(map, sizeof map - 1, TT_ERROR_FORMAT, TT_ERROR_UNSUPPORTED);
  file_store(FILE_B, "{\"weight_map\":{}}", 17); // an index is no shard
  file_check_map(map, sizeof map - 1, TT_ERROR_FORMAT, TT_ERROR_UNSUPPORTED);
  free(b.bytes);
  tt_file owner, *last = NULL;
  memset(&owner, 0, sizeof owner);
  owner.num_shards = TT__SHARD_CAP - 1;
  CHECK_STATUS(tt__shard_open(&owner, FILE_A, FILE_A, &last), TT_OK);
  CHECK_STATUS(tt__shard_open(&owner, FILE_A, FILE_A, &last), TT_ERROR_UNSUPPORTED);
  tt_file_close(last);
  remove(FILE_A);
  remove(FILE_B);
#endif
}

#ifndef TT_NO_STDIO
// A checkpoint whose layer fc lies in two shards and whose train, with a hint in its shard's
// metadata, in the second.
static file_bytes file_store_model(tt_matrix *train) {
  static const ptrdiff_t dims[2] = {3, 4}, wide[1] = {5000};
  static const char *const places[2] = {FILE_B, FILE_A};
  float *x = test_normal_floats(5000);
  file_bytes whole = {NULL, 0};
  *train = file_train(2, TT_I4, 5, 1, 1, 0, NULL);
  for (int i = 0; i < 3; i++) { // shard b, shard a, all in one
    tt_writer *writer;
    CHECK_STATUS(tt_writer_create(NULL, &writer), TT_OK);
    if (i != 1) {
      CHECK_STATUS(tt_writer_add_matrix(writer, "train", train, NULL), TT_OK);
      CHECK_STATUS(tt_writer_add(writer, "fc.bias", "F32", 1, dims, x, 12), TT_OK);
      CHECK_STATUS(tt_writer_metadata(writer, "of", "b"), TT_OK);
    }
    if (i != 0) {
      CHECK_STATUS(tt_writer_add(writer, "fc.weight", "F32", 2, dims, x + 3, 48), TT_OK);
      CHECK_STATUS(tt_writer_add(writer, "wide", "F32", 1, wide, x, 20000), TT_OK);
      CHECK_STATUS(tt_writer_metadata(writer, "of", "a"), TT_OK);
    }
    if (i == 0) CHECK_STATUS(tt_writer_add(writer, "wide", "F32", 1, wide, x, 20000), TT_OK);
    if (i < 2)
      CHECK_STATUS(tt_writer_save(writer, places[i]), TT_OK);
    else
      whole = file_saved(writer);
    tt_writer_free(writer);
  }
  static const char map[] = "{\"weight_map\":{\"wide\":\"" FILE_A "\",\"train.cores.0\":\"" FILE_B
                            "\",\"train.cores.1\":\"" FILE_B "\",\"train.scale.1\":\"" FILE_B
                            "\",\"train.scales.0\":\"" FILE_B "\",\"train.scales.1\":\"" FILE_B
                            "\",\"fc.bias\":\"" FILE_B "\",\"fc.weight\":\"" FILE_A "\"}}\n";
  file_store(FILE_PATH, map, sizeof map - 1);
  free(x);
  return whole;
}

// Every call gives what it gives for one file with the same tensors.
static void file_test_shards(void) {
  tt_matrix train, a, b;
  file_bytes whole = file_store_model(&train);
  tt_file *file, *single;
  const char *name, *dtype, *other, *value;
  const ptrdiff_t *dims, *dims2;
  const void *data = &file;
  int order, order2, index, shard = 0;
  size_t size, size2;
  CHECK_STATUS(tt_file_open_memory(whole.bytes, whole.size, NULL, &single), TT_OK);
  CHECK_STATUS(tt_file_open("./" FILE_PATH, NULL, &file), TT_OK);
  CHECK(tt_file_count(file) == 8 && tt_file_count(single) == 8);
  CHECK(tt_file_shard_count(file) == 2 && tt_file_shard_count(single) == 0);
  CHECK(tt_file_shard_count(NULL) == 0);
  CHECK(tt_file_shard_name(file, 0, &name) == TT_OK && !strcmp(name, FILE_A));
  CHECK(tt_file_shard_name(file, 1, &name) == TT_OK && !strcmp(name, FILE_B));
  CHECK_STATUS(tt_file_shard_name(file, 2, &name), TT_ERROR_INVALID);
  CHECK_STATUS(tt_file_shard_name(file, -1, &name), TT_ERROR_INVALID);
  CHECK_STATUS(tt_file_shard_name(file, 0, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_file_shard_name(NULL, 0, &name), TT_ERROR_INVALID);
  tt_writer *writer;
  CHECK_STATUS(tt_writer_create(NULL, &writer), TT_OK);
  for (int i = 0; i < tt_file_count(file); i++) {
    CHECK_STATUS(tt_file_tensor(file, i, &name, &dtype, &order, &dims, &data, &size), TT_OK);
    CHECK(data == NULL);
    int in_b = strcmp(name, "wide") != 0 && strcmp(name, "fc.weight") != 0;
    CHECK(in_b >= shard); // first all of a, then all of b
    shard = in_b;
    CHECK(tt_file_find(file, name, &index) == TT_OK && index == i);
    CHECK_STATUS(tt_file_find(single, name, &index), TT_OK);
    CHECK_STATUS(tt_file_tensor(single, index, NULL, &other, &order2, &dims2, NULL, &size2), TT_OK);
    CHECK(!strcmp(dtype, other) && order == order2 && size == size2);
    for (int k = 0; k < order; k++) CHECK(dims[k] == dims2[k]);
    unsigned char *x = (unsigned char *)test_new((ptrdiff_t)size, 2), *y = x + size;
    CHECK_STATUS(tt_file_read(file, i, 1, x + 1, size - 1), TT_OK);
    CHECK_STATUS(tt_file_read(file, i, 0, x, 1), TT_OK);
    CHECK_STATUS(tt_file_read(single, index, 0, y, size), TT_OK);
    CHECK(!memcmp(x, y, size));
    free(x);
    CHECK_STATUS(tt_writer_copy(writer, file, i), TT_OK);
  }
  file_bytes copied = file_saved(writer); // the same data behind another header
  CHECK(!memcmp(copied.bytes + copied.size - 20100, whole.bytes + whole.size - 20100, 20100));
  free(copied.bytes);
  tt_writer_free(writer);
  CHECK_STATUS(tt_file_matrix(file, "train", NULL, &a), TT_OK);
  CHECK(file_same(&a, &train));
  tt_free(&a);
  CHECK_STATUS(tt_file_matrix(file, "fc", NULL, &a), TT_OK);
  CHECK_STATUS(tt_file_matrix(single, "fc", NULL, &b), TT_OK);
  CHECK(a.bias && file_same(&a, &b));
  tt_free(&a);
  tt_free(&b);
  float *x = test_floats(10000);
  CHECK(tt_file_find(file, "wide", &index) == TT_OK &&
        tt_file_read_f32(file, index, x, 5000) == TT_OK);
  CHECK(tt_file_find(single, "wide", &index) == TT_OK &&
        tt_file_read_f32(single, index, x + 5000, 5000) == TT_OK);
  CHECK(!memcmp(x, x + 5000, 20000));
  free(x);
  CHECK(tt_file_metadata_count(file) == 3); // those of shard a
  CHECK_STATUS(tt_file_metadata(file, 2, &name, &value), TT_OK);
  CHECK(!strcmp(name, "of") && !strcmp(value, "a"));
  tt_file_close(file);
  tt_file_close(single);
  tt_free(&train);
  free(whole.bytes);
}

static int file_run_shards(const tt_options *options) {
  tt_file *file;
  tt_status status = tt_file_open(FILE_PATH, options, &file);
  CHECK(status ? status == TT_ERROR_MEMORY && !file : tt_file_count(file) == 8);
  tt_file_close(file);
  return !status;
}
#endif

// ---- data that wait in a temporary file

#ifndef TT_NO_STDIO
// Tensors of every kind, some longer than what is copied at a time; data spill from part `begin` of
// 4 on.
static tt_status file_fill(tt_writer *writer, const tt_file *source, int begin) {
  static const char types[4][5] = {"U8", "F32", "F64", "BF16"};
  static const ptrdiff_t widths[4] = {1, 4, 8, 2};
  tt_matrix w[3] = {file_train(2, TT_I4, 5, 1, 1, 1, NULL), file_train(3, TT_F64, 0, 0, 0, 0, NULL),
                    file_train(3, TT_I8, TT_GROUP_ROW, 0, 0, 1, NULL)};
  char name[32];
  tt_inputs *inputs;
  float *x = test_normal_floats(70 * 60);
  CHECK_STATUS(tt_inputs_create(60, NULL, &inputs), TT_OK);
  CHECK_STATUS(tt_inputs_add(inputs, x, 70), TT_OK);
  tt_status status = TT_OK;
  for (int part = 0; part < 4 && !status; part++) {
    if (part == begin) status = tt_writer_spill(writer, FILE_PATH);
    for (int i = 0; i < 60 && !status; i++) {
      ptrdiff_t count = i < 4 ? 700 : i % 7;
      sprintf(name, "%d.%d", i * 37 % 60, part);
      status =
          tt_writer_add(writer, name, types[i % 4], 1, &count, x, (size_t)(count * widths[i % 4]));
    }
    sprintf(name, "layer%d", part);
    if (!status && part < 3) status = tt_writer_add_matrix(writer, name, &w[part], NULL);
    if (!status && part == 3) status = tt_writer_add_inputs(writer, name, inputs);
    for (int i = part; i < tt_file_count(source) && !status; i += 4)
      status = tt_writer_copy(writer, source, i);
    if (!status) status = tt_writer_metadata(writer, name, "said");
  }
  for (int i = 0; i < 3; i++) tt_free(&w[i]);
  tt_inputs_free(inputs);
  free(x);
  return status;
}

// Seven tensors around the size that is copied at a time, and one of 3 MB.
static file_bytes file_long(void) {
  char header[1000] = "{", *at = header + 1;
  ptrdiff_t begin = 0;
  for (int i = 0; i < 8; i++) {
    ptrdiff_t size = i < 7 ? (i / 3 + 1) * TT__CHUNK + i % 3 - 1 : 3000000;
    at += sprintf(at, "%s'long%d':{'dtype':'U8','shape':[%ld],'data_offsets':[%ld,%ld]}",
                  i ? "," : "", i, (long)size, (long)begin, (long)(begin + size));
    begin += size;
  }
  strcpy(at, "}");
  file_bytes file = file_build(header, begin, 0);
  for (ptrdiff_t i = 1; i <= begin; i++)
    file.bytes[file.size - (size_t)i] = (unsigned char)test_u64();
  return file;
}

// Saved bytes do not depend on where the data waited; memory does.
static void file_test_spill(void) {
  file_bytes source = file_long(), wanted = {NULL, 0};
  tt_file *file;
  CHECK_STATUS(tt_file_open_memory(source.bytes, source.size, NULL, &file), TT_OK);
  for (int begin = 4; begin >= 0; begin--) {
    test_heap heap;
    tt_options options = test_options();
    tt_writer *writer;
    options.allocator = test_allocator(&heap);
    CHECK_STATUS(tt_writer_create(&options, &writer), TT_OK);
    test_seed(7);
    CHECK_STATUS(file_fill(writer, file, begin), TT_OK);
    CHECK(file_exists(FILE_PATH ".tmp") == (begin < 4));
    if (begin == 4) CHECK(heap.peak > 3000000);
    if (begin == 0) CHECK(heap.peak < 200000);
    CHECK_STATUS(tt_writer_save(writer, FILE_PATH), TT_OK);
    CHECK(!file_exists(FILE_PATH ".tmp1"));
    if (begin == 0) CHECK(heap.peak < 200000);
    file_bytes bytes = file_saved(writer);
    if (begin == 4) wanted = bytes;
    CHECK(bytes.size == wanted.size && !memcmp(bytes.bytes, wanted.bytes, wanted.size));
    FILE *stream = fopen(FILE_PATH, "rb");
    unsigned char *saved = (unsigned char *)test_new((ptrdiff_t)wanted.size + 1, 1);
    CHECK(stream && fread(saved, 1, wanted.size + 1, stream) == wanted.size);
    if (stream) fclose(stream);
    CHECK(!memcmp(saved, wanted.bytes, wanted.size));
    free(saved);
    if (begin < 4) free(bytes.bytes);
    tt_writer_free(writer);
    CHECK(!file_exists(FILE_PATH ".tmp") && heap.live_blocks == 0);
  }
  remove(FILE_PATH);
  free(wanted.bytes);
  tt_file_close(file);
  free(source.bytes);
}

// A disk that refuses takes nothing into the file; one that forgets is noticed when saving.
static void file_test_spill_fails(void) {
  tt_writer *writer;
  static const ptrdiff_t dims[1] = {40000};
  char *data = (char *)test_new(40000, 1);
  CHECK_STATUS(tt_writer_create(NULL, &writer), TT_OK);
  CHECK_STATUS(tt_writer_spill(NULL, FILE_PATH), TT_ERROR_INVALID);
  CHECK_STATUS(tt_writer_spill(writer, NULL), TT_ERROR_INVALID);
  CHECK_STATUS(tt_writer_spill(writer, "no/such/folder/file"), TT_ERROR_IO);
  CHECK_STATUS(tt_writer_add(writer, "a", "U8", 1, dims, data, 40000), TT_OK);
  file_store(FILE_PATH ".tmp", "mine", 4); // not ours to overwrite
  CHECK_STATUS(tt_writer_spill(writer, FILE_PATH), TT_OK);
  CHECK(file_exists(FILE_PATH ".tmp1"));
  CHECK_STATUS(tt_writer_spill(writer, FILE_PATH), TT_ERROR_INVALID);
  CHECK_STATUS(tt_writer_add(writer, "b", "U8", 0, NULL, "x", 1), TT_OK);
  tt_matrix w = file_train(2, TT_I8, 32, 0, 0, 1, NULL);
  writer->spill = freopen(FILE_PATH ".tmp1", "rb", writer->spill);
  if (writer->spill) { // nothing can be written
    CHECK_STATUS(tt_writer_add(writer, "c", "U8", 1, dims, data, 40000), TT_ERROR_IO);
    CHECK_STATUS(tt_writer_add_matrix(writer, "d", &w, NULL), TT_ERROR_IO);
    CHECK(writer->tensors.count == 2 && writer->layers.count == 0);
    writer->spill = freopen(FILE_PATH ".tmp1", "r+b", writer->spill);
  }
  if (writer->spill) { // there is space again
    CHECK_STATUS(tt_writer_add_matrix(writer, "d", &w, NULL), TT_OK);
    CHECK_STATUS(tt_writer_add(writer, "c", "U8", 1, dims, data, 40000), TT_OK);
    file_bytes bytes = file_saved(writer);
    tt_file *file;
    tt_matrix back;
    CHECK_STATUS(tt_file_open_memory(bytes.bytes, bytes.size, NULL, &file), TT_OK);
    CHECK_STATUS(tt_file_matrix(file, "d", NULL, &back), TT_OK);
    CHECK(file_same(&w, &back));
    tt_free(&back);
    tt_file_close(file);
    writer->spill = freopen(FILE_PATH ".tmp1", "w+b", writer->spill);
    CHECK_STATUS(tt_writer_save_memory(writer, bytes.bytes, &bytes.size), TT_ERROR_IO);
    CHECK_STATUS(tt_writer_save(writer, FILE_PATH), TT_ERROR_IO);
    CHECK(!file_exists(FILE_PATH) && !file_exists(FILE_PATH ".tmp2"));
    free(bytes.bytes);
  }
  CHECK(writer->spill != NULL);
  tt_writer_free(writer);
  CHECK(!file_exists(FILE_PATH ".tmp1") && remove(FILE_PATH ".tmp") == 0);
  tt_free(&w);
  free(data);
}
#endif

// ---- damage

// A file with a bit of everything.
static file_bytes file_sample(void) {
  tt_writer *writer;
  tt_matrix a = file_train(2, TT_I4, 5, 1, 1, 1, NULL), b = file_train(1, TT_F16, 0, 0, 0, 0, NULL);
  static const ptrdiff_t dims[2] = {2, 2};
  CHECK_STATUS(tt_writer_create(NULL, &writer), TT_OK);
  CHECK_STATUS(tt_writer_add_matrix(writer, "a", &a, NULL), TT_OK);
  CHECK_STATUS(tt_writer_add_matrix(writer, "b", &b, NULL), TT_OK);
  CHECK_STATUS(tt_writer_add(writer, "c", "U8", 2, dims, "\1\2\3\4", 4), TT_OK);
  CHECK_STATUS(tt_writer_metadata(writer, "k", "\xc3\xa9"), TT_OK);
  file_bytes bytes = file_saved(writer);
  tt_writer_free(writer);
  tt_free(&a);
  tt_free(&b);
  return bytes;
}

static void file_test_damage(void) {
  file_bytes bytes = file_sample();
  CHECK(file_touch(bytes.bytes, bytes.size) != 0);
  // cut anywhere, in a block of exactly that size
  for (size_t size = 0; size < bytes.size; size++) {
    file_bytes cut = file_exact(bytes.bytes, size);
    tt_file *file;
    CHECK_STATUS(tt_file_open_memory(cut.bytes, size, NULL, &file), TT_ERROR_FORMAT);
    free(cut.bytes);
  }
  static const unsigned char flips[6] = {1, 2, 4, 16, 128, 255};
  long opened = 0, refused = 0;
  for (size_t i = 0; i < bytes.size; i++)
    for (int f = 0; f < 6; f++) {
      file_bytes bad = file_exact(bytes.bytes, bytes.size);
      bad.bytes[i] ^= flips[f];
      if (file_touch(bad.bytes, bad.size)) opened++;
      else refused++;
      free(bad.bytes);
    }
  CHECK(opened > 100 && refused > 1000);                       // both kinds were met
  free(bytes.bytes);
}

static file_bytes file_shared;                                 // what the runs below read

static int file_run_open(const tt_options *options) {
  tt_file *file;
  tt_matrix w;
  memset(&w, 0x55, sizeof w);
  tt_status status = tt_file_open_memory(file_shared.bytes, file_shared.size, options, &file);
  if (status) {
    CHECK(status == TT_ERROR_MEMORY && !file);
    return 0;
  }
  status = tt_file_matrix(file, "a", options, &w);
  if (status) CHECK(status == TT_ERROR_MEMORY && !w.block && !w.rows && !w.bias);
  tt_free(&w);
  tt_file_close(file);
  return !status;
}

#ifndef TT_NO_STDIO
static int file_run_path(const tt_options *options) {
  tt_file *file;
  tt_status status = tt_file_open(FILE_PATH, options, &file);
  CHECK(status ? status == TT_ERROR_MEMORY && !file : tt_file_count(file) > 0);
  tt_file_close(file);
  return !status;
}
#endif

static int file_run_write(const tt_options *options) {
  tt_matrix w = file_train(2, TT_I8, 32, 0, 0, 1, NULL);
  tt_writer *writer;
  tt_file *file;
  char bytes[4096];
  size_t size = sizeof bytes;
  CHECK_STATUS(tt_file_open_memory(file_shared.bytes, file_shared.size, NULL, &file), TT_OK);
  tt_status status = tt_writer_create(options, &writer);
  CHECK(!status == (writer != NULL));
  if (!status) status = tt_writer_add(writer, "x", "U8", 0, NULL, "x", 1);
  if (!status) status = tt_writer_add_matrix(writer, "m", &w, NULL);
  if (!status) status = tt_writer_copy(writer, file, 0);
  if (!status) status = tt_writer_metadata(writer, "k", "v");
  if (!status) status = tt_writer_metadata(writer, "k", "a longer value");
  if (!status) status = tt_writer_save_memory(writer, bytes, &size);
#ifndef TT_NO_STDIO
  if (!status) status = tt_writer_spill(writer, FILE_PATH ".copy");
  if (!status) status = tt_writer_add(writer, "y", "U8", 0, NULL, "y", 1);
  if (!status) status = tt_writer_copy(writer, file, 1);
  if (!status) status = tt_writer_save(writer, FILE_PATH ".copy");
#endif
  CHECK(!status || status == TT_ERROR_MEMORY);
  tt_writer_free(writer);
#ifndef TT_NO_STDIO
  CHECK(!file_exists(FILE_PATH ".copy.tmp"));
#endif
  tt_file_close(file);
  tt_free(&w);
  return !status;
}

// A train that could not be added whole leaves nothing behind, and can be added later.
static void file_test_retry(void) {
  tt_matrix w = file_train(3, TT_I8, 32, 0, 0, 1, NULL);
  file_bytes wanted = {NULL, 0};
  // 3 cores, 3 scales, one scale, bias, entry
  for (long n = 0; n < 9; n++) {
    test_heap heap;
    tt_options options = test_options();
    tt_writer *writer;
    options.allocator = test_allocator(&heap);
    CHECK_STATUS(tt_writer_create(&options, &writer), TT_OK);
    CHECK_STATUS(tt_writer_add(writer, "m", "U8", 0, NULL, "x", 1), TT_OK);
    heap.fail_at = n ? heap.calls + n : 0;
    if (n) CHECK_STATUS(tt_writer_add_matrix(writer, "l", &w, NULL), TT_ERROR_MEMORY);
    heap.fail_at = 0;
    CHECK_STATUS(tt_writer_add_matrix(writer, "l", &w, NULL), TT_OK);
    file_bytes bytes = file_saved(writer);
    if (!n) wanted = bytes;
    CHECK(bytes.size == wanted.size && !memcmp(bytes.bytes, wanted.bytes, wanted.size));
    if (n) free(bytes.bytes);
    tt_writer_free(writer);
    CHECK(heap.live_blocks == 0);
  }
  free(wanted.bytes);
  tt_free(&w);
}

static void file_test_memory(void) {
  file_shared = file_sample();
  file_failures(file_run_open);
  file_failures(file_run_write);
#ifndef TT_NO_STDIO
  remove(FILE_PATH ".copy");
  file_store(FILE_PATH, file_shared.bytes, file_shared.size);
  file_failures(file_run_path);
  remove(FILE_PATH);
#endif
  free(file_shared.bytes);
  file_test_retry();
}

static void test_file(void) {
  file_test_attacks();
  file_test_lengths();
  file_test_many();
  file_test_names();
  file_test_access();
  file_test_path();
  file_test_read_f32();
  file_test_npy();
  file_test_round_trips();
  file_test_layers();
  file_test_values();
  file_test_golden();
  file_test_refused();
  file_test_copy();
  file_test_report();
  file_test_atomic();
  file_test_maps();
#ifndef TT_NO_STDIO
  file_test_shards();
  file_failures(file_run_shards);
  remove(FILE_PATH);
  remove(FILE_A);
  remove(FILE_B);
  file_test_spill();
  file_test_spill_fails();
#endif
  file_test_damage();
  file_test_memory();
}
