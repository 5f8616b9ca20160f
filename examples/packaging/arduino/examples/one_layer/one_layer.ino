// Runs a layer and prints one of its outputs, 16.00. On an AVR these cores take RAM: put large ones
// into PROGMEM and define TT_FLASH_BYTE, as examples/mcu of tt.h does.
#define TT_INFERENCE_ONLY
#define TT_STATIC
#define TT_IMPLEMENTATION
#include <tt.h>
#include "one_layer.h"

void setup() {
  Serial.begin(9600);
  Serial.println(one_layer_run());
}

void loop() {}
