"""run.py MODULE: the tests of a module; exits 77 if none of them could run."""

import sys
import unittest

program = unittest.main(module=sys.argv[1], argv=sys.argv[:1] + sys.argv[2:] + ["-v"], exit=False)
result = program.result
for test, reason in result.skipped:
    print(f"SKIPPED: {test}: {reason}", file=sys.stderr)
if result.testsRun == 0:
    sys.exit("no test was found")
if not result.wasSuccessful():
    sys.exit(1)
sys.exit(77 if len(result.skipped) == result.testsRun else 0)
