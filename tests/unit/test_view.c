/* Pictures: what is drawn where, and PNG files that another decoder reads back. */
#include "data_fixture.h"

#include "view/font.h"
#include "view/slice.h"

#include <zlib.h>

/* ---- a PNG decoder of the test's own, over zlib ----------------------------------------------- */

static uint32_t big_endian(const unsigned char *at) {
  return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static int predict(int filter, int left, int up, int corner) {
  int p = left + up - corner;
  int by_left = abs(p - left), by_up = abs(p - up), by_corner = abs(p - corner);
  switch (filter) {
  case 0:
    return 0;
  case 1:
    return left;
  case 2:
    return up;
  case 3:
    return (left + up) / 2;
  case 4:
    return by_left <= by_up && by_left <= by_corner ? left : by_up <= by_corner ? up : corner;
  default:
    fail_msg("filter %d", filter);
    return 0;
  }
}

typedef struct decoded {
  image pixels;
  int type, depth;
} decoded;

static decoded decode(const unsigned char *png, size_t length) {
  static const unsigned char signature[8] = {137, 80, 78, 71, 13, 10, 26, 10};
  unsigned char palette[256][4], *rows = NULL;
  uLongf raw = 0;
  size_t row_bytes = 0;
  int channels = 0;
  decoded out = {0};
  bool ended = false;
  assert_memory_equal(png, signature, 8);
  for (size_t at = 8; at < length;) {
    assert_true(at + 12 <= length && !ended);
    uint32_t bytes = big_endian(png + at);
    const unsigned char *type = png + at + 4, *data = type + 4;
    assert_true(bytes <= length - at - 12);
    assert_int_equal(crc32(0, type, bytes + 4), big_endian(data + bytes));
    if (memcmp(type, "IHDR", 4) == 0) {
      static const int of_type[7] = {[0] = 1, [2] = 3, [3] = 1, [6] = 4};
      out.depth = data[8];
      out.type = data[9];
      channels = of_type[out.type];
      expect_ok(image_create(&out.pixels, (int)big_endian(data), (int)big_endian(data + 4),
                             COLOUR_CLEAR));
      row_bytes = ((size_t)out.pixels.width * (size_t)(channels * out.depth) + 7) / 8;
      raw = (uLongf)(row_bytes + 1) * (uLongf)out.pixels.height;
    } else if (memcmp(type, "PLTE", 4) == 0) {
      for (uint32_t k = 0; k < bytes / 3; k++) {
        memcpy(palette[k], data + 3 * k, 3);
        palette[k][3] = 255;
      }
    } else if (memcmp(type, "tRNS", 4) == 0) {
      for (uint32_t k = 0; k < bytes; k++) palette[k][3] = data[k];
    } else if (memcmp(type, "IDAT", 4) == 0) {
      uLongf got = raw;
      rows = calloc(1, raw);
      assert_int_equal(uncompress(rows, &got, data, bytes), Z_OK);
      assert_int_equal(got, raw);
    } else {
      assert_memory_equal(type, "IEND", 4);
      ended = true;
    }
    at += 12 + bytes;
  }
  assert_true(ended && rows);
  size_t step = out.depth == 8 ? (size_t)channels : 1;
  unsigned char *above = calloc(1, row_bytes);
  for (int y = 0; y < out.pixels.height; y++) {
    unsigned char *row = rows + (size_t)y * (row_bytes + 1) + 1;
    for (size_t k = 0; k < row_bytes; k++)
      row[k] = (unsigned char)(row[k] + predict(row[-1], k >= step ? row[k - step] : 0, above[k],
                                                k >= step ? above[k - step] : 0));
    memcpy(above, row, row_bytes);
    for (int x = 0; x < out.pixels.width; x++) {
      uint8_t *pixel = out.pixels.rgba + 4 * ((size_t)y * (size_t)out.pixels.width + (size_t)x);
      unsigned bit = (unsigned)(x * out.depth);
      unsigned sample = row[bit / 8] >> (8 - (unsigned)out.depth - bit % 8);
      pixel[3] = 255;
      if (out.type == 3)
        memcpy(pixel, palette[sample & ((1u << out.depth) - 1)], 4);
      else if (out.type == 0)
        memset(pixel, row[x], 3);
      else
        memcpy(pixel, row + (size_t)x * (size_t)channels, (size_t)channels);
    }
  }
  free(above);
  free(rows);
  return out;
}

static void comes_back(const image *i, int type, int depth) {
  unsigned char *png;
  size_t length;
  expect_ok(png_encode(i, &png, &length));
  decoded d = decode(png, length);
  assert_int_equal(d.type, type);
  assert_int_equal(d.depth, depth);
  assert_int_equal(d.pixels.width, i->width);
  assert_int_equal(d.pixels.height, i->height);
  assert_memory_equal(d.pixels.rgba, i->rgba, (size_t)i->width * (size_t)i->height * 4);
  image_free(&d.pixels);
  free(png);
}

enum { GREY = 0, RGB = 2, INDEXED = 3, RGBA = 6 };

/* `colours` different ones in an order without runs. */
static image picture(int width, int height, int colours, bool grey, bool translucent) {
  image i;
  expect_ok(image_create(&i, width, height, COLOUR_BLACK));
  for (int p = 0; p < width * height; p++) {
    unsigned k = (unsigned)(p * 7919) % (unsigned)colours;
    uint8_t v = (uint8_t)k;
    colour c = {v, grey ? v : (uint8_t)(k >> 8), grey ? v : 17,
                translucent ? (uint8_t)(k * 3) : 255};
    memcpy(i.rgba + 4 * p, &c, 4);
  }
  return i;
}

static void png_takes_the_smallest_form_and_loses_nothing(void **state) {
  (void)state;
  static const struct {
    int width, height, colours;
    bool grey, translucent;
    int type, depth;
  } cases[] = {
      {1, 1, 1, true, false, INDEXED, 1},      {9, 5, 2, false, false, INDEXED, 1},
      {13, 7, 3, false, true, INDEXED, 2},     {31, 3, 16, true, false, INDEXED, 4},
      {33, 30, 17, true, false, GREY, 8},      {64, 64, 256, true, false, GREY, 8},
      {64, 64, 256, false, false, INDEXED, 8}, {61, 67, 257, false, false, RGB, 8},
      {128, 100, 3000, false, false, RGB, 8},  {50, 41, 255, true, true, INDEXED, 8},
      {100, 77, 1000, false, true, RGBA, 8},
  };
  for (size_t k = 0; k < sizeof cases / sizeof cases[0]; k++) {
    image i = picture(cases[k].width, cases[k].height, cases[k].colours, cases[k].grey,
                      cases[k].translucent);
    comes_back(&i, cases[k].type, cases[k].depth);
    image_free(&i);
  }
}

static void a_smooth_grey_picture_is_filtered(void **state) {
  (void)state;
  image i;
  expect_ok(image_create(&i, 200, 200, COLOUR_BLACK));
  for (int y = 0; y < 200; y++)
    for (int x = 0; x < 200; x++) {
      uint8_t g = (uint8_t)(x / 2 + y / 3);
      image_put(&i, x, y, (colour){g, g, g, 255});
    }
  comes_back(&i, GREY, 8);
  unsigned char *png;
  size_t length;
  expect_ok(png_encode(&i, &png, &length));
  assert_true(length < 2000); /* of 40000 pixels */
  free(png);
  image_free(&i);
}

static void png_files_and_data_uris_hold_the_same_bytes(void **state) {
  (void)state;
  char *folder = temporary_folder(), *path = path_join(folder, "a.png"), *bytes;
  image i = picture(20, 10, 5, false, false);
  unsigned char *png;
  size_t length, read;
  expect_ok(png_encode(&i, &png, &length));
  expect_ok(png_write(&i, path));
  expect_ok(file_read(path, 1 << 20, &bytes, &read));
  assert_int_equal(read, length);
  assert_memory_equal(bytes, png, length);
  text_buffer uri = {0}, wanted = {0};
  expect_ok(png_add_data_uri(&i, &uri));
  text_add(&wanted, "data:image/png;base64,");
  text_add_base64(&wanted, png, length);
  assert_string_equal(uri.data, wanted.data);
  text_free(&uri);
  text_free(&wanted);
  free(bytes);
  free(png);
  image_free(&i);
  free(path);
  remove_folder(folder);
}

static void base64_is_that_of_rfc_4648(void **state) {
  (void)state;
  static const char *const pairs[][2] = {{"", ""},
                                         {"f", "Zg=="},
                                         {"fo", "Zm8="},
                                         {"foo", "Zm9v"},
                                         {"foob", "Zm9vYg=="},
                                         {"fooba", "Zm9vYmE="},
                                         {"foobar", "Zm9vYmFy"},
                                         {"\xfb\xff\xfe", "+//+"}};
  for (size_t k = 0; k < sizeof pairs / sizeof pairs[0]; k++) {
    text_buffer t = {0};
    text_add_base64(&t, pairs[k][0], strlen(pairs[k][0]));
    assert_string_equal(t.data, pairs[k][1]);
    text_free(&t);
  }
}

static void pictures_too_large_are_refused(void **state) {
  (void)state;
  image i;
  expect_error(image_create(&i, 0, 5, COLOUR_BLACK), "0×5");
  expect_error(image_create(&i, 40000, 5, COLOUR_BLACK), "40000×5");
  expect_error(image_create(&i, 30000, 30000, COLOUR_BLACK), "30000×30000");
  assert_null(i.rgba);
}

/* ---- drawing ---------------------------------------------------------------------------------- */

static colour pixel(const image *i, int x, int y) {
  colour c;
  memcpy(&c, i->rgba + 4 * (y * i->width + x), 4);
  return c;
}

static void expect_pixel(const image *i, int x, int y, int r, int g, int b) {
  colour c = pixel(i, x, y);
  if (c.r != r || c.g != g || c.b != b)
    fail_msg("pixel (%d, %d) is %d %d %d, not %d %d %d", x, y, c.r, c.g, c.b, r, g, b);
}

static void drawing_outside_changes_nothing(void **state) {
  (void)state;
  image i, small;
  expect_ok(image_create(&i, 8, 6, COLOUR_BLACK));
  expect_ok(image_create(&small, 4, 4, COLOUR_WHITE));
  image_put(&i, -1, 2, COLOUR_WHITE);
  image_put(&i, 8, 5, COLOUR_WHITE);
  image_rectangle(&i, -3, -3, 4, 4, (colour){9, 8, 7, 255});
  image_blit(&i, &small, 6, 4);
  image_text(&i, -100, 3, 1, COLOUR_WHITE, "outside");
  for (int y = 0; y < 6; y++)
    for (int x = 0; x < 8; x++) {
      bool in_rectangle = x < 1 && y < 1, in_blit = x >= 6 && y >= 4;
      expect_pixel(&i, x, y,
                   in_rectangle ? 9
                   : in_blit    ? 255
                                : 0,
                   in_rectangle ? 8
                   : in_blit    ? 255
                                : 0,
                   in_rectangle ? 7
                   : in_blit    ? 255
                                : 0);
    }
  image_free(&i);
  image_free(&small);
}

static void transparent_colours_are_blended(void **state) {
  (void)state;
  image i;
  expect_ok(image_create(&i, 2, 1, (colour){100, 0, 200, 255}));
  image_put(&i, 0, 0, (colour){200, 100, 0, 51}); /* a fifth */
  expect_pixel(&i, 0, 0, 120, 20, 160);
  image_put(&i, 1, 0, COLOUR_CLEAR);
  expect_pixel(&i, 1, 0, 100, 0, 200);
  image_free(&i);
}

static void every_character_has_a_glyph_of_its_own(void **state) {
  (void)state;
  for (uint32_t a = ' '; a <= '~'; a++) {
    const char *rows = font_glyph(a);
    int row = 0, column = 0;
    for (const char *at = rows; *at; at++) {
      assert_true(*at == '#' || *at == '.' || *at == ' ');
      if (*at == ' ') {
        assert_int_equal(column, GLYPH_WIDTH);
        row++;
        column = 0;
      } else {
        column++;
      }
    }
    assert_true(column == GLYPH_WIDTH || !*rows);
    assert_true(row < GLYPH_HEIGHT);
    assert_true(strchr(rows, '#') || a == ' ');
    for (uint32_t b = ' '; b < a; b++)
      if (strcmp(rows, font_glyph(b)) == 0) fail_msg("'%c' and '%c' look the same", a, b);
  }
}

static void captions_are_read_as_utf8(void **state) {
  (void)state;
  const char *text = "a\xC2\xB3\xE2\x80\xA6\xF0\x9F\x98\x80\xC0\x80\xE2\x80";
  static const uint32_t wanted[] = {'a', 0xB3, 0x2026, 0x1F600, 0xFFFD, 0xFFFD, 0xFFFD, 0};
  for (int k = 0; wanted[k]; k++) assert_int_equal(utf8_next(&text), wanted[k]);
  assert_int_equal(*text, 0);
  int width, height;
  image_text_size("48×48\n³", 2, &width, &height);
  assert_int_equal(width, 5 * 2 * FONT_WIDTH);
  assert_int_equal(height, 2 * 2 * FONT_HEIGHT);
}

static void text_is_drawn_where_it_is_asked_for(void **state) {
  (void)state;
  image i;
  expect_ok(image_create(&i, 40, 24, COLOUR_BLACK));
  image_text(&i, 2, 1, 2, COLOUR_WHITE, "I.");
  /* ".###." at twice the size: columns 1 to 3 of the cell, its first row at y + size. */
  expect_pixel(&i, 2, 3, 0, 0, 0);
  expect_pixel(&i, 4, 3, 255, 255, 255);
  expect_pixel(&i, 9, 4, 255, 255, 255);
  expect_pixel(&i, 10, 3, 0, 0, 0);
  /* The full stop's two rows end at the base line. */
  expect_pixel(&i, 16, 13, 255, 255, 255);
  expect_pixel(&i, 16, 16, 255, 255, 255);
  expect_pixel(&i, 16, 17, 0, 0, 0);
  image_free(&i);
}

static void a_contact_sheet_has_rows_columns_and_captions(void **state) {
  (void)state;
  image red, wide, sheet;
  expect_ok(image_create(&red, 100, 20, (colour){255, 0, 0, 255}));
  expect_ok(image_create(&wide, 150, 40, (colour){0, 255, 0, 255}));
  const sheet_cell cells[] = {{&red, NULL},
                              {&wide, "two words of a caption that is long"},
                              {&red, NULL},
                              {NULL, NULL},
                              {&wide, NULL}};
  sheet_style style = {.columns = 2, .gap = 5, .text_size = 1, .ground = COLOUR_WHITE};
  style.ink = COLOUR_BLACK;
  expect_ok(image_sheet(cells, 5, &style, &sheet));
  int caption = 2 * FONT_HEIGHT + 2; /* 25 letters a line */
  assert_int_equal(sheet.width, 5 + 150 + 5 + 150 + 5);
  assert_int_equal(sheet.height, 5 + caption + 40 + 5 + 20 + 5 + 40 + 5);
  expect_pixel(&sheet, 5, 5 + caption, 255, 0, 0);
  expect_pixel(&sheet, 104, 5 + caption + 19, 255, 0, 0);
  expect_pixel(&sheet, 105, 5 + caption, 255, 255, 255);
  expect_pixel(&sheet, 160, 5 + caption, 0, 255, 0);
  expect_pixel(&sheet, 5, 5 + caption + 40 + 5, 255, 0, 0);
  expect_pixel(&sheet, 160, 5 + caption + 40 + 5, 255, 255, 255);
  expect_pixel(&sheet, 5, 5 + caption + 40 + 5 + 20 + 5, 0, 255, 0);
  image_free(&sheet);
  style.columns = 0;
  expect_error(image_sheet(cells, 5, &style, &sheet), "columns");
  image_free(&red);
  image_free(&wide);
}

/* ---- the palette ------------------------------------------------------------------------------ */

static double f_lab(double t) {
  return t > 216.0 / 24389 ? cbrt(t) : (24389.0 / 27 * t + 16) / 116;
}

/* CIE L*a*b* of an sRGB colour as somebody sees it whose cones mix linear RGB by `m`. */
static void to_lab(colour c, const double m[3][3], double lab[3]) {
  static const double xyz[3][3] = {{0.4124 / 0.95047, 0.3576 / 0.95047, 0.1805 / 0.95047},
                                   {0.2126, 0.7152, 0.0722},
                                   {0.0193 / 1.08883, 0.1192 / 1.08883, 0.9505 / 1.08883}};
  const double srgb[3] = {c.r / 255.0, c.g / 255.0, c.b / 255.0};
  double rgb[3], seen[3], f[3];
  for (int k = 0; k < 3; k++)
    rgb[k] = srgb[k] <= 0.04045 ? srgb[k] / 12.92 : pow((srgb[k] + 0.055) / 1.055, 2.4);
  for (int k = 0; k < 3; k++)
    seen[k] = fmin(1, fmax(0, m[k][0] * rgb[0] + m[k][1] * rgb[1] + m[k][2] * rgb[2]));
  for (int k = 0; k < 3; k++)
    f[k] = f_lab(xyz[k][0] * seen[0] + xyz[k][1] * seen[1] + xyz[k][2] * seen[2]);
  lab[0] = 116 * f[1] - 16;
  lab[1] = 500 * (f[0] - f[1]);
  lab[2] = 200 * (f[1] - f[2]);
}

static void colour_blind_readers_tell_the_classes_apart(void **state) {
  (void)state;
  static const double seen[3][3][3] = {
      {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}},
      {{0.152286, 1.052583, -0.204868}, /* protanopia, Machado et al., 2009 */
       {0.114503, 0.786281, 0.099216},
       {-0.003882, -0.048116, 1.051998}},
      {{0.367322, 0.860646, -0.227968}, /* deuteranopia */
       {0.280085, 0.672501, 0.047413},
       {-0.011820, 0.042940, 0.968881}}};
  for (int a = 1; a <= PALETTE_SIZE; a++)
    for (int b = 1; b < a; b++)
      for (int k = 0; k < 3; k++) {
        double p[3], q[3];
        to_lab(class_colour(a), seen[k], p);
        to_lab(class_colour(b), seen[k], q);
        double distance = sqrt(pow(p[0] - q[0], 2) + pow(p[1] - q[1], 2) + pow(p[2] - q[2], 2));
        if (distance < 14.5) fail_msg("classes %d and %d are %.1f apart", a, b, distance);
      }
  assert_int_equal(class_colour(0).a, 0);
  assert_int_equal(class_colour(1 + PALETTE_SIZE).r, class_colour(1).r);
}

