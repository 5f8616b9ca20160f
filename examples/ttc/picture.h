// Pictures of a profile: PREFIX-spectra.svg, PREFIX-entropy.svg, PREFIX-candidates.svg.
// Include after profile.h.
#ifndef TTC_PICTURE_H
#define TTC_PICTURE_H

#include "../svg.h"
#include "profile.h"

// ------------------------------------------------------------------------------------------ panels
// One small panel a layer, side by side, rows from the top.

enum { PANEL_WIDTH = 250, PANEL_HEIGHT = 170, PANEL_LEFT = 62, PANEL_TOP = 44, HEAD = 58 };
enum { LEGEND_WIDTH = 830, NAME_CHARACTERS = 40 };
enum { PANEL_STEP_X = PANEL_LEFT + PANEL_WIDTH + 18, PANEL_STEP_Y = PANEL_TOP + PANEL_HEIGHT + 46 };

static int panel_columns(size_t count) { return count < 2 ? 2 : count > 6 ? 4 : count > 2 ? 3 : 2; }

static FILE *open_picture(const char *prefix, const char *which, int width, int height,
                          const char *title) {
  struct text path = {NULL, 0, 0};
  text_add(&path, "%s-%s.svg", prefix, which);
  FILE *file = svg_open(path.data, width, height, title);
  if (!file) fail(EXIT_SYSTEM, "%s: %s", path.data, strerror(errno));
  svg_text(file, 16, 26, "start", 16, SVG_BLACK, 0, title);
  text_free(&path);
  return file;
}

static void close_picture(FILE *file, const char *prefix) {
  if (!svg_close(file)) fail(EXIT_SYSTEM, "%s-*.svg: cannot write", prefix);
}

static FILE *open_panels(const char *prefix, const char *which, size_t count, const char *title) {
  int columns = panel_columns(count), rows = ((int)count + columns - 1) / columns;
  int width = columns * PANEL_STEP_X + 12;
  if (width < LEGEND_WIDTH) width = LEGEND_WIDTH;
  return open_picture(prefix, which, width, HEAD + rows * PANEL_STEP_Y + 8, title);
}

// The end of a name that is too long for its panel says more than its beginning.
static void short_name(const char *name, size_t room, struct text *out) {
  size_t length = strlen(name);
  if (length > room) {
    text_add(out, "..");
    name += length - room + 2;
    while (((unsigned char)*name & 0xC0) == 0x80) name++; // not inside of a UTF-8 character
  }
  text_bytes(out, name, strlen(name));
}

static svg_panel layer_panel(FILE *file, const struct profile *profile, size_t i) {
  svg_panel panel;
  int columns = panel_columns(profile->num_layers);
  memset(&panel, 0, sizeof panel);
  panel.file = file;
  panel.left = PANEL_LEFT + (double)((int)i % columns * PANEL_STEP_X);
  panel.top = HEAD + PANEL_TOP + (double)((int)i / columns * PANEL_STEP_Y);
  panel.width = PANEL_WIDTH;
  panel.height = PANEL_HEIGHT;
  return panel;
}

static void frame_layer(const svg_panel *panel, const struct profile_layer *layer,
                        const char *name_x, const char *name_y) {
  struct text name = {NULL, 0, 0}, size = {NULL, 0, 0};
  short_name(layer->name, NAME_CHARACTERS, &name);
  text_add(&size, "%ld x %ld", (long)layer->rows, (long)layer->cols);
  svg_frame(panel, "", name_x, name_y);
  svg_text(panel->file, panel->left, panel->top - 22, "start", 12, SVG_BLACK, 0, name.data);
  svg_text(panel->file, panel->left, panel->top - 8, "start", 11, SVG_GREY, 0, size.data);
  text_free(&name);
  text_free(&size);
}

// A legend along the top of a picture: a sample of line or marker, then its name.
struct legend {
  FILE *file;
  double x;
};

static void legend_text(struct legend *legend, const char *text) {
  svg_text(legend->file, legend->x + 26, HEAD - 4, "start", 12, SVG_BLACK, 0, text);
  legend->x += 46 + 6.6 * (double)strlen(text);
}

