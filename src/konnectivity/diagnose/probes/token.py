"""What an agent's token says of itself: whose it is, for whom, until when. Nothing is verified."""

from __future__ import annotations

import base64
import json
import time
from dataclasses import replace
from typing import Any

from konnectivity.agent.link import read_token
from konnectivity.diagnose.attempt import Attempt, Cause
from konnectivity.diagnose.case import moment
from konnectivity.diagnose.probes.hop import HERE
from konnectivity.errors import LinkError


def inspect_token(path: str, *, audience: str) -> Attempt:
    """An attempt that failed if no server would accept the token of `path`."""
    base = Attempt(origin=HERE, target="token", witness=f"token file {path}", at=time.time())
    try:
        claims = _claims(read_token(path))
    except LinkError as error:
        return _failed(base, str(error))
    except ValueError:
        return _failed(base, "it is no JSON web token")
    now = time.time()
    expires, begins = claims.get("exp"), claims.get("nbf")
    named = claims.get("aud")
    audiences = [named] if isinstance(named, str) else named if isinstance(named, list) else []
    if isinstance(expires, int | float) and expires <= now:
        return _failed(base, f"the token has expired at {moment(expires)}")
    if isinstance(begins, int | float) and begins > now + 1:
        return _failed(base, f"the token is not valid before {moment(begins)}, by this clock")
    if audience not in audiences:
        return _failed(base, f'the token is not for audience "{audience}": {json.dumps(audiences)}')
    return base


def _failed(base: Attempt, error: str) -> Attempt:
    return replace(base, stage="token", cause=Cause.TOKEN, error=error)


def _claims(token: str) -> dict[str, Any]:
    """The payload of a JWT (RFC 7519, 3)."""
    parts = token.split(".")
    if len(parts) != 3:
        raise ValueError("not three parts")
    try:
        found = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("no object")  # noqa: TRY004 - of the token, not of ours
    return found
