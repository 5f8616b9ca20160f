// A small SVG plotter, private to the examples: axes with nice ticks, lines, markers with hover
// titles, escaped text. Coordinates of a panel are data; svg_x and svg_y map them to pixels. Fixed
// decimals and LF, so that pictures diff.
#ifndef EXAMPLES_SVG_H
#define EXAMPLES_SVG_H

#include <math.h>
#include <stdio.h>

// Okabe and Ito's palette: distinct for every common colour blindness, and in grey.
#define SVG_BLACK "#000000"
#define SVG_BLUE "#0072B2"
#define SVG_RED "#D55E00"
#define SVG_GREEN "#009E73"
#define SVG_PURPLE "#CC79A7"
#define SVG_GREY "#707070"
#define SVG_PALE "#E4E4E4"

enum svg_shape { SVG_CIRCLE, SVG_SQUARE, SVG_TRIANGLE, SVG_DIAMOND };

typedef struct svg_panel { // a rectangle of the picture with its two axes
  FILE *file;
  double left, top, width, height; // pixels
  double x0, x1, y0, y1;           // data at the edges
  int log_x, log_y;
} svg_panel;

static double svg_share(double value, double first, double last, int is_log) {
  return is_log ? log(value / first) / log(last / first) : (value - first) / (last - first);
}

static double svg_x(const svg_panel *p, double x) {
  return p->left + p->width * svg_share(x, p->x0, p->x1, p->log_x);
}

static double svg_y(const svg_panel *p, double y) {
  return p->top + p->height * (1 - svg_share(y, p->y0, p->y1, p->log_y));
}

static void svg_escape(FILE *file, const char *text) {
  for (; *text; text++) {
    if (*text == '<') fputs("&lt;", file);
    else if (*text == '>') fputs("&gt;", file);
    else if (*text == '&') fputs("&amp;", file);
    else if (*text == '"') fputs("&quot;", file);
    else fputc(*text, file);
  }
}

// Opens path for writing with a white background. NULL if the system says no.
static FILE *svg_open(const char *path, int width, int height, const char *title) {
  FILE *file = fopen(path, "wb");
  if (!file) return NULL;
  fprintf(file,
          "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" "
          "font-family=\"sans-serif\">\n<title>",
          width, height);
  svg_escape(file, title);
  fprintf(file, "</title>\n<rect width=\"%d\" height=\"%d\" fill=\"#FFFFFF\"/>\n", width, height);
  return file;
}

// Non-zero if everything was written.
static int svg_close(FILE *file) {
  fputs("</svg>\n", file);
  int good = !ferror(file);
  return !fclose(file) && good;
}

// Text at pixel (x, y); anchor is start, middle or end; turned by `angle` degrees.
static void svg_text(FILE *file, double x, double y, const char *anchor, int size,
                     const char *color, double angle, const char *text) {
  fprintf(file, "<text x=\"%.1f\" y=\"%.1f\" font-size=\"%d\" text-anchor=\"%s\" fill=\"%s\"", x, y,
          size, anchor, color);
  if (angle != 0) fprintf(file, " transform=\"rotate(%.0f %.1f %.1f)\"", angle, x, y);
  fputc('>', file);
  svg_escape(file, text);
  fputs("</text>\n", file);
}

// A polyline through data points; dash is an SVG dash list or "none".
static void svg_line(const svg_panel *p, const double *x, const double *y, int count,
                     const char *color, double width, const char *dash) {
  fprintf(p->file,
          "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"%.1f\" stroke-dasharray=\"%s\" "
          "points=\"",
          color, width, dash);
  for (int i = 0; i < count; i++)
    fprintf(p->file, "%s%.1f,%.1f", i ? " " : "", svg_x(p, x[i]), svg_y(p, y[i]));
  fputs("\"/>\n", p->file);
}

