from django.conf import settings
from django.urls import path
from django.views.static import serve

from documents import views

urlpatterns = [
    path("settings.json", views.page_settings),
    path("lock-token", views.lock_token),
    path("documents/<slug:document_id>", views.document),
    path("documents/<slug:document_id>/open", views.begin),
    path("", serve, {"document_root": settings.PAGE, "path": "index.html"}),
    path("<path:path>", serve, {"document_root": settings.PAGE}),
]