static void legend_line(struct legend *legend, const char *color, const char *dash,
                        const char *text) {
  fprintf(legend->file,
          "<line x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\" stroke=\"%s\" stroke-width=\"2\" "
          "stroke-dasharray=\"%s\"/>\n",
          legend->x, HEAD - 8, legend->x + 20, HEAD - 8, color, dash);
  legend_text(legend, text);
}

static void legend_marker(struct legend *legend, int shape, const char *fill, const char *color,
                          const char *text) {
  svg_marker(legend->file, shape, legend->x + 12, HEAD - 8, 4, fill, color, text);
  legend_text(legend, text);
}

// ---------------------------------------------------------------------------------------- families

enum family { FAMILY_DENSE, FAMILY_SVD, FAMILY_TWO, FAMILY_THREE, FAMILY_PLAIN, NUM_FAMILIES };

static const char *const family_names[NUM_FAMILIES] = {"matrix", "svd", "TT-matrix, 2 cores",
                                                       "TT-matrix, 3 cores", "plain train"};
static const char *const family_colors[NUM_FAMILIES] = {SVG_BLACK, SVG_BLUE, SVG_RED, SVG_GREEN,
                                                        SVG_PURPLE};
static const int family_shapes[NUM_FAMILIES] = {SVG_SQUARE, SVG_CIRCLE, SVG_TRIANGLE, SVG_DIAMOND,
                                                SVG_SQUARE};

// A TT-matrix of four cores, which a profile from elsewhere may hold, counts as three.
static int family_of(const tt_shape *shape) {
  int plain = 1;
  for (int k = 0; k < shape->order; k++)
    if (shape->rows[k] > 1 && shape->cols[k] > 1) plain = 0;
  if (shape->order == 1) return FAMILY_DENSE;
  if (plain) return shape->order == 2 ? FAMILY_SVD : FAMILY_PLAIN;
  return shape->order == 2 ? FAMILY_TWO : FAMILY_THREE;
}

// ----------------------------------------------------------------------------------------- spectra

// A marker on the line of a spectrum (x, y) at the rank that leaves out 10 % of the norm.
static void mark_rank(const svg_panel *panel, const struct profile_bond *bond, const double *x,
                      const double *y, int count) {
  int family = family_of(&bond->factors), rank = bond->figures.tail_ranks[0], i = 1;
  double side = bond_side(&bond->factors, bond->bond), at = rank / side;
  struct text title = {NULL, 0, 0};
  while (i < count && x[i] < at) i++;
  if (i >= count || at < x[0]) return;
  double part = (at - x[i - 1]) / (x[i] - x[i - 1]);
  double value = y[i - 1] * pow(y[i] / y[i - 1], part);
  text_add(&title, "%s, bond %d: rank %d of %.0f leaves out 10 %% of the norm",
           family_names[family], bond->bond, rank, side);
  svg_marker(panel->file, family_shapes[family], svg_x(panel, at), svg_y(panel, value), 3.5,
             "#FFFFFF", family_colors[family], title.data);
  text_free(&title);
}

// The spectrum, dashed that of the Gaussian matrix. Plain trains are left out: their middle bond is
// that of the SVD, the others are short.
static void draw_bond(const svg_panel *panel, const struct profile_bond *bond) {
  int family = family_of(&bond->factors), count = 0;
  double x[SPECTRUM_POINTS], y[2][SPECTRUM_POINTS], side = bond_side(&bond->factors, bond->bond);
  for (; count < bond->num_points && bond->spectrum[count] >= panel->y0; count++) {
    x[count] = (bond->index[count] + 1) / side;
    y[0][count] = bond->spectrum[count];
    y[1][count] = fmax(bond->gaussian[count], panel->y0);
  }
  if (family == FAMILY_PLAIN || count == 0) return;
  svg_line(panel, x, y[1], count, family_colors[family], 1, "3 3");
  svg_line(panel, x, y[0], count, family_colors[family], 2, "none");
  mark_rank(panel, bond, x, y[0], count);
}

