"""The contract suite: what every modality promises, as plain checks that run on anybody's.

    from endwise.testing import check_modality
    for check in check_modality(MyPoint(), [[0, 1], [2, 5], ...], role="input"):
        check()                       # raises ContractBroken with what was promised and what happened

No test framework is needed; with pytest, parametrise over `check_modality(...)` and use `check.name` as the id. The
package's own modalities pass through the same function, and `python -m endwise.testing --capabilities` runs it over
all of them and writes the table of docs/capabilities.md. Not here: accuracy on real data (benchmarks).
"""

from endwise.testing.case import Case, ContractBroken
from endwise.testing.cases import cases
from endwise.testing.checks import Check, check_export, check_modality, checks_of

__all__ = ["Case", "Check", "ContractBroken", "cases", "check_export", "check_modality", "checks_of"]
