"""The OpenAPI document: FastAPI's, and the request bodies it cannot see through our dependency."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute, RouteContext, iter_route_contexts

from server.schemas.common import RequestBody

from .body import REFERENCE, JsonBody


def body_schema(context: RouteContext) -> type[RequestBody] | None:
    """What the body of a route must be, None for one without."""
    route = context.original_route
    if not isinstance(route, APIRoute):
        return None
    calls = (dependency.call for dependency in route.dependant.dependencies)
    return next((call.schema for call in calls if isinstance(call, JsonBody)), None)


class Documented(FastAPI):
    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            document = super().openapi()
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            for context in iter_route_contexts(self.routes):
                if (body := body_schema(context)) is not None:
                    found = body.model_json_schema(ref_template=REFERENCE)
                    schemas.update(found.get("$defs", {}))
        return super().openapi()
