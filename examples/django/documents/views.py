"""The documents, and tokens for browsers."""

import re

from django.http import HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.http import require_GET, require_http_methods, require_POST

import locks
from documents.models import Document, Refused


def text(body, status=200):
    return HttpResponse(body, status=status, content_type="text/plain; charset=utf-8")


def signed_in(request):
    """Here the page says who is signed in. Your app has request.user."""
    return request.headers.get("X-User", "alice")


def fence_of(request):
    header = request.headers.get("X-Lock-Fence", "")
    if not re.fullmatch("[0-9]{1,16}", header):
        raise Refused
    return int(header)


def guarded(work):
    """Answers 409 when the fence is too old."""

    def view(request, document_id):
        document = get_object_or_404(Document, pk=document_id)
        try:
            return text(work(request, document) or "")
        except Refused:
            return text("Somebody else has begun to edit.", 409)

    return view


@require_GET
def page_settings(_request):
    return JsonResponse({"lockhouse": locks.LOCKHOUSE})


@require_POST
def lock_token(request):
    user = signed_in(request)
    return text(locks.token_for(user, user.title()))


@require_http_methods(["GET", "PUT"])
@guarded
def document(request, document):
    if request.method == "GET":
        return document.body
    return document.save_body(signed_in(request), fence_of(request), request.body.decode())


@require_POST
@guarded
def begin(request, document):
    return document.begin(signed_in(request), fence_of(request))
