"""The documents, with the greatest fence beside each. A save with an older one changes no row."""

from django.db import models, transaction

import locks


class Refused(Exception):
    """Answered with 409."""


class Document(models.Model):
    id = models.SlugField(primary_key=True)
    body = models.TextField()
    fence = models.BigIntegerField(default=0)

    def check_fence(self, user_id, fence):
        """The fence comes from a browser: a greater one than the stored is believed after Lockhouse confirms it."""
        if fence > self.fence and not locks.has_lock(user_id, self.id, fence):
            raise Refused

    def change(self, fence, **values):
        """Compares the fence in the UPDATE itself: WHERE id = … AND fence <= …"""
        if not Document.objects.filter(pk=self.pk, fence__lte=fence).update(fence=fence, **values):
            raise Refused

    def begin(self, user_id, fence):
        """Somebody begins to edit: from now on every save with an older fence is refused. Returns the text."""
        self.check_fence(user_id, fence)
        with transaction.atomic():
            self.change(fence)
            return Document.objects.values_list("body", flat=True).get(pk=self.pk)

    def save_body(self, user_id, fence, body):
        self.check_fence(user_id, fence)
        self.change(fence, body=body)
