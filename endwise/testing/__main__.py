"""`python -m endwise.testing`."""

import sys

from endwise.testing.capabilities import main

sys.exit(main())
