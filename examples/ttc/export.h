// `ttc export-c`: a layer as a C header, by tt_export_c, whose comment says where it comes from.
//
// Text compiles slowly: some 10 MB of source per MB of weights, which compilers read at 1 to 10 MB
// a second. Include after pack.h.
#ifndef TTC_EXPORT_H
#define TTC_EXPORT_H

#include "pack.h"

// Where the layer comes from.
static void export_note(struct text *out, const struct options *options,
                        const struct model *model) {
  const char *source = find_metadata(model->file, "tt.source.sha256");
  text_add(out, "\n   ttc export-c %s %s -o %s\n   sha256 of that file  %s\n", options->files[0],
           options->files[1], options->output, model->sha256);
  if (source) text_add(out, "   and of its source    %s\n", source);
}

// ttc export-c FILE LAYER -o H
static void export_c(const struct options *options) {
  struct text note = {NULL, 0, 0}, out = {NULL, 0, 0};
  struct model model = model_open(options->files[0]);
  size_t size = 0;
  check_output(options->output, &model, options->force);
  tt_matrix train = read_train(&model, model_find(&model, options->files[1]));
  model_hash(&model);
  export_note(&note, options, &model);
  must(tt_export_c(&train, NULL, options->files[1], note.data, NULL, &size), "%s",
       options->files[1]);
  out.data = (char *)get_memory(size, 1);
  out.size = size - 1;
  must(tt_export_c(&train, NULL, options->files[1], note.data, out.data, &size), "%s",
       options->files[1]);
  stop_if_interrupted();
  text_save(&out, options->output);
  text_free(&note);
  text_free(&out);
  tt_free(&train);
  model_close(&model);
}

#endif