static void spectra_axes(svg_panel *panel) {
  char label[24];
  panel->x1 = panel->y1 = 1;
  panel->y0 = 0.001;
  panel->log_y = 1;
  for (int i = 0; i <= 5; i++) {
    sprintf(label, "%d%%", 20 * i);
    svg_tick(panel, 1, 0.2 * i, label);
  }
  svg_ticks_log(panel, 0, panel->y0 / 1.001, panel->y1);
}

static void draw_spectra(const struct profile *profile, const char *prefix) {
  FILE *file = open_panels(prefix, "spectra", profile->num_layers,
                           "Singular values of every bond, over the norm of the layer");
  struct legend legend = {file, 16};
  for (int family = FAMILY_SVD; family <= FAMILY_THREE; family++)
    legend_line(&legend, family_colors[family], "none", family_names[family]);
  legend_line(&legend, SVG_GREY, "3 3", "Gaussian matrix");
  legend_marker(&legend, SVG_CIRCLE, "#FFFFFF", SVG_GREY, "10 % of the norm lie behind");
  for (size_t i = 0; i < profile->num_layers; i++) {
    const struct profile_layer *layer = &profile->layers[i];
    svg_panel panel = layer_panel(file, profile, i);
    spectra_axes(&panel);
    frame_layer(&panel, layer, "share of all singular values", "singular value");
    for (size_t b = 0; b < layer->num_bonds; b++) draw_bond(&panel, &layer->bonds[b]);
  }
  close_picture(file, prefix);
}

// ----------------------------------------------------------------------------------------- entropy

enum { CELL_WIDTH = 84, CELL_HEIGHT = 26, CELLS_TOP = 124 };
static const double heat_low = 0.5; // entropy over that of a Gaussian matrix: the darkest colour

// Columns of the heat map: the bonds of every family, a gap between families.
static const int heat_bonds[NUM_FAMILIES] = {0, 1, 1, 2, 3};

static double heat_left(int family) {
  double left = 0;
  for (int f = FAMILY_SVD; f < family; f++) left += 10 + (double)(heat_bonds[f] * CELL_WIDTH);
  return left;
}

// Pixels that the names of layers take at most.
static double heat_names(const struct profile *profile) {
  size_t longest = 14;
  for (size_t i = 0; i < profile->num_layers; i++) {
    size_t length = strlen(profile->layers[i].name);
    if (length > longest) longest = length;
  }
  return 22 + 7.4 * (double)(longest < NAME_CHARACTERS ? longest : NAME_CHARACTERS);
}

// From pale (as a Gaussian matrix) to dark blue.
static void heat_color(double ratio, char color[8]) {
  static const int pale[3] = {0xF4, 0xF6, 0xF9}, dark[3] = {0x08, 0x3D, 0x77};
  double depth = (1 - ratio) / (1 - heat_low);
  depth = depth < 0 ? 0 : depth > 1 ? 1 : depth;
  sprintf(color, "#%02X%02X%02X", (int)(pale[0] + depth * (dark[0] - pale[0]) + 0.5),
          (int)(pale[1] + depth * (dark[1] - pale[1]) + 0.5),
          (int)(pale[2] + depth * (dark[2] - pale[2]) + 0.5));
}

static void heat_cell(FILE *file, double x, double y, const struct profile_layer *layer,
                      const struct profile_bond *bond) {
  const tt_bond *figures = &bond->figures;
  double gaussian = figures->gaussian_entropy,
         ratio = gaussian > 0 ? figures->entropy / gaussian : 1;
  struct text title = {NULL, 0, 0}, modes = {NULL, 0, 0};
  char color[8], number[32];
  heat_color(ratio, color);
  shape_modes(&bond->factors, &modes);
  text_add(&title, "%s %s bond %d: entropy %.3f, Gaussian %.3f, effective rank %.1f of %.0f",
           layer->name, modes.data, bond->bond, figures->entropy, gaussian, figures->effective_rank,
           bond_side(&bond->factors, bond->bond));
  fprintf(file,
          "<rect x=\"%.1f\" y=\"%.1f\" width=\"%d\" height=\"%d\" fill=\"%s\" "
          "stroke=\"#FFFFFF\"><title>",
          x, y, CELL_WIDTH, CELL_HEIGHT, color);
  svg_escape(file, title.data);
  fputs("</title></rect>\n", file);
  snprintf(number, sizeof number, "%.2f (%.0f%%)", figures->entropy, 100 * ratio);
  svg_text(file, x + CELL_WIDTH / 2.0, y + CELL_HEIGHT / 2.0 + 4, "middle", 12,
           ratio < (1 + heat_low) / 2 ? "#FFFFFF" : SVG_BLACK, 0, number);
  text_free(&title);
  text_free(&modes);
}

