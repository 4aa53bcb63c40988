"""An application of Django with Channels, in one file, as its users write it: who asks, and a consumer that answers."""

import json
import os

import django
from channels.generic.websocket import WebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import JsonResponse
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=[os.environ["NAME"]],
    SECRET_KEY="only for this test",
    ROOT_URLCONF=__name__,
    SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https"),
)
django.setup()


def who_am_i(request):
    return JsonResponse({"client": request.META["REMOTE_ADDR"], "secure": request.is_secure()})


class Room(WebsocketConsumer):
    def receive(self, text_data=None, bytes_data=None):
        room = self.scope["url_route"]["kwargs"]["room"]
        self.send(json.dumps({"text": text_data, "client": self.scope["client"][0], "room": room}))


urlpatterns = [path("whoami", who_am_i)]
sockets = URLRouter([path("ws/chat/<room>/", Room.as_asgi())])
application = ProtocolTypeRouter({"http": get_asgi_application(), "websocket": AllowedHostsOriginValidator(sockets)})
