// The API's document, shown by Swagger UI; asked for with the key that the page keeps.

import { bearer } from "./api.js";

window.SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#api",
  deepLinking: true,
  validatorUrl: null,
  requestInterceptor: (request) => {
    Object.assign(request.headers, bearer(request.url.includes("/admin/") ? "admin" : "api"));
    return request;
  },
});