/* ---- slices ----------------------------------------------------------------------------------- */

/* One voxel of each direction's end is bright: where does it appear? Sizes 4, 5, 6 voxels. */
static void patients_are_seen_as_radiologists_see_them(void **state) {
  (void)state;
  static const double ras[4][4] = {{2, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 3, 0}, {0, 0, 0, 1}};
  /* Voxel x to the left, y to inferior, z to posterior. */
  static const double lip[4][4] = {{-2, 0, 0, 0}, {0, 0, -3, 0}, {0, -1, 0, 0}, {0, 0, 0, 1}};
  const double(*const affines[2])[4] = {ras, lip};
  for (int k = 0; k < 2; k++) {
    volume v = {0};
    expect_ok(volume_allocate(&v, k == 0 ? (int64_t[]){4, 5, 6} : (int64_t[]){4, 6, 5}, 1));
    memcpy(v.affine, affines[k], sizeof v.affine);
    /* The voxel farthest to the right, anterior and superior. */
    int64_t corner = k == 0 ? (3 * 5 + 4) * 6 + 5 : 0;
    v.data[corner] = 1;
    slice_axes axial = slice_of_patient(v.size, v.affine, PLANE_AXIAL);
    slice_axes coronal = slice_of_patient(v.size, v.affine, PLANE_CORONAL);
    slice_axes sagittal = slice_of_patient(v.size, v.affine, PLANE_SAGITTAL);
    int64_t y_axis = k == 0 ? 1 : 2;
    assert_int_equal(axial.width, 4);
    assert_int_equal(axial.height, 5);
    assert_int_equal(axial.count, 6);
    assert_int_equal(axial.down, y_axis);
    assert_int_equal(coronal.height, 6);
    assert_int_equal(sagittal.width, 5);
    const slice_axes *all[3] = {&axial, &coronal, &sagittal};
    for (int p = 0; p < 3; p++) {
      image i;
      expect_ok(slice_grey(&v, 0, all[p], all[p]->count - 1, (grey_window){0, 1}, false,
                           (int)all[p]->width, (int)all[p]->height, &i));
      for (int y = 0; y < i.height; y++)
        for (int x = 0; x < i.width; x++)
          expect_pixel(&i, x, y, x == 0 && y == 0 ? 255 : 0, x == 0 && y == 0 ? 255 : 0,
                       x == 0 && y == 0 ? 255 : 0);
      image_free(&i);
    }
    volume_free(&v);
  }
}