// A marker of radius r at pixel (x, y) with a text to hover over; fill "#FFFFFF" makes it an open
// one.
static void svg_marker(FILE *file, int shape, double x, double y, double r, const char *fill,
                       const char *color, const char *title) {
  if (shape == SVG_CIRCLE) fprintf(file, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\"", x, y, r);
  if (shape == SVG_SQUARE)
    fprintf(file, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"", x - r, y - r, 2 * r,
            2 * r);
  if (shape == SVG_TRIANGLE)
    fprintf(file, "<polygon points=\"%.1f,%.1f %.1f,%.1f %.1f,%.1f\"", x, y - 1.2 * r, x - 1.2 * r,
            y + r, x + 1.2 * r, y + r);
  if (shape == SVG_DIAMOND)
    fprintf(file, "<polygon points=\"%.1f,%.1f %.1f,%.1f %.1f,%.1f %.1f,%.1f\"", x, y - 1.4 * r,
            x + 1.4 * r, y, x, y + 1.4 * r, x - 1.4 * r, y);
  fprintf(file, " fill=\"%s\" stroke=\"%s\" stroke-width=\"1.5\"><title>", fill, color);
  svg_escape(file, title);
  fputs("</title></", file);
  fputs(shape == SVG_CIRCLE ? "circle>\n" : shape == SVG_SQUARE ? "rect>\n" : "polygon>\n", file);
}

// One tick with its grid line and label, on the x axis or the y axis.
static void svg_tick(const svg_panel *p, int on_x, double value, const char *label) {
  double x = on_x ? svg_x(p, value) : p->left, y = on_x ? p->top : svg_y(p, value);
  fprintf(p->file, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\"/>\n", x, y,
          on_x ? x : p->left + p->width, on_x ? p->top + p->height : y, SVG_PALE);
  if (on_x) svg_text(p->file, x, p->top + p->height + 18, "middle", 12, SVG_GREY, 0, label);
  else svg_text(p->file, p->left - 8, y + 4, "end", 12, SVG_GREY, 0, label);
}

// Ticks at 1, 2, 5 times powers of ten: every such number on a log axis of at most two decades,
// else powers only.
static void svg_ticks_log(const svg_panel *p, int on_x, double first, double last) {
  int dense = last / first <= 1000;
  for (int power = (int)floor(log10(first)); pow(10, power) <= last * 1.0001; power++)
    for (int step = 0; step < (dense ? 3 : 1); step++) {
      double value = pow(10, power) * (step == 0 ? 1 : step == 1 ? 2 : 5);
      char label[32];
      if (value < first * 0.9999 || value > last * 1.0001) continue;
      sprintf(label, "%.*f", value < 1 ? -power : 0, value);
      svg_tick(p, on_x, value, label);
    }
}

// About six ticks at multiples of 1, 2 or 5 times a power of ten.
static void svg_ticks_linear(const svg_panel *p, int on_x, double first, double last) {
  double step = pow(10, floor(log10((last - first) / 6)));
  if ((last - first) / step > 30) step *= 5;
  else if ((last - first) / step > 12) step *= 2;
  for (double i = ceil(first / step); i * step <= last + step / 1000; i++) {
    char label[32];
    sprintf(label, "%.*f", step < 1 ? 1 : 0, i * step);
    svg_tick(p, on_x, i * step, label);
  }
}

// The line below a panel, the names of its axes and its own.
static void svg_frame(const svg_panel *p, const char *title, const char *name_x,
                      const char *name_y) {
  double bottom = p->top + p->height;
  fprintf(p->file, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\"/>\n",
          p->left, bottom, p->left + p->width, bottom, SVG_GREY);
  svg_text(p->file, p->left, p->top - 14, "start", 14, SVG_BLACK, 0, title);
  svg_text(p->file, p->left + p->width / 2, bottom + 38, "middle", 12, SVG_BLACK, 0, name_x);
  svg_text(p->file, p->left - 44, p->top + p->height / 2, "middle", 12, SVG_BLACK, -90, name_y);
}

// Ticks of both axes with their grid.
static inline void svg_ticks(const svg_panel *p) {
  if (p->log_x) svg_ticks_log(p, 1, p->x0, p->x1);
  else svg_ticks_linear(p, 1, p->x0, p->x1);
  if (p->log_y) svg_ticks_log(p, 0, p->y0, p->y1);
  else svg_ticks_linear(p, 0, p->y0, p->y1);
}

#endif