// Names of families and bonds above the columns, of which the first starts at `left`.
static void heat_titles(FILE *file, double left) {
  for (int f = FAMILY_SVD; f < NUM_FAMILIES; f++) {
    double x = left + heat_left(f);
    svg_text(file, x + heat_bonds[f] * CELL_WIDTH / 2.0, CELLS_TOP - 26, "middle", 13, SVG_BLACK, 0,
             f == FAMILY_TWO ? "2 cores" : family_names[f]);
    for (int k = 0; k < heat_bonds[f]; k++) {
      char label[24];
      sprintf(label, "bond %d", k);
      svg_text(file, x + (k + 0.5) * CELL_WIDTH, CELLS_TOP - 9, "middle", 11, SVG_GREY, 0, label);
    }
  }
}

static void heat_legend(FILE *file) {
  for (int i = 0; i <= 20; i++) {
    char color[8];
    heat_color(heat_low + (1 - heat_low) * i / 20, color);
    fprintf(file, "<rect x=\"%d\" y=\"%d\" width=\"8\" height=\"14\" fill=\"%s\"/>\n", 16 + 8 * i,
            HEAD - 18, color);
  }
  svg_text(file, 16, HEAD + 10, "start", 11, SVG_GREY, 0, "50 %");
  svg_text(file, 184, HEAD + 10, "end", 11, SVG_GREY, 0, "100 %");
  svg_text(
      file, 200, HEAD - 7, "start", 12, SVG_BLACK, 0,
      "of the entropy of a Gaussian matrix of the same shape; pale: nothing for a train to find");
}

static void draw_entropy(const struct profile *profile, const char *prefix) {
  double left = heat_names(profile);
  FILE *file = open_picture(prefix, "entropy", (int)(left + heat_left(NUM_FAMILIES)) + 8,
                            CELLS_TOP + (int)profile->num_layers * CELL_HEIGHT + 20,
                            "Entropy of every bond in nats, and as a share");
  heat_legend(file);
  heat_titles(file, left);
  for (size_t i = 0; i < profile->num_layers; i++) {
    const struct profile_layer *layer = &profile->layers[i];
    double y = CELLS_TOP + (double)i * CELL_HEIGHT;
    struct text name = {NULL, 0, 0};
    short_name(layer->name, NAME_CHARACTERS, &name);
    svg_text(file, left - 10, y + CELL_HEIGHT / 2.0 + 4, "end", 12, SVG_BLACK, 0, name.data);
    text_free(&name);
    for (size_t b = 0; b < layer->num_bonds; b++) {
      const struct profile_bond *bond = &layer->bonds[b];
      int family = family_of(&bond->factors);
      if (bond->bond < heat_bonds[family])
        heat_cell(file, left + heat_left(family) + (double)(bond->bond * CELL_WIDTH), y, layer,
                  bond);
    }
  }
  close_picture(file, prefix);
}

// -------------------------------------------------------------------------------------- candidates

#define HULL_COLOR "#B0B0B0"

// 500, 20k, 3M: sizes on an axis, where every character counts.
static void size_label(double bytes, char label[32]) {
  const char *unit = bytes >= 1e9 ? "G" : bytes >= 1e6 ? "M" : bytes >= 1e3 ? "k" : "";
  double scale = bytes >= 1e9 ? 1e9 : bytes >= 1e6 ? 1e6 : bytes >= 1e3 ? 1e3 : 1;
  snprintf(label, 32, "%.0f%s", bytes / scale, unit);
}

