/* Schedules, hooks, and scripts that mean harm. */
#include "script/api.h"

#include "base/files.h"
#include "base/text.h"
#include "language/tree.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

enum { LONGEST_MS = SCRIPT_CPU_MS + 500 };

static double cpu_ms(void) {
  return (double)clock() * 1000 / CLOCKS_PER_SEC;
}

static status open_as(script_kind kind, const char *source, const tree *arguments, script **out) {
  script_ref ref = {.path = "test.lua", .source = source, .arguments = arguments};
  return script_open(kind, &ref, out);
}

static script *open_or_fail(const char *source, const tree *arguments) {
  script *s;
  status error = open_as(SCRIPT_EPOCH_END, source, arguments, &s);
  if (error) {
    print_error("%s\n", error_message(error));
    error_free(error);
    fail();
  }
  return s;
}

static status schedule_at(script *s, int64_t step, int64_t epoch, int64_t total,
                          int64_t steps_per_epoch, double base, double *out) {
  schedule_point at = {.step = step,
                       .epoch = epoch,
                       .total = total,
                       .steps_per_epoch = steps_per_epoch,
                       .base = base};
  return script_schedule(s, &at, out);
}

static status call_schedule(const char *source, int64_t step, double *out) {
  script *s;
  TRY(open_as(SCRIPT_SCHEDULE, source, NULL, &s));
  status error = schedule_at(s, step, step / 10, 100, 10, 2.0, out);
  script_close(s);
  return error;
}

/* The error must contain `expected`; line 0 means any line. */
static bool is_expected(status error, const char *expected, int line, const char *source) {
  bool as_expected = error && strstr(error_message(error), expected) &&
                     (line == 0 || error_position(error).line == line);
  if (!as_expected)
    print_error("script: %.200s\nexpected at line %d: %s\ngot at line %d: %s\n", source, line,
                expected, error_position(error).line, error ? error_message(error) : "no error");
  error_free(error);
  return as_expected;
}

static void assert_error(status error, const char *expected, int line, const char *source) {
  assert_true(is_expected(error, expected, line, source));
}

static void assert_ok(status error) {
  if (error) print_error("%s\n", error_message(error));
  assert_null(error);
}

/* ---- schedules --------------------------------------------------------------------------------
 */

static void a_schedule_gets_its_five_arguments(void **unused) {
  (void)unused;
  double value;
  const char *source = "return function(step, epoch, total, base, steps_per_epoch)\n"
                       "  return step + 1000 * epoch + 1e5 * total + 1e8 * base + 1e10 * "
                       "steps_per_epoch\nend";
  assert_ok(call_schedule(source, 37, &value));
  assert_true(value == 37 + 3000 + 1e7 + 2e8 + 1e11);
}

typedef struct schedule_file {
  char *source;
  tree *arguments;
  arena memory;
  script *script;
} schedule_file;

static schedule_file open_file(const char *name, const char *arguments) {
  schedule_file f = {0};
  char path[400];
  size_t length;
  snprintf(path, sizeof path, "%s/lua/%s.lua", SOURCE_DIR, name);
  assert_ok(file_read(path, 1 << 20, &f.source, &length));
  assert_ok(tree_parse(&f.memory, arguments, strlen(arguments), "test.yaml", &f.arguments));
  f.script = open_or_fail(f.source, f.arguments);
  return f;
}

static void close_file(schedule_file *f) {
  script_close(f->script);
  free(f->source);
  arena_free(&f->memory);
}

static void warmup_cosine_rises_and_falls(void **unused) {
  (void)unused;
  schedule_file f = open_file("warmup_cosine", "{warmup: 2, final: 0.1}");
  for (int step = 0; step < 100; step++) {
    double value, expected;
    assert_ok(schedule_at(f.script, step, step / 10, 100, 10, 2.0, &value));
    if (step < 20)
      expected = 2.0 * (step + 1) / 20;
    else
      expected = 2.0 * (0.1 + 0.9 * 0.5 * (1 + cos(M_PI * (step - 20) / 80.0)));
    assert_true(fabs(value - expected) < 1e-12);
  }
  close_file(&f);
  f = open_file("warmup_cosine", "{warmup: 20}"); /* longer than the stage */
  double value;
  assert_ok(schedule_at(f.script, 99, 9, 100, 10, 2.0, &value));
  assert_true(value == 2.0);
  close_file(&f);
}

/* 800 epochs of 10 steps: seven values above 0 of a warm-up that has 50. */
static void warmup_cosine_can_hold_its_values(void **unused) {
  (void)unused;
  schedule_file f = open_file("warmup_cosine", "{warmup: 50, hold: 100}");
  for (int step = 0; step < 8000; step += 37) {
    double value;
    assert_ok(schedule_at(f.script, step, step / 10, 8000, 10, 1e-4, &value));
    assert_true(fabs(value - 1e-4 * (step / 1000) / 49) < 1e-18);
  }
  close_file(&f);
  f = open_file("warmup_cosine", "{warmup: 2, hold: 5}"); /* of 22 epochs: 0, 1, and down */
  double value;
  assert_ok(schedule_at(f.script, 210, 21, 220, 10, 1, &value));
  assert_true(fabs(value - (1 + cos(M_PI * 2 / 20)) / 2) < 1e-12);
  close_file(&f);
}

static void poly_falls_to_zero(void **unused) {
  (void)unused;
  schedule_file f = open_file("poly", "{}");
  for (int step = 0; step < 100; step += 9) {
    double value;
    assert_ok(schedule_at(f.script, step, step / 10, 100, 10, 0.01, &value));
    assert_true(fabs(value - 0.01 * pow(1 - step / 100.0, 0.9)) < 1e-15);
  }
  close_file(&f);
}

static void arguments_arrive_typed(void **unused) {
  (void)unused;
  arena memory = {0};
  tree *arguments;
  const char *yaml = "{whole: 3, real: 0.5, yes: true, word: abc, digits: '12', list: [1, 2, 4], "
                     "map: {a: 1}, none: null}";
  assert_ok(tree_parse(&memory, yaml, strlen(yaml), "test.yaml", &arguments));
  script *s =
      open_or_fail("assert(math.type(args.whole) == 'integer' and args.real == 0.5)\n"
                   "assert(args.yes == true and args.word == 'abc' and args.digits == '12')\n"
                   "assert(#args.list == 3 and args.list[3] == 4 and args.map.a == 1)\n"
                   "assert(args.none == nil and args.absent == nil)\n"
                   "return function() return 1 end",
                   arguments);
  script_close(s);
  arena_free(&memory);
}

static void an_argument_nobody_reads_is_an_error_in_the_yaml(void **unused) {
  (void)unused;
  arena memory = {0};
  tree *arguments;
  const char *yaml = "power: 2\nwarmpu: 3\n";
  assert_ok(tree_parse(&memory, yaml, strlen(yaml), "test.yaml", &arguments));
  script *s;
  const char *source = "local a = args.warmup or 1\nlocal b = args.power\n"
                       "return function() return a + b end";
  status error = open_as(SCRIPT_SCHEDULE, source, arguments, &s);
  assert_int_equal(error_code_of(error), ERROR_PIPELINE);
  assert_string_equal(error_position(error).file, "test.yaml");
  assert_error(error, "did you mean 'warmup'?", 2, source);
  source = "for name, value in pairs(args) do end\nreturn function() return 1 end";
  script_close(open_or_fail(source, arguments));
  arena_free(&memory);
}

