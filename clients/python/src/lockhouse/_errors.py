from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._types import Lock, Record


class LockhouseError(Exception):
    """Any failure of this package."""


class UnreachableError(LockhouseError):
    """The server did not answer."""


class ApiError(LockhouseError):
    """The server refused. `code` is for programs, `str(error)` for people, `problem` is the whole body."""

    def __init__(self, problem: Record, retry_after: float | None = None) -> None:
        super().__init__(problem, retry_after)
        self.problem = problem
        self.status: int = problem["status"]
        self.code: str = problem["code"]
        self.retry_after = retry_after
        """Seconds to wait before the next attempt, if the server said so."""

    def __str__(self) -> str:
        return f"{self.problem['detail']} ({self.status} {self.code})"


class NotAcquired(LockhouseError):
    """Somebody else has the lock."""

    def __init__(self, holder: str | None, expires_in: float | None, lock: Lock | None = None) -> None:
        super().__init__(holder, expires_in, lock)
        self.holder = holder
        """The user who has it."""
        self.expires_in = expires_in
        """Seconds until their lease ends, unless they renew it."""
        self.lock = lock
        """The whole lock: name, note, kind, fence."""

    @classmethod
    def by(cls, lock: Lock | None) -> NotAcquired:
        return cls(lock.locked_by_user_id, lock.expires_in_ms / 1000, lock) if lock else cls(None, None)

    def __str__(self) -> str:
        if self.expires_in is None:
            return "the lock was not acquired in time"
        name = (self.lock and self.lock.locked_by_name) or self.holder
        return f"{name} has the lock for another {self.expires_in:.0f} s, unless it is renewed"


class LockLost(LockhouseError):
    """The lease is not held, or not any more. Do not write."""

    def __init__(
        self,
        workspace_id: str,
        fence: int | None,
        reason: str,
        by_user_id: str | None = None,
        by_name: str | None = None,
    ) -> None:
        super().__init__(workspace_id, fence, reason, by_user_id, by_name)
        self.workspace_id = workspace_id
        self.fence = fence
        self.reason = reason
        """`expired`, `taken_over`, `handed_over`, `revoked`, `member_removed`, `workspace_deleted`; `released`,
        `not_acquired` or `forked` if this handle does not hold a lease."""
        self.by_user_id = by_user_id
        """The user who ended it."""
        self.by_name = by_name

    @classmethod
    def told(cls, workspace_id: str, fence: int | None, problem: Any) -> LockLost:
        """From a refusal of the server."""
        lost, lock = problem.get("lost"), problem.get("lock")
        if lost and lost["fence"] == fence:
            return cls(workspace_id, fence, lost["reason"], lost["by_user_id"], lost["by_name"])
        if lock:
            return cls(workspace_id, fence, "taken_over", lock["locked_by_user_id"], lock["locked_by_name"])
        return cls(workspace_id, fence, "expired")

    def __str__(self) -> str:
        by = self.by_name or self.by_user_id
        return f"the lock of {self.workspace_id} is not held: {self.reason}" + (f" by {by}" if by else "")
