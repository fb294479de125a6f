/**
 * CUDA libraries that do nothing, to load ONNX Runtime's real provider, and let it fail, without a GPU.
 */

import { execFileSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/**
 * Functions with an effect; all others return 0. FAKE_GPUS is their number (default 1),
 * FAKE_SET_DEVICE the error of choosing a device, FAKE_MALLOC that of allocating memory. FAKE_LOG is a file
 * that gets a line for each choice: the process and the device.
 */
const BODIES: Record<string, string> = {
  cudaSetDevice: `int cudaSetDevice(int d){
    if(getenv("FAKE_LOG")){FILE*f=fopen(getenv("FAKE_LOG"),"a");fprintf(f,"%d %d\\n",getpid(),d);fclose(f);}
    return d>=gpus()?101:number("FAKE_SET_DEVICE");}`,
  cudaMalloc: 'int cudaMalloc(void**p,size_t n){*p=malloc(n);return number("FAKE_MALLOC");}',
  cudaMallocHost: "int cudaMallocHost(void**p,size_t n){*p=malloc(n);return 0;}",
  cudaHostAlloc: "int cudaHostAlloc(void**p,size_t n,unsigned f){*p=malloc(n);return 0;}",
  cudaGetDeviceCount: "int cudaGetDeviceCount(int*n){*n=gpus();return 0;}",
  cudaGetDevice: "int cudaGetDevice(int*n){*n=0;return 0;}",
  cudaMemGetInfo: "int cudaMemGetInfo(size_t*f,size_t*t){*f=*t=1<<30;return 0;}",
  cudaGetErrorString: 'const char*cudaGetErrorString(int e){return "fake";}',
  cudaGetErrorName: 'const char*cudaGetErrorName(int e){return "fake";}',
  cudaGetDeviceProperties: "int cudaGetDeviceProperties(char*p,int d){memset(p,0,700);return 0;}",
  __cudaRegisterFatBinary: "static int handle;void*__cudaRegisterFatBinary(void*x){return&handle;}",
};
const HEAD = `#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static int number(const char*name){const char*text=getenv(name);return text?atoi(text):0;}
static int gpus(void){return getenv("FAKE_GPUS")?number("FAKE_GPUS"):1;}
`;

/**
 * Compile every CUDA library that a provider needs with gcc, with the functions that the provider imports.
 */
export function fakeCuda(provider: string, folder: string): void {
  mkdirSync(folder, { recursive: true });
  const dynamic = execFileSync("readelf", ["-dW", provider], { encoding: "utf8" });
  const needed = Array.from(dynamic.matchAll(/NEEDED.*\[(lib(?:cu\w+)\.so\.\d+)\]/g), ([, name]) => name!);
  const symbols = execFileSync("nm", ["-D", "--undefined-only", provider], { encoding: "utf8" });
  for (const library of needed) {
    // Functions without a version belong to the library of the driver.
    const pattern =
      library === "libcuda.so.1" ? /^\s+U (cu[A-Z]\w+)$/gm : new RegExp(`^\\s+U (\\w+)@${library}$`, "gm");
    const names = new Set(Array.from(symbols.matchAll(pattern), ([, name]) => name!));
    const bodies = [...names].map((name) => BODIES[name] ?? `int ${name}(void){return 0;}`);
    const source = join(folder, "fake.c");
    const versions = join(folder, "fake.map");
    writeFileSync(source, HEAD + bodies.join("\n"));
    writeFileSync(versions, `${library} { global: *; };\n`);
    const flags = ["-w", "-shared", "-fPIC", `-Wl,-soname,${library}`, `-Wl,--version-script=${versions}`];
    execFileSync("gcc", [...flags, "-o", join(folder, library), source]);
  }
}

/**
 * Hide every GPU from the workers that this process starts: a test then has the same outcome on every
 * machine.
 */
export function hideGpus(): void {
  process.env.CUDA_VISIBLE_DEVICES = "";
}
