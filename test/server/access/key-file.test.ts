/** The key file: symbolic links, owner and mode, and the warning about other writers. */

import assert from "node:assert/strict";
import {
  chmod,
  chown,
  lstat,
  mkdir,
  readdir,
  readFile,
  readlink,
  rm,
  stat,
  symlink,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";
import { beforeEach, test } from "node:test";
import { changeKeyFile, keyFileWarning } from "../../../src/server/access/key-file.ts";
import { scratch } from "../../support/scratch.ts";

const root = scratch("key-file");
const folder = join(root, "keys");
const file = join(folder, "real.jsonl");
beforeEach(async () => {
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder);
  await writeFile(file, "before\n", { mode: 0o600 });
});

test("a change through symbolic links changes the target, and the links stay", async () => {
  const link = join(folder, "link");
  const linkToLink = join(root, "link-to-link");
  await symlink("real.jsonl", link);
  await rm(linkToLink, { force: true });
  await symlink(link, linkToLink);
  await changeKeyFile(linkToLink, (text) => `${text}after\n`);
  assert.equal(await readFile(file, "utf8"), "before\nafter\n");
  assert.equal(await readlink(link), "real.jsonl");
  assert.ok((await lstat(linkToLink)).isSymbolicLink());
  assert.deepEqual((await readdir(folder)).toSorted(), ["link", "real.jsonl"]);
});

test("concurrent changes through two names exclude each other", async () => {
  const link = join(folder, "link");
  await symlink("real.jsonl", link);
  await writeFile(`${file}.new`, "");
  await assert.rejects(
    changeKeyFile(link, (text) => text),
    /real\.jsonl\.new exists: another command/,
  );
});

test("a symbolic link to a missing file is refused and stays", async () => {
  const link = join(folder, "link");
  await symlink("gone.jsonl", link);
  await assert.rejects(
    changeKeyFile(link, (text) => text),
    /link is a symbolic link to a missing file/,
  );
  assert.equal(await readlink(link), "gone.jsonl");
});

test("mode and owner stay, so that a server of another user can still read the file", async () => {
  await chmod(file, 0o640);
  const isRoot = process.getuid?.() === 0;
  if (isRoot) await chown(file, 1234, 2345);
  await changeKeyFile(file, (text) => text);
  const { mode, uid, gid } = await stat(file);
  assert.equal(mode & 0o777, 0o640);
  if (isRoot) assert.deepEqual([uid, gid], [1234, 2345]);
  const fresh = join(folder, "fresh.jsonl");
  await changeKeyFile(fresh, () => "x\n");
  assert.equal((await stat(fresh)).mode & 0o777, 0o600);
});

test("there is a warning about a file that others can write, through links too", async () => {
  await symlink("real.jsonl", join(folder, "link"));
  for (const path of [file, join(folder, "link")]) {
    for (const [mode, says] of [
      [0o600, undefined],
      [0o644, undefined],
      [0o660, /can be written by its group/],
      [0o606, /can be written by every user/],
    ] as const) {
      await chmod(file, mode);
      const warning = await keyFileWarning(path);
      if (says) assert.match(warning ?? "", says);
      else assert.equal(warning, undefined);
    }
  }
  assert.equal(await keyFileWarning(join(folder, "gone")), undefined);
});
