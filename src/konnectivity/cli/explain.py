"""`konnectivity explain`: the way to one webhook, API service, pod or node, and where it breaks.

Exit statuses: 0 whole, 1 broken, 2 misused, 3 it cannot be told.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Final

from konnectivity.cli import look
from konnectivity.cli.run import MISUSED, Description, complain
from konnectivity.diagnose.doctor_options import MODES
from konnectivity.diagnose.explain.callee import ADDRESS_TYPES, KINDS
from konnectivity.diagnose.explain.report import document, exit_status, lines
from konnectivity.diagnose.explain.run import ExplainOptions, explain
from konnectivity.diagnose.sources import Sources
from konnectivity.flag import absence
from konnectivity.gotext import quote

COMMAND: Final = Description(
    name="konnectivity explain",
    about=(
        "Show the way from kube-apiserver to a webhook, an API service, a pod or a node, link by "
        "link, and where it breaks: explain webhook|apiservice|pod|node NAME. A pod is named "
        "namespace/name. Exit status: 0 whole, 1 broken, 3 it cannot be told."
    ),
    examples=(
        "konnectivity explain webhook my-policies --kubeconfig=admin.conf \\",
        "    --server=http://10.0.0.11:8095,http://10.0.0.12:8095",
        "",
        "# beside a server, with a dial; as kubectl logs and exec go",
        "konnectivity explain pod default/web-1 --frontend=/run/konnectivity/server.socket",
    ),
)


def main(argv: Sequence[str]) -> int:
    """Run the command; return the exit status."""
    words = []
    for word in argv[:2]:
        if word.startswith("-"):
            break
        words.append(word)
    rest = argv[len(words) :]
    if len(words) != 2 and not {"-h", "--help", "--version"}.intersection(rest):
        wanted = f"{COMMAND.name} {'|'.join(KINDS)} NAME"
        return complain(f"usage: {wanted}; see {COMMAND.name} --help", status=MISUSED)
    kind, name = words if len(words) == 2 else ("node", "")

    def check(options: ExplainOptions) -> list[str]:
        return list(_problems(kind, name, options))

    def start(options: ExplainOptions, sources: Sources) -> int:
        chains = asyncio.run(explain(kind, name, options, sources, os.environ))
        if options.output == "json":
            text = json.dumps(document(kind, name, chains), indent=2, ensure_ascii=False) + "\n"
        else:
            text = "".join(f"{each}\n" for each in lines(chains))
        sys.stdout.write(text)
        return exit_status(chains)

    return look.run(COMMAND, ExplainOptions, rest, start, check=check)


def _problems(kind: str, name: str, options: ExplainOptions) -> Iterator[str]:
    if kind not in KINDS:
        yield f"{quote(kind)} is none of {', '.join(KINDS)}"
    if not name.strip("/"):
        yield f"which {kind}? A name is missing"
    if options.output not in ("table", "json"):
        yield f"output must be table or json, not {quote(options.output)}"
    if options.frontend_mode not in MODES:
        yield f"frontend-mode must be grpc or http-connect, not {quote(options.frontend_mode)}"
    for path, flag in ((options.frontend, "frontend"), (options.egress_config, "egress-config")):
        if path and (problem := absence(path)):
            yield f"{flag}: {problem}"
    for each in options.kubelet_preferred_address_types:
        if each not in ADDRESS_TYPES:
            yield f"kubelet-preferred-address-types: {quote(each)}: {', '.join(ADDRESS_TYPES)}"
