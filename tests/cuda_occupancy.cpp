// Registers and occupancy of kernels, by the rules of cuda_occupancy.h, without a GPU.
//   cuda_occupancy sm_90 <lines "kernel registers static_shared_bytes"
// Fails if a kernel of 256 threads does not fit on a multiprocessor, or if there is no kernel.
#include <cuda_occupancy.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv) {
  char name[128];
  int registers, lines = 0, few = 0, minor = argc > 1 ? atoi(argv[1] + 3) : 90;
  unsigned long shared;
  cudaOccDeviceProp chip;
  memset(&chip, 0, sizeof chip);
  chip.computeMajor = minor / 10;
  chip.computeMinor = minor % 10;
  chip.maxThreadsPerBlock = 1024;
  chip.maxThreadsPerMultiprocessor = 2048;
  chip.regsPerBlock = chip.regsPerMultiprocessor = 65536;
  chip.warpSize = 32;
  chip.sharedMemPerBlock = 49152;
  chip.sharedMemPerMultiprocessor = minor >= 90 ? 233472 : 167936;
  chip.sharedMemPerBlockOptin = minor >= 90 ? 232448 : 166912;
  chip.reservedSharedMemPerBlock = 1024;
  chip.numSms = minor >= 90 ? 132 : 108;
  printf("%-28s %9s %8s %8s   (%s, 256 threads)\n", "kernel", "registers", "shared", "blocks",
         argc > 1 ? argv[1] : "sm_90");
  while (scanf("%127s %d %lu", name, &registers, &shared) == 3) {
    cudaOccFuncAttributes kernel;
    cudaOccDeviceState state;
    cudaOccResult result;
    memset(&kernel, 0, sizeof kernel);
    memset(&state, 0, sizeof state);
    state.carveoutConfig = SHAREDMEM_CARVEOUT_DEFAULT;
    kernel.maxThreadsPerBlock = 256;
    kernel.numRegs = registers;
    kernel.sharedSizeBytes = shared;
    kernel.partitionedGCConfig = PARTITIONED_GC_OFF;
    kernel.maxDynamicSharedSizeBytes = INT_MAX;
    if (cudaOccMaxActiveBlocksPerMultiprocessor(&result, &chip, &kernel, &state, 256, 0)) return 2;
    printf("%-28s %9d %8lu %8d\n", name, registers, shared, result.activeBlocksPerMultiprocessor);
    few += result.activeBlocksPerMultiprocessor < 1;
    lines++;
  }
  return few || !lines;
}