static void mistakes_are_named_with_their_line(void **unused) {
  (void)unused;
  static const struct {
    const char *source, *expected;
    int line;
  } cases[] = {
      {"return 3", "must end with", 0},
      {"", "must end with", 0},
      {"return type", "must end with", 0},
      {"local x = = 3", "unexpected symbol near '='", 1},
      {"return function()\n  return nil\nend", "it returned a nil value", 1},
      {"return function()\n  return '3'\nend", "it returned a string value", 1},
      {"return function()\n  return 0/0\nend", "nan", 1},
      {"return function()\n  return math.huge\nend", "inf", 1},
      {"return function()\n\n  return stpe\nend", "stpe is not defined", 3},
      {"local total = 1\nreturn function()\n  return math.coss(1)\nend", "did you mean math.cos?",
       3},
      {"return function()\n  best = 1\n  return 1\nend", "global 'best' cannot be assigned", 2},
      {"return function()\n  math.pi = 3\n  return 1\nend", "math.pi cannot be assigned", 2},
      {"return function()\n  return math.random()\nend", "the same on every run", 2},
      {"return function()\n  error('no good')\nend", "no good", 2},
      {"return function()\n  error('no good', 0)\nend", "no good", 2},
      {"return function()\n  error({})\nend", "error was called with a table", 2},
      {"return function()\n  error(nil)\nend", "error was called with a nil", 2},
      {"return function()\n  error()\nend", "error was called with a nil", 2},
      {"return function()\n  error(type)\nend", "error was called with a function", 2},
      {"return function()\n  error(7)\nend", "7", 2},
      {"return function()\n  print(1)\n  return 1\nend",
       "these have it: on_validation, on_epoch_end", 2},
      {"return function()\n  return 1 + {}\nend", "arithmetic on a table value", 2},
      {"return function()\n  return '1' + 1\nend", "arithmetic on a string value", 2},
      {"local n = 0\nreturn function()\n  n = n + 1\n  return n\nend",
       "changed a variable outside itself", 0},
      {"local seen = {}\nreturn function(step)\n  seen[step] = 1\n  return 1\nend",
       "changed a variable outside itself", 0},
      {"log = {}\nlocal function note(x) log[1] = x end\nreturn function(step)\n  note(step)\n  "
       "return 1\nend",
       "changed a variable outside itself", 0},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    double value;
    status error = call_schedule(cases[i].source, 1, &value);
    assert_int_equal(error_code_of(error), ERROR_SCRIPT);
    assert_string_equal(error_position(error).file, "test.lua");
    assert_error(error, cases[i].expected, cases[i].line, cases[i].source);
  }
}

static void what_is_allowed_works(void **unused) {
  (void)unused;
  static const char *const lines[] = {
      "assert(('abc'):upper() == 'ABC' and string.rep('ab', 3, '-') == 'ab-ab-ab')",
      "assert(('ab'):rep(0) == '' and (''):rep(1 << 62) == '' and (''):rep(1 << 62, '') == '')",
      "assert(string.find('loss.context', '.', 1, true) == 5)",
      "assert(string.find('loss.context', '.') == 5 and not string.find('a', '%a', 1, true))",
      "assert(string.format('%d %5.2f %s %q', 3, 0.5, 'x', 'y') == '3  0.50 x \"y\"')",
      "assert(tostring({}) == 'table' and tostring(type) == 'function' and tostring(1.5) == "
      "'1.5')",
      "local t = {} for i = 1, 300 do t[i] = (i * 7919) % 301 end table.sort(t) "
      "for i = 1, 300 do assert(t[i] == i) end",
      "local t = {{1, 'b'}, {0, 'c'}, {1, 'a'}, {0, 'd'}} "
      "table.sort(t, function(a, b) return a[1] < b[1] end) "
      "assert(t[1][2] .. t[2][2] .. t[3][2] .. t[4][2] == 'cdba')",
      "local s = '' for k, v in pairs({z = 1, a = 2, 30, 20, [1.5] = 5, [true] = 6, [-1] = 0}) do "
      "s = s .. tostring(k) .. ' ' end assert(s == '-1 1 1.5 2 a z true ', s)",
      "local t = {a = 1, b = 2, c = 3} for k in pairs(t) do t.b = nil t[k] = nil end "
      "for k in pairs(t) do error('left') end",
      "local n = 0 for i, v in ipairs({5, 6}) do n = n + i * v end assert(n == 17)",
      "local t = {1, 2} table.insert(t, 3) table.insert(t, 1, 0) assert(table.remove(t) == 3)",
      "assert(table.concat({1, 'b', 2.5}, ',') == '1,b,2.5' and table.concat({}) == '')",
      "assert(select('#', table.unpack({1, 2, 3})) == 3)",
      "assert(tonumber('0x10') == 16 and tonumber('z', 36) == 35 and not tonumber('x'))",
      "function helper() return 1 end assert(helper() == 1)",
      "local x <const> = 5 goto done x() ::done::",
      "local function fib(n) return n < 2 and n or fib(n - 1) + fib(n - 2) end assert(fib(20) == "
      "6765)",
      "for _, name in ipairs({'a'}) do assert(name:byte() == 97) end",
      "\nassert(1 // 0.0 == math.huge and 7 // 2 == 3 and 2 ^ 10 == 1024)",
  };
  for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
    text_buffer source = {0};
    text_add(&source, "%s\nreturn function()\n%s\nreturn 1\nend", lines[i],
             strstr(lines[i], "helper") ? "" : lines[i]);
    double value;
    status error = call_schedule(source.data, 0, &value);
    if (error) print_error("%s\n%s\n", lines[i], error_message(error));
    assert_null(error);
    text_free(&source);
  }
}

/* ---- hostile scripts --------------------------------------------------------------------------
 */

/* Each runs while the file loads and inside the function; each must end soon, with an error: most
 * of the endless ones by the count of instructions, on a slow machine by the time. */