static void size_ticks(const svg_panel *panel) {
  static const int steps[] = {1, 2, 5};
  for (int power = (int)floor(log10(panel->x0)); pow(10, power) <= panel->x1; power++)
    for (int step = 0; step < 3; step++) {
      double bytes = steps[step] * pow(10, power);
      char label[32];
      if (bytes < panel->x0 || bytes > panel->x1) continue;
      size_label(bytes, label);
      svg_tick(panel, 1, bytes, label);
    }
}

// Axes around all candidates: bytes on a log axis, errors from 0.
static void scale_candidates(svg_panel *panel, const struct profile_layer *layer) {
  panel->log_x = 1;
  panel->x0 = panel->x1 = (double)layer->candidates[0].bytes;
  for (size_t i = 0; i < layer->num_candidates; i++) {
    const struct candidate *c = &layer->candidates[i];
    panel->x0 = fmin(panel->x0, (double)c->bytes);
    panel->x1 = fmax(panel->x1, (double)c->bytes);
    panel->y1 = fmax(panel->y1, candidate_error(c));
  }
  panel->x0 /= 1.15;
  panel->x1 *= 1.15;
  panel->y1 = fmax(1.05 * panel->y1, 0.5);
}

static void draw_candidate(const svg_panel *panel, const struct candidate *c) {
  int family = family_of(&c->shape), coded = c->spec.dtype != TT_F32;
  const char *color = family_colors[family];
  struct text title = {NULL, 0, 0};
  char *spec = spec_text(&c->spec);
  text_add(&title, "%s: %llu bytes, error %.4f", spec, (unsigned long long)c->bytes,
           candidate_error(c));
  svg_marker(panel->file, family_shapes[family], svg_x(panel, (double)c->bytes),
             svg_y(panel, candidate_error(c)), 3.2, coded ? color : "#FFFFFF", color, title.data);
  text_free(&title);
  free(spec);
}

// The hull in order of bytes: what a plan chooses from.
static void draw_hull(const svg_panel *panel, const struct profile_layer *layer) {
  int count, *hull = best_candidates(layer, &count);
  double *x = (double *)get_memory((size_t)count, sizeof *x);
  double *y = (double *)get_memory((size_t)count, sizeof *y);
  for (int i = 0; i < count; i++) {
    x[i] = (double)layer->candidates[hull[i]].bytes;
    y[i] = candidate_error(&layer->candidates[hull[i]]);
  }
  svg_line(panel, x, y, count, HULL_COLOR, 5, "none");
  free(x);
  free(y);
  free(hull);
}

static void draw_candidates(const struct profile *profile, const char *prefix) {
  FILE *file = open_panels(prefix, "candidates", profile->num_layers,
                           "Every candidate: error against bytes");
  struct legend legend = {file, 16};
  for (int family = FAMILY_DENSE; family < NUM_FAMILIES; family++)
    legend_marker(&legend, family_shapes[family], family_colors[family], family_colors[family],
                  family_names[family]);
  legend_marker(&legend, SVG_CIRCLE, "#FFFFFF", SVG_GREY, "open: F32");
  legend_line(&legend, HULL_COLOR, "none", "the best");
  for (size_t i = 0; i < profile->num_layers; i++) {
    const struct profile_layer *layer = &profile->layers[i];
    svg_panel panel = layer_panel(file, profile, i);
    scale_candidates(&panel, layer);
    size_ticks(&panel);
    svg_ticks_linear(&panel, 0, panel.y0, panel.y1);
    frame_layer(&panel, layer, "bytes",
                layer->candidates[0].functional_error >= 0 ? "error of the outputs"
                                                           : "error of the weights");
    draw_hull(&panel, layer);
    for (size_t c = 0; c < layer->num_candidates; c++)
      draw_candidate(&panel, &layer->candidates[c]);
  }
  close_picture(file, prefix);
}

static void draw_profile(const struct profile *profile, const char *prefix) {
  draw_spectra(profile, prefix);
  draw_entropy(profile, prefix);
  draw_candidates(profile, prefix);
}

#endif
