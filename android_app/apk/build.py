"""Build, sign and verify the Android app; docs/android.md explains how and why.

    python android_app/apk/build.py                          both ABIs in one APK
    python android_app/apk/build.py --abi arm64-v8a          for one kind of phone
    python android_app/apk/build.py --runtime executorch.aar with another ExecuTorch
    python android_app/apk/build.py --release                signed by your key

A release is signed by the keystore that SPARSEREC_KEYSTORE names (SPARSEREC_KEY_ALIAS if it has
several keys). Passwords come from SPARSEREC_KEYSTORE_PASSWORD and, where it differs,
SPARSEREC_KEY_PASSWORD, or are asked for; none is taken from the command line.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import recipe
from signing import debug_signer, release_signer

from sparserec.errors import SparseRecError


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0, or the exit code of the one error that it prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--abi", choices=[*recipe.ABIS, "all"], default="all")
    parser.add_argument("--runtime", type=Path, metavar="AAR", help="an official ExecuTorch AAR")
    parser.add_argument("--release", action="store_true", help="sign with your own key")
    options = parser.parse_args(arguments)
    abis = list(recipe.ABIS) if options.abi == "all" else [options.abi]
    try:
        signer = release_signer() if options.release else debug_signer()
        suffix = "-release" if options.release else ""
        apk = recipe.build(signer, abis, aar=options.runtime, suffix=suffix)
    except SparseRecError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    record = json.loads(apk.with_suffix(".json").read_text(encoding="utf-8"))
    print(f"{apk}: {record['bytes'] / 1e6:.1f} MB, {', '.join(record['abis'])}, verified")
    return 0


if __name__ == "__main__":
    sys.exit(main())