static void hostile_scripts_end_with_an_error(void **unused) {
  (void)unused;
  const char *const budget = "in one call";
  const struct {
    const char *body, *expected;
  } cases[] = {
      {"while true do end", budget},
      {"for i = 1, 1e18 do end", budget},
      {"for i = math.maxinteger - 1, math.maxinteger do i = 0 end while 1 do end", budget},
      {"::again:: goto again", budget},
      {"repeat local x <const> = 1 until false", budget},
      {"local function f() return f() end f()", budget}, /* tail calls */
      {"local function f() f() end f()", "call itself without end"},
      {"local function f() return 1 + f() end f()", "call itself without end"},
      {"local function f(...) return 1, f(1, 2, 3, 4, 5, 6, 7, 8, 9, ...) end f()",
       "values in nested calls"},
      {"local function f(t) table.sort(t, function() f({2, 1}) end) end f({2, 1})",
       "C stack overflow"},
      {"local s = string.rep('x', 1 << 40)", "more than 16 KiB"},
      {"local s = ('x'):rep(1e9)", "more than 16 KiB"},
      {"local s = string.rep('', 1 << 62, 'abcdefgh')", "more than 16 KiB"},
      {"local s = 'x' while true do s = s .. s end", "more than 16 KiB"},
      {"local s = ('x'):rep(16000) s = s..s..s..s..s..s..s..s..s..s..s..s..s..s..s..s..s..s..s",
       "more than 16 KiB"},
      {"local t = {} while true do t[#t + 1] = {} end", "more than"},
      {"local t = {} while true do t = {t} end", "16 MiB"},
      {"local t = {} while true do t[#t + 1] = ('x'):rep(9000 + #t) end", "16 MiB"},
      {"local t = {} for i = 1, 1e9 do t[i] = i end", "more than 65536 entries"},
      {"local t = {} for i = 1, 1e9 do t[-i] = i end", "entries"},
      {"local t = {} for i = 1, 1e9 do t[i + 0.5] = function() return i end end", "entries"},
      {"while true do local s = ('x'):rep(16000) .. 'y' end", budget},
      {"local t = {} for i = 1, 60000 do t[i] = '' end while 1 do table.concat(t) end", budget},
      {"local t = {} for i = 1, 60000 do t[i] = 'xxxxxxxx' end table.concat(t)", "16 KiB"},
      {"table.concat({}, 'x', 1, math.maxinteger)", "entry 1 is a nil"},
      {"table.concat({}, 'x', math.mininteger, math.maxinteger)", "is a nil"},
      {"local t = {} for i = 1, 60000 do t[i] = i end while 1 do table.insert(t, 1, 0) end",
       budget},
      {"local t = {} for i = 1, 60000 do t[i] = i end while 1 do table.remove(t, 1) "
       "t[#t + 1] = 0 end",
       budget},
      {"local t = {} for i = 1, 60000 do t[i] = -i end while 1 do table.sort(t) end", budget},
      {"local t = {} for i = 1, 60000 do t[i] = -i end while 1 do for k in pairs(t) do break end "
       "end",
       budget},
      {"local t = {} for i = 1, 500 do t[i] = i end "
       "table.sort(t, function(a, b) return true end) error('sorted')",
       "sorted"},
      {"table.sort({3, 2, 1, 'x', {}})", "attempt to compare"},
      {"table.unpack({}, 1, 1e8)", "at most 200"},
      {"table.unpack({}, math.mininteger, math.maxinteger)", "at most 200"},
      {"local f = string.format while 1 do f('%99.99f', -1e308) end", budget},
      {"string.format('%1000000d', 1)", "invalid conversion"},
      {"string.format('%.999999999f', 1)", "invalid conversion"},
      {"string.format('%s', {})", "a table cannot be formatted"},
      {"string.format('%p', 'x')", "addresses"},
      {"string.format('%-20p', 'x')", "addresses"},
      {"local a, b = ('a'):rep(16000), ('a'):rep(8000) .. 'b' while 1 do a:find(b) end", budget},
      {"local a, b = {}, {} a[1], b[1] = b, a while 1 do for k in pairs(a) do a = b end end",
       budget},
      {"return ('x'):rep(1000, ('y'):rep(1000))", "16 KiB"},
      {"string.dump(function() end)", "string.dump is not available"},
      {"load('return 1')", "load is not available"},
      {"load(function() return nil end)", "load is not available"},
      {"load('\\27Lua', 'x', 'b')()", "load is not available"},
      {"loadstring('return 1')", "loadstring is not available"},
      {"loadfile('/etc/passwd')", "loadfile is not available"},
      {"dofile('/etc/passwd')", "dofile is not available"},
      {"package.loadlib('libc.so.6', '*')", "package is not available"},
      {"os.exit(0)", "os is not available"},
      {"io.popen('true')", "io is not available"},
      {"debug.getregistry()", "debug is not available"},
      {"string.match(('a'):rep(16000), ('a*'):rep(50) .. 'b')", "string.match is not available"},
      {"for w in ('x'):gmatch('.-') do end", "string.gmatch is not available"},
      {"('a'):find(('a?'):rep(30) .. ('a'):rep(30))", "looks like a pattern"},
      {"('validation.dice'):find('^validation')",
       "s:find(text, 1, true) looks for it as it stands"},
      {"for i = 1, 1e9 do local s = ('x'):rep(16000, ' ') end", "16 KiB"},
      {"local s = ('x'):rep(1 << 30)", "more than 16 KiB"},
      {"('x'):dump()", "string.dump is not available"},
      {"('x').x()", "string.x is not defined"},
      {"('').format = error", "attempt to index a string value"},
      {"local t = {} t.__index = t t.__gc = error t.__close = error t = nil error('inert')",
       "inert"},
      {"collectgarbage()", "collectgarbage is not available"},
      {"while true do local t = {{}, {}, {}} end", budget},
      {"coroutine.close(coroutine.running())", "coroutine is not available"},
      {"error(setmetatable)", "setmetatable is not available"},
      {"getmetatable(args).behind.x = 1", "getmetatable is not available"},
      {"string.format('%' .. ('9'):rep(100) .. 'd', 1)", "invalid"},
      {"string.format(('%s'):rep(300), ('x'):rep(16000))", ""},
      {"table.concat({('x'):rep(9000), ('y'):rep(9000)})", "more than 16 KiB"},
      {"local t = {} for i = 1, 250 do t[i] = i end string.char(table.unpack(t))", "at most 200"},
      {"require('os')", "require is not available"},
      {"os.execute('true')", "os is not available"},
      {"io.open('x')", "io is not available"},
      {"debug.sethook()", "debug is not available"},
      {"coroutine.wrap(function() end)()", "coroutine is not available"},
      {"while true do pcall(error) end", "pcall is not available"},
      {"xpcall(error, error)", "xpcall is not available"},
      {"setmetatable({}, {__gc = function() while true do end end})", "setmetatable is not"},
      {"setmetatable({}, {__index = function(t, k) return t[k] end})", "setmetatable is not"},
      {"getmetatable('').__index = nil", "getmetatable is not available"},
      {"('x').rep = type", "attempt to index a string value"},
      {"string.rep = type", "string.rep cannot be assigned"},
      {"_G.print = nil", "_G is not available"},
      {"local x <close> = {}", "non-closable value"},
      {"collectgarbage('stop')", "collectgarbage is not available"},
      {"rawset(string, 'rep', 1)", "rawset is not available"},
      {"next({})", "next is not available"},
      {"('x'):gsub('x', 'y')", "string.gsub is not available"},
      {"math.randomseed(1)", "math.randomseed is not available"},
      {"math.max()", "value expected"},
      {"math.tointeger(2^63 .. '') .x()", "attempt to index"},
      {"local x = 1 // 0", "divide by zero"},
      {"args.x = 1", "read-only"},
      {"table.insert(math, 1)", "cannot be assigned"},
      {"table.insert(_ENV, 1, 1) _ENV[1] = nil error('here')", ""},
      {"local _ENV = {} print(1)", "attempt to call a nil value"},
      {"error(('\\27[2J'):rep(100))", " [2J"},
      {"error(setmetatable)", "setmetatable is not available"},
      {"for i = 1, 10, 0 do end", "step is zero"},
      {"local s = tostring(1e308 * 10) error(s)", "inf"},
  };
  int wrong = 0;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    for (int inside = 0; inside < 2; inside++) {
      if (!inside && i > 0 && cases[i].expected == budget) continue; /* the slow ones, once */
      text_buffer source = {0};
      bool is_return = strncmp(cases[i].body, "return", 6) == 0;
      if (inside)
        text_add(&source, "return function() %s end", cases[i].body);
      else if (is_return)
        text_add(&source, "local function f() %s end f() return f", cases[i].body);
      else
        text_add(&source, "do %s end return function() return 1 end", cases[i].body);
      double value, start = cpu_ms();
      status error = call_schedule(source.data, 1, &value);
      double took = cpu_ms() - start;
      if (took > LONGEST_MS) print_error("%s took %.0f ms\n", source.data, took);
      if (getenv("SCRIPT_TIMES")) print_message("%6.0f ms  %s\n", took, cases[i].body);
      wrong += took > LONGEST_MS;
      wrong += !is_expected(error, cases[i].expected, 1, source.data);
      text_free(&source);
    }
  }
  assert_int_equal(wrong, 0);
}