static void voxel_axes_are_shown_whatever_the_affine_says(void **state) {
  (void)state;
  volume v = {0};
  expect_ok(volume_allocate(&v, (int64_t[]){3, 4, 2}, 1));
  static const double flipped[4][4] = {{-1, 0, 0, 0}, {0, -1, 0, 0}, {0, 0, -1, 0}, {0, 0, 0, 1}};
  memcpy(v.affine, flipped, sizeof flipped);
  v.data[(2 * 4 + 3) * 2 + 1] = 1; /* the last of every axis */
  slice_axes s = slice_of_voxels(v.size, v.affine, PLANE_AXIAL);
  image i;
  expect_ok(slice_grey(&v, 0, &s, 1, (grey_window){0, 1}, false, 3, 4, &i));
  expect_pixel(&i, 0, 0, 255, 255, 255);
  image_free(&i);
  volume_free(&v);
}

static void slices_keep_their_aspect_ratio(void **state) {
  (void)state;
  static const double affine[4][4] = {{0.5, 0, 0, 0}, {0, 0.5, 0, 0}, {0, 0, 5, 0}, {0, 0, 0, 1}};
  slice_axes s = slice_of_patient((int64_t[]){100, 80, 12}, affine, PLANE_CORONAL);
  int width, height;
  slice_pixels(&s, 2, &width, &height);
  assert_int_equal(width, 100);
  assert_int_equal(height, 120);
  assert_true(fabs(slice_scale(&s, 100, 60) - 1) < 1e-12);
  slice_pixels(&s, 1e-9, &width, &height);
  assert_int_equal(width, 1);
}

