"""Dependencies for FastAPI. They answer 423 if somebody else has the lock, and 409 if the caller has lost it.

`workspace` is the id of the workspace, with the parameters of the path: `"documents/{document_id}"`.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Callable, Optional

from fastapi import Depends, Header, HTTPException, Request

from ._async import AsyncClient
from ._async_lease import AsyncLease
from ._errors import ApiError, LockLost, NotAcquired, UnreachableError


def held(client: AsyncClient, workspace: str, user: Callable[..., Any]) -> Any:
    """The fence of a request, for an endpoint that saves what somebody edits in a browser.

    The browser sends it as `X-Lock-Fence`. Lockhouse has confirmed that this user holds this lease now. Compare it in
    the database all the same, `WHERE fence <= …`, because the save may be late. `user` is a dependency that returns the
    id of the signed-in user. The client's token has the scope `service`.
    """

    async def fence_of(
        request: Request, user_id: Annotated[str, Depends(user)], x_lock_fence: Annotated[int, Header(ge=1, lt=2**53)]
    ) -> int:
        workspace_id, caller = workspace.format(**request.path_params), client.as_user(user_id)
        with refusals():
            if not await caller.gate(workspace_id, x_lock_fence):
                lock = await caller.read_lock(workspace_id)
                if lock and lock.locked_by_user_id != user_id:
                    raise NotAcquired.by(lock)
                raise LockLost(workspace_id, x_lock_fence, "expired")
        return x_lock_fence

    return Depends(fence_of)


def locked(client: AsyncClient, workspace: str, user: Optional[Callable[..., Any]] = None, **options: Any) -> Any:
    """A lease that is held while the endpoint runs, and released before its answer is sent.

    An `async def` endpoint is cancelled when the lease is lost. One that is a plain function calls
    `lease.ensure_held()`. `options` are those of `AsyncClient.lock`. Without a `user` the client locks in its own name.
    """

    async def nobody() -> None:
        return None

    async def lease_of(
        request: Request, user_id: Annotated[Optional[str], Depends(user or nobody)]
    ) -> AsyncIterator[AsyncLease]:
        caller = client if user_id is None else client.as_user(user_id)
        with refusals():
            async with caller.lock(workspace.format(**request.path_params), **options) as lease:
                yield lease

    return Depends(lease_of, scope="function")


@contextmanager
def refusals() -> Iterator[None]:
    """Makes errors of the client into answers."""
    try:
        yield
    except NotAcquired as error:
        headers = None if error.expires_in is None else {"Retry-After": str(int(error.expires_in) + 1)}
        raise HTTPException(423, str(error), headers) from error
    except LockLost as error:
        raise HTTPException(409, str(error)) from error
    except ApiError as error:
        raise HTTPException(503 if error.status in (401, 429) or error.status >= 500 else 403, str(error)) from error
    except UnreachableError as error:
        raise HTTPException(503, "the lock server does not answer") from error