/* Comparing long strings is one instruction each time. */
static void work_that_cannot_be_counted_is_timed(void **unused) {
  (void)unused;
  const char *source = "return function()\n"
                       "  local a = ('a'):rep(16000)\n"
                       "  local b, c = a .. 'b', a .. 'c'\n"
                       "  while true do local d = b < c end\nend";
  double value, start = cpu_ms();
  assert_error(call_schedule(source, 1, &value), "in one call", 4, source);
  assert_true(cpu_ms() - start < LONGEST_MS);
}

static char *repeated(const char *before, const char *part, int times, const char *after) {
  text_buffer t = {0};
  text_add(&t, "%s", before);
  for (int i = 0; i < times; i++) text_add(&t, "%s", part);
  text_add(&t, "%s", after);
  return t.data;
}

static void hostile_source_is_refused(void **unused) {
  (void)unused;
  const struct {
    char *source;
    const char *expected;
  } cases[] = {
      {repeated("return ", "{", 30000, ""), "C stack overflow"},
      {repeated("return ", "(", 30000, ""), "C stack overflow"},
      {repeated("return ", "-", 30001, "1"), ""},
      {repeated("return ", "not ", 10000, "1"), "C stack overflow"},
      {repeated("return ", "a..", 20000, "a"), "C stack overflow"},
      {repeated("", "do ", 20000, ""), "C stack overflow"},
      {repeated("", "function f() ", 4000, ""), "C stack overflow"},
      {repeated("", "local a ", 5000, ""), "too many local variables"},
      {repeated("return 1", "1", 60000, ""), "must end with"}, /* a very long number is a number */
      {repeated("return 0x", "f", 60000, ""), "must end with"},
      {repeated("return '", "\\x", 100, "'"), "hexadecimal digit expected"},
      {repeated("return '", "x", 60000, "'"), ""},
      {repeated("return [", "=", 60000, "["), ""},
      {repeated("--[[", "x", 60000, ""), "unfinished long comment"},
      {repeated("x = 1 ", "-- padding\n", 110000, ""), "longer than 64 KiB"},
      {repeated("\x1bLua", "S", 100, ""), "compiled Lua"},
      {repeated("\xff\xfe", "x", 100, ""), ""},
      {repeated("", "goto a ", 9000, ""), "no visible label"},
      {repeated("::a:: ", "::a:: ", 2, ""), "already defined"},
      {repeated("local t = {", "1,", 30000, "} return t"), "must end with"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    script *s;
    double start = cpu_ms();
    status error = open_as(SCRIPT_SCHEDULE, cases[i].source, NULL, &s);
    assert_true(cpu_ms() - start < LONGEST_MS);
    assert_null(s);
    assert_int_equal(error_code_of(error), ERROR_SCRIPT);
    assert_error(error, cases[i].expected, 0, cases[i].source);
    free(cases[i].source);
  }
}

static void scripts_do_not_see_each_other(void **unused) {
  (void)unused;
  script *a = open_or_fail("shared = 1\nreturn function() return shared end", NULL);
  script *b;
  const char *source = "return function() return shared end";
  assert_ok(open_as(SCRIPT_SCHEDULE, source, NULL, &b));
  double value;
  assert_ok(schedule_at(a, 0, 0, 1, 1, 1, &value));
  assert_error(schedule_at(b, 0, 0, 1, 1, 1, &value), "shared is not defined", 1, source);
  /* An error leaves the script usable. */
  assert_error(schedule_at(b, 0, 0, 1, 1, 1, &value), "shared is not defined", 1, source);
  assert_ok(schedule_at(a, 0, 0, 1, 1, 1, &value));
  script_close(a);
  script_close(b);
}

static void each_call_has_its_own_budget(void **unused) {
  (void)unused;
  script *s = open_or_fail("return function(step)\n"
                           "  local x = 0\n"
                           "  for i = 1, 1000000 do x = x + i end\n"
                           "  return x\nend",
                           NULL);
  double value;
  for (int i = 0; i < 12; i++) assert_ok(schedule_at(s, i, 0, 12, 12, 1, &value));
  script_close(s);
}

/* ---- hooks ------------------------------------------------------------------------------------
 */

typedef struct hook_world {
  double lr;
  text_buffer log;
} hook_world;

static status world_get(void *context, const char *name, double *out) {
  hook_world *w = context;
  if (strcmp(name, "lr") != 0)
    return error_new(ERROR_SCRIPT, NOWHERE, "there is no attribute '%s'", name);
  *out = w->lr;
  return OK;
}

static status world_set(void *context, const char *name, double value) {
  hook_world *w = context;
  double ignored;
  TRY(world_get(context, name, &ignored));
  w->lr = value;
  return OK;
}

static void world_log(void *context, const char *text) {
  text_add(&((hook_world *)context)->log, "%s\n", text);
}

static status world_record(void *context, const char *name, double value) {
  text_add(&((hook_world *)context)->log, "%s = %g\n", name, value);
  return OK;
}

static const char *const metric_names[] = {"dice", "loss"};

static hook_event event_of(hook_world *world, int64_t epoch, const double metrics[2]) {
  return (hook_event){.stage = "segment",
                      .epoch = epoch,
                      .step = epoch * 10,
                      .metrics = {metric_names, metrics, 2},
                      .get = world_get,
                      .set = world_set,
                      .record = world_record,
                      .log = world_log,
                      .context = world};
}

static void a_hook_reads_changes_and_stops(void **unused) {
  (void)unused;
  script *s = open_or_fail("return function(event)\n"
                           "  assert(event.stage == 'segment' and event.step == 30)\n"
                           "  event.set('lr', event.get('lr') / 2)\n"
                           "  event.log('epoch ' .. event.epoch)\n"
                           "  print('dice', event.metrics.dice, nil, {})\n"
                           "  event.log('red \\27[31m')\n"
                           "  event.record('gap', 0.5)\n"
                           "  if event.metrics.loss > 1 then event.stop('diverged') end\n"
                           "end",
                           NULL);
  hook_world world = {.lr = 0.5};
  hook_event event = event_of(&world, 3, (double[]){0.75, 2});
  assert_ok(script_hook(s, &event));
  assert_true(world.lr == 0.25);
  assert_true(event.stop);
  assert_string_equal(event.stop_reason, "diverged");
  assert_string_equal(world.log.data, "epoch 3\ndice\x20"
                                      "0.75 nil table\nred  [31m\ngap = 0.5\n");
  text_free(&world.log);
  script_close(s);
}

/* An ended stage is told by its reason. */
static void a_stop_always_has_a_reason(void **unused) {
  (void)unused;
  static const char *const calls[] = {"event.stop()", "event.stop(nil)", "event.stop('')"};
  for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
    char text[80];
    snprintf(text, sizeof text, "return function(event) %s end", calls[i]);
    script *s = open_or_fail(text, NULL);
    hook_world world = {0};
    hook_event event = event_of(&world, 0, (double[]){0, 0});
    assert_ok(script_hook(s, &event));
    assert_true(event.stop);
    assert_string_equal(event.stop_reason, "a script asked to stop");
    script_close(s);
  }
}