static void greys_are_windowed_averaged_and_interpolated(void **state) {
  (void)state;
  static const double affine[4][4] = {{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}};
  volume v = {0};
  expect_ok(volume_allocate(&v, (int64_t[]){4, 1, 1}, 2));
  memcpy(v.affine, affine, sizeof affine);
  static const float values[4] = {-10, 0, 10, 30}; /* from right to left in the picture */
  for (int k = 0; k < 4; k++) v.data[2 * k + 1] = values[k];
  slice_axes s = slice_of_voxels(v.size, v.affine, PLANE_AXIAL);
  grey_window w = {0, 20};
  image i;
  expect_ok(slice_grey(&v, 1, &s, 0, w, false, 4, 1, &i));
  for (int x = 0; x < 4; x++) {
    static const int wanted[4] = {255, 128, 0, 0};
    expect_pixel(&i, x, 0, wanted[x], wanted[x], wanted[x]);
  }
  image_free(&i);
  expect_ok(slice_grey(&v, 1, &s, 0, (grey_window){-20, 31}, false, 2, 1, &i)); /* means 20, −5 */
  expect_pixel(&i, 0, 0, 200, 200, 200);
  expect_pixel(&i, 1, 0, 75, 75, 75);
  image_free(&i);
  expect_ok(slice_grey(&v, 1, &s, 0, (grey_window){-20, 31}, true, 8, 1, &i));
  expect_pixel(&i, 0, 0, 250, 250, 250); /* 30 */
  expect_pixel(&i, 1, 0, 225, 225, 225); /* 25 */
  expect_pixel(&i, 2, 0, 175, 175, 175); /* 15 */
  image_free(&i);
  v.data[1] = NAN;
  expect_ok(slice_grey(&v, 1, &s, 0, w, false, 4, 1, &i));
  assert_int_equal(pixel(&i, 3, 0).r, class_colour(6).r);
  expect_pixel(&i, 1, 0, 128, 128, 128);
  image_free(&i);
  volume_free(&v);
}

