// The two functions of a user, named by the file that includes this one: UNITS_MAKE and
// UNITS_ERROR.
tt_status UNITS_MAKE(tt_matrix *out) {
  float w[24];
  tt_shape shape;
  tt_options options;
  memset(&options, 0, sizeof options);
  for (int i = 0; i < 24; i++) w[i] = 1.0f / (float)(1 + i / 6 + i % 6);
  tt_status status = tt_shape_factor(4, 6, 2, &shape);
  return status ? status : tt_compress(w, 4, 6, &shape, &options, out, NULL);
}

double UNITS_ERROR(const tt_matrix *w) {
  static float work[32768];
  float x[6], y[4];
  double worst = 0;
  for (int j = 0; j < 6; j++) x[j] = (float)(j - 2);
  if (tt_apply_work_size(w, 1) > sizeof work || tt_apply(w, x, 1, y, work, sizeof work))
    return 1e30;
  for (int i = 0; i < 4; i++) {
    double sum = 0;
    for (int j = 0; j < 6; j++) sum += (double)x[j] / (1 + i + j);
    double error = fabs((double)y[i] - sum);
    if (!(error <= worst)) worst = error;
  }
  return worst;
}