static void mistakes_in_hooks_are_named(void **unused) {
  (void)unused;
  static const struct {
    const char *body, *expected;
  } cases[] = {
      {"event.set('rl', 1)", "there is no attribute 'rl'"},
      {"event.get()", "string expected"},
      {"event.set('lr', 0/0)", "not finite"},
      {"event.set('lr', 'x')", "number expected"},
      {"local x = event.metric", "did you mean event.metrics?"},
      {"event.epoch = 3", "read-only"},
      {"event.state = {}", "assign to its fields"},
      {"event.state.f = print", "event.state.f is a function"},
      {"event.state.self = event.state", "contains itself"},
      {"local t = {} for i = 1, 40 do t = {t} end event.state.t = t", "contains itself"},
      {"local t = {1, 2, 3} for i = 1, 20 do t = {t, t} end event.state.t = t",
       "larger than 1 MiB"},
      {"event.state.s = '\\255'", "not UTF-8"},
      {"event.state['\\255'] = 1", "not UTF-8"},
      {"event.state[1.5] = 1", "neither a string nor an integer"},
      {"event.state[{}] = 1", "neither a string nor an integer"},
      {"event.state.list = {[true] = 1}", "event.state.list has a key"},
      {"while true do event.log('x') end", "20 million"},
      {"keep = event", "global 'keep' cannot be assigned"},
      {"kept = kept or 1", "kept is not defined"},
      {"outside[1] = event.get", "changed a variable outside itself"},
      {"event.stop(('x'):rep(10000)) error('after')", "after"},
      {"event.record('a b', 1)", "the name of a number has 1 to 60 letters"},
      {"event.record('', 1)", "the name of a number has 1 to 60 letters"},
      {"event.record(('a'):rep(60), 1) event.record(('a'):rep(61), 1)", "has 1 to 60 letters"},
      {"event.record('a', 1 / 0)", "not finite"},
      {"event.record('a', '1')", "number expected"},
      {"if event.metrics['own.a'] == nil then error('nil until it is recorded') end", "nil until"},
      {"event:log('x')", "call it with a dot and a text: event.log("},
      {"event:set('lr', 1)", "call it with a dot and a text: event.set("},
      {"event:stop('x')", "call it with a dot and a text: event.stop("},
      {"do return 'stop' end", "a hook returns nothing, and this one a string"},
      {"if event.metrics.los then end", "this stage measures no \"los\"; did you mean \"loss\"?"},
      {"if event.metrics['a.b'] then end", "measures no \"a.b\"; there are dice, loss"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    text_buffer source = {0};
    text_add(&source, "local outside = {}\nreturn function(event) %s local o = outside end",
             cases[i].body);
    script *s = open_or_fail(source.data, NULL);
    hook_world world = {.lr = 1};
    hook_event event = event_of(&world, 0, (double[]){0, 0});
    status error = script_hook(s, &event);
    assert_false(event.stop);
    assert_error(error, cases[i].expected, 2, source.data);
    text_free(&world.log);
    text_free(&source);
    script_close(s);
  }
}

static void an_event_kept_past_its_call_is_dead(void **unused) {
  (void)unused;
  script *s = open_or_fail("return function(event) event.get('lr') end", NULL);
  hook_event event = {.stage = "x"};
  assert_error(script_hook(s, &event), "nothing to read here", 1, "get");
  double value;
  assert_error(schedule_at(s, 0, 0, 1, 1, 1, &value), "attempt to index a number", 1, "get");
  script_close(s);
}

static void state_survives_a_resume_bit_for_bit(void **unused) {
  (void)unused;
  const char *source =
      "return function(event)\n"
      "  local s = event.state\n"
      "  if event.epoch == 0 then\n"
      "    s.third, s.tiny, s.zero, s.whole, s.real = 1/3, 5e-324, -0.0, 3, 3.0\n"
      "    s.big, s.small = math.maxinteger, math.mininteger\n"
      "    s.list, s.holes, s[1], s['1'], s['#1'], s['#'] = {1, 2.5, 'x'}, {[1] = 1, [5] = 5}, "
      "'i', 's', 'h', 'p'\n"
      "    s.inf, s.ninf, s.nan, s.yes, s.empty = math.huge, -math.huge, 0/0, true, {}\n"
      "    s.text = 'a\"b\\\\\\n\\0c\\u{e9}'\n"
      "    s.shared = s.list\n"
      "  else\n"
      "    assert(s.third == 1/3 and s.tiny == 5e-324 and 1 / s.zero == -math.huge)\n"
      "    assert(math.type(s.whole) == 'integer' and math.type(s.real) == 'float')\n"
      "    assert(s.big == math.maxinteger and s.small == math.mininteger)\n"
      "    assert(#s.list == 3 and s.list[2] == 2.5 and s.holes[5] == 5 and s.holes[1] == 1)\n"
      "    assert(s[1] == 'i' and s['1'] == 's' and s['#1'] == 'h' and s['#'] == 'p')\n"
      "    assert(s.inf == math.huge and s.ninf == -math.huge and s.nan ~= s.nan and s.yes)\n"
      "    assert(s.text == 'a\"b\\\\\\n\\0c\\u{e9}' and s.shared ~= s.list)\n"
      "  end\n"
      "end";
  script *s = open_or_fail(source, NULL), *resumed = open_or_fail(source, NULL);
  hook_world world = {0};
  char *json, *again;
  for (int64_t epoch = 0; epoch < 3; epoch++) {
    hook_event event = event_of(&world, epoch, (double[]){0, 0});
    assert_ok(script_hook(s, &event));
  }
  assert_ok(script_state_save(s, &json));
  assert_ok(script_state_load(resumed, json));
  hook_event event = event_of(&world, 3, (double[]){0, 0});
  assert_ok(script_hook(resumed, &event));
  assert_ok(script_state_save(resumed, &again));
  assert_string_equal(json, again);
  free(json);
  free(again);
  script_close(s);
  script_close(resumed);
}

static void hostile_state_is_refused(void **unused) {
  (void)unused;
  script *s = open_or_fail("return function(event) end", NULL);
  char *deep = repeated("", "[", 3000, ""), *nested = repeated("", "[", 40, "1");
  text_buffer closed = {0};
  text_add(&closed, "%s", nested);
  for (int i = 0; i < 40; i++) text_add(&closed, "]");
  const char *const cases[] = {"",
                               "{",
                               "3",
                               "{\"a\": null}",
                               "{\"a\": 1, \"a\": 2}",
                               "{\"#x\": 1}",
                               "{\"#\": \"inf\"}",
                               "{\"a\": 1e999}",
                               "{\"a\": 99999999999999999999}",
                               "{\"#99999999999999999999\": 1}",
                               deep,
                               closed.data};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    status error = script_state_load(s, cases[i]);
    if (!error) print_error("accepted: %.60s\n", cases[i]);
    assert_int_equal(error_code_of(error), ERROR_DATA);
    error_free(error);
  }
  free(deep);
  free(nested);
  text_free(&closed);
  script_close(s);
}

