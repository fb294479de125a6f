/** The peers that the server can be compared with, by name. */

/** Titles of the peers, also for reports of peers that could not be started. */
export const TITLES = {
  bare: "bare loop",
  reference: "PyTorch reference",
  transformers: "stories-ar, Transformers.js",
  "llama.cpp": "stories-ar, llama.cpp, f16",
  "llama.cpp-q8": "stories-ar, llama.cpp, q8_0",
};

export type PeerName = keyof typeof TITLES;

/** In the order in which they are started. */
export const PEERS = Object.keys(TITLES) as PeerName[];
