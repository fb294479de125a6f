/** Settings of every property: the same cases each time, few enough for the gate. */

/** Of most properties. */
export const RUNS = { seed: 20261125, numRuns: 300 };
/** Of those whose every case asks a server. */
export const FEW_RUNS = { seed: 20261125, numRuns: 150 };