static void stop_on_plateau_stops_after_its_patience(void **unused) {
  (void)unused;
  schedule_file f = open_file("stop_on_plateau", "{}");
  static const double dice[] = {0.5, 0.6, 0.6, 0.55, 0.7}; /* then 0.7 without end */
  static const char *const name = "validation.dice";
  hook_world world = {0};
  int stopped_at = -1;
  for (int epoch = 0; epoch < 60 && stopped_at < 0; epoch++) {
    double values[2] = {epoch / 2 < 5 ? dice[epoch / 2] : 0.7};
    hook_event event = event_of(&world, epoch, values);
    event.metrics.names = &name;
    event.metrics.count = epoch % 2 == 0; /* measured every other epoch */
    assert_ok(script_hook(f.script, &event));
    if (event.stop) {
      stopped_at = epoch;
      assert_string_equal(event.stop_reason,
                          "validation.dice has not improved on 0.7 since epoch 8");
    }
  }
  assert_int_equal(stopped_at, 8 + 2 * 10);
  close_file(&f);
}

/* HD95 while no structure is found yet. */
static void a_metric_that_is_not_defined_is_as_one_that_was_not_measured(void **unused) {
  (void)unused;
  schedule_file f =
      open_file("stop_on_plateau", "{metric: validation.hd95_mm, lower: true, patience: 2}");
  static const double hd95[] = {NAN, NAN, NAN, 30, 20, NAN, 10, 9};
  static const char *const name = "validation.hd95_mm";
  hook_world world = {0};
  for (int epoch = 0; epoch < 8; epoch++) {
    hook_event event = event_of(&world, epoch, &hd95[epoch]);
    event.metrics.names = &name;
    event.metrics.count = 1;
    assert_ok(script_hook(f.script, &event));
    assert_false(event.stop);
  }
  close_file(&f);
}

static void a_schedule_sees_what_was_measured_last(void **unused) {
  (void)unused;
  schedule_file f = open_file("by_metric", "{metric: dice, from: 0.5, to: 0.9, value: 0.8}");
  static const char *const name = "dice";
  static const struct {
    double dice, expected;
  } cases[] = {{NAN, 0.4}, {0.2, 0.4}, {0.5, 0.4}, {0.7, 0.6}, {0.9, 0.8}, {1, 0.8}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    schedule_point at = {.base = 0.4, .metrics = {&name, &cases[i].dice, 1}};
    double value;
    assert_ok(script_schedule(f.script, &at, &value));
    assert_true(fabs(value - cases[i].expected) < 1e-12);
  }
  close_file(&f);

  f = open_file("by_metric", "{metric: dcie, from: 0.5, to: 0.9, value: 0.8}");
  schedule_point at = {.base = 0.4, .metrics = {&name, &cases[0].dice, 1}};
  double value;
  status error = script_schedule(f.script, &at, &value);
  assert_error(error, "this stage measures no \"dcie\"; did you mean \"dice\"?", 0, "by_metric");
  close_file(&f);
}

static void ramp_ends_at_its_value(void **unused) {
  (void)unused;
  schedule_file f = open_file("ramp", "{from: 0.2, epochs: 4}");
  double value;
  for (int step = 0; step < 100; step += 5) {
    assert_ok(schedule_at(f.script, step, step / 10, 100, 10, 0.6, &value));
    assert_true(fabs(value - (0.2 + 0.4 * fmin(step / 40.0, 1))) < 1e-12);
  }
  close_file(&f);
}

static const double class_values[] = {0.9, 0.5, (double)NAN};
static const hook_class classes[] = {{1, "liver", &class_values[0]},
                                     {2, "spleen", &class_values[1]},
                                     {3, "tumour", &class_values[2]}};

static void a_validation_hook_sees_classes(void **unused) {
  (void)unused;
  static const char *const dice = "dice";
  schedule_file f = {0};
  char *source;
  size_t length;
  assert_ok(file_read(SOURCE_DIR "/lua/log_classes.lua", 1 << 20, &source, &length));
  assert_ok(open_as(SCRIPT_VALIDATION, source, NULL, &f.script));
  hook_world world = {0};
  for (int64_t epoch = 0; epoch < 2; epoch++) {
    hook_event event = event_of(&world, epoch, (double[]){0.7, 0.1});
    event.classes = classes;
    event.class_count = 3;
    event.class_metrics = &dice;
    event.class_metric_count = 1;
    assert_ok(script_hook(f.script, &event));
  }
  assert_string_equal(world.log.data, "spleen 0.500, liver 0.900\n"
                                      "spleen 0.500 (+0.000), liver 0.900 (+0.000)\n");
  text_free(&world.log);
  script_close(f.script);
  free(source);
}

static void a_stage_ends_with_a_summary(void **unused) {
  (void)unused;
  char *source;
  size_t length;
  script *s;
  assert_ok(file_read(SOURCE_DIR "/lua/summary.lua", 1 << 20, &source, &length));
  assert_ok(open_as(SCRIPT_STAGE_END, source, NULL, &s));
  hook_world world = {0};
  hook_event event = event_of(&world, 4, (double[]){0.75, 0.125});
  event.reason = "epochs";
  assert_ok(script_hook(s, &event));
  assert_string_equal(world.log.data,
                      "ended (epochs) after epoch 5, step 40\n  dice = 0.75\n  loss = 0.125\n");
  text_free(&world.log);
  script_close(s);
  free(source);
  const char *body = "return function(event)\n  event.stop()\nend";
  assert_ok(open_as(SCRIPT_STAGE_END, body, NULL, &s));
  assert_error(script_hook(s, &event),
               "event.stop is not available in this script (on_stage_end); these have it: "
               "on_validation, on_epoch_end",
               2, body);
  script_close(s);
}

