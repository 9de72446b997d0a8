"""``GET /console``: the page that shows what each modality believes (``server/console``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse, RedirectResponse

from dimml.errors import NotFoundError
from dimml_server.console.page import NOT_BUILT, PageFile

PATH: Final = "/console"


def open_paths(files: Mapping[str, PageFile]) -> frozenset[str]:
    """Return the paths that answer without a key: the page and its files, and what says that it is not built."""
    return frozenset({PATH, f"{PATH}/"} | {f"{PATH}/{name}" for name in files})


def router(files: Mapping[str, PageFile]) -> APIRouter:
    """Build the routes over the files of the built page, by their paths; without files they say how to build it."""
    routes = APIRouter(include_in_schema=False)

    @routes.get(PATH)
    async def redirect() -> Response:
        if not files:
            raise NotFoundError(NOT_BUILT)
        # Relative, as all addresses in the page, so that it holds below any prefix of a proxy.
        return RedirectResponse(f"{PATH.removeprefix('/')}/", headers={"Cache-Control": "no-cache"})

    @routes.get(f"{PATH}/{{name:path}}")
    async def file(name: str) -> Response:
        found = files.get(name)
        if found is None:
            raise NotFoundError("no such file of the console" if files else NOT_BUILT)
        return FileResponse(found.path, media_type=found.media_type, headers=dict(found.headers))

    return routes
