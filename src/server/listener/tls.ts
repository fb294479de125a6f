/** Reads the certificate and its key. */

import { readFile } from "node:fs/promises";
import { createSecureContext } from "node:tls";
import { StartupError } from "../../errors.ts";

/** A certificate with its chain, and its key, both PEM. */
export interface TlsFiles {
  cert: Buffer;
  key: Buffer;
}

/** Read certificate and key. Throws StartupError if they cannot be read or do not match. */
export async function readTls(certPath: string, keyPath: string): Promise<TlsFiles> {
  const read = (flag: string, path: string) =>
    readFile(path).catch((error: NodeJS.ErrnoException) => {
      throw new StartupError(`cannot read ${path} of ${flag}: ${error.code}`);
    });
  const [cert, key] = await Promise.all([read("--tls-cert", certPath), read("--tls-key", keyPath)]);
  try {
    createSecureContext({ cert, key });
  } catch (error) {
    throw new StartupError(
      `${certPath} and ${keyPath} are not a certificate and its key: ${(error as Error).message}`,
    );
  }
  return { cert, key };
}