static void an_error_says_where_the_script_is_named(void **unused) {
  (void)unused;
  script_ref ref = {.path = "wild.lua",
                    .source = "return function()\n  return nil + 1\nend",
                    .at = {"run.yaml", 12, 7}};
  script *s;
  double value;
  assert_ok(script_open(SCRIPT_SCHEDULE, &ref, &s));
  assert_error(schedule_at(s, 0, 0, 1, 1, 1, &value), "named at run.yaml:12:7)", 2, ref.source);
  script_close(s);
  ref.source = "return function() return 'x' end";
  assert_ok(script_open(SCRIPT_SCHEDULE, &ref, &s));
  assert_error(schedule_at(s, 0, 0, 1, 1, 1, &value), "named at run.yaml:12:7)", 1, ref.source);
  script_close(s);
  ref.source = "\nreturn function( return 1 end";
  assert_error(script_open(SCRIPT_SCHEDULE, &ref, &s), "named at run.yaml:12:7)", 2, ref.source);
  ref.source = "return function(event)\n  event.get('lr')\nend";
  assert_ok(script_open(SCRIPT_EPOCH_END, &ref, &s));
  hook_event event = {.stage = "x"};
  assert_error(script_hook(s, &event), "named at run.yaml:12:7)", 2, ref.source);
  script_close(s);
}

/* A view of the event has what the table of bindings lists for the kind of script, and no more. */
static void an_event_has_what_the_tables_promise(void **unused) {
  (void)unused;
  static const char *const source = "return function(event)\n"
                                    "  for name, value in pairs(event) do\n"
                                    "    print(name, type(value) == 'function')\n"
                                    "  end\nend";
  const script_group *g = NULL;
  for (int i = 0; i < script_group_count(); i++)
    if (strcmp(script_group_at(i)->name, "event") == 0) g = script_group_at(i);
  assert_non_null(g);
  for (int kind = 0; kind < SCRIPT_KIND_COUNT; kind++) {
    if (!(g->kinds & SCRIPT_BIT(kind))) continue;
    script *s;
    hook_world world = {0};
    hook_event event = event_of(&world, 0, (double[]){0, 0});
    assert_ok(open_as((script_kind)kind, source, NULL, &s));
    assert_ok(script_hook(s, &event));
    int promised = 0, there = 0;
    for (const char *p = world.log.data; p && *p; p++) there += *p == '\n';
    for (const script_entry *e = g->entries; e->name; e++) {
      if (!(script_entry_kinds(g, e) & SCRIPT_BIT(kind))) continue;
      char line[80];
      snprintf(line, sizeof line, "%s %s\n", e->name, e->signature[0] == '(' ? "true" : "false");
      if (!strstr(world.log.data, line)) print_error("%s: %s", script_kinds[kind].name, line);
      assert_non_null(strstr(world.log.data, line));
      promised++;
    }
    assert_int_equal(there, promised);
    text_free(&world.log);
    script_close(s);
  }
}

/* ---- metrics and weights -----------------------------------------------------------------------
 */

static const metric_counts counts_of_liver = {.tp = 30,
                                              .fp = 10,
                                              .fn = 20,
                                              .tn = 940,
                                              .voxel_mm3 = 1.5,
                                              .class_name = "liver",
                                              .class_number = 6,
                                              .case_name = "case_7"};

static void a_metric_is_made_from_counts(void **unused) {
  (void)unused;
  const char *source = "return function(counts)\n"
                       "  assert(counts.class == 'liver' and counts.number == 6)\n"
                       "  assert(counts.case == 'case_7' and counts.voxel_mm3 == 1.5)\n"
                       "  if counts.tn == 0 then return nil end\n"
                       "  return counts.tp + 100 * counts.fp + 1e4 * counts.fn + 1e6 * counts.tn\n"
                       "end";
  script *s;
  double value;
  assert_ok(open_as(SCRIPT_METRIC, source, NULL, &s));
  assert_ok(script_metric(s, &counts_of_liver, &value));
  assert_true(value == 30 + 1000 + 2e5 + 9.4e8);
  metric_counts none = counts_of_liver;
  none.tn = 0;
  assert_ok(script_metric(s, &none, &value));
  assert_true(isnan(value));
  script_close(s);
}

static void fbeta_is_dice_when_beta_is_one(void **unused) {
  (void)unused;
  char *source;
  size_t length;
  arena memory = {0};
  tree *arguments;
  script *s;
  double value;
  assert_ok(file_read(SOURCE_DIR "/lua/fbeta.lua", 1 << 20, &source, &length));
  assert_ok(tree_parse(&memory, "{beta: 1}", 9, "test.yaml", &arguments));
  assert_ok(open_as(SCRIPT_METRIC, source, arguments, &s));
  assert_ok(script_metric(s, &counts_of_liver, &value));
  assert_true(fabs(value - 2.0 * 30 / (40 + 50)) < 1e-15);
  assert_ok(script_metric(s, &(metric_counts){.class_name = "a", .case_name = "b"}, &value));
  assert_true(isnan(value));
  script_close(s);
  arena_free(&memory);
  free(source);
}

static void rare_classes_weigh_more(void **unused) {
  (void)unused;
  static const char *const names[] = {"background", "liver", "spleen", "tumour"};
  static const int64_t voxels[] = {9000, 900, 60, 40};
  case_facts facts = {.name = "case_1",
                      .patient = "case_1",
                      .voxels = 10000,
                      .voxel_mm3 = 2,
                      .class_names = names,
                      .class_voxels = voxels,
                      .class_count = 4};
  char *source;
  size_t length;
  script *s;
  double weight;
  assert_ok(file_read(SOURCE_DIR "/lua/rare_classes.lua", 1 << 20, &source, &length));
  assert_ok(open_as(SCRIPT_CASE_WEIGHT, source, NULL, &s));
  assert_ok(script_case_weight(s, &facts, &weight));
  assert_true(weight == 3);
  facts.class_count = 0; /* a stage without labels */
  assert_ok(script_case_weight(s, &facts, &weight));
  assert_true(weight == 1);
  script_close(s);
  free(source);
  /* A script's own: the less of a case is annotated, the less it weighs. */
  facts.unknown_voxels = 2500;
  assert_ok(open_as(SCRIPT_CASE_WEIGHT,
                    "return function(case) return 1 - case.unknown / case.voxels end", NULL, &s));
  assert_ok(script_case_weight(s, &facts, &weight));
  assert_true(weight == 0.75);
  script_close(s);
}

