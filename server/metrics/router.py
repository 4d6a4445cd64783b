"""GET /metrics."""

from __future__ import annotations

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from .exporter import Exporter


def metrics_router(exporter: Exporter) -> APIRouter:
    router = APIRouter()

    @router.get("/metrics")
    def metrics() -> Response:
        return Response(exporter.render(), media_type=CONTENT_TYPE_LATEST)

    return router
