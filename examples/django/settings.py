"""The least that the example needs. A real app has sessions, and with them the middleware against CSRF."""

import os
import secrets
from pathlib import Path

DEBUG = False
SECRET_KEY = secrets.token_urlsafe()
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]
ROOT_URLCONF = "urls"
INSTALLED_APPS = ["documents"]
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": Path(os.environ["DATA"]) / "app.db",
        "OPTIONS": {"transaction_mode": "IMMEDIATE"},
    }
}
TIME_ZONE = "UTC"
PAGE = Path(__file__).parent / "page"