static void bad_measures_name_their_case(void **unused) {
  (void)unused;
  static const struct {
    const char *body, *of_metric, *of_weight;
  } cases[] = {
      {"return 0/0", "case case_7, class liver: the metric is",
       "case case_7: the weight must be 0"},
      {"return math.huge", "return nil where it is not defined", "must be 0 or more, not inf"},
      {"return -1", NULL, "must be 0 or more, not -1"},
      {"return 'x'", "not a string value", "not a string value"},
      {"return nil", NULL, "not a nil value"},
      {"return x.tps", "x.tps", "x.tps"},
      {"while true do end", "more than 20 million", "more than 20 million"},
      {"x.name = 1", "cannot be assigned", "cannot be assigned"},
      {"print(1)", "print is not available in this script (metric)",
       "print is not available in this script (case_weights)"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    for (int weight = 0; weight < 2; weight++) {
      const char *expected = weight ? cases[i].of_weight : cases[i].of_metric;
      char source[200];
      script *s;
      double value;
      snprintf(source, sizeof source, "return function(x) %s end", cases[i].body);
      assert_ok(open_as(weight ? SCRIPT_CASE_WEIGHT : SCRIPT_METRIC, source, NULL, &s));
      status error =
          weight ? script_case_weight(s, &(case_facts){.name = "case_7", .patient = "p"}, &value)
                 : script_metric(s, &counts_of_liver, &value);
      if (strstr(cases[i].body, "x.tps")) expected = "tps is not defined";
      if (expected)
        assert_error(error, expected, 1, source);
      else
        assert_ok(error);
      script_close(s);
    }
}

/* ---- the reference ----------------------------------------------------------------------------
 */

static void the_reference_in_the_docs_is_what_the_program_says(void **unused) {
  (void)unused;
  char *page, *reference = NULL;
  size_t length;
  assert_ok(file_read(SOURCE_DIR "/docs/lua.md", 1 << 20, &page, &length));
  FILE *out = open_memstream(&reference, &length);
  script_reference(out);
  fclose(out);
  const char *from = strstr(page, "<!-- made by docs/lua_reference.sh");
  const char *end = strstr(page, "\n<!-- end of the reference -->");
  assert_non_null(from);
  assert_non_null(end);
  from = strchr(from, '\n') + 2; /* an empty line */
  bool same = (size_t)(end - from) == length && memcmp(from, reference, length) == 0;
  if (!same) print_error("docs/lua.md is not up to date: run docs/lua_reference.sh\n");
  assert_true(same);
  free(reference);
  free(page);
}

/* Every entry that a kind of script is said to have can be named in it, with its signature's sort. */
static void what_the_tables_promise_is_there(void **unused) {
  (void)unused;
  for (int kind = 0; kind < SCRIPT_KIND_COUNT; kind++)
    for (int i = 0; i < script_group_count(); i++) {
      const script_group *g = script_group_at(i);
      assert_true(strlen(g->doc) > 0);
      for (const script_entry *e = g->entries; e->name; e++) {
        assert_true(strlen(e->signature) > 0 && strlen(e->doc) > 0);
        if (!g->is_environment) continue;
        bool is_promised = script_entry_kinds(g, e) & SCRIPT_BIT(kind);
        text_buffer source = {0};
        text_add(&source, "assert(%stype(%s%s) %s 'function') return function() end",
                 strcmp(e->name, "type") == 0 && g->prefix[0] == 0 ? "type and " : "", g->prefix,
                 e->name, e->signature[0] == '(' ? "==" : "~=");
        script *s;
        status error = open_as((script_kind)kind, source.data, NULL, &s);
        if (is_promised)
          assert_ok(error);
        else
          assert_error(error, "is not available in this script", 1, source.data);
        script_close(s);
        text_free(&source);
      }
    }
}

static void an_explanation_is_found_by_any_name(void **unused) {
  (void)unused;
  static const struct {
    const char *name, *expected;
  } cases[] = {{"event.set", "event.set(name, number)"},
               {"on_epoch_end", "event.stop(reason)"},
               {"math", "math.sqrt(x)"},
               {"step", "integer"},
               {NULL, "table.concat"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char *text = NULL;
    size_t length;
    FILE *out = open_memstream(&text, &length);
    assert_ok(script_explain(cases[i].name, out));
    fclose(out);
    assert_non_null(strstr(text, cases[i].expected));
    free(text);
  }
  assert_error(script_explain("event.sett", stdout), "did you mean \"event.set\"?", 0, "");
}

/* ---- programs ---------------------------------------------------------------------------------
 */

static void a_program_runs_once_with_limits_of_its_own(void **unused) {
  (void)unused;
  script_limits limits = script_limits_default;
  hook_world world = {0};
  script_program program = {
      .kind = SCRIPT_EPOCH_END, .limits = &limits, .log = world_log, .context = &world};
  const char *const source = "total = 0\nfor i = 1, 8000000 do total = total + 1 end\n"
                             "print(total, #('x'):rep(40000))";
  script_ref ref = {.path = "program.lua", .source = source};
  assert_error(script_run(&program, &ref), "more than 20 million instructions", 2, source);
  limits.instructions = INT64_C(1000000000);
  limits.cpu_ms = 0;
  assert_error(script_run(&program, &ref), "more than 16 KiB", 3, source);
  limits.string_bytes = 1 << 20;
  assert_ok(script_run(&program, &ref));
  assert_string_equal(world.log.data, "8000000 40000\n");
  text_free(&world.log);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_schedule_gets_its_five_arguments),
      cmocka_unit_test(warmup_cosine_rises_and_falls),
      cmocka_unit_test(warmup_cosine_can_hold_its_values),
      cmocka_unit_test(poly_falls_to_zero),
      cmocka_unit_test(arguments_arrive_typed),
      cmocka_unit_test(an_argument_nobody_reads_is_an_error_in_the_yaml),
      cmocka_unit_test(mistakes_are_named_with_their_line),
      cmocka_unit_test(what_is_allowed_works),
      cmocka_unit_test(hostile_scripts_end_with_an_error),
      cmocka_unit_test(work_that_cannot_be_counted_is_timed),
      cmocka_unit_test(hostile_source_is_refused),
      cmocka_unit_test(scripts_do_not_see_each_other),
      cmocka_unit_test(each_call_has_its_own_budget),
      cmocka_unit_test(a_hook_reads_changes_and_stops),
      cmocka_unit_test(a_stop_always_has_a_reason),
      cmocka_unit_test(mistakes_in_hooks_are_named),
      cmocka_unit_test(an_event_kept_past_its_call_is_dead),
      cmocka_unit_test(state_survives_a_resume_bit_for_bit),
      cmocka_unit_test(hostile_state_is_refused),
      cmocka_unit_test(stop_on_plateau_stops_after_its_patience),
      cmocka_unit_test(a_metric_that_is_not_defined_is_as_one_that_was_not_measured),
      cmocka_unit_test(a_schedule_sees_what_was_measured_last),
      cmocka_unit_test(ramp_ends_at_its_value),
      cmocka_unit_test(a_validation_hook_sees_classes),
      cmocka_unit_test(a_stage_ends_with_a_summary),
      cmocka_unit_test(an_error_says_where_the_script_is_named),
      cmocka_unit_test(an_event_has_what_the_tables_promise),
      cmocka_unit_test(a_metric_is_made_from_counts),
      cmocka_unit_test(fbeta_is_dice_when_beta_is_one),
      cmocka_unit_test(rare_classes_weigh_more),
      cmocka_unit_test(bad_measures_name_their_case),
      cmocka_unit_test(the_reference_in_the_docs_is_what_the_program_says),
      cmocka_unit_test(what_the_tables_promise_is_there),
      cmocka_unit_test(an_explanation_is_found_by_any_name),
      cmocka_unit_test(a_program_runs_once_with_limits_of_its_own),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
