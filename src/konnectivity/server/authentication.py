"""Whether an agent may register: by its certificate, its token, and what it claims to stand for.

Each of the three is asked for by flags of its own, and all that are asked for must be satisfied
(W44). Texts are upstream's where upstream has them (`pkg/server/server.go`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from konnectivity.errors import AuthenticationError
from konnectivity.gotext import quote
from konnectivity.observe import logs
from konnectivity.server.certificates import CertificateGate
from konnectivity.server.options import ServerOptions
from konnectivity.tunnel.destination import normalise, unmapped
from konnectivity.tunnel.identifiers import Identifiers
from konnectivity.wire import grpc
from konnectivity.wire.events import Headers

if TYPE_CHECKING:  # the Kubernetes client is imported where a flag asks for it
    from konnectivity.kube.token_review import Account, TokenReviews

log = logs.get(__name__)

REVIEWS_PER_SECOND: Final = 50.0
REVIEWS_IN_A_BURST: Final = 100
"""Of the client for reviews, unless --kubeconfig-qps and --kubeconfig-burst say otherwise. With
client-go's 5 and 10 a fleet of hundreds waits for minutes (W52)."""
BEARER: Final = "Bearer "


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """Whose tokens are good."""

    namespace: str
    name: str

    def check(self, username: str) -> None:
        """Refuse the token of anybody else.

        Raises:
            AuthenticationError: in upstream's words.
        """
        parts = username.split(":")
        if len(parts) != 4:
            problem = "unexpected username format"
        elif parts[:2] != ["system", "serviceaccount"]:
            problem = "username returned is not a service account"
        elif parts[2] != self.namespace:
            problem = (
                f"incoming request from {quote(parts[2])} namespace. "
                f"Expected {quote(self.namespace)}"
            )
        elif parts[3] != self.name:
            problem = (
                f"incoming request from {quote(parts[3])} service account. "
                f"Expected {quote(self.name)}"
            )
        else:
            return
        raise AuthenticationError(f"lookup failed: {problem}", "account")


@dataclass(frozen=True, slots=True)
class Authentication:
    """What agents must show. Without arguments: nothing."""

    gate: CertificateGate = field(default_factory=lambda: CertificateGate(()))
    account: ServiceAccount | None = None
    reviews: TokenReviews | None = None
    """There if and only if `account` is."""
    bind_to_node: bool = False

    @property
    def demanding(self) -> bool:
        """Whether there is anything to show, beyond what TLS has checked."""
        return self.reviews is not None or self.gate.patterns != ()

    def token(self, headers: Headers) -> str:
        """The token that must be reviewed, or nothing if none is asked for.

        Raises:
            AuthenticationError: there is not exactly one; upstream's words.
        """
        if self.reviews is None:
            return ""
        values = grpc.metadata_values(headers, "authorization")
        if not values:
            problem = "Authentication context was not found in metadata"
        elif len(values) > 1:
            problem = f"too many ({len(values)}) tokens are received"
        elif not values[0].startswith(BEARER):
            problem = f"received token does not have {quote(BEARER)} prefix"
        else:
            return values[0].removeprefix(BEARER)
        raise AuthenticationError(problem, "no_token")

    async def review(self, token: str, *, anew: bool = False) -> Account:
        """Have `token` checked: whose it is, and that it is the agents'.

        Raises:
            AuthenticationError: in upstream's words.
        """
        if self.reviews is None or self.account is None:
            raise RuntimeError("there is no token to review")
        try:
            account = await self.reviews.review(token, anew=anew)
            self.account.check(account.username)
        except AuthenticationError as error:
            text = f"Failed to validate authentication token, err:{error}"
            raise AuthenticationError(text, error.outcome) from error
        return account

    def check_node(self, account: Account, identifiers: Identifiers, *, address: str) -> None:
        """Refuse identifiers that do not belong to the node that the token is bound to.

        Its name is the only host; its addresses nobody tells us but the connection, so the one it
        comes from (`address`) is good. Networks and the default route belong to no node.

        Raises:
            AuthenticationError: what is claimed, and what would be right.
        """
        if not self.bind_to_node:
            return
        if not account.node:
            raise AuthenticationError(
                "the token is not bound to a node, which --bind-identifiers-to-node of the server "
                "asks for: use a projected token of a pod, in Kubernetes 1.32 or later",
                "node",
            )
        own = normalise(account.node)
        claims = [f"host={host}" for host in sorted(identifiers.hosts) if host != own]
        here = unmapped(ip_address(address)) if address else None
        claims += [f"ip={each}" for each in identifiers.addresses if each not in (here, own)]
        claims += [f"cidr={network}" for network in identifiers.networks]
        claims += ["default-route"] if identifiers.default_route else []
        if claims:
            raise AuthenticationError(
                f"identifiers {', '.join(claims)} are not those of node {account.node}, which the "
                f"token is bound to; allowed are host={account.node} and the address {address}, "
                "from which the agent connects",
                "node",
            )

    async def close(self) -> None:
        """End what is asked of the Kubernetes API."""
        if self.reviews is not None:
            await self.reviews.close()


def from_options(options: ServerOptions) -> Authentication:
    """What the flags ask for.

    Raises:
        ConfigError: the Kubernetes API is needed, and how to reach it is not clear.
    """
    gate = CertificateGate(options.agent_certificate_identities)
    if not options.agent_namespace:
        return Authentication(gate)
    return Authentication(
        gate,
        ServiceAccount(options.agent_namespace, options.agent_service_account),
        _reviews(options),
        options.bind_identifiers_to_node,
    )


def _reviews(options: ServerOptions) -> TokenReviews:
    from konnectivity.kube.client import connect
    from konnectivity.kube.token_review import ReviewLimits, TokenReviews

    limits = ReviewLimits(
        timeout=options.authentication_timeout, keep=options.authentication_cache_ttl
    )
    client = connect(
        options.kubeconfig,
        qps=options.kubeconfig_qps or REVIEWS_PER_SECOND,
        burst=options.kubeconfig_burst or REVIEWS_IN_A_BURST,
        timeout=limits.timeout,
    )
    return TokenReviews(client, audience=options.authentication_audience, limits=limits)


def warn_of_open_door(options: ServerOptions) -> None:
    """Say so if whoever reaches the port may be an agent, which is upstream's default (W43)."""
    if not options.cluster_ca_cert and not options.agent_namespace:
        log.warning(
            "AGENTS ARE NOT AUTHENTICATED: whoever reaches this port can register as an agent and "
            "is given traffic of the control plane. Set --cluster-ca-cert (client certificates), "
            "or --agent-namespace, --agent-service-account and --authentication-audience "
            "(service account tokens), or both",
            agentPort=options.agent_port,
        )
