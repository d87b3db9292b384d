"""The harness under its old name, until the memory study imports the new one."""

from experiments._harness import (
    Claim as Claim,
)
from experiments._harness import (
    claims_table as claims_table,
)
from experiments._harness import (
    command_line as command_line,
)
from experiments._harness import (
    commit as commit,
)
from experiments._harness import (
    plain as plain,
)
from experiments._harness import (
    text_table as text_table,
)
from experiments._harness import (
    write_json as write_json,
)
from experiments._harness import (
    write_summary as write_summary,
)
