/** What the server can be measured beside. */

export const PEERS = ["bare", "reference", "transformers", "llama.cpp"] as const;

export type PeerName = (typeof PEERS)[number];