static void windows_come_from_percentiles_of_finite_voxels(void **state) {
  (void)state;
  volume v = {0};
  grey_window w;
  expect_ok(volume_allocate(&v, (int64_t[]){101, 1, 1}, 1));
  for (int k = 0; k < 101; k++) v.data[k] = (float)k;
  expect_ok(window_of_percentiles(&v, 0, 1, 99, &w));
  assert_true(w.low == 1 && w.high == 99);
  v.data[100] = INFINITY;
  v.data[0] = NAN;
  expect_ok(window_of_percentiles(&v, 0, 0, 100, &w));
  assert_true(w.low == 1 && w.high == 99);
  for (int k = 0; k < 101; k++) v.data[k] = k == 50 ? 9 : 3;
  expect_ok(window_of_percentiles(&v, 0, 5, 95, &w)); /* mostly one value */
  assert_true(w.low == 3 && w.high == 9);
  for (int k = 0; k < 101; k++) v.data[k] = 3;
  expect_ok(window_of_percentiles(&v, 0, 5, 95, &w));
  assert_true(w.low == 2.5 && w.high == 3.5);
  volume_free(&v);
}

static void labels_are_drawn_as_contours_and_fills(void **state) {
  (void)state;
  labels l = {0};
  static const double affine[4][4] = {{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}};
  expect_ok(labels_allocate(&l, (int64_t[]){9, 9, 1}));
  memcpy(l.affine, affine, sizeof affine);
  for (int x = 2; x < 7; x++)
    for (int y = 2; y < 7; y++) l.data[x * 9 + y] = 2;
  slice_axes s = slice_of_voxels(l.size, l.affine, PLANE_AXIAL);
  colour c = class_colour(2);
  for (int style = LABEL_FILL; style <= LABEL_DASHED; style++) {
    image i;
    expect_ok(
        image_create(&i, 18, 18, COLOUR_CLEAR)); /* two pixels a voxel: the square is 4 … 13 */
    slice_labels(&l, &s, 0, (label_style)style, 1, &i);
    int drawn = 0;
    for (int p = 0; p < 18 * 18; p++) drawn += i.rgba[4 * p + 3] > 0;
    if (style == LABEL_DASHED)
      assert_in_range(drawn, 17, 19);
    else
      assert_int_equal(drawn, style == LABEL_FILL ? 100 : 36);
    assert_int_equal(pixel(&i, 3, 3).a, 0);
    assert_int_equal(pixel(&i, 4, 4).r, c.r);
    assert_int_equal(pixel(&i, 8, 8).a > 0, style == LABEL_FILL);
    image_free(&i);
  }
  labels_free(&l);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(png_takes_the_smallest_form_and_loses_nothing),
      cmocka_unit_test(a_smooth_grey_picture_is_filtered),
      cmocka_unit_test(png_files_and_data_uris_hold_the_same_bytes),
      cmocka_unit_test(base64_is_that_of_rfc_4648),
      cmocka_unit_test(pictures_too_large_are_refused),
      cmocka_unit_test(drawing_outside_changes_nothing),
      cmocka_unit_test(transparent_colours_are_blended),
      cmocka_unit_test(every_character_has_a_glyph_of_its_own),
      cmocka_unit_test(captions_are_read_as_utf8),
      cmocka_unit_test(text_is_drawn_where_it_is_asked_for),
      cmocka_unit_test(a_contact_sheet_has_rows_columns_and_captions),
      cmocka_unit_test(colour_blind_readers_tell_the_classes_apart),
      cmocka_unit_test(patients_are_seen_as_radiologists_see_them),
      cmocka_unit_test(voxel_axes_are_shown_whatever_the_affine_says),
      cmocka_unit_test(slices_keep_their_aspect_ratio),
      cmocka_unit_test(greys_are_windowed_averaged_and_interpolated),
      cmocka_unit_test(windows_come_from_percentiles_of_finite_voxels),
      cmocka_unit_test(labels_are_drawn_as_contours_and_fills),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
