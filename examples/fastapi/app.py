"""The app: the page, the documents, and tokens for browsers."""

import os
from typing import Annotated

import uvicorn
from fastapi import Depends, FastAPI, Header, HTTPException, Request
from fastapi.responses import PlainTextResponse
from fastapi.staticfiles import StaticFiles

import documents
import locks

app = FastAPI()


def signed_in(x_user: Annotated[str, Header()] = "alice") -> str:
    """Here the page says who is signed in. Your app has sessions."""
    return x_user


async def text_of(request: Request) -> str:
    return (await request.body()).decode()


User = Annotated[str, Depends(signed_in)]
Text = Annotated[str, Depends(text_of)]
# Integers of JavaScript, which the fences are.
Fence = Annotated[int, Header(alias="X-Lock-Fence", ge=1, lt=2**53)]


@app.exception_handler(documents.Refused)
def refused(_request: Request, _error: documents.Refused):
    return PlainTextResponse("Somebody else has begun to edit.", 409)


@app.get("/settings.json")
def settings() -> dict[str, str]:
    return {"lockhouse": locks.LOCKHOUSE}


@app.post("/lock-token", response_class=PlainTextResponse)
def lock_token(user: User) -> str:
    return locks.token_for(user, user.title())


@app.get("/documents/{document_id}", response_class=PlainTextResponse)
def read(document_id: str) -> str:
    body = documents.read(document_id)
    if body is None:
        raise HTTPException(404)
    return body


@app.post("/documents/{document_id}/open", response_class=PlainTextResponse)
def begin(document_id: str, user: User, fence: Fence) -> str:
    return documents.begin(document_id, user, fence)


@app.put("/documents/{document_id}", response_class=PlainTextResponse)
def save(document_id: str, user: User, fence: Fence, body: Text) -> str:
    documents.save(document_id, user, fence, body)
    return ""


app.mount("/", StaticFiles(directory="page", html=True))

if __name__ == "__main__":
    documents.create_tables()
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning")
