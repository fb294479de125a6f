/** One measurement of one cell. */

import type { Measurement } from "../report/types.ts";
import { machineSpeed } from "../servers/machine.ts";
import type { Job, Side } from "../servers/side.ts";
import { Recorder } from "../traffic/recorder.ts";

/** Measure `side` once. Reject as `side.run` does. */
export async function measure(
  side: Side,
  job: Omit<Job, "recorder">,
  repeat: number,
  runStarted: number,
): Promise<{ measurement: Measurement; recorder: Recorder }> {
  const recorder = new Recorder();
  const machine_speed = machineSpeed();
  const before = await side.watch?.look();
  const started = performance.now();
  const cpu = process.cpuUsage();
  const { seconds, keptUp } = await side.run({ ...job, recorder });
  const { user, system } = process.cpuUsage(cpu);
  const elapsed = (performance.now() - started) / 1000;
  const after = await side.watch?.look();
  const a = (count: number) => (seconds > 0 ? count / seconds : 0);
  const { student, discriminator, gradient } = recorder.passes;
  const served = before && after && side.watch!.between(before, after);
  const measurement: Measurement = {
    repeat,
    started_s: (started - runStarted) / 1000,
    seconds,
    requests: recorder.requests,
    tokens: recorder.tokens,
    requests_per_second: a(recorder.requests),
    tokens_per_second: a(recorder.tokens),
    ...(student > 0 && {
      passes_per_second: { student: a(student), discriminator: a(discriminator), gradient: a(gradient) },
    }),
    times_ms: recorder.times.times(),
    ...(recorder.shapes.size > 1 && {
      shapes: Object.fromEntries([...recorder.shapes].map(([name, times]) => [name, times.times()])),
    }),
    errors: recorder.errors,
    ...(recorder.mergedSteps > 0 && { merged_steps: recorder.mergedSteps }),
    client_cpu_cores: (user + system) / 1e6 / elapsed,
    ...served,
    ...(keptUp !== undefined && { kept_up: keptUp }),
    machine_speed,
  };
  return { measurement, recorder };
}
