"""The documents, with the greatest fence beside each. A save with an older one changes no row."""

import os

from sqlalchemy import BigInteger, create_engine, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import locks

engine = create_engine(f"sqlite:///{os.environ['DATA']}/app.db")


class Refused(Exception):
    """Answered with 409."""


class Base(DeclarativeBase):
    pass


class Document(Base):
    __tablename__ = "documents"
    id: Mapped[str] = mapped_column(primary_key=True)
    body: Mapped[str]
    fence: Mapped[int] = mapped_column(BigInteger, default=0)


def create_tables():
    Base.metadata.create_all(engine)
    with Session(engine) as session, session.begin():
        if session.get(Document, "design-42") is None:
            session.add(Document(id="design-42", body="The workshop is on Thursday."))


def read(document_id: str) -> str | None:
    with Session(engine) as session:
        document = session.get(Document, document_id)
        return document.body if document else None


def check(document_id: str, user_id: str, fence: int):
    """The fence comes from a browser: a greater one than the stored is believed after Lockhouse confirms it."""
    with Session(engine) as session:
        document = session.get(Document, document_id)
        stored = document.fence if document else None
    if stored is None or fence > stored and not locks.has_lock(user_id, document_id, fence):
        raise Refused


def change(document_id: str, user_id: str, fence: int, **values: str) -> str:
    """Compares the fence in the UPDATE itself. Returns the text."""
    check(document_id, user_id, fence)
    newer = update(Document).where(Document.id == document_id, Document.fence <= fence)
    with Session(engine) as session, session.begin():
        body = session.scalar(newer.values(fence=fence, **values).returning(Document.body))
    if body is None:
        raise Refused
    return body


def begin(document_id: str, user_id: str, fence: int) -> str:
    """Somebody begins to edit: from now on every save with an older fence is refused."""
    return change(document_id, user_id, fence)


def save(document_id: str, user_id: str, fence: int, body: str):
    change(document_id, user_id, fence, body=body)
